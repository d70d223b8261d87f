"""Graspable objects: libraries generated from shape families or imported from meshes.

shapes + families -> generator --> assembly (hulls, surface, resting) --> library (manifest) --> the task
folder of meshes  -> importer --^
"""

from dexgrasp.sim.objects.library import (
    MAX_PIECES,
    PIECE_POINTS,
    SURFACE_POINTS,
    ObjectEntry,
    ObjectLibrary,
    ObjectModel,
    refuse_overlap,
    refuse_test_objects,
    shared_objects,
)
from dexgrasp.sim.objects.registry import open_library

__all__ = [
    "MAX_PIECES",
    "PIECE_POINTS",
    "SURFACE_POINTS",
    "ObjectEntry",
    "ObjectLibrary",
    "ObjectModel",
    "open_library",
    "refuse_overlap",
    "refuse_test_objects",
    "shared_objects",
]

"""Parametric families of household objects: name -> function from a Draw to a Shape.

A family builds about the origin in metres; the generator checks sizes, recentres and weighs.
"""

from collections.abc import Callable

from sim.draws import Draw
from sim.families import containers, solids, tools
from sim.shapes import Shape

FAMILIES: dict[str, Callable[[Draw], Shape]] = {
    "box": solids.box,
    "cylinder": solids.cylinder,
    "capsule": solids.capsule,
    "superquadric": solids.superquadric,
    "bottle": containers.bottle,
    "mug": containers.mug,
    "bowl": containers.bowl,
    "hammer": tools.hammer,
}

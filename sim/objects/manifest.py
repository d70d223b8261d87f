"""The row that a library's manifest keeps of each object."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class ObjectEntry:
    """What the manifest knows of one object without loading it."""

    name: str
    family: str
    split: str
    seed: int
    file: str
    sha256: str
    extents: tuple[float, float, float]
    """Side lengths of the axis-aligned box [m]."""
    mass: float
    """[kg]"""
    friction: float
    pieces: int
    """Number of convex pieces."""
    poses: int
    """Number of resting poses."""
    volume: float
    """Volume of the visual mesh [m^3]."""
    hull_volume: float
    """Volume of its convex hull [m^3]."""
    piece_volume_ratio: float
    """Sum of the pieces' volumes / volume of the mesh; far above 1 means walls thicker than the mesh's."""
    thickness: float
    """Mean part or wall thickness, 2 volume / area [m]."""
    thinness: float
    """0 (as thick as the hand likes) .. 1 (as thin as a sheet): thinnest extent and wall."""
    size: float
    """Middle extent / opening of the hand (0.1 m); above 1 it can only be held at an edge."""
    concavity: float
    """1 - volume / hull volume, 0 .. 1."""
    difficulty: float
    """0 (easy) .. 1, mean of the four aspects above and mass."""
    proportion: float
    """Where in its family's range of proportions the object lies, 0 .. 1; it decides the split."""
    source: str = ""
    """Mesh file that an imported object came from, relative to its folder."""


def entry_from_dict(values: dict[str, object]) -> ObjectEntry:
    """One manifest row as an ObjectEntry; an unknown or missing key is an error."""
    known = {f.name for f in fields(ObjectEntry)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"manifest: unknown keys {unknown} in '{values.get('name')}'; known: {sorted(known)}")
    return ObjectEntry(**{**values, "extents": tuple(values["extents"])})  # type: ignore[arg-type]

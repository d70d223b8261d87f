"""Settings of a mesh import: unit, mass, friction and convex decomposition."""

from dataclasses import dataclass

from dexgrasp.sim.objects.library import MAX_PIECES
from dexgrasp.sim.objects.mesh_files import LONGEST_M, MIN_LONGEST_M, UNITS_M

DECOMPOSITIONS = ("auto", "cuts", "coacd", "parts")


@dataclass(frozen=True)
class ImportSettings:
    """Decide how a mesh becomes an object; part of the key under which an import is cached."""

    scale: float | None = None
    """Factor from the files' unit to metres, of every file; None: `unit`, else as the format states, else guessed."""
    unit: str | None = None
    """Name of the files' unit, in place of `scale`."""
    size: float | None = None
    """Longest side of each mesh after scaling [m], for meshes without a size of their own; excludes `scale`."""
    density: float = 600.0
    """[kg/m^3]; a light filled household thing.  The mass is clipped to the range beneath."""
    mass_min: float = 0.03
    """[kg]"""
    mass_max: float = 0.5
    """[kg]; most objects of RobustDexGrasp weigh 0.24875 kg, which lies in this range."""
    friction: float = 0.8
    decomposition: str = "auto"
    """"auto": plane cuts, and CoACD where they leave walls thick; "cuts" or "coacd" alone; "parts": the bodies of
    the mesh where all are convex, some merged where there are more than `pieces`, else as "auto"."""
    pieces: int = MAX_PIECES
    """Most convex pieces."""
    include: tuple[str, ...] = ()
    """Patterns of the relative paths that are imported; empty: all."""
    exclude: tuple[str, ...] = ()
    """Patterns of the relative paths that are left out."""

    def __post_init__(self) -> None:
        if isinstance(self.include, str) or isinstance(self.exclude, str):
            raise ValueError("include and exclude must be lists of patterns, as include=['*.obj'], got one text")
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"scale must be positive (0.001 for millimetres), got {self.scale}")
        if self.size is not None and not MIN_LONGEST_M <= self.size <= LONGEST_M:
            raise ValueError(
                f"size must lie in {MIN_LONGEST_M}..{LONGEST_M} m (longest side of each mesh), got {self.size}"
            )
        if self.unit is not None and self.unit not in UNITS_M:
            raise ValueError(f"unit must be one of {', '.join(UNITS_M)}, got '{self.unit}'")
        if sum(given is not None for given in (self.unit, self.scale, self.size)) > 1:
            raise ValueError(
                "give unit= (of all meshes), scale= (one factor for all meshes) or size= (longest side of each mesh), "
                "only one of them"
            )
        if not 0 < self.mass_min <= self.mass_max:
            raise ValueError(f"masses must satisfy 0 < mass_min <= mass_max, got {self.mass_min} and {self.mass_max}")
        if not self.density > 0:
            raise ValueError(f"density must be positive [kg/m^3], got {self.density}")
        if self.decomposition not in DECOMPOSITIONS:
            raise ValueError(f"unknown decomposition '{self.decomposition}'; known: {', '.join(DECOMPOSITIONS)}")
        if not 1 <= self.pieces <= MAX_PIECES:
            raise ValueError(f"pieces must be 1 to {MAX_PIECES}, got {self.pieces}")

    @property
    def factor(self) -> float | None:
        """Return the factor to metres that was asked for, None where nothing was."""
        return self.scale if self.unit is None else UNITS_M[self.unit]

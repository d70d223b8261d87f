"""The commands `dexgrasp objects generate | import | show | compare` and their configurations."""

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from dexgrasp.policies.run_directory import Run
from dexgrasp.sim.objects import generator, importer
from dexgrasp.sim.objects.library import MANIFEST, MAX_PIECES
from dexgrasp.sim.objects.mesh_files.units import LONGEST_M, MIN_LONGEST_M
from dexgrasp.sim.objects.registry import open_library
from dexgrasp.utils.bounds import Bounds, Seed, Threads, bounded
from dexgrasp.utils.files import LOCK, PARTIAL
from dexgrasp.utils.output import FolderKind, claim_file, claimed_folder, demand_png
from dexgrasp.utils.readers import read_json_object
from dexgrasp.utils.text import counted


@dataclass(frozen=True)
@bounded
class GenerateCfg:
    """Generate a library of objects from families of shapes."""

    out: str
    """Folder of the library to write."""
    n: Annotated[int, Bounds(1, 1_000_000)] = 2000
    """Number of objects, spread evenly over the families."""
    seed: Seed = 0
    """Seed of the random shapes; it determines every byte of the library."""
    split: Literal["train", "validation", "test"] = "train"
    """Split; the ranges of proportions are disjoint: no test object is a rescaled training object."""
    families: tuple[str, ...] = ()
    """Families of shapes, for instance families=mug,bowl; empty = all."""
    workers: Threads = 0
    """Number of processes; 0 = one per core."""

    def __post_init__(self) -> None:
        generator.checked_families(self.families or None)


@dataclass(frozen=True)
@bounded
class ImportCfg:
    """Import a folder of meshes as a library of objects."""

    source: str
    """Folder with OBJ, STL, PLY or GLB files, nested or not."""
    out: str
    """Folder of the library to write."""
    scale: Annotated[float | None, Bounds(1e-6, 1e6)] = None
    """Factor from the files' unit to metres (0.001 for millimetres), instead of unit."""
    unit: Literal["auto", "m", "dm", "cm", "mm", "inch"] = "auto"
    """Unit of all files; auto: metres for GLB, as glTF states, for the others guessed from the sizes, and printed."""
    size: Annotated[float | None, Bounds(MIN_LONGEST_M, LONGEST_M)] = None
    """Longest side of each mesh [m], for normalised meshes such as ShapeNet's, instead of scale."""
    include: str = ""
    """Patterns of the paths to import, for instance include=*/google_16k/*; empty = all."""
    exclude: str = ""
    """Patterns of the paths to leave out, separated by commas, for instance exclude=*/tsdf/*,*_collision.obj."""
    density: Annotated[float, Bounds(1, 30_000)] = 600.0
    """Density of every object [kg/m^3]; masses are clipped to mass_min..mass_max."""
    mass_min: Annotated[float, Bounds(0.0001, 100)] = 0.03
    """Smallest mass of an object [kg]."""
    mass_max: Annotated[float, Bounds(0.0001, 100)] = 0.5
    """Largest mass of an object [kg]."""
    decomposition: Literal["auto", "cuts", "coacd", "parts"] = "auto"
    """Convex decomposition. auto: plane cuts, or CoACD if these leave walls too thick; parts: the bodies of the mesh if
    all are convex, merged if there are more than `pieces`, else as auto."""
    pieces: Annotated[int, Bounds(1, MAX_PIECES)] = MAX_PIECES
    """Largest number of convex pieces per object."""
    workers: Threads = 0
    """Number of processes; 0 = one per core."""

    def __post_init__(self) -> None:
        self.settings()

    def settings(self) -> importer.ImportSettings:
        """Return the settings that determine the imported objects."""
        return importer.ImportSettings(
            scale=self.scale,
            unit=None if self.unit == "auto" else self.unit,
            size=self.size,
            include=_patterns(self.include),
            exclude=_patterns(self.exclude),
            density=self.density,
            mass_min=self.mass_min,
            mass_max=self.mass_max,
            decomposition=self.decomposition,
            pieces=self.pieces,
        )


@dataclass(frozen=True)
@bounded
class ShowCfg:
    """Draw a contact sheet of a library."""

    library: str = "shipped"
    """Object library: shipped, generated:N, random_urdfs, a library folder, or a folder of meshes."""
    out: str = "runs/objects.png"
    """PNG file to write."""
    most: Annotated[int, Bounds(1, 10_000)] = 144
    """Largest number of objects on the sheet, spread evenly over the families."""
    pieces: bool = False
    """Whether to draw the convex pieces of the physics instead of the visual meshes."""

    def __post_init__(self) -> None:
        demand_png(self.out)


@dataclass(frozen=True)
@bounded
class CompareLibraryCfg:
    """Compare a library with real meshes: sizes, masses, shapes."""

    library: str
    """Object library: shipped, generated:N, random_urdfs, a library folder, or a folder of meshes."""
    meshes: str
    """Folder of real meshes, or a library made from one."""
    out: str = ""
    """Folder of compare.json and compare.png; empty = a new one under runs/."""


def generate(cfg: GenerateCfg) -> None:
    """Generate the library; print rate and memory."""
    start = time.monotonic()
    with claimed_folder(cfg.out, GENERATED) as out:
        library = generator.generate(
            cfg.n, out, cfg.seed, list(cfg.families) or None, cfg.split, cfg.workers or None, progress=True
        )
    took_s = time.monotonic() - start
    families = sorted({e.family for e in library.entries})
    kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    made = f"{counted(len(library), 'object')} of {counted(len(families), 'family', 'families')}"
    print(f"{made}, split {cfg.split}, in {library.path}")
    print(f"{took_s:.1f} s, {len(library) / took_s:.1f} objects/s, at most {kib / 1024:.0f} MiB in one process")


def import_meshes(cfg: ImportCfg) -> None:
    """Import the folder; print unit, sizes, volume ratios, files left out and files refused."""
    with claimed_folder(cfg.out, IMPORTED) as out:
        report = importer.import_meshes(cfg.source, out, cfg.settings(), cfg.workers or None, may_remove=False)
        print(report.summary())


def show(cfg: ShowCfg) -> None:
    """Draw the sheet and print its path."""
    from dexgrasp.sim.objects import contact_sheet

    out = claim_file(cfg.out)
    library = open_library(cfg.library)
    path = contact_sheet.show(library, out, cfg.most, cfg.pieces)
    print(f"{min(cfg.most, len(library))} of {counted(len(library), 'object')} of {library.path} drawn in {path}")


def compare(cfg: CompareLibraryCfg) -> None:
    """Print the distribution of each quantity in both sets, and the coverage of the real objects."""
    from dexgrasp.sim.objects import comparison

    with Run.open(cfg.out, cfg) as run:
        library, real = open_library(cfg.library), open_library(cfg.meshes)
        marginals = comparison.compare(library, real)
        comparison.write_comparison(marginals, library, real, run.path)
    print(f"{library.path} ({counted(len(library), 'object')}) beside {cfg.meshes} ({counted(len(real), 'object')})")
    print(comparison.report(marginals))
    print(f"numbers and plots in {run.path}/compare.json and compare.png")


def _is_library(folder: Path, request: str, parts: set[str]) -> bool:
    """Return whether a folder is an object library whose manifest has the key `request` in its request.

    `parts`: entries of a folder in which the making of such a library was stopped.
    """
    if not (folder / MANIFEST).is_file():
        names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(PARTIAL)}
        return LOCK in names and names <= {LOCK, *parts}
    try:
        manifest = read_json_object(folder / MANIFEST)
        return "objects" in manifest and request in manifest["request"]
    except (ValueError, TypeError, KeyError):
        return False


GENERATED = FolderKind("library of generated objects", lambda path: _is_library(path, "families", {"objects"}))
IMPORTED = FolderKind("library of imported meshes", lambda path: _is_library(path, "meshes", {"objects", "imported"}))


def _patterns(text: str) -> tuple[str, ...]:
    """Return the patterns of an option, also where they are written as a list: [a,b] or [] (none)."""
    if text.startswith("[") and text.endswith("]"):  # as a pattern it would fit names of one letter
        text = text[1:-1]
    return tuple(pattern for part in text.split(",") if (pattern := part.strip().strip("'\"")))

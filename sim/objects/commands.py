"""What `dexgrasp objects generate | import | show | compare` do, each with its configuration."""

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sim.objects import generator, importer
from sim.objects.library import MAX_PIECES
from sim.objects.opening import open_library


@dataclass(frozen=True)
class GenerateCfg:
    """A library from families of shapes."""

    out: str
    """Folder of the library."""
    n: int = 2000
    """Number of objects; the families take turns."""
    seed: int = 0
    """The same seed gives the same bytes."""
    split: Literal["train", "validation", "test"] = "train"
    """Each split has proportions of its own: no test object is a rescaled training object."""
    families: tuple[str, ...] = ()
    """Families of shapes, for instance families=mug,bowl; empty: all."""
    workers: int = 0
    """Processes; 0: one per core."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")
        _check_workers(self.workers)
        generator.checked_families(self.families or None)


@dataclass(frozen=True)
class ImportCfg:
    """A library from a folder of meshes."""

    source: str
    """Folder with OBJ, STL, PLY or GLB files, nested or not."""
    out: str
    """Folder of the library."""
    scale: float | None = None
    """Factor from the files' unit to metres (0.001 for millimetres); null: guessed from the sizes, and said."""
    density: float = 600.0
    """[kg/m^3] of every object; masses are clipped to the range beneath."""
    mass_min: float = 0.03
    """[kg]"""
    mass_max: float = 0.5
    """[kg]"""
    decomposition: Literal["auto", "cuts", "coacd", "parts"] = "auto"
    """How convex pieces are found; auto: plane cuts, and CoACD where they leave walls thick; parts: the bodies of the
    mesh where all are convex, some merged where there are too many, else as auto."""
    pieces: int = MAX_PIECES
    """Most convex pieces of one object."""
    workers: int = 0
    """Processes; 0: one per core."""

    def __post_init__(self) -> None:
        _check_workers(self.workers)
        self.settings()

    def settings(self) -> importer.ImportSettings:
        """The part of the configuration that objects depend on."""
        return importer.ImportSettings(
            scale=self.scale,
            density=self.density,
            mass_min=self.mass_min,
            mass_max=self.mass_max,
            decomposition=self.decomposition,
            pieces=self.pieces,
        )


@dataclass(frozen=True)
class ShowCfg:
    """A contact sheet."""

    library: str = "shipped"
    """shipped, a library folder, or a folder of meshes."""
    out: str = "objects.png"
    """Picture to write."""
    most: int = 144
    """Objects on the sheet, as many of each family as fit."""
    pieces: bool = False
    """Draw the convex pieces of the physics instead of the visual meshes."""

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"most must be at least 1, got {self.most}")
        if Path(self.out).suffix.lower() != ".png":
            raise ValueError(f"out must be a .png file, got '{self.out}'")


@dataclass(frozen=True)
class CompareCfg:
    """A library beside real meshes."""

    library: str
    """shipped, a library folder, or a folder of meshes."""
    meshes: str
    """Folder of real meshes, or a library made from one."""
    out: str = "compare"
    """Folder for compare.json and compare.png."""


def generate(cfg: GenerateCfg) -> None:
    """Makes the library and prints rate and memory."""
    start = time.monotonic()
    library = generator.generate(
        cfg.n, cfg.out, cfg.seed, list(cfg.families) or None, cfg.split, cfg.workers or None, progress=True
    )
    took_s = time.monotonic() - start
    families = sorted({e.family for e in library.entries})
    kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"{len(library)} objects of {len(families)} families, split {cfg.split}, in {library.path}")
    print(f"{took_s:.1f} s, {len(library) / took_s:.1f} objects/s, at most {kib / 1024:.0f} MiB in one process")


def import_meshes(cfg: ImportCfg) -> None:
    """Imports the folder and prints unit, volume ratios and every refused file with its reason."""
    print(importer.import_meshes(cfg.source, cfg.out, cfg.settings(), cfg.workers or None).summary())


def show(cfg: ShowCfg) -> None:
    """Draws the sheet and prints its path."""
    from sim.objects import sheet

    library = open_library(cfg.library)
    path = sheet.show(library, cfg.out, cfg.most, cfg.pieces)
    print(f"{min(cfg.most, len(library))} of {len(library)} objects of {library.path} drawn in {path}")


def compare(cfg: CompareCfg) -> None:
    """Prints each quantity's distribution in both sets and the share of real objects that the library covers."""
    from sim.objects import compare as comparison

    library, real = open_library(cfg.library), open_library(cfg.meshes)
    marginals = comparison.compare(library, real)
    comparison.write_comparison(marginals, library, real, Path(cfg.out))
    print(f"{library.path} ({len(library)} objects) beside {cfg.meshes} ({len(real)} objects)")
    print(comparison.report(marginals))
    print(f"numbers and plots in {cfg.out}/compare.json and compare.png")


def _check_workers(workers: int) -> None:
    if workers < 0:
        raise ValueError(f"workers must be 0 (one per core) or more, got {workers}")

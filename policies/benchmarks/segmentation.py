"""`dexgrasp bench segmentation`: quality of the object segmentation on synthetic images."""

import time
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np

from dexgrasp.perception.segmentation.pipeline import SegmentationCfg, Segmenter
from dexgrasp.policies.benchmarks.clutter_segmentation import measure_clutter, show_clutter, summarise_clutter
from dexgrasp.policies.run_directory import Run
from dexgrasp.sim.clutter import LAYOUTS, Layout
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.sensors.synthetic_scenes import CAMERA, SCENES, make_scene, overlap
from dexgrasp.utils.bounds import Bounds, Seed, bounded
from dexgrasp.utils.files import write_json
from dexgrasp.utils.progress import Progress
from dexgrasp.utils.text import print_table

GOOD = 0.8
"""Intersection over union from which on the object counts as well segmented."""


@dataclass(frozen=True)
@bounded
class BenchSegmentationCfg:
    """Measure the quality of the segmentation on synthetic images with ground truth."""

    scenes: Annotated[int, Bounds(1, 1_000_000)] = 500
    """Number of images, distributed over the kinds of scenes."""
    scene: Literal["single", "clutter"] = "single"
    """single: one object, `kinds` of difficulty. clutter: several objects at rest, told apart, each one wanted."""
    kinds: tuple[str, ...] = tuple(SCENES)
    """Kinds of scenes with one object."""
    layouts: tuple[Layout, ...] = LAYOUTS
    """Layouts of clutter: spread (apart), packed (side by side, pushed together), piled (some dropped on others)."""
    count: Annotated[tuple[int, int], Bounds(1, 12, ordered=True)] = (3, 8)
    """Least and largest number of objects of clutter."""
    objects: str = "shipped"
    """Object library, as in `evaluate`."""
    seed: Seed = 0
    """Number of the first scene of each kind."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    segment: SegmentationCfg = field(default_factory=SegmentationCfg)
    """Options of the segmentation pipeline."""

    def __post_init__(self) -> None:
        if not self.layouts:
            raise ValueError(f"layouts: expected some of {', '.join(LAYOUTS)}, got none")
        unknown = [kind for kind in self.kinds if kind not in SCENES]
        if unknown or not self.kinds:
            raise ValueError(f"kinds: expected some of {', '.join(SCENES)}, got {list(self.kinds)}")


def bench_segmentation(cfg: BenchSegmentationCfg) -> None:
    """Measure the quality, print the table, write RUN/segmentation.json with every scene."""
    clutter = cfg.scene == "clutter"
    Segmenter(cfg.segment, CAMERA)  # a target or a label image that does not fit is refused before anything is written
    with Run.open(cfg.out, cfg) as run:
        table, scenes = _clutter(cfg) if clutter else _single_objects(cfg)
        write_json(run.file("segmentation.json"), {"table": table, "scenes": scenes, "facts": run.facts})
        show_clutter(table) if clutter else _show(table)
        print(f"segmentation: {run.path / 'segmentation.json'}")


def _single_objects(cfg: BenchSegmentationCfg) -> tuple[Any, Any]:
    """Return the table, and the rows of all images, of scenes with one object."""
    results = measure(cfg)
    rows = [summarise(kind, results[kind]) for kind in cfg.kinds if results[kind]]
    return [*rows, summarise("all", [result for kind in cfg.kinds for result in results[kind]])], results


def _clutter(cfg: BenchSegmentationCfg) -> tuple[Any, Any]:
    """Return the table, and the rows of all images, of scenes with several objects."""
    library = open_library(cfg.objects)
    rows = measure_clutter(library, cfg.segment, scenes=cfg.scenes, layouts=cfg.layouts, count=cfg.count, seed=cfg.seed)
    return summarise_clutter(rows, cfg.seed), rows


def measure(cfg: BenchSegmentationCfg) -> dict[str, list[dict[str, Any]]]:
    """Return {seed, iou, points, ms, error} per kind and scene.

    Without a found object iou is 0 and error gives the reason.
    """
    library, segmenter = open_library(cfg.objects), Segmenter(cfg.segment, CAMERA)
    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in cfg.kinds}
    stride = cfg.segment.stride
    with Progress(cfg.scenes, "bench segmentation") as progress:
        for number in range(cfg.scenes):
            kind, seed = cfg.kinds[number % len(cfg.kinds)], cfg.seed + number // len(cfg.kinds)
            scene = make_scene(kind, library, seed)
            start_s = time.perf_counter()
            iou, points, error = 0.0, 0, ""
            try:
                found = segmenter(scene.frame, scene.capsules)
                iou, points = overlap(found.mask, scene.labels[::stride, ::stride]), len(found.cloud_w)
            except ValueError as refusal:
                error = str(refusal)
            ms = 1e3 * (time.perf_counter() - start_s)
            results[kind].append({"seed": seed, "iou": iou, "points": points, "ms": ms, "error": error})
            progress.advance()
    return results


def summarise(kind: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one row of the table."""
    iou = np.array([result["iou"] for result in results])
    return {
        "kind": kind,
        "scenes": len(results),
        "iou_median": float(np.median(iou)),
        "iou_mean": float(iou.mean()),
        "iou_p5": float(np.percentile(iou, 5)),
        "good": float((iou >= GOOD).mean()),
        "touched": float((iou > 0.2).mean()),
        "nothing": sum(bool(result["error"]) for result in results),
    }


def _show(rows: list[dict[str, Any]]) -> None:
    heads = ["scene", "what", "n", "median", "mean", "5 %", f">= {GOOD}", "> 0.2", "nothing found"]
    table = [heads]
    for row in rows:
        numbers = [f"{row[key]:.3f}" for key in ("iou_median", "iou_mean", "iou_p5")]
        shares = [f"{row[key]:.0%}" for key in ("good", "touched")]
        what = SCENES.get(row["kind"], "")
        table.append([row["kind"], what, str(row["scenes"]), *numbers, *shares, str(row["nothing"])])
    print_table(table, "intersection over union of the object's pixels with the truth")

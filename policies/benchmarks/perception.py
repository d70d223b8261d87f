"""`dexgrasp bench perception`: time of each stage from a depth image to the features.

One thread, 640x480 pixels.
"""

import time
import tracemalloc
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch

from dexgrasp.perception.hand_features import nearest_vectors
from dexgrasp.perception.segmentation.pipeline import SegmentationCfg, Segmenter
from dexgrasp.policies.run_directory import Run
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.sensors.synthetic_scenes import SCENES, DepthScene, make_scene
from dexgrasp.utils.bounds import Bounds, Seed, bounded
from dexgrasp.utils.files import write_json
from dexgrasp.utils.text import counted, print_table
from dexgrasp.utils.timers import LapTimer, latency_summary

WARM_UP = 5
TRIES = 10
"""Scenes of a kind that are tried until the pipeline finds an object in one."""
BATCH = (256, 512)
"""Environments and points of the features in training."""


@dataclass(frozen=True)
@bounded
class BenchPerceptionCfg:
    """Measure the time of each stage of perception."""

    frames: Annotated[int, Bounds(1, 1_000_000)] = 200
    """Number of timed images; they alternate between scenes of every kind."""
    objects: str = "shipped"
    """Object library, as in `evaluate`."""
    hand: str = "allegro"
    """Hand whose features are computed."""
    seed: Seed = 0
    """Seed of the scenes."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    segment: SegmentationCfg = field(default_factory=SegmentationCfg)
    """Options of the segmentation pipeline."""


def bench_perception(cfg: BenchPerceptionCfg) -> None:
    """Measure the stages, print the table, write RUN/bench.json."""
    torch.set_num_threads(1)
    with Run.open(cfg.out, cfg) as run:
        scenes = _scenes(cfg)
        hand = HandSpec.load(cfg.hand)
        laps, totals, clouds = _time(cfg, scenes, hand)
        rows = {stage: latency_summary(values, 95) for stage, values in (laps.ms | {"all": totals}).items()}
        facts = {
            "stages_ms": rows,
            "frames": cfg.frames,
            "object_points_median": float(np.median(clouds)),
            "peak_mb": _peak_mb(cfg, scenes[0]),
            "features_batch": {"envs": BATCH[0], "points": BATCH[1], "ms": latency_summary(_time_batch(), 95)},
        }
        write_json(run.file("bench.json"), facts | {"facts": run.facts})
        _show(facts)
        print(f"bench: {run.path / 'bench.json'}")


def _scenes(cfg: BenchPerceptionCfg) -> list[DepthScene]:
    """Return one scene of every kind that contains an object."""
    library, segmenter, found = open_library(cfg.objects), None, []
    for kind in SCENES:
        for seed in range(cfg.seed, cfg.seed + TRIES):
            scene = make_scene(kind, library, seed)
            segmenter = segmenter or Segmenter(cfg.segment, scene.frame.intrinsics)
            try:
                segmenter(scene.frame, scene.capsules)
            except ValueError:
                continue
            found.append(scene)
            break
    if not found:
        raise ValueError("the pipeline finds no object in any scene: check segment.*")
    return found


def _time(cfg: BenchPerceptionCfg, scenes: list[DepthScene], hand: HandSpec) -> tuple[LapTimer, list[float], list[int]]:
    """Return times of the stages and in total, and numbers of object points; the first images warm up."""
    segmenter = Segmenter(cfg.segment, scenes[0].frame.intrinsics)
    kinematics, open_pose = hand.kinematics(), torch.tensor(hand.open_pose, dtype=torch.float32)[None]
    base = torch.tensor([[0.0, 0.0, 0.3]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    laps, totals, clouds = LapTimer(), [], []
    for number in range(-WARM_UP, cfg.frames):
        if number == 0:
            laps, totals, clouds = LapTimer(), [], []
        scene = scenes[number % len(scenes)]
        laps.start()
        start_s = time.perf_counter()
        seen = segmenter(scene.frame, scene.capsules, lap=laps)
        laps.start()
        keypoints_w = kinematics.keypoints(*base, open_pose)
        nearest_vectors(keypoints_w, torch.from_numpy(seen.points_w)[None])
        seen.plane.height(keypoints_w[0].numpy().T)
        laps("features")
        totals.append(1e3 * (time.perf_counter() - start_s))
        clouds.append(len(seen.cloud_w))
    return laps, totals, clouds


def _peak_mb(cfg: BenchPerceptionCfg, scene: DepthScene) -> float:
    """Return the peak memory of the pipeline: its tables, an image and intermediate results [MB]."""
    tracemalloc.start()
    Segmenter(cfg.segment, scene.frame.intrinsics)(scene.frame, scene.capsules)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return (peak + scene.frame.depth_m.nbytes) / 1e6


def _time_batch(repeats: int = 30) -> list[float]:
    keypoints, points = torch.randn(BATCH[0], 17, 3), torch.randn(*BATCH, 3)
    spent = []
    for _ in range(repeats):
        start_s = time.perf_counter()
        nearest_vectors(keypoints, points)
        spent.append(1e3 * (time.perf_counter() - start_s))
    return spent


def _show(facts: dict) -> None:
    rows = [["stage", "median ms", "p95 ms", "min ms"]]
    for stage, row in facts["stages_ms"].items():
        rows.append([stage, *(f"{row[key]:.2f}" for key in ("median", "p95", "min"))])
    print_table(rows, f"{counted(facts['frames'], 'image')} of 640x480, one thread")
    batch = facts["features_batch"]
    print(
        f"memory: {facts['peak_mb']:.1f} MB at most; objects have {facts['object_points_median']:.0f} points (median)"
    )
    print(
        f"features of {batch['envs']} environments, {batch['points']} points: {batch['ms']['median']:.1f} ms (median)"
    )

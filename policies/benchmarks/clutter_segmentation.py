"""Quality of the search for objects on a table of several, on depth images with truth.

Per image: the objects that are found against the true ones (panoptic quality), and each visible object as the one that
is wanted, pointed at by the pixel in its middle. Beside it the largest cluster, which tells nothing apart.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.segmentation.pipeline import SegmentationCfg, Segmenter
from dexgrasp.perception.segmentation.target import middle
from dexgrasp.policies.evaluation.statistics import wilson_interval
from dexgrasp.sim.clutter import CONTACT_CLASSES, Layout
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.sensors.clutter_images import ClutterImage, make_clutter_image
from dexgrasp.sim.sensors.synthetic_scenes import CAMERA, iou
from dexgrasp.utils.progress import Progress
from dexgrasp.utils.text import print_table

VISIBLE_PIXELS = 80
"""Least number of pixels of 640x480 of an object that is looked for, and of one that is found."""
MATCH = 0.5
"""Intersection over union above which a found object and a true one are a pair of the panoptic quality."""
FOUND = 0.75
"""Intersection over union from which on a wanted object is found."""
METHODS = ("instances", "largest")
"""instances: told apart, chosen by a pixel; largest: the largest cluster, whatever is wanted."""


def measure_clutter(
    library: ObjectLibrary,
    segment: SegmentationCfg,
    *,
    scenes: int,
    layouts: tuple[Layout, ...],
    count: tuple[int, int],
    seed: int,
) -> list[dict[str, Any]]:
    """Return one row per image: layout, matches, CPU time [ms], and the overlap with each visible object."""
    rows = []
    with Progress(scenes, "bench segmentation") as progress:
        for number in range(scenes):
            image = make_clutter_image(library, layouts[number % len(layouts)], count, seed + number)
            rows.append({"seed": seed + number, **score_image(image, segment)})
            progress.advance()
    return rows


def score_image(image: ClutterImage, segment: SegmentationCfg) -> dict[str, Any]:
    """Return the scores of one image; where the pipeline finds nothing, every object is missed."""
    truth = image.labels[:: segment.stride, :: segment.stride].astype(np.int64)
    least = VISIBLE_PIXELS / segment.stride**2
    visible = [int(number) for number in np.flatnonzero(np.bincount(truth.reshape(-1)) >= least) if number]
    segmenter = Segmenter(replace(segment, target="nearest", labels=""), CAMERA)
    start_s, error = time.process_time(), ""
    try:
        labels = segmenter.instances(image.frame)
    except ValueError as refusal:
        labels, error = np.zeros(truth.shape, np.int32), str(refusal)
    ms = 1e3 * (time.process_time() - start_s)
    try:
        largest = Segmenter(replace(segment, target="largest", labels=""), CAMERA)(image.frame).mask
    except ValueError:
        largest = np.zeros(truth.shape, bool)
    objects = []
    for number in visible:
        mask = truth == number
        wanted = labels[middle(mask)]
        overlaps = {"instances": iou(labels == wanted, mask) if wanted else 0.0, "largest": iou(largest, mask)}
        objects.append({"object": number, "contact": image.contacts[number - 1], **overlaps})
    return {
        "layout": image.layout,
        "objects": objects,
        "panoptic": {"instances": matches(labels, truth, least), "largest": matches(largest.astype(int), truth, least)},
        "ms": ms,
        "error": error,
    }


def matches(labels: NDArray[Any], truth: NDArray[Any], least: float) -> dict[str, float]:
    """Return the pairs of found and true objects as {iou, pairs, wrong, missed}.

    Summed overlap of the pairs, their number, and those left on both sides. Objects of fewer pixels than `least` are
    left out on both sides. Pairs overlap by more than a half, so that none has two partners.
    """
    pairs = np.zeros((int(labels.max()) + 1, int(truth.max()) + 1))
    np.add.at(pairs, (labels.reshape(-1), truth.reshape(-1)), 1)
    found_size, true_size = pairs.sum(1), pairs.sum(0)
    union = found_size[:, None] + true_size[None] - pairs
    overlap = np.where((found_size[:, None] >= least) & (true_size[None] >= least), pairs / np.maximum(union, 1), 0.0)
    overlap[0] = overlap[:, 0] = 0.0
    matched = overlap[overlap > MATCH]
    found, true = (int((size[1:] >= least).sum()) for size in (found_size, true_size))
    number = len(matched)
    return {"iou": float(matched.sum()), "pairs": number, "wrong": found - number, "missed": true - number}


def panoptic_quality(rows: list[dict[str, Any]], method: str) -> float:
    """Return the panoptic quality of all images: overlap of the pairs / (pairs + half of those left)."""
    total = {key: sum(row["panoptic"][method][key] for row in rows) for key in ("iou", "pairs", "wrong", "missed")}
    return total["iou"] / max(total["pairs"] + (total["wrong"] + total["missed"]) / 2, 1)


def summarise_clutter(rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Return the table: per method panoptic quality, targets by contact, and images with the target found.

    The target of an image is one of its visible objects, drawn by `seed`.
    """
    rng = np.random.default_rng(seed)
    targets = [row["objects"][int(rng.integers(len(row["objects"])))] for row in rows if row["objects"]]
    every = [one for row in rows for one in row["objects"]]
    summary: dict[str, Any] = {
        "scenes": len(rows),
        "objects": len(every),
        "nothing": sum(bool(r["error"]) for r in rows),
    }
    for method in METHODS:
        classes = {}
        for contact in CONTACT_CLASSES:
            overlaps = np.array([one[method] for one in every if one["contact"] == contact])
            if len(overlaps):
                found = float((overlaps >= FOUND).mean())
                classes[contact] = {"n": len(overlaps), "iou_mean": float(overlaps.mean()), "found": found}
        summary[method] = {
            "panoptic_quality": panoptic_quality(rows, method),
            "scenes_found": sum(one[method] >= FOUND for one in targets),
            "targets": len(targets),
            "by_contact": classes,
        }
    ms = [row["ms"] for row in rows]
    summary["cpu_ms"] = {"median": float(np.median(ms)), "p95": float(np.percentile(ms, 95))}
    return summary


def show_clutter(summary: dict[str, Any]) -> None:
    """Print the tables of a summary."""
    table = [["method", "panoptic quality", f"target found (IoU >= {FOUND})", "95 % interval"]]
    targets = [["target", "n", *(f"{what}, {method}" for method in METHODS for what in ("mean IoU", "found"))]]
    for method in METHODS:
        own = summary[method]
        found, targets_seen = own["scenes_found"], own["targets"]
        low, high = wilson_interval(found, targets_seen) if targets_seen else (0.0, 1.0)
        share = f"{found} of {targets_seen} scenes ({found / max(targets_seen, 1):.0%})"
        table.append([method, f"{own['panoptic_quality']:.3f}", share, f"{100 * low:.0f} - {100 * high:.0f} %"])
    for contact, first in summary["instances"]["by_contact"].items():
        rows = [summary[method]["by_contact"][contact] for method in METHODS]
        numbers = [text for row in rows for text in (f"{row['iou_mean']:.3f}", f"{row['found']:.0%}")]
        targets.append([contact, str(first["n"]), *numbers])
    print_table(table, f"{summary['scenes']} scenes, {summary['objects']} visible objects")
    print_table(targets, "each visible object as the target, by its contact with others")
    cpu = summary["cpu_ms"]
    print(f"depth image to instances: {cpu['median']:.1f} ms of CPU (median), {cpu['p95']:.1f} ms (95 %)")

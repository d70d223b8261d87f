"""Segment the object in depth images: from a camera, a recording or a folder of frames to object points.

python examples/07_depth_to_points.py                           a synthetic image of the shipped objects
python examples/07_depth_to_points.py path/to/frames            a folder with camera.json, or a .bag, or realsense
"""

import argparse
from collections.abc import Iterator

import dexgrasp
from dexgrasp.perception import DepthFrame, SegmentationCfg, Segmenter, open_camera
from dexgrasp.sim.sensors.synthetic_scenes import make_scene


def synthetic_frames(count: int) -> Iterator[DepthFrame]:
    """Yield depth images of one shipped object each, with the errors of a D435."""
    library = dexgrasp.open_objects("shipped")
    for seed in range(count):
        yield make_scene("plain", library, seed).frame


def recorded_frames(source: str, count: int) -> Iterator[DepthFrame]:
    """Yield frames of a camera (realsense), a recording (.bag, .db3) or a folder with camera.json."""
    with open_camera(source) as camera:
        for _ in range(count):
            yield camera.read()


def main(source: str | None, count: int) -> None:
    """Print the number, centre and size of the object points of each frame."""
    segmenter = None
    for number, frame in enumerate(recorded_frames(source, count) if source else synthetic_frames(count)):
        segmenter = segmenter or Segmenter(SegmentationCfg(), frame.intrinsics)
        seen = segmenter(frame)  # frame.T_world_cam must be known: dexgrasp calibrate camera
        lower, upper = seen.points_w.min(axis=0), seen.points_w.max(axis=0)
        sampled = f"{len(seen.points_w)} points sampled from {list(seen.counts.values())[-1]}"
        print(f"frame {number}: {sampled}, centre {seen.points_w.mean(axis=0).round(3)} m,")
        print(f"  size {(upper - lower).round(3)} m, points left after each stage: {seen.counts}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", help="realsense, realsense:SERIAL, a .bag or .db3, or a folder of frames")
    parser.add_argument("--frames", type=int, default=3, help="number of frames")
    given = parser.parse_args()
    main(given.source, given.frames)

"""`dexgrasp check scene`: what the camera sees against what policies were trained for."""

from dataclasses import dataclass, field
from typing import Annotated

from dexgrasp.perception.cameras.depth import CameraError, DepthFrame, EndOfFramesError
from dexgrasp.perception.cameras.extrinsics import CameraPose
from dexgrasp.perception.cameras.open import open_camera
from dexgrasp.perception.segmentation.pipeline import SegmentationCfg
from dexgrasp.perception.segmentation.scene_items import scene_items
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.text import print_table


@dataclass(frozen=True)
@bounded
class CheckSceneCfg:
    """Check a scene through the calibrated camera: table, noise, holes, objects, occlusion, frame rate."""

    source: str
    """realsense, realsense:SERIAL, a recording (.db3, .bag) or a folder of frames."""
    camera_file: str = ""
    """Camera pose file from `dexgrasp calibrate camera`; a folder may hold a pose of its own."""
    frames: Annotated[int, Bounds(1, 1000)] = 30
    """Largest number of frames that are read; the first one is segmented."""
    segment: SegmentationCfg = field(default_factory=SegmentationCfg)
    """Settings of the segmentation, as on the robot."""


def check_scene(cfg: CheckSceneCfg) -> int:
    """Print the lights and what to do; return 1 where one is bad."""
    pose = CameraPose.load(cfg.camera_file) if cfg.camera_file else None
    with open_camera(cfg.source, pose) as source:
        frames: list[DepthFrame] = []
        while len(frames) < cfg.frames:
            try:
                frames.append(source.read(timeout_s=5.0))
            except EndOfFramesError:
                break
    if not frames:
        raise CameraError(f"{cfg.source} holds no frame")
    items = scene_items(frames[0], [frame.stamp_s for frame in frames], cfg.segment)
    print_table([["", "item", "measured"], *[[item.light, item.name, item.measured] for item in items]])
    for item in items:
        if item.advice:
            print(f"{item.light}: {item.name}: {item.advice}")
    lights = [item.light for item in items]
    print(f"{lights.count('ok')} ok, {lights.count('warn')} warn, {lights.count('bad')} bad")
    return int("bad" in lights)

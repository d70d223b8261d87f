"""Properties of a scene in a camera image against what policies were trained for: a light for each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dexgrasp.perception.cameras.depth import BASELINE_M, DEPTH_STEP_M, DISPARITY_SD_PX, DepthFrame
from dexgrasp.perception.segmentation.pipeline import NoObjectError, Segmentation, SegmentationCfg, Segmenter
from dexgrasp.perception.segmentation.table_plane import NoPlaneError, Plane

Light = Literal["ok", "warn", "bad"]

JUMP_M = 0.015
"""How much nearer than the object a pixel beside its outline must be to hide some of it [m]."""
MOST_OBJECTS = 4
STEREO_FOCAL_PX = 385.0
"""Focal length of a D435's depth at 640 columns; it decides the noise also of depth aligned to colour."""


@dataclass(frozen=True)
class SceneItem:
    """One property of the scene."""

    name: str
    light: Light
    measured: str
    """Measured value beside what the policies were trained for."""
    advice: str = ""
    """What to do; empty where nothing is."""


@dataclass(frozen=True)
class _Limits:
    """Values up to which a property is ok, and above which it is bad."""

    ok: float
    bad: float

    def light(self, value: float) -> Light:
        return "ok" if value <= self.ok else "warn" if value <= self.bad else "bad"


TILT_DEG = _Limits(1.5, 5.0)
"""Training has a level table; the plan of the palm takes z of the world as up."""
HEIGHT_MM = _Limits(6.0, 15.0)
"""Training shifts the camera by up to 4 mm along each axis."""
NOISE = _Limits(1.7, 3.5)
"""Multiples of the noise of the camera model."""
HOLES = _Limits(0.1, 0.35)
OBJECT_HOLES = _Limits(0.15, 0.4)
HIDDEN = _Limits(0.05, 0.2)
"""Share of the object's outline beside something nearer."""
PERIOD_S = _Limits(1 / 14, 1 / 5)
FLAT_M, BROAD_M = 0.012, 0.2
DISTANCE_M = 0.35, 1.1
ELEVATION_DEG = 25.0
"""Training looks from above, or 30 to 60 degrees above the table."""


def scene_items(frame: DepthFrame, stamps_s: Sequence[float], cfg: SegmentationCfg | None = None) -> list[SceneItem]:
    """Return the properties of a scene, from one frame of a camera at rest and the stamps of several [s].

    In place of the target `best`, for which no grasp is planned here, the largest object is judged.
    """
    cfg = cfg or SegmentationCfg()
    cfg = replace(cfg, target="largest") if cfg.target == "best" else cfg
    if frame.T_world_cam is None:
        return [
            SceneItem(
                name="camera pose",
                light="bad",
                measured="unknown",
                advice="run `dexgrasp calibrate camera` and give camera_file=",
            ),
            *_rate(stamps_s),
        ]
    items = [_camera(frame), *_rate(stamps_s), _holes(frame, cfg)]
    try:
        seen = Segmenter(cfg, frame.intrinsics)(frame)
    except NoPlaneError as error:
        advice = f"{error} Calibrate the camera again, or clear the table"
        return [*items, SceneItem(name="table", light="bad", measured="not found", advice=advice)]
    except NoObjectError as error:
        advice = "put the object within the workspace, and see that camera pose and workspace are right"
        return [*items, *_table_of(frame, cfg), _item("objects", "bad", f"none: {error}", advice)]
    return [*items, *_table(seen.plane, frame), *_objects(seen, frame, cfg), *_object(seen, frame)]


def _item(name: str, light: Light, measured: str, advice: str) -> SceneItem:
    """Return an item whose advice is given only where something is to be done."""
    return SceneItem(name=name, light=light, measured=measured, advice="" if light == "ok" else advice)


def _camera(frame: DepthFrame) -> SceneItem:
    assert frame.T_world_cam is not None
    down = -frame.T_world_cam[2, 2]
    angle = float(np.degrees(np.arcsin(np.clip(down, -1, 1))))
    light: Light = "ok" if angle >= ELEVATION_DEG else "warn" if angle > 10 else "bad"
    return _item(
        "camera direction",
        light,
        f"looks down by {angle:.0f} deg (trained: from above, or 30 to 60 deg)",
        "raise the camera and let it look down at the object; is its pose right?",
    )


def _rate(stamps_s: Sequence[float]) -> list[SceneItem]:
    if len(stamps_s) < 2:
        return []
    period_s = float(np.median(np.diff(stamps_s)))
    if period_s <= 0:
        return [_item("frames", "bad", "stamps do not increase", "check the clock of the source")]
    return [
        _item(
            "frames",
            PERIOD_S.light(period_s),
            f"{1 / period_s:.0f} per second (a D435 gives 30)",
            "use a USB 3 port and cable, a smaller image or fewer streams",
        )
    ]


def _workspace_rays(frame: DepthFrame, cfg: SegmentationCfg) -> NDArray[np.bool_]:
    """Return the pixels (rows, columns) of the thinned image that look at the table within the workspace."""
    assert frame.T_world_cam is not None
    x, y = frame.intrinsics.rays(cfg.stride)
    R, origin = frame.T_world_cam[:3, :3], frame.T_world_cam[:3, 3]
    rays_w = np.stack([x, y, np.ones_like(x)], -1) @ R.T
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = origin + rays_w * (-origin[2] / rays_w[..., 2])[..., None]
    low, high = np.array(cfg.box_lower_m), np.array(cfg.box_upper_m)
    return (rays_w[..., 2] < 0) & ((hit[..., :2] > low[:2]) & (hit[..., :2] < high[:2])).all(-1)


def _holes(frame: DepthFrame, cfg: SegmentationCfg) -> SceneItem:
    depth_m, looks = frame.depth_m[:: cfg.stride, :: cfg.stride], _workspace_rays(frame, cfg)
    share = float((depth_m[looks] == 0).mean()) if looks.any() else 1.0
    return _item(
        "holes",
        HOLES.light(share),
        f"{100 * share:.0f} % of the workspace without depth (trained: 2 %)",
        "clean the lens, switch the projector on, avoid sunlight and shiny table tops, keep the least distance"
        if looks.any()
        else "the camera does not see the workspace: is its pose right?",
    )


def _table_of(frame: DepthFrame, cfg: SegmentationCfg) -> list[SceneItem]:
    """Return the items of the table where there is no object: any point above it counts as one."""
    try:
        everything = replace(cfg, min_height_m=0.0, footprint_factor=0.0, min_points=1)
        plane = Segmenter(everything, frame.intrinsics)(frame, mask=np.ones(frame.depth_m.shape, bool)).plane
    except (NoPlaneError, NoObjectError):
        return []
    return _table(plane, frame)


def _table(plane: Plane, frame: DepthFrame) -> list[SceneItem]:
    assert frame.T_world_cam is not None
    tilt_deg, height_mm = float(np.degrees(plane.tilt_rad)), 1000 * abs(plane.offset_m)
    slope = abs(plane.normal_w @ frame.T_world_cam[:3, 2])
    depth_m = (plane.normal_w @ frame.T_world_cam[:3, 3] - plane.offset_m) / max(float(slope), 0.1)
    focal_px = min(frame.intrinsics.fx, STEREO_FOCAL_PX * frame.intrinsics.width / 640)
    along_m = depth_m**2 * DISPARITY_SD_PX / (focal_px * BASELINE_M)
    expected_m = float(np.hypot(along_m, DEPTH_STEP_M / np.sqrt(12)) * slope)
    ratio = plane.roughness_m / expected_m
    return [
        _item(
            "table tilt",
            TILT_DEG.light(tilt_deg),
            f"{tilt_deg:.1f} deg (trained: level)",
            "level the table, or calibrate the camera again",
        ),
        _item(
            "table height",
            HEIGHT_MM.light(height_mm),
            f"{height_mm:.0f} mm from z = 0 of the world (trained: within 4 mm)",
            "calibrate the camera again; z = 0 must be the table",
        ),
        _item(
            "depth noise",
            NOISE.light(ratio),
            f"{1000 * plane.roughness_m:.1f} mm on the table, {ratio:.1f} times the training model",
            "come nearer, improve the light, switch the projector on, take a smooth matt table",
        ),
    ]


def _objects(seen: Segmentation, frame: DepthFrame, cfg: SegmentationCfg) -> list[SceneItem]:
    count, rest = 1, frame.depth_m.copy()
    segmenter, mask = Segmenter(replace(cfg, target="largest", labels=""), frame.intrinsics), seen.mask
    while count < MOST_OBJECTS:
        rest = np.where(_full_size(_dilated(mask, 3), cfg.stride, rest.shape), 0, rest)
        try:
            other = segmenter(DepthFrame(rest, frame.intrinsics, frame.stamp_s, T_world_cam=frame.T_world_cam))
        except (NoObjectError, NoPlaneError):
            break
        if len(other.cloud_w) < 0.1 * len(seen.cloud_w):
            break
        mask, count = other.mask, count + 1
    return [
        _item(
            "objects",
            "ok" if count == 1 else "warn",
            f"{count}{' or more' if count == MOST_OBJECTS else ''} (trained: one)",
            "leave one object on the table: the one with most points is grasped, beside others the hand may touch them",
        )
    ]


def _dilated(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    return np.asarray(ndimage.binary_dilation(mask, iterations=pixels), bool)


def _full_size(mask: NDArray[np.bool_], stride: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.repeat(np.repeat(mask, stride, 0), stride, 1)[: shape[0], : shape[1]]


def _object(seen: Segmentation, frame: DepthFrame) -> list[SceneItem]:
    assert frame.T_world_cam is not None
    mask = seen.mask
    stride = -(-frame.depth_m.shape[0] // mask.shape[0])
    image = frame.depth_m[::stride, ::stride]
    at_border = bool(mask[[0, 1, -2, -1]].any() or mask[:, [0, 1, -2, -1]].any())
    height_m = float(np.percentile(seen.plane.height(seen.cloud_w.T), 95))
    side_m = float(np.ptp(seen.cloud_w, axis=0).max())
    distance_m = float(np.linalg.norm(seen.cloud_w.mean(0) - frame.T_world_cam[:3, 3]))
    fits = height_m >= FLAT_M and side_m <= BROAD_M
    near, far = DISTANCE_M
    hidden, holes = _hidden_share(mask, image), _hole_share(mask, image)
    return [
        _item(
            "object in view",
            "bad" if at_border else "ok",
            "cut by the border of the image" if at_border else "whole",
            "turn the camera so that the whole object is seen",
        ),
        _item(
            "object size",
            "ok" if fits else "warn",
            f"{1000 * height_m:.0f} mm high, {1000 * side_m:.0f} mm long (trained: 12 mm or higher, up to 200 mm)",
            "a flat or very large object is grasped less often: stand it up, or turn it",
        ),
        _item(
            "object distance",
            "ok" if near <= distance_m <= far else "warn",
            f"{distance_m:.2f} m from the camera (expected {near:g} to {far:g} m)",
            "move the camera: nearer than a D435 measures there are holes, farther the noise grows with the square",
        ),
        _item(
            "occlusion",
            HIDDEN.light(hidden),
            f"{100 * hidden:.0f} % of the object's outline beside something nearer",
            "take away what stands between camera and object",
        ),
        _item(
            "object holes",
            OBJECT_HOLES.light(holes),
            f"{100 * holes:.0f} % of the object without depth",
            "shiny, dark or transparent: change light or direction, or dull it",
        ),
    ]


def _hidden_share(mask: NDArray[np.bool_], image: NDArray[np.float32]) -> float:
    """Return the share of the object's outline beside pixels that are nearer to the camera than the object there."""
    ring = _dilated(mask, 4) & ~_dilated(mask, 1)
    if not ring.any():
        return 0.0
    nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    beside = image[tuple(np.asarray(nearest))]
    nearer = ring & (image > 0) & (image < beside - JUMP_M)
    return float(nearer.sum() / ring.sum())


def _hole_share(mask: NDArray[np.bool_], image: NDArray[np.float32]) -> float:
    """Return the share of the object's outline, closed and filled, that has no depth."""
    closed = ndimage.binary_closing(np.pad(mask, 8), iterations=6)[8:-8, 8:-8]
    filled: NDArray[np.bool_] = np.asarray(ndimage.binary_fill_holes(closed), bool)
    return float((image[filled] == 0).mean()) if filled.any() else 0.0

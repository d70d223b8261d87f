"""Segmentation pipeline from a depth image to the sampled object points of the policy.

valid range -> points -> workspace -> table -> above it -> not the robot -> no flying pixels -> one object
    -> no splinters -> sample

The one object is the largest of those that lie apart, or a wanted one (target.py) of those in instances.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import DepthFrame, Intrinsics, deproject, take_points, to_frame
from dexgrasp.perception.robot_mask import Capsules
from dexgrasp.perception.segmentation.clustering import (
    Sampling,
    in_large_parts,
    largest_cluster,
    on_surfaces,
    sample_points,
)
from dexgrasp.perception.segmentation.instances import find_instances, near_sure
from dexgrasp.perception.segmentation.table_plane import TABLE, Plane, fit_plane
from dexgrasp.perception.segmentation.target import LabelledPoints, Target, choose, follow, read_labels
from dexgrasp.utils.bounds import Bounds, bounded

Promise = Callable[[NDArray[np.float32], NDArray[np.float64]], float]
"""Returns how promising a grasp is of points (point, 3) seen from a camera at (3,), world frame [m]; more is better."""
MAX_SLOPE = 6.0
"""Largest depth slope [m per m of image] of one surface, viewed 80 degrees from its normal."""
TABLE_PIXELS = 20_000
"""About so many pixels suffice for the table; images of more are thinned for it."""
MIN_CELL_PIXELS = 2.5
"""A cell of the clustering is at least so many pixels wide: else far objects would fall apart."""


class NoObjectError(ValueError):
    """Nothing to grasp in the image; the text says how far the points came."""

    def __init__(self, text: str, counts: dict[str, int]) -> None:
        super().__init__(text)
        self.counts = counts
        """Points left after each stage."""


@dataclass(frozen=True)
@bounded
class SegmentationCfg:
    """Settings of the segmentation; lengths in metres, world frame with the table near z = 0."""

    range_m: Annotated[tuple[float, float], Bounds(0.01, 20, ordered=True)] = (0.25, 1.5)
    """Depths outside are holes. The lower bound is the least distance of a D435 at 640 columns."""
    stride: Annotated[int, Bounds(1, 32)] = 2
    """Stride of the pixels that are used, in rows and columns; 1 where the camera decimates."""
    box_lower_m: Annotated[tuple[float, float, float], Bounds(-5, 5)] = (-0.4, -0.4, -0.12)
    """Corner of the workspace. It reaches below the table: a table may be tilted against the world."""
    box_upper_m: Annotated[tuple[float, float, float], Bounds(-5, 5)] = (0.4, 0.4, 0.5)
    """The opposite corner."""
    plane: Literal["ransac", "known"] = "ransac"
    """Find the table in each image, or take the known one."""
    plane_tolerance_m: Annotated[float, Bounds(0.0001, 0.1)] = 0.006
    """Distance from the table plane within which points count as table points in the search."""
    max_tilt_deg: Annotated[float, Bounds(0, 90)] = 20.0
    """Largest tilt of the table."""
    min_height_m: Annotated[float, Bounds(0, 0.5)] = 0.004
    """Least height of an object's points over the table; more where the table looks rough."""
    roughness_factor: Annotated[float, Bounds(0, 100)] = 3.0
    """Points this many standard deviations of the table's points above it tell where an object is."""
    footprint_factor: Annotated[float, Bounds(0, 100)] = 1.5
    """Height threshold, in standard deviations, for points within the footprint of the detected object."""
    cell_m: Annotated[float, Bounds(0.002, 0.2)] = 0.008
    """Objects are apart if, seen from above, two such cells fit between them; far from the camera cells are wider."""
    hand_margin_m: Annotated[float, Bounds(0, 0.2)] = 0.008
    """Margin by which the robot's capsules are enlarged, for errors of calibration and depth."""
    min_points: Annotated[int, Bounds(1, 100_000)] = 20
    """Least number of points of an object."""
    points: Annotated[int, Bounds(1, 65_536)] = 256
    """Number of sampled object points."""
    sampling: Sampling = "farthest"
    """Sampling of the object points: farthest-point or random."""
    target: str = "largest"
    """Object that is wanted: largest (objects that touch count as one), nearest to the camera, best to grasp (in the
    perception node), COLUMN,ROW of a pixel, X,Y,Z of a point [m], or label:NUMBER. All but largest tell objects that
    touch apart, with stride=1 most reliably."""
    labels: str = ""
    """PNG or NPY image of the objects' numbers, or a mask of truth values, of the depth image's size; replaces the own
    search for objects. Empty: none."""

    def __post_init__(self) -> None:
        if Target.parse(self.target).kind == "label" and not self.labels:
            raise ValueError(f"target={self.target} needs an image of the objects' numbers: give labels")
        near, far = self.range_m
        if near == far:
            raise ValueError(f"range_m must satisfy near < far, got {self.range_m}")
        if any(low >= high for low, high in zip(self.box_lower_m, self.box_upper_m, strict=True)):
            raise ValueError(f"the workspace from {self.box_lower_m} to {self.box_upper_m} is empty")


@dataclass(frozen=True)
class Segmentation:
    """The object in one depth image."""

    points_w: NDArray[np.float32]
    """(points, 3) sampled points for the policy, world frame [m]."""
    cloud_w: NDArray[np.float32] = field(repr=False)
    """(n, 3) all points of the object."""
    mask: NDArray[np.bool_] = field(repr=False)
    """(rows, columns) the object's pixels in the image thinned by the stride."""
    plane: Plane
    """The table."""
    counts: dict[str, int]
    """Points left after each stage."""


class Segmenter:
    """Segmentation pipeline of one camera; data that depends on the intrinsics only is cached."""

    def __init__(
        self, cfg: SegmentationCfg, intrinsics: Intrinsics, plane: Plane = TABLE, promise: Promise | None = None
    ) -> None:
        """`plane`: the table where `cfg.plane` is "known". `promise`: judges the objects for the target `best`."""
        self.cfg, self.intrinsics, self._plane, self._promise = cfg, intrinsics, plane, promise
        self._rays = intrinsics.rays(cfg.stride)
        corners = np.array([cfg.box_lower_m, cfg.box_upper_m], np.float32)
        self._lower, self._upper = corners[:, :, None]
        self._target = Target.parse(cfg.target)
        if self._target.kind == "best" and promise is None:
            raise ValueError(
                "target: best plans a grasp of each object, which only the perception node does; take largest, "
                "nearest, COLUMN,ROW, X,Y,Z or label:NUMBER"
            )
        if self._target.kind == "pixel" and not self._in_image(self._target.at):
            size = f"{intrinsics.width}x{intrinsics.height}"
            raise ValueError(f"target: {self._target} lies outside the image of {size} pixels")
        self._labels = self._read_labels() if cfg.labels else None
        self._every = 1 if self.is_largest else max(1, round((self._rays[0].size / TABLE_PIXELS) ** 0.5))
        self._table_rays = np.ascontiguousarray(self._rays[:, :: self._every, :: self._every])

    def __call__(
        self,
        frame: DepthFrame,
        capsules: Capsules | None = None,
        mask: NDArray[np.bool_] | None = None,
        seed: int = 0,
        lap: Callable[[str], None] = lambda stage: None,
        earlier_w: NDArray[np.float32] | None = None,
    ) -> Segmentation:
        """Return the object's points; deterministic for a given frame and seed.

        Raises NoObjectError or NoPlaneError.

        `capsules`: the robot, whose points are left out. `mask` (height, width): the object's pixels, where the caller
        knows them; without it the target is taken. `lap` is called at the end of each stage. `earlier_w` (n, 3): points
        of the target in an earlier frame [m]; the object at them is taken, unless the target is the largest.
        """
        choosing = mask is None and earlier_w is None  # what is followed may be behind the hand
        T_world_cam = self._check(frame, mask)
        own_search = mask is None and not self.is_largest and self._labels is None
        cloud, plane, pitch_m = self._foreground(
            frame, T_world_cam, capsules, seed, lap, choosing=choosing, own_search=own_search
        )
        if mask is None and not self.is_largest:
            chosen = self._chosen(cloud, plane, T_world_cam[:3, 3], earlier_w, seed)
        elif mask is None:
            sure = plane.height(cloud.points_w) > self.cfg.roughness_factor * plane.roughness_m
            chosen = largest_cluster(cloud.points_w, sure, plane, max(self.cfg.cell_m, MIN_CELL_PIXELS * pitch_m))
        else:
            chosen = mask[:: self.cfg.stride, :: self.cfg.stride].reshape(-1)[cloud.index]
        cloud.keep("object", chosen)
        cloud.keep("no splinters", in_large_parts(cloud.points_w))
        if len(cloud.index) < self.cfg.min_points:
            raise NoObjectError(_no_object_message(cloud.counts, self.cfg.min_points), cloud.counts)
        few = sample_points(cloud.points_w, self.cfg.points, self.cfg.sampling, seed)
        lap("sampled")
        return Segmentation(
            points_w=cloud.points_w.T[few],
            cloud_w=cloud.points_w.T,
            mask=cloud.mask(),
            plane=plane,
            counts=cloud.counts,
        )

    def instances(self, frame: DepthFrame, capsules: Capsules | None = None, seed: int = 0) -> NDArray[np.int32]:
        """Return the number of the object in each pixel (rows, columns) of the image thinned by the stride.

        0 where none is; objects of the own search are numbered by falling size. Raises NoObjectError or NoPlaneError.
        """
        T_world_cam = self._check(frame, None)
        cloud, plane, _ = self._foreground(
            frame, T_world_cam, capsules, seed, lambda stage: None, choosing=False, own_search=self._labels is None
        )
        labels = np.zeros(cloud.image.shape, np.int32)
        labels.reshape(-1)[cloud.index] = self._instances(cloud, plane)
        return labels

    def _foreground(
        self,
        frame: DepthFrame,
        T_world_cam: NDArray[np.float64],
        capsules: Capsules | None,
        seed: int,
        lap: Callable[[str], None],
        *,
        choosing: bool,
        own_search: bool,
    ) -> tuple["_Cloud", Plane, float]:
        """Return the points of all objects, the table and the pixel spacing at the objects [m].

        `choosing`: refuse a target that is the robot. `own_search`: the objects are to be found, so that noise of the
        table is left out first.
        """
        cloud, plane = self._above_table(frame, T_world_cam, seed, lap)
        if capsules is not None:
            if choosing:
                self._check_target(capsules, cloud)
            cloud.keep("not the robot", ~capsules.contain(cloud.points_w, self.cfg.hand_margin_m))
        pitch_m = self._pitch_m(cloud.points_w, T_world_cam)
        if own_search and pitch_m:
            sure = plane.height(cloud.points_w) > self.cfg.roughness_factor * plane.roughness_m
            cell_px = max(1, round(self.cfg.cell_m / pitch_m))
            row, column = np.divmod(cloud.index, cloud.image.shape[1])
            cloud.keep("of objects", near_sure(row, column, sure, cell_px, self.cfg.min_points))
        cloud.keep("on surfaces", on_surfaces(cloud.image, cloud.index, MAX_SLOPE * pitch_m))
        return cloud, plane, pitch_m

    def _above_table(
        self, frame: DepthFrame, T_world_cam: NDArray[np.float64], seed: int, lap: Callable[[str], None]
    ) -> tuple["_Cloud", Plane]:
        """Return the points above the table, and the table.

        Where objects are told apart in a large image, the table is fitted to some of its rows and columns, by which the
        points up to the workspace are counted, and only points above it are computed.
        """
        image = np.ascontiguousarray(frame.depth_m[:: self.cfg.stride, :: self.cfg.stride])
        every = self._every
        cloud = self._cloud(np.ascontiguousarray(image[::every, ::every]), self._table_rays, T_world_cam, lap)
        cloud.keep("in workspace", self._in_workspace(cloud.points_w))
        plane = self._table(cloud, seed)
        lap("table")
        least_m = max(self.cfg.min_height_m, self.cfg.footprint_factor * plane.roughness_m)
        if every == 1:
            cloud.keep("above the table", plane.height(cloud.points_w) > least_m)
            return cloud, plane
        counts = {stage: every**2 * count for stage, count in cloud.counts.items()}
        normal_c, height_m = plane.normal_w @ T_world_cam[:3, :3], plane.normal_w @ T_world_cam[:3, 3] - plane.offset_m
        slope = np.float32(normal_c[0]) * self._rays[0] + np.float32(normal_c[1]) * self._rays[1]
        slope += np.float32(normal_c[2])
        cloud = self._cloud(image, self._rays, T_world_cam, lap, slope * image > np.float32(least_m - height_m))
        cloud.counts = counts
        cloud.keep("above the table", self._in_workspace(cloud.points_w))
        return cloud, plane

    @property
    def is_best(self) -> bool:
        """Whether the object with the most promising grasp is taken, which may change from frame to frame."""
        return self._target.kind == "best"

    @property
    def is_largest(self) -> bool:
        """Whether the largest object is taken, without telling apart those that touch."""
        return self._target.kind == "largest" and self._labels is None

    def _instances(self, cloud: "_Cloud", plane: Plane) -> NDArray[np.int32]:
        """Return the number (n,) of each point's object, 0 = of none: that of the label image, else an own one."""
        if self._labels is not None:
            return self._given_labels(cloud)
        height_m, focal_px = cloud.spread(plane.height(cloud.points_w)), self.intrinsics.fx / self.cfg.stride
        return find_instances(cloud.image, height_m, focal_px, self.cfg.min_points).reshape(-1)[cloud.index]

    def _chosen(
        self,
        cloud: "_Cloud",
        plane: Plane,
        camera_w: NDArray[np.float64],
        earlier_w: NDArray[np.float32] | None,
        seed: int,
    ) -> NDArray[np.bool_]:
        """Return the mask (n,) of the target's points."""
        labels = self._instances(cloud, plane)
        cloud.lap("instances")
        row, column = np.divmod(cloud.index, cloud.image.shape[1])
        among = LabelledPoints(
            labels=labels,
            points_w=cloud.points_w,
            pixels=np.stack([column, row]) * self.cfg.stride,
            depth_m=cloud.image.reshape(-1)[cloud.index],
        )
        if earlier_w is not None:
            number, missed = follow(earlier_w, among), "no object is where it was"
        elif self._target.kind == "best":
            number, missed = self._most_promising(labels, cloud.points_w, camera_w, seed), "no object can be grasped"
        else:
            number, missed = choose(self._target, among)
        if not number:
            cloud.counts["object"] = 0
            raise NoObjectError(f"target not found at {self._target}: {missed}", cloud.counts)
        return labels == number

    def _most_promising(
        self, labels: NDArray[np.int32], points_w: NDArray[np.float32], camera_w: NDArray[np.float64], seed: int
    ) -> int:
        """Return the number of the object with the most promising grasp; 0 where none can be grasped."""
        assert self._promise is not None
        best, highest = 0, -np.inf
        for number in np.unique(labels[labels > 0]):
            own = take_points(points_w, np.flatnonzero(labels == number))
            own = take_points(own, np.flatnonzero(in_large_parts(own)))
            if own.shape[1] < self.cfg.min_points:
                continue
            few = sample_points(own, self.cfg.points, self.cfg.sampling, seed)
            promise = self._promise(own.T[few], camera_w)
            if promise > highest:
                best, highest = int(number), promise
        return best

    def _check_target(self, capsules: Capsules, cloud: "_Cloud") -> None:
        """Raise NoObjectError where the wanted pixel or point, or most of the wanted label, lies on the robot."""
        target, at = self._target, np.zeros((3, 0), np.float32)
        if target.kind == "pixel":
            column, row = (int(value) // self.cfg.stride for value in target.at)
            at = cloud.points_w[:, cloud.index == row * cloud.image.shape[1] + column]
        elif target.kind == "point":
            at = np.array(target.at, np.float32).reshape(3, 1)
        elif target.kind == "label":
            at = cloud.points_w[:, self._given_labels(cloud) == target.at[0]]
        on_robot = capsules.contain(at, self.cfg.hand_margin_m)
        if 2 * np.count_nonzero(on_robot) > len(on_robot):
            raise NoObjectError(f"the target at {target} is the robot: choose an object", cloud.counts)

    def _given_labels(self, cloud: "_Cloud") -> NDArray[np.int32]:
        """Return the number (n,) of each point's object in the label image."""
        assert self._labels is not None
        return self._labels[:: self.cfg.stride, :: self.cfg.stride].reshape(-1)[cloud.index]

    def _in_image(self, at: tuple[float, ...]) -> bool:
        return 0 <= at[0] < self.intrinsics.width and 0 <= at[1] < self.intrinsics.height

    def _read_labels(self) -> NDArray[np.int32]:
        labels = read_labels(self.cfg.labels)
        if labels.shape != (self.intrinsics.height, self.intrinsics.width):
            got, expected = f"{labels.shape[1]}x{labels.shape[0]}", f"{self.intrinsics.width}x{self.intrinsics.height}"
            raise ValueError(
                f"{self.cfg.labels}: a label image of {got} pixels, expected {expected} as the depth image"
            )
        return labels

    def _cloud(
        self,
        image: NDArray[np.float32],
        rays: NDArray[np.float32],
        T_world_cam: NDArray[np.float64],
        lap: Callable[[str], None],
        wanted: NDArray[np.bool_] | None = None,
    ) -> "_Cloud":
        """Return the points of an image (rows, columns) in range, of the `wanted` pixels only where given."""
        flat, (near, far) = image.reshape(-1), self.cfg.range_m
        kept = (flat > near) & (flat < far)
        index = np.flatnonzero(kept if wanted is None else kept & wanted.reshape(-1))
        lap("in range")
        points_w = to_frame(T_world_cam, deproject(flat[index], np.take(rays.reshape(2, -1), index, axis=1)))
        lap("deprojected")
        return _Cloud(
            image=image, index=index, points_w=points_w, counts={"pixels": image.size, "in range": len(index)}, lap=lap
        )

    def _check(self, frame: DepthFrame, mask: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        if frame.intrinsics != self.intrinsics:
            raise ValueError(f"the frame is of another camera: {frame.intrinsics}, expected {self.intrinsics}")
        if frame.T_world_cam is None:
            raise ValueError(
                "the frame has no camera pose: run `dexgrasp calibrate camera` and pass the file it writes"
            )
        if mask is not None and (mask.shape != frame.depth_m.shape or mask.dtype != bool):
            raise ValueError(f"a mask is bool of shape {frame.depth_m.shape}, got {mask.dtype} {mask.shape}")
        return frame.T_world_cam

    def _in_workspace(self, points_w: NDArray[np.float32]) -> NDArray[np.bool_]:
        return ((points_w > self._lower) & (points_w < self._upper)).all(axis=0)

    def _table(self, cloud: "_Cloud", seed: int) -> Plane:
        if len(cloud.index) < self.cfg.min_points:
            raise NoObjectError(_no_object_message(cloud.counts, self.cfg.min_points), cloud.counts)
        if self.cfg.plane == "known":
            return self._plane
        return fit_plane(cloud.points_w, self.cfg.plane_tolerance_m, np.radians(self.cfg.max_tilt_deg), seed)

    def _pitch_m(self, points_w: NDArray[np.float32], T_world_cam: NDArray[np.float64]) -> float:
        """Return the pixel spacing [m] on a surface that faces the camera, at the points' mean depth."""
        if not points_w.shape[1]:
            return 0.0
        depth_m = (points_w.mean(1) - T_world_cam[:3, 3]) @ T_world_cam[:3, 2]
        return float(depth_m) * self.cfg.stride / self.intrinsics.fx


@dataclass
class _Cloud:
    """Points of one stage of the pipeline, each with its pixel."""

    image: NDArray[np.float32]
    """(rows, columns) depth of the thinned image [m]."""
    index: NDArray[np.int64]
    """(n,) flat indices into it."""
    points_w: NDArray[np.float32]
    """(3, n), coordinates first: three times as fast."""
    counts: dict[str, int]
    lap: Callable[[str], None]

    def keep(self, stage: str, kept: NDArray[np.bool_]) -> None:
        """Keep only these points (n,)."""
        where = np.flatnonzero(kept)
        self.index, self.points_w = self.index[where], take_points(self.points_w, where)
        self.counts[stage] = len(where)
        self.lap(stage)

    def spread(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the values (n,) of the points as an image, 0 elsewhere."""
        image = np.zeros(self.image.shape, np.float32)
        image.reshape(-1)[self.index] = values
        return image

    def mask(self) -> NDArray[np.bool_]:
        """Return the remaining pixels as an image mask."""
        pixels = np.zeros(self.image.shape, bool)
        pixels.reshape(-1)[self.index] = True
        return pixels


def _no_object_message(counts: dict[str, int], least: int) -> str:
    """Return the message with the stage that removed the last points, and the likely cause."""
    if counts["in range"] == 0:
        return f"no depth within the range (0 of {counts['pixels']:,} pixels): lens covered, too near, or too far?"
    if counts["in workspace"] < least:
        return (
            f"nothing in the workspace ({counts['in workspace']:,} of {counts['in range']:,} points): "
            "is the pose of the camera right, and the workspace?"
        )
    kept = counts.get("object", 0)
    text = f"no object above the table in the workspace ({kept:,} of {counts['in workspace']:,} points"
    above = counts.get("above the table", 0)
    robot = above - counts.get("not the robot", above)
    return text + (f"; {robot:,} more on the robot)" if robot else ")")

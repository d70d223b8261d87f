"""Camera poses of a scan without a board: RGB-D odometry with a pose graph."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.scanning.board_poses import PosedFrames, ignore
from dexgrasp.perception.scanning.frames import ScanError, ScanFrame
from dexgrasp.perception.scanning.fusion import pinhole, rgbd_image
from dexgrasp.perception.scanning.open3d_import import open3d
from dexgrasp.perception.segmentation.clustering import largest_cluster
from dexgrasp.perception.segmentation.table_plane import TABLE, NoPlaneError, fit_plane
from dexgrasp.perception.transforms import plane_basis

MOST_STEP_M, MOST_STEP_RAD = 0.15, 0.5
"""Largest motion between two frames that odometry is trusted with."""
LOOP_NEAR_M, LOOP_NEAR_RAD = 0.12, 0.5
"""Frames of different times closer than this, by their first poses, are compared to close loops."""
LOOP_EVERY = 4
"""Frames between two candidates of a loop."""
LEAST_PIXELS, LEAST_SHARE = 500, 0.2
"""Corresponding pixels that two frames must have; open3d reports success with none, too."""
EDGE_M = 0.01
"""Distance of corresponding points in the pose graph."""
UP_IN_CAMERA = np.array([0.0, -np.sin(np.pi / 4), -np.cos(np.pi / 4)])
"""Up, for a camera that looks down by 45 degrees; found within 50 degrees of it."""


def poses_from_odometry(frames: list[ScanFrame], watch: Callable[[ScanFrame], None] = ignore) -> PosedFrames:
    """Track the camera over the frames; return the frames with poses around the thing in the first image.

    `watch` is called with each frame as soon as it is tracked, with the pose before loops are closed. Raises ScanError
    where the track is lost or no table is found.
    """
    T_table_first, middle = _table(frames[0])
    watch(replace(frames[0], T_table_cam=T_table_first))
    steps, poses = [], [np.eye(4)]
    for number, (source, target) in enumerate(zip(frames[1:], frames, strict=False)):
        if (step := _step(source, target)) is None:
            raise ScanError(
                f"lost track between {frames[number].name} and {frames[number + 1].name}: move slower, keep texture (a "
                "newspaper under the thing) in view, or use a board (poses=board)"
            )
        steps.append(step)
        poses.append(poses[-1] @ step[0])
        watch(replace(source, T_table_cam=T_table_first @ poses[-1]))
    tracked = _optimised(frames, poses, steps)
    posed = [replace(frame, T_table_cam=T_table_first @ T) for frame, T in zip(frames, tracked, strict=True)]
    return PosedFrames(frames=posed, left_out={}, scale=1.0, middle_m=middle)


def _step(
    source: ScanFrame, target: ScanFrame, guess: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], Any] | None:
    """Return T_target_source (4, 4) and its information matrix; None where odometry fails."""
    o3d = open3d()
    reference = np.eye(4) if guess is None else guess
    done, T, information = o3d.pipelines.odometry.compute_rgbd_odometry(
        rgbd_image(source, gray=True),
        rgbd_image(target, gray=True),
        pinhole(source.camera),
        reference,
        o3d.pipelines.odometry.RGBDOdometryJacobianFromHybridTerm(),
        o3d.pipelines.odometry.OdometryOption(depth_diff_max=0.02, depth_min=0.1, depth_max=1.5),
    )
    difference = np.linalg.inv(reference) @ T
    least = max(LEAST_PIXELS, LEAST_SHARE * min((source.depth_m > 0).sum(), (target.depth_m > 0).sum()))
    pairs = information[5, 5] - 1  # it is the identity and, on its diagonal, the number of corresponding pixels
    if not done or pairs < least or _length(difference) > MOST_STEP_M or _angle(difference) > MOST_STEP_RAD:
        return None
    return np.asarray(T), np.asarray(information)


def _optimised(
    frames: list[ScanFrame], poses: list[NDArray[np.float64]], steps: list[Any]
) -> list[NDArray[np.float64]]:
    """Return the poses (n)(4, 4), camera to first camera, after closing loops in a pose graph."""
    o3d = open3d()
    registration = o3d.pipelines.registration
    graph = registration.PoseGraph()
    for T in poses:
        graph.nodes.append(registration.PoseGraphNode(T))
    for number, (T, information) in enumerate(steps):
        graph.edges.append(registration.PoseGraphEdge(number + 1, number, T, information, uncertain=False))
    for first in range(0, len(frames), LOOP_EVERY):
        for second in range(first + 2 * LOOP_EVERY, len(frames), LOOP_EVERY):
            guess = np.linalg.inv(poses[first]) @ poses[second]
            if _length(guess) > LOOP_NEAR_M or _angle(guess) > LOOP_NEAR_RAD:
                continue
            if (found := _step(frames[second], frames[first], guess)) is not None:
                graph.edges.append(registration.PoseGraphEdge(second, first, found[0], found[1], uncertain=True))
    registration.global_optimization(
        graph,
        registration.GlobalOptimizationLevenbergMarquardt(),
        registration.GlobalOptimizationConvergenceCriteria(),
        registration.GlobalOptimizationOption(
            max_correspondence_distance=EDGE_M, edge_prune_threshold=0.25, reference_node=0
        ),
    )
    return [np.asarray(node.pose) for node in graph.nodes]


def _table(frame: ScanFrame) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Return T_table_cam (4, 4) of the first frame, with the thing near the origin, and the middle of the thing."""
    up = np.eye(4)
    across = np.array([1.0, 0.0, 0.0])
    up[:3, :3] = np.stack([across, np.cross(UP_IN_CAMERA, across), UP_IN_CAMERA])
    points = replace(frame, T_table_cam=up).points(3).T
    try:
        plane = fit_plane(points, max_tilt_rad=np.radians(50))
    except NoPlaneError as error:
        raise ScanError(f"no table in the first frame ({error}): start with the thing on a table in view") from error
    import torch

    x, y = (axis.numpy() for axis in plane_basis(torch.from_numpy(plane.normal_w)))
    T = np.eye(4)
    T[:3, :3] = np.stack([x, y, plane.normal_w])
    T[2, 3] = -plane.offset_m
    T = T @ up
    found = replace(frame, T_table_cam=T).points(3).T
    found = found[:, found[2] > 0.006]
    if found.shape[1] < 50:
        raise ScanError(
            "nothing stands on the table in the first frame: start with the thing in the middle of the view"
        )
    mask = largest_cluster(found, found[2] > 0.01, TABLE, 0.008)
    middle = found[:2, mask].mean(1) if mask.any() else found[:2].mean(1)
    T[:2, 3] -= middle
    return T, (0.0, 0.0)


def _length(T: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(T[:3, 3]))


def _angle(T: NDArray[np.float64]) -> float:
    return float(np.arccos(np.clip((np.trace(T[:3, :3]) - 1) / 2, -1, 1)))

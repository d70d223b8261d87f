"""Plans the pre-grasp of a bundle's hand from the first view of the object."""

import math
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle
from dexgrasp.perception.grasp_planning.planner import Pregrasp, Reachable, best_pregrasp, move_start_clear
from dexgrasp.perception.grasp_planning.scoring import FailedGrasps
from dexgrasp.perception.kinematics import Kinematics
from dexgrasp.perception.transforms import invert
from dexgrasp.policies.deploy.contract import Contract, GraspStyleContract
from dexgrasp.policies.deploy.policy import PregraspPlan

SIDE_CAMERA_RAD = math.radians(25.0)
"""Angle between the vertical and the line object-camera above which the palm does not approach along that line."""
OVERHEAD_M = 0.76
"""Height of the approach origin above the table for side cameras: the height of overhead cameras in training [m]."""

Array = NDArray[np.float64]


class GraspPlanner:
    """Plans pre-grasps of one bundle, and avoids the kinds of grasp that failed."""

    def __init__(self, contract: Contract) -> None:
        hand, grasp = contract.hand, contract.grasp
        self._kinematics = Kinematics.from_dict(vars(hand.kinematics), torch.float64)
        self._base = invert(_double(hand.palm_pos_b), _double(hand.palm_quat_b))
        self._limits, self._motors = (_double(hand.joint_lower_rad), _double(hand.joint_upper_rad)), hand.motors
        self._power, self._pinch = _style(grasp.power), _style(grasp.pinch)
        self._rule, self._finger_m = grasp.pregrasp, grasp.finger_m
        self._failed = FailedGrasps(1)
        self._descriptor: torch.Tensor | None = None  # descriptor of the last plan

    def plan(self, points_w: NDArray[np.float32], camera_w: Array, reachable: Reachable | None) -> PregraspPlan:
        """Return the best collision-free pre-grasp for points (point, 3) [m], unlike grasps that failed.

        `camera_w` (3,): position of the camera [m]. `reachable`: filter of palm poses.
        """
        found, points = self._best(points_w, camera_w, reachable)
        self._descriptor = found.descriptor
        found = move_start_clear(found, self._open_hand(found.style.open_pose), points)
        style = found.style
        fingers = style.open_pose.clamp(*self._limits)
        return PregraspPlan(
            palm_pos_w=found.palm_pos_w[0].numpy(),
            palm_quat_w=found.palm_quat_w[0].numpy(),
            depth_m=found.depth_m[0].numpy(),
            closing=style.closing[0].numpy(),
            floor_m=style.floor_m[0].numpy(),
            joint_pos=self._motors.positions(fingers[0].numpy()),
        )

    def promise(self, points_w: NDArray[np.float32], camera_w: Array, reachable: Reachable | None) -> float:
        """Return the score of the best pre-grasp for points (point, 3) [m].

        -inf where the robot cannot reach it. Other arguments: see `plan`. Scores know nothing of other objects.
        """
        found, _ = self._best(points_w, camera_w, reachable)
        if reachable is not None and not bool(reachable(found.palm_pos_w, found.palm_quat_w)[0]):
            return -math.inf
        assert found.score is not None
        return float(found.score[0])

    def _best(
        self, points_w: NDArray[np.float32], camera_w: Array, reachable: Reachable | None
    ) -> tuple[Pregrasp, torch.Tensor]:
        """Return the best pre-grasp and the points (1, point, 3) in double precision."""
        points = torch.from_numpy(points_w)[None].double()
        origin = torch.from_numpy(_approach_origin(points_w.mean(axis=0), camera_w))[None]
        zero = points.new_zeros(1), points.new_zeros(1, 2)
        hand = self._power, self._pinch, self._open_hand
        found = best_pregrasp(
            points,
            origin,
            *hand,
            *zero,
            reachable,
            standoff_m=self._rule.standoff_m,
            clearance_m=self._rule.clearance_m,
            failed_grasps=self._failed.descriptors,
            finger_m=self._finger_m,
        )
        return found, points

    def mark_failed(self) -> None:
        """Record that the last plan ended with an empty hand: the next plan is a different grasp."""
        self._failed.add(torch.tensor([0]), self._descriptor)

    def clear_failures(self) -> None:
        """Forget all failed grasps."""
        self._failed.clear(torch.tensor([0]))

    def _open_hand(self, joint_pos: torch.Tensor) -> torch.Tensor:
        """Return keypoints (row, keypoint, 3) in the palm frame at joint_pos (row, joint) [rad]."""
        pos_p, quat_p = (value.expand(len(joint_pos), -1) for value in self._base)
        return self._kinematics.keypoints(pos_p, quat_p, joint_pos)


def _approach_origin(centroid_w: NDArray[np.float32], camera_w: Array) -> Array:
    """Return the origin (3,) [m] of the approach: the camera, or above the object for a side camera."""
    line = camera_w - centroid_w
    from_side = math.atan2(float(np.linalg.norm(line[:2])), float(line[2])) > SIDE_CAMERA_RAD
    return np.array([centroid_w[0], centroid_w[1], OVERHEAD_M], np.float64) if from_side else camera_w


def _style(values: GraspStyleContract) -> GraspStyle:
    return GraspStyle(**{item.name: _double(getattr(values, item.name)) for item in fields(GraspStyle)})


def _double(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)

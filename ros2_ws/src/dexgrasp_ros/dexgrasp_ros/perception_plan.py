"""From the first view to a pre-grasp: how the hand of a bundle takes hold of what is seen."""

import math
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perception.best_pregrasp import Reachable, best_pregrasp
from perception.geometry import Kinematics, invert
from perception.grasp_style import GraspStyle
from perception.pregrasp import clear
from perception.tried import Tried
from policies.contract import Contract, GraspStyleContract
from policies.runtime import Plan

ASIDE_RAD = math.radians(25.0)
"""A camera further from the vertical over the object looks on from the side, and the palm does not come from there."""
ABOVE_M = 0.76
"""It comes from straight above then: cameras over the object stood so high in training."""

Array = NDArray[np.float64]


class GraspPlanner:
    """Of one bundle."""

    def __init__(self, contract: Contract) -> None:
        hand, grasp = contract.hand, contract.grasp
        self._kinematics = Kinematics.from_dict(vars(hand.kinematics), torch.float64)
        self._base = invert(_double(hand.palm_pos_b), _double(hand.palm_quat_b))
        self._limits = _double(hand.joint_lower_rad), _double(hand.joint_upper_rad)
        self._power, self._pinch = _style(grasp.power), _style(grasp.pinch)
        self._rule = grasp.pregrasp
        self._tried = Tried(1)
        self._planned: torch.Tensor | None = None  # mark of the last plan

    def plan(self, points_w: NDArray[np.float32], camera_w: Array, reachable: Reachable | None) -> Plan:
        """The best pre-grasp for points (point, 3) seen from (3,), clear of table and object, unlike what failed."""
        points = torch.from_numpy(points_w)[None].double()
        origin = torch.from_numpy(_origin(points_w.mean(axis=0), camera_w))[None]
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
            tried=self._tried.marks,
        )
        self._planned = found.mark
        found = clear(found, self._open_hand(found.style.open_pose), points)
        style = found.style
        fingers = style.open_pose.clamp(*self._limits)
        return Plan(
            palm_pos_w=found.palm_pos_w[0].numpy(),
            palm_quat_w=found.palm_quat_w[0].numpy(),
            depth_m=found.depth_m[0].numpy(),
            closing=style.closing[0].numpy(),
            floor_m=style.floor_m[0].numpy(),
            joint_pos=fingers[0].numpy(),
        )

    def failed(self) -> None:
        """The last plan led to an empty hand: what is planned next is another kind of grasp."""
        self._tried.add(torch.tensor([0]), self._planned)

    def begin_anew(self) -> None:
        """Nothing has failed."""
        self._tried.forget(torch.tensor([0]))

    def _open_hand(self, joint_pos: torch.Tensor) -> torch.Tensor:
        """Keypoints (row, keypoint, 3) in the palm frame at joint_pos (row, joint)."""
        pos_p, quat_p = (value.expand(len(joint_pos), -1) for value in self._base)
        return self._kinematics.keypoints(pos_p, quat_p, joint_pos)


def _origin(middle_w: NDArray[np.float32], camera_w: Array) -> Array:
    """Whence the palm comes (3,) for an object there (3,)."""
    line = camera_w - middle_w
    aside = math.atan2(float(np.linalg.norm(line[:2])), float(line[2])) > ASIDE_RAD
    return np.array([middle_w[0], middle_w[1], ABOVE_M], np.float64) if aside else camera_w


def _style(values: GraspStyleContract) -> GraspStyle:
    return GraspStyle(**{item.name: _double(getattr(values, item.name)) for item in fields(GraspStyle)})


def _double(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)

"""Reset of an episode: object at rest, first view from one side, pre-grasp from that view."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dexgrasp.perception.grasp_planning.candidates import TOP_DOWN
from dexgrasp.perception.grasp_planning.planner import Pregrasp, best_pregrasp, move_start_clear, plan_pregrasp
from dexgrasp.perception.transforms import compose, invert, quat_rotate
from dexgrasp.sim.engine.base import InitialState, Neighbours, PhysicsVariation
from dexgrasp.sim.objects import ObjectModel
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws, ResetCfg
from dexgrasp.sim.robots.arm import ArmIK, ArmSpec
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.sensors.point_camera import POINTS
from dexgrasp.sim.sensors.surface_table import SurfaceTable
from dexgrasp.sim.task.disturbances import CLEARANCE_M

MAX_BACK_M, BACK_STEPS = 0.3, 31
"""Furthest that the start moves back from neighbours, and number of distances that are tried."""


def place_objects(surfaces: SurfaceTable, names: Sequence[str], draws: EpisodeDraws) -> tuple[Tensor, Tensor]:
    """Return stable object poses (row, 3), (row, 4) in the world frame.

    The resting pose is drawn by probability, then yaw and place.
    """
    height, quat = surfaces.resting_pose(surfaces.find(names), draws.rest)
    pos = torch.zeros_like(quat[:, :3])
    pos[:, 2] = height * draws.size
    half = draws.yaw / 2
    zero = torch.zeros_like(half)
    _, quat = compose(pos, torch.stack([half.cos(), zero, zero, half.sin()], dim=1), pos, quat)
    pos[:, :2] = draws.object_xy
    return pos, quat


def rest_pose(obj: ObjectModel, number: float) -> int:
    """Return the index of the resting pose that a number in [0, 1) selects by probability."""
    return min(int(np.searchsorted(np.cumsum(obj.rest_prob), number)), len(obj.rest_prob) - 1)


def object_surface_points(surfaces: SurfaceTable, names: Sequence[str], sizes: Tensor) -> Tensor:
    """Return points of the objects' whole surfaces (row, POINTS, 3), object frame, float32."""
    numbers = surfaces.find(names)  # first: it may make a new table of points
    return surfaces.points[numbers, :POINTS] * sizes[:, None, None].float()


def neighbour_surface_points(surfaces: SurfaceTable, neighbours: Neighbours) -> Tensor:
    """Return points of the whole surfaces of all neighbours (row, neighbour x POINTS, 3), world frame [m].

    Those of places without an object lie below the table.
    """
    numbers = surfaces.find([name for names in neighbours.names for name in names if name])
    there = torch.tensor([bool(name) for names in neighbours.names for name in names])
    points = torch.zeros(len(there), POINTS, 3, dtype=torch.float64)
    points[there] = surfaces.points[numbers, :POINTS].double()
    points = points.unflatten(0, tuple(neighbours.pos_w.shape[:2]))
    return (quat_rotate(neighbours.quat_w[:, :, None], points) + neighbours.pos_w[:, :, None]).flatten(1, 2)


def start_clear_of_neighbours(pregrasp: Pregrasp, hand: HandSpec, around_w: Tensor) -> Pregrasp:
    """Move the start back along the normal until the open hand is clear of the neighbours.

    `around_w` (row, point, 3): points of their whole surfaces, also of the sides that the camera does not see [m]. The
    least distance that clears it is taken, else the one with most clearance; the approach ends where it did.
    """
    keypoints_w = quat_rotate(
        pregrasp.palm_quat_w[:, None],
        open_hand_keypoints(hand, pregrasp.style.open_pose),
    )
    keypoints_w = torch.cat([keypoints_w, (keypoints_w[:, 1:] + keypoints_w[:, :-1]) / 2], dim=1)
    back_m = torch.linspace(0, MAX_BACK_M, BACK_STEPS, dtype=torch.float64)
    normal = quat_rotate(pregrasp.palm_quat_w, pregrasp.palm_pos_w.new_tensor([1.0, 0.0, 0.0]))
    places_w = pregrasp.palm_pos_w[:, None] - back_m[:, None] * normal[:, None]  # (row, step, 3)
    gaps_m = [torch.cdist(keypoints_w + place[:, None], around_w).amin(dim=(1, 2)) for place in places_w.unbind(1)]
    clearance = torch.stack(gaps_m, dim=1)
    clear = clearance > CLEARANCE_M
    step = torch.where(clear.any(dim=1), clear.int().argmax(dim=1), clearance.argmax(dim=1))
    back = back_m[step]
    pos_w = pregrasp.palm_pos_w - normal * back[:, None]
    return replace(pregrasp, palm_pos_w=pos_w, depth_m=pregrasp.depth_m + back)


class PregraspPlanner:
    """Plans pre-grasps for one hand on one mount."""

    def __init__(self, hand: HandSpec, mount: str, cfg: ResetCfg) -> None:
        self._hand, self._approach = hand, cfg.approach
        self.styles = (hand.power, hand.pinch)
        """Power and pinch grasp."""
        self._reachable = None if mount == "floating" else ArmIK(ArmSpec.load(mount, hand), hand).reaches

    def __call__(
        self, points_w: Tensor, camera_w: Tensor, draws: EpisodeDraws, failed_grasps: Tensor | None = None
    ) -> Pregrasp:
        """Plan from visible points (row, point, 3) and the camera position (row, 3), with the reset noise of `draws`.

        `failed_grasps` (row, grasp, DESCRIPTOR_SIZE): descriptors of grasps to avoid.
        """
        points_w = points_w.double()
        pregrasp = self._plan(points_w, camera_w, draws, failed_grasps)
        offset = torch.stack([-draws.standoff, draws.palm_offset[:, 0], draws.palm_offset[:, 1]], dim=1)
        pos = pregrasp.palm_pos_w + quat_rotate(pregrasp.palm_quat_w, offset)
        pregrasp = replace(pregrasp, palm_pos_w=pos, depth_m=(pregrasp.depth_m + draws.standoff).clamp(min=0.0))
        return move_start_clear(pregrasp, open_hand_keypoints(self._hand, pregrasp.style.open_pose), points_w)

    def _plan(self, points_w: Tensor, camera_w: Tensor, draws: EpisodeDraws, failed_grasps: Tensor | None) -> Pregrasp:
        power, pinch = (style.to(points_w.device) for style in self.styles)
        if self._approach == "camera_line":
            return plan_pregrasp(
                points_w,
                camera_w,
                power=power,
                pinch=pinch,
                roll_offset_rad=draws.roll,
                tilt_rad=draws.tilt,
                style_heights_m=self._hand.style_heights_m,
            )
        kinds = (TOP_DOWN,) if self._approach == "top_down" else None
        return best_pregrasp(
            points_w,
            camera_w,
            power=power,
            pinch=pinch,
            open_hand_keypoints=partial(open_hand_keypoints, self._hand),
            roll_offset_rad=draws.roll,
            tilt_rad=draws.tilt,
            reachable=self._reachable,
            kinds=kinds,
            failed_grasps=failed_grasps,
            finger_m=self._hand.finger_m,
        )


def open_hand_keypoints(hand: HandSpec, joint_pos: Tensor) -> Tensor:
    """Return keypoints (row, keypoint, 3) in the palm frame [m] at joint_pos (row, joint) [rad]."""
    device = joint_pos.device
    base = invert(torch.tensor(hand.palm_pos_b, device=device), torch.tensor(hand.palm_quat_b, device=device))
    pos_p, quat_p = (value.expand(len(joint_pos), -1) for value in base)
    return hand.kinematics().to(torch.float64, device).keypoints(pos_p, quat_p, joint_pos)


def initial_state(
    hand: HandSpec, names: Sequence[str], pos_w: Tensor, quat_w: Tensor, palm: Pregrasp, draws: EpisodeDraws
) -> InitialState:
    """Return the initial conditions of the rows for the engine."""
    motors = hand.motors
    fingers = motors.positions(palm.style.open_pose) + draws.finger_offset
    limits = (torch.tensor(limit, device=fingers.device) for limit in (hand.motor_lower, hand.motor_upper))
    return InitialState(
        objects=names,
        object_pos_w=pos_w,
        object_quat_w=quat_w,
        palm_pos_w=palm.palm_pos_w,
        palm_quat_w=palm.palm_quat_w,
        joint_pos=motors.joint_positions(fingers.clamp(*limits)),
        variation=PhysicsVariation(**{item.name: getattr(draws, item.name) for item in fields(PhysicsVariation)}),
    )

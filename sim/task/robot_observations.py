"""Named tensors of an exported policy's inputs: sensor readings, pre-grasp and phase.

Names are those of `Observation` and, after `pregrasp_`, of `PregraspPlan` in `dexgrasp.policies.deploy.policy`.
"""

import torch
from torch import Tensor

from dexgrasp.sim.sensors.object_camera import POINTS
from dexgrasp.sim.task.grasp_task import GraspTask

PREGRASP = "pregrasp_"
"""Prefix of the names of the pre-grasp."""
STEP = "steps_since_pregrasp"
"""Name of the control steps since the palm was at its pre-grasp; negative while it moves to another one."""


def readings(task: GraspTask) -> dict[str, Tensor]:
    """Return the sensor readings of all environments; poses and joint positions are float64, world frame."""
    sensed, view = task.sensed, task.object_camera
    return {
        "joint_pos": sensed.joint_pos.double(),
        "palm_pos_w": sensed.palm_pos_w.double(),
        "palm_quat_w": sensed.palm_quat_w.double(),
        "points_w": view.points_w,
        "visible_fraction": view.visible_fraction,
        "view_fresh": view.fresh,
    }


def pregrasp(task: GraspTask) -> dict[str, Tensor]:
    """Return the pre-grasp of all environments, float64, world frame."""
    trajectory, style = task.control.palm_trajectory, task.control.style
    return {
        "palm_pos_w": trajectory.start_pos_w.double(),
        "palm_quat_w": trajectory.start_quat_w.double(),
        "depth_m": trajectory.depth_m.double(),
        "closing": style.closing.double(),
        "floor_m": style.floor_m.double(),
        "joint_pos": task.engine.state.joint_target.double(),
    }


def robot_observations(task: GraspTask) -> dict[str, Tensor]:
    """Return copies of readings, pre-grasp (names with `PREGRASP`) and phase of all environments."""
    planned = {PREGRASP + name: value for name, value in pregrasp(task).items()}
    return {
        name: value.clone() for name, value in (readings(task) | planned | {STEP: task.steps_since_pregrasp}).items()
    }


def specification(task: GraspTask) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return shape, of one environment, and type of each value of `robot_observations`.

    Available before the first reset too.
    """
    joints, motors, real = len(task.hand.joint_names), len(task.hand.motors.names), torch.float64
    planned = {
        "palm_pos_w": ((3,), real),
        "palm_quat_w": ((4,), real),
        "depth_m": ((), real),
        "closing": ((motors,), real),
        "floor_m": ((), real),
        "joint_pos": ((motors,), real),
    }
    return {
        "joint_pos": ((joints,), real),
        "palm_pos_w": ((3,), real),
        "palm_quat_w": ((4,), real),
        "points_w": ((POINTS, 3), torch.float32),
        "visible_fraction": ((), torch.float32),
        "view_fresh": ((), torch.bool),
        **{PREGRASP + name: spec for name, spec in planned.items()},
        STEP: ((), torch.int64),
    }

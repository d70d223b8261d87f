"""Observation terms of teacher and student; the teacher adds privileged simulator terms."""

import torch
from torch import Tensor

from dexgrasp.perception.motors import Motors
from dexgrasp.perception.observations import Layout, Term, student_layout
from dexgrasp.perception.transforms import (
    quat_conjugate,
    quat_multiply,
    quat_rotate,
    quat_rotate_inverse,
    rotvec_from_quat,
    unit_axis,
)
from dexgrasp.sim.engine.base import State
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.sensors.proprioception import ProprioceptiveState
from dexgrasp.sim.task.actions import PalmTrajectory, Phases

FORCE_LIMIT_N = 30.0


def observation_layouts(hand: HandSpec, live: bool) -> dict[str, Layout]:
    """Return the layouts of both observation groups.

    `live`: whether the camera delivers more than the first frame.
    """
    joints, keypoints, actions = len(hand.joint_names), len(hand.keypoint_names), hand.num_actions
    return {
        "teacher": teacher_layout(joints, keypoints, actions, len(hand.contact_bodies)),
        "student": student_layout(joints, keypoints, actions, live),
    }


def teacher_layout(joints: int, keypoints: int, actions: int, bodies: int) -> Layout:
    """Return the privileged layout of the teacher.

    Contacts, forces, vectors to the true surface, object motion, mass, friction.
    """
    own = ("visible_vectors", "history")
    shared = tuple(term for term in student_layout(joints, keypoints, actions).terms if term.name not in own)
    return Layout(
        (
            *shared,
            Term("contact", bodies, "1"),
            Term(name="contact_force", size=bodies, unit="N", scale=0.1),
            Term(name="object_vectors", size=3 * keypoints, unit="m", scale=10.0),
            Term("object_linvel", 3, "m/s"),
            Term(name="object_angvel", size=3, unit="rad/s", scale=0.2),
            Term(name="object_displacement", size=3, unit="m", scale=10.0),
            Term(name="object_in_palm", size=3, unit="m", scale=10.0),
            Term(name="object_mass", size=1, unit="kg", scale=5.0),
            Term("object_friction", 1, "1"),
        )
    )


def progress_terms(phases: Phases, remaining_m: Tensor, action: Tensor) -> dict[str, Tensor]:
    """Return the progress of the episode and the last action."""
    step = phases.step.to(torch.float32)
    grasp = (step / phases.grasp_steps).clamp(0, 1)
    lift = ((step - phases.grasp_steps) / phases.lift_steps).clamp(0, 1)
    return {
        "remaining_depth": remaining_m,
        "phase": torch.stack([grasp, lift, (~phases.grasping).to(torch.float32)], dim=1),
        "last_action": action,
    }


def hand_terms(
    hand: ProprioceptiveState, joint_target: Tensor, trajectory: PalmTrajectory, motors: Motors
) -> dict[str, Tensor]:
    """Return the proprioceptive terms: the measured hand relative to its start and to its target.

    `joint_target` (env, motor) [rad].
    """
    palm, start = hand.palm_quat_w, quat_conjugate(trajectory.start_quat_w)
    return {
        "joint_pos": hand.joint_pos,
        "tracking_error": joint_target - motors.positions(hand.joint_pos),
        "palm_displacement": quat_rotate(start, hand.palm_pos_w - trajectory.start_pos_w),
        "palm_rotation": rotvec_from_quat(quat_multiply(start, palm)),
        "palm_lag": quat_rotate_inverse(palm, trajectory.palm_pos_w - hand.palm_pos_w),
        "palm_lag_rotation": rotvec_from_quat(quat_multiply(quat_conjugate(palm), trajectory.palm_quat_w)),
        "heights": hand.keypoints_w[..., 2],
        "up": quat_rotate_inverse(palm, unit_axis(2, palm)),
    }


def privileged_terms(state: State, object_start_w: Tensor, object_vectors_p: Tensor) -> dict[str, Tensor]:
    """Return true contacts, and the true motion of the object, in the palm frame."""
    palm = state.palm_quat_w
    return {
        "contact": state.object_contact,
        "contact_force": state.object_force_w.norm(dim=-1).clamp(max=FORCE_LIMIT_N),
        "object_vectors": object_vectors_p,
        "object_linvel": quat_rotate_inverse(palm, state.object_linvel_w),
        "object_angvel": quat_rotate_inverse(palm, state.object_angvel_w),
        "object_displacement": quat_rotate_inverse(palm, state.object_pos_w - object_start_w),
        "object_in_palm": quat_rotate_inverse(palm, state.object_pos_w - state.palm_pos_w),
        "object_mass": state.object_mass,
        "object_friction": state.object_friction,
    }

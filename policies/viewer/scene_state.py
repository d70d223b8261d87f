"""Poses, contact forces and numbers of the policy preset, as plain arrays."""

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp.policies.viewer.rollout import Rollout

OBJECT_BODY, WORLD = "object", 0


@dataclass(frozen=True, eq=False)
class EnvState:
    """Hold what is drawn of one environment, in its own world frame."""

    bodies_pos_w: NDArray[np.float64]
    """(body, 3) origins of all bodies but the world [m]; the object is the last."""
    bodies_quat_w: NDArray[np.float64]
    """(body, 4) wxyz."""
    contact_pos_w: NDArray[np.float64]
    """(k, 3) mean contact point of each robot body that touches the object, weighted by force [m]."""
    contact_force_w: NDArray[np.float64]
    """(k, 3) net force of the object on that body [N]."""
    table_pos_w: NDArray[np.float64]
    """(0 or 1, 3) mean contact point of object and table [m]."""
    table_force_w: NDArray[np.float64]
    """(0 or 1, 3) net force of the table on the object [N]."""
    external_force_w: NDArray[np.float64]
    """(3,) push or disturbance force on the object [N]."""


@dataclass(frozen=True)
class EnvStatus:
    """Hold the words and numbers of one environment."""

    trial: int
    object: str
    phase: str
    attempt: int
    verdict: str
    """success, or the failure; empty before the end."""
    mass_kg: float
    friction: float
    plan: tuple[NDArray[np.float64], NDArray[np.float64]]
    """Palm pose at the start of the approach: (3,) [m] and (4,) wxyz."""
    approach_m: float
    """Length of the approach along the palm's normal [m]."""


def env_state(model: mujoco.MjModel, data: mujoco.MjData) -> EnvState:
    """Return poses and forces of one environment; `data` with contacts and forces of its present state."""
    body = model.body(OBJECT_BODY).id
    hand_pos_w, hand_force_w, table_pos_w, table_force_w = _object_contacts(model, data, body)
    return EnvState(
        bodies_pos_w=data.xpos[1:].copy(),
        bodies_quat_w=data.xquat[1:].copy(),
        contact_pos_w=hand_pos_w,
        contact_force_w=-hand_force_w,
        table_pos_w=table_pos_w,
        table_force_w=table_force_w,
        external_force_w=data.xfrc_applied[body, :3].copy(),
    )


def env_status(rollout: Rollout, row: int) -> EnvStatus:
    """Return the status of one environment."""
    task, outcome = rollout.task, rollout.outcomes[row]
    trajectory = task.control.palm_trajectory
    return EnvStatus(
        trial=int(task.trial[row]),
        object=task.objects[row],
        phase="regrasp" if task.steps_since_pregrasp[row] < 0 else task.phases.name(row),
        attempt=int(task.outcome_tracker.attempts[row]),
        verdict="" if outcome is None else outcome.failure.replace("_", " ") or "success",
        mass_kg=float(task.engine.state.object_mass[row]),
        friction=float(task.engine.state.object_friction[row]),
        plan=(trajectory.start_pos_w[row].numpy().copy(), trajectory.start_quat_w[row].numpy().copy()),
        approach_m=float(trajectory.depth_m[row]),
    )


def _object_contacts(
    model: mujoco.MjModel, data: mujoco.MjData, body: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return mean points (k, 3) [m] and net forces on the object (k, 3) [N]: of the robot's bodies, of the table."""
    forces: dict[int, NDArray[np.float64]] = {}
    moments: dict[int, NDArray[np.float64]] = {}
    wrench = np.zeros(6)
    for number in range(data.ncon):
        contact = data.contact[number]
        first, second = (int(model.geom_bodyid[geom]) for geom in contact.geom)
        if body not in (first, second) or first == second:
            continue
        mujoco.mj_contactForce(model, data, number, wrench)
        force_w = contact.frame.reshape(3, 3).T @ wrench[:3]  # on the body of the second geom
        other = first if second == body else second
        size = float(np.linalg.norm(force_w))
        forces[other] = forces.get(other, np.zeros(3)) + (force_w if second == body else -force_w)
        moments[other] = moments.get(other, np.zeros(4)) + size * np.append(contact.pos, 1.0)
    touching = [other for other in forces if moments[other][3] > 0]
    points = {other: moments[other][:3] / moments[other][3] for other in touching}
    robot, table = [other for other in touching if other != WORLD], [other for other in touching if other == WORLD]
    return _rows(points, robot), _rows(forces, robot), _rows(points, table), _rows(forces, table)


def _rows(values: dict[int, NDArray[np.float64]], keys: list[int]) -> NDArray[np.float64]:
    return np.array([values[key] for key in keys]).reshape(-1, 3)

"""Body poses and contact forces of one environment, as plain arrays for renderers other than MuJoCo."""

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

OBJECT_BODY, WORLD = "object", 0
NEIGHBOUR_BODY = "neighbour_"
"""Start of the names of the bodies of the objects beside it."""


@dataclass(frozen=True, eq=False)
class EnvState:
    """Body poses and forces of one environment, in its own world frame."""

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


def _object_contacts(
    model: mujoco.MjModel, data: mujoco.MjData, body: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return mean points (k, 3) [m] and net forces on the object (k, 3) [N]: of the robot's bodies, of the table."""
    forces: dict[int, NDArray[np.float64]] = {}
    moments: dict[int, NDArray[np.float64]] = {}
    wrench = np.zeros(6)
    points_w, frames, pairs = data.contact.pos, data.contact.frame, model.geom_bodyid[data.contact.geom]
    for number in np.flatnonzero((pairs == body).sum(axis=1) == 1):
        mujoco.mj_contactForce(model, data, number, wrench)
        force_w = frames[number].reshape(3, 3).T @ wrench[:3]  # on the body of the second geom
        first, second = (int(part) for part in pairs[number])
        other = first if second == body else second
        size = float(np.linalg.norm(force_w))
        forces[other] = forces.get(other, np.zeros(3)) + (force_w if second == body else -force_w)
        moments[other] = moments.get(other, np.zeros(4)) + size * np.append(points_w[number], 1.0)
    touching = [other for other in forces if moments[other][3] > 0]
    points = {other: moments[other][:3] / moments[other][3] for other in touching}
    robot, table = [other for other in touching if other != WORLD], [other for other in touching if other == WORLD]
    return _rows(points, robot), _rows(forces, robot), _rows(points, table), _rows(forces, table)


def _rows(values: dict[int, NDArray[np.float64]], keys: list[int]) -> NDArray[np.float64]:
    return np.array([values[key] for key in keys]).reshape(-1, 3)

"""Match a hand with its MJCF in DexGraspBench: joints by name, frames by the places of joints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import mujoco
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dexgrasp.perception.transforms import compose, invert, quat_from_matrix
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.models.model_reader import read_model
from dexgrasp.utils.text import comma_separated

MOST_APART_M, MOST_APART_RAD = 1e-3, 0.02
"""Largest distance between the places of a joint in the two models, and angle between its axes."""
AXIS_M = 0.05
"""Length of an axis when frames are fitted: the order of a finger's length."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HandFrames:
    """Where a hand's joints and base frame are in the MJCF of DexGraspBench."""

    order: tuple[int, ...]
    """(joint,) index in `HandSpec.joint_names` of each joint of the MJCF."""
    base_pos_r: torch.Tensor
    """(3,) origin of the hand base frame in the outermost frame of the MJCF, the root [m]."""
    base_quat_r: torch.Tensor
    """(4,) orientation of the hand base frame in the root, wxyz."""
    palm_pos_b: torch.Tensor
    """(3,) palm centre in the hand base frame [m]."""
    palm_quat_b: torch.Tensor
    """(4,) palm frame in the hand base frame."""
    stiffness: np.ndarray
    """(joint,) gain of the servo of each joint of `HandSpec.joint_names` in the MJCF [N m/rad]."""

    @classmethod
    def of(cls, hand: HandSpec, file: Path) -> Self:
        """Return the correspondence. Raises ValueError where joints differ in name, place or axis."""
        if hand.coupled or hand.mirrored:
            raise ValueError(
                f"hand {hand.name}, side {hand.side}: grasps of right hands with a motor in every joint can be "
                f"written; {'joints ' + comma_separated(hand.coupled) + ' have none' if hand.coupled else 'it is left'}"
            )
        theirs = read_model(file, f"the hand '{file.parent.name}'").compile()
        keys = [_key(theirs.joint(i).name) for i in range(theirs.njnt)]
        ours = {_key(name): i for i, name in enumerate(hand.joint_names)}
        if sorted(keys) != sorted(ours):
            differ = sorted({*keys} ^ {*ours})
            raise ValueError(f"{file}: its joints are not those of hand={hand.name}; they differ in {differ}")
        order = tuple(ours[key] for key in keys)
        places, axes = _joints(hand.model, [hand.model.joint(hand.joint_names[i]).id for i in order])
        pos, rotation = _fit(file, (places, axes), _joints(theirs, list(range(theirs.njnt))))
        return cls(
            order=order,
            base_pos_r=torch.tensor(pos),
            base_quat_r=quat_from_matrix(torch.tensor(rotation)),
            palm_pos_b=torch.tensor(hand.palm_pos_b),
            palm_quat_b=torch.tensor(hand.palm_quat_b),
            stiffness=_stiffness(file, theirs, order),
        )

    def qpos(self, palm_pos_w: torch.Tensor, palm_quat_w: torch.Tensor, joint_pos: np.ndarray) -> np.ndarray:
        """Return the positions (7 + joint,) in DexGraspBench from a palm pose and joint positions here."""
        base = compose(palm_pos_w.double(), palm_quat_w.double(), *invert(self.palm_pos_b, self.palm_quat_b))
        pos, quat = compose(*base, *invert(self.base_pos_r, self.base_quat_r))
        return np.concatenate([pos.numpy(), quat.numpy(), np.asarray(joint_pos, dtype=np.float64)[list(self.order)]])


def _key(name: str) -> str:
    """Return the name of a joint without case and side: ffj4 of rh_FFJ4, if_mcp of if_mcp."""
    name = name.lower()
    return name[3:] if name.startswith(("rh_", "lh_")) else name


def _joints(model: mujoco.MjModel, joints: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return places (joint, 3) [m] and axes (joint, 3) of joints at position zero, in the world."""
    data = mujoco.MjData(model)
    data.qpos[:] = 0.0
    mujoco.mj_kinematics(model, data)
    return data.xanchor[joints].copy(), data.xaxis[joints].copy()


def _fit(
    file: Path, ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return position (3,) and rotation (3, 3) that carry places and axes here to those of the MJCF."""
    middles = [places.mean(axis=0) for places, _ in (ours, theirs)]
    here, there = (np.concatenate([p - m, AXIS_M * a]) for (p, a), m in zip((ours, theirs), middles, strict=True))
    rotation = Rotation.align_vectors(there, here)[0].as_matrix()
    pos = middles[1] - rotation @ middles[0]
    apart_m = np.linalg.norm(ours[0] @ rotation.T + pos - theirs[0], axis=1).max()
    apart_rad = np.linalg.norm(ours[1] @ rotation.T - theirs[1], axis=1).max()
    if apart_m > MOST_APART_M or apart_rad > MOST_APART_RAD:
        raise ValueError(
            f"{file}: its joints lie up to {1e3 * apart_m:.1f} mm and {np.rad2deg(apart_rad):.0f} degrees from those "
            "of the hand of the run: it is another hand"
        )
    return pos, rotation


def _stiffness(file: Path, model: mujoco.MjModel, order: tuple[int, ...]) -> np.ndarray:
    gains = np.zeros(model.njnt)
    for i in range(model.nu):
        gains[order[model.actuator_trnid[i, 0]]] = model.actuator_gainprm[i, 0]
    if not (gains > 0).all():
        raise ValueError(f"{file}: expected a position servo for every joint, as in the hands of DexGraspBench")
    return gains

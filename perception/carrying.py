"""What is held moves with the palm: where points go between frames, from palm readings alone.

An arm knows its palm. In lift and hold the object goes along with it, so that what is known of the object is moved by
each reading as the palm moved since the one before; frames correct it. The motions of an episode multiply to the one
from its first to its last reading: noise of the readings does not add up.
"""

import torch
from torch import Tensor

from perception.geometry import matrix_from_quat, quat_conjugate, quat_multiply, quat_rotate


class PalmMotion:
    """How each palm moved since the last reading, as a rigid motion in world coordinates."""

    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        self._pos_w = torch.zeros(num_envs, 3, dtype=torch.float64, device=device)
        self._quat_w = torch.zeros(num_envs, 4, dtype=torch.float64, device=device)
        self._quat_w[:, 0] = 1.0

    def read(self, palm_pos_w: Tensor, palm_quat_w: Tensor) -> tuple[Tensor, Tensor]:
        """Shift (env, 3) [m] and turn (env, 4) that took a point fixed to the palm, x -> turn x + shift, float32.

        `palm_pos_w` (env, 3) [m] and `palm_quat_w` (env, 4) are the new readings. Those of an episode's first call are
        compared with the last of another; nothing is held then.
        """
        turn = quat_multiply(palm_quat_w, quat_conjugate(self._quat_w))
        shift = palm_pos_w - quat_rotate(turn, self._pos_w)
        self._pos_w.copy_(palm_pos_w)
        self._quat_w.copy_(palm_quat_w)
        return shift.float(), turn.float()


def carried(points_w: Tensor, shift: Tensor, turn: Tensor) -> Tensor:
    """Points (env, point, 3) after the motion `shift` (env, 3) [m], `turn` (env, 4) of what carries them."""
    return torch.baddbmm(shift[:, None], points_w, matrix_from_quat(turn).transpose(1, 2))

"""Moves object points with the palm between frames, from palm readings alone.

In lift and hold the object moves with the palm, so that each reading moves its points by the motion of the palm since
the last one; frames correct them. The motions of an episode multiply to the one from its first to its last reading:
noise of the readings does not accumulate.
"""

import torch
from torch import Tensor

from dexgrasp.perception.transforms import matrix_from_quat, quat_conjugate, quat_multiply, quat_rotate


class PalmMotion:
    """Computes the motion of each palm since its last reading, as a rigid motion in world coordinates."""

    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        self._pos_w = torch.zeros(num_envs, 3, dtype=torch.float64, device=device)
        self._quat_w = torch.zeros(num_envs, 4, dtype=torch.float64, device=device)
        self._quat_w[:, 0] = 1.0

    def read(self, palm_pos_w: Tensor, palm_quat_w: Tensor) -> tuple[Tensor, Tensor]:
        """Return shift (env, 3) [m] and turn (env, 4) of a point fixed to the palm, x -> turn x + shift, float32.

        `palm_pos_w` (env, 3) [m] and `palm_quat_w` (env, 4) are the new readings. The first result of an episode means
        nothing: it starts from the last reading of another episode.
        """
        turn = quat_multiply(palm_quat_w, quat_conjugate(self._quat_w))
        shift = palm_pos_w - quat_rotate(turn, self._pos_w)
        self._pos_w.copy_(palm_pos_w)
        self._quat_w.copy_(palm_quat_w)
        return shift.float(), turn.float()


def move_rigidly(points_w: Tensor, shift: Tensor, turn: Tensor) -> Tensor:
    """Return points (env, point, 3) moved by `shift` (env, 3) [m] and `turn` (env, 4): x -> turn x + shift."""
    return torch.baddbmm(shift[:, None], points_w, matrix_from_quat(turn).transpose(1, 2))

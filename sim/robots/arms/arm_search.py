"""Search of joint positions for a pose of an arm from many starts at once (damped least squares)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dexgrasp.perception.kinematics import Kinematics
from dexgrasp.perception.transforms import compose, quat_conjugate, quat_multiply, quat_rotate, rotvec_from_quat

ITERATIONS, DAMPING = 80, 0.03
RADIAN_M = 0.3
"""Length that counts as much as a radian."""
LARGEST_STEP = 0.15
"""Part of the error that one iteration takes up [m]."""
CENTERING = 0.03
"""Share of the way to the middle of the joint ranges per iteration, where the pose leaves the arm free."""


@dataclass(frozen=True)
class Ends:
    """Joint positions at the end of a search; first dimension: start."""

    q: Tensor
    """(start, joint) [rad]."""
    distance_m: Tensor
    """(start,) from the wanted position."""
    angle_rad: Tensor
    """(start,) to the wanted orientation."""
    dexterity: Tensor
    """(start,) smallest singular value of the Jacobian, with lengths in units of RADIAN_M; 0: singular."""
    body_pos_w: Tensor
    """(start, body, 3) [m]."""
    body_quat_w: Tensor
    """(start, body, 4)."""


@dataclass(frozen=True)
class ArmSearch:
    """Kinematics of an arm with a target frame in its last body, float64."""

    kinematics: Kinematics
    base: tuple[Tensor, Tensor]
    """Base in the world, (3,) [m] and (4,)."""
    target: tuple[Tensor, Tensor]
    """Target frame in the body that carries it, (3,) [m] and (4,)."""
    lower: Tensor
    """(joint,) [rad]."""
    upper: Tensor
    """(joint,) [rad]."""

    def __call__(self, starts: Tensor, pos_w: Tensor, quat_w: Tensor) -> Ends:
        """Return the ends of the descents from `starts` (start, joint) [rad] to poses (start, 3) [m], (start, 4)."""
        q, middle = starts, (self.lower + self.upper) / 2
        for _ in range(ITERATIONS):
            distance, turn, jacobian, *_ = self._errors(q, pos_w, quat_w)
            error = torch.cat([distance, RADIAN_M * turn], dim=-1)
            error = error * (LARGEST_STEP / error.norm(dim=-1, keepdim=True).clamp(min=LARGEST_STEP))
            free = CENTERING * (middle - q)
            left = error - (jacobian @ free[..., None])[..., 0]
            gram = jacobian @ jacobian.mT + DAMPING**2 * torch.eye(6, dtype=q.dtype)
            step = free + (jacobian.mT @ torch.linalg.solve(gram, left[..., None]))[..., 0]
            q = (q + step).clamp(self.lower, self.upper)
        q = q - 2 * torch.pi * ((q - middle) / (2 * torch.pi)).round()  # whole turns towards the middle
        distance, turn, jacobian, pos, quat = self._errors(q, pos_w, quat_w)
        singular = torch.linalg.svdvals(jacobian / RADIAN_M)[..., -1]
        return Ends(
            q=q,
            distance_m=distance.norm(dim=-1),
            angle_rad=turn.norm(dim=-1),
            dexterity=singular,
            body_pos_w=pos,
            body_quat_w=quat,
        )

    def _errors(self, q: Tensor, pos_w: Tensor, quat_w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return position and rotation still to go, the Jacobian (start, 6, joint), and the poses of the bodies."""
        tree, (base_pos, base_quat) = self.kinematics, (value.expand(len(q), -1) for value in self.base)
        pos, quat = tree.forward(base_pos, base_quat, q)
        carrier = tree.keypoint_body[-1]
        at, turned = compose(pos[:, carrier], quat[:, carrier], *self.target)
        bodies = [tree.joint_of_body.index(joint) for joint in range(q.shape[1])]
        axes = quat_rotate(quat[:, bodies], tree.axis[bodies].expand(len(q), -1, -1))
        across = torch.linalg.cross(axes, at[:, None] - pos[:, bodies])
        jacobian = torch.cat([across, RADIAN_M * axes], dim=-1).mT
        turn = rotvec_from_quat(quat_multiply(quat_w, quat_conjugate(turned)))
        return pos_w - at, turn, jacobian, pos, quat

"""Reward terms: pure functions of named quantities, each (env,). The task multiplies them by the weights in RewardCfg.

Grasp-phase terms follow the method (method page, section 4); lift and hold terms are ours. Contact bodies and keypoints
carry the hand's own weights, which sum to their number.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sim.actions import Phases
from sim.engine import State
from sim.hands import HandSpec


@dataclass(frozen=True)
class RewardCfg:
    """Weight of each term, per control step; zero switches a term off."""

    reach: float = -2.0
    contact: float = 0.4
    force: float = 0.3
    opposition: float = 0.15
    table_contact: float = -0.3
    displacement: float = -1.0
    object_speed: float = -0.3
    object_spin: float = -0.02
    palm_speed: float = -0.02
    lift: float = 1.0
    success: float = 3.0
    action: float = -0.01
    floor: float = -2.0
    """No step earns less; the published method means the same, its release throws the clipped value away."""


def reach(distance_m: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean distance of the keypoints (env, keypoint) from the object, each capped at 0.15 m."""
    return (distance_m.clamp(max=0.15) * weights).sum(-1) / weights.sum()


def contact(touching: Tensor, weights: Tensor) -> Tensor:
    """Weighted share of the hand's bodies (env, body) that touch the object, in [0, 1]."""
    return (touching * weights).sum(-1) / weights.sum()


def force(force_n: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the contact forces (env, body), each capped at 10 N, in [0, 1]."""
    return (force_n.clamp(max=10.0) / 10.0 * weights).sum(-1) / weights.sum()


def opposition(touching: Tensor, thumb: Tensor, fingers: Tensor) -> Tensor:
    """1 where the thumb and a finger touch the object; `thumb`, `fingers`: masks (body,)."""
    return ((touching & thumb).any(-1) & (touching & fingers).any(-1)).to(torch.float32)


def table_contact(touching: Tensor) -> Tensor:
    """1 where any body of the hand (env, body) touches the table."""
    return touching.any(-1).to(torch.float32)


def displacement(offset_xy_m: Tensor) -> Tensor:
    """How far the object was moved across the table (env, 2), capped at 0.2 m."""
    return offset_xy_m.norm(dim=-1).clamp(max=0.2)


def object_speed(linvel_m_s: Tensor) -> Tensor:
    """Squared speed of the object relative to a third of a metre per second, capped at 1."""
    return (3.0 * linvel_m_s.norm(dim=-1)).square().clamp(max=1.0)


def object_spin(angvel_rad_s: Tensor) -> Tensor:
    """Squared angular speed of the object, capped at 10."""
    return angvel_rad_s.square().sum(-1).clamp(max=10.0)


def palm_speed(linvel_m_s: Tensor) -> Tensor:
    """Squared palm speed, ten times as much above 0.25 m/s."""
    square = linvel_m_s.square().sum(-1)
    return torch.where(square > 0.25**2, 10.0 * square, square)


def lift(rise_m: Tensor, commanded_m: Tensor) -> Tensor:
    """Share of the commanded lift that the object has followed, in [0, 1]."""
    return (rise_m / commanded_m.clamp(min=0.01)).clamp(0.0, 1.0)


def action(value: Tensor) -> Tensor:
    """Mean squared action."""
    return value.square().mean(-1)


class Rewards:
    """All terms of a step, weighted; built for one hand."""

    def __init__(self, cfg: RewardCfg, hand: HandSpec, lift_m: float, device: torch.device | str = "cpu") -> None:
        self._cfg, self._lift_m = cfg, lift_m
        self._keypoint_weights = torch.tensor(hand.keypoint_weights, device=device).float()
        self._contact_weights = torch.tensor(hand.contact_weights, device=device).float()
        self._thumb, self._fingers = (torch.tensor(mask, device=device) for mask in (hand.thumb_mask, hand.finger_mask))

    def __call__(
        self,
        state: State,
        phases: Phases,
        object_vectors_p: Tensor,
        palm_linvel_w: Tensor,
        object_offset_w: Tensor,
        success: Tensor,
        value: Tensor,
    ) -> tuple[Tensor, dict[str, float]]:
        """Reward (env,) of the step that `phases` names, and the mean of each weighted term.

        `object_vectors_p` (env, keypoint, 3): from the keypoints to the object. `object_offset_w` (env, 3): from its
        start. `success` (env,) bool: the episode ends with it. `value` (env, action).
        """
        grasping = phases.grasping.float()
        lifted_m = ((phases.step + 1 - phases.grasp_steps) / phases.lift_steps).clamp(0, 1) * self._lift_m
        terms = {
            "reach": grasping * reach(object_vectors_p.norm(dim=-1), self._keypoint_weights),
            "contact": contact(state.object_contact, self._contact_weights),
            "force": force(state.object_force_w.norm(dim=-1), self._contact_weights),
            "opposition": opposition(state.object_contact, self._thumb, self._fingers),
            "table_contact": grasping * table_contact(state.table_contact),
            "displacement": grasping * displacement(object_offset_w[:, :2]),
            "object_speed": grasping * object_speed(state.object_linvel_w),
            "object_spin": grasping * object_spin(state.object_angvel_w),
            "palm_speed": grasping * palm_speed(palm_linvel_w),
            "lift": (1 - grasping) * lift(object_offset_w[:, 2], lifted_m),
            "success": success,
            "action": action(value),
        }
        weighted = {name: getattr(self._cfg, name) * term.float() for name, term in terms.items()}
        means = torch.stack([term.mean() for term in weighted.values()]).tolist()
        total = torch.stack(list(weighted.values())).sum(dim=0).clamp(min=self._cfg.floor)
        return total, dict(zip(weighted, means, strict=True))

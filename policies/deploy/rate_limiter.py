"""Rate limiters: motion within position, speed and acceleration limits, tick by tick; numpy only.

    max_stoppable_step(D) = the greatest step from which braking still ends within the distance D

A step v that is followed by v - d, v - 2 d, ... covers n v - d n (n - 1) / 2 in n ticks. If the last step was at most
max_stoppable_step(D) + d, then a step exists that keeps all limits, and after it the condition holds again. Goals lie
within the bounds, so that braking for a goal respects the bound as well.
"""

from typing import Any

import numpy as np

from dexgrasp.utils.rotations import Array, quat_from_rotvec, quat_multiply, rotvec_from_quat


def max_stoppable_step(distance: Array, slowing: Array) -> Array:
    """Return the greatest step (n,) per tick from which a value stops within `distance`.

    The steps shrink by `slowing` per tick.
    """
    distance = np.maximum(distance, 0.0)
    ticks = np.maximum(np.ceil((np.sqrt(1.0 + 8.0 * distance / slowing) - 1.0) / 2.0), 1.0)
    return distance / ticks + slowing * (ticks - 1.0) / 2.0


class RateLimiter:
    """Limiter of values (n,) to bounds, speed and acceleration on their way to goals."""

    def __init__(self, lower: Any, upper: Any, max_step: Any, max_change: Any) -> None:
        """Per value: bounds, greatest step per tick, greatest change of the step from one tick to the next."""
        self.lower, self.upper = np.array(lower, dtype=np.float64), np.array(upper, dtype=np.float64)
        self.max_step = np.broadcast_to(np.array(max_step, dtype=np.float64), self.lower.shape)
        self.max_change = np.broadcast_to(np.array(max_change, dtype=np.float64), self.lower.shape)
        self.value = (self.lower + self.upper) / 2
        """(n,) present values."""
        self.step = np.zeros_like(self.lower)
        """(n,) last step."""

    def reset(self, value: Array) -> None:
        """Start at rest at `value`, or at the bound next to it."""
        self.value = np.clip(value, self.lower, self.upper)
        self.step = np.zeros_like(self.value)

    def step_towards(self, goal: Array) -> Array:
        """Move one tick towards finite goals (n,); return the new values (n,)."""
        gap = np.clip(goal, self.lower, self.upper) - self.value
        wanted = np.sign(gap) * np.minimum(np.abs(gap), max_stoppable_step(np.abs(gap), self.max_change))
        step = np.clip(wanted, self.step - self.max_change, self.step + self.max_change)
        step = np.clip(step, -self.max_step, self.max_step)
        value = np.clip(self.value + step, self.lower, self.upper)
        self.step, self.value = value - self.value, value
        return value


class RotationRateLimiter:
    """Limiter of an orientation to an angular speed and acceleration on its way to goals."""

    def __init__(self, max_step: float, max_change: float) -> None:
        """`max_step`: greatest angle per tick [rad]; `max_change`: of the rotation vector from one tick to the next."""
        self.max_step, self.max_change = max_step, max_change
        self.quat = np.array([1.0, 0.0, 0.0, 0.0])
        """(4,) present orientation, wxyz."""
        self.step = np.zeros(3)
        """(3,) rotation vector of the last tick, world frame [rad]."""

    def reset(self, quat: Array) -> None:
        """Start at rest at a finite quaternion of any length but zero."""
        self.quat, self.step = quat / np.linalg.norm(quat), np.zeros(3)

    def step_towards(self, quat: Array) -> Array:
        """Rotate one tick towards a finite quaternion of any length but zero; return the new one (4,)."""
        turn = rotvec_from_quat(quat_multiply(quat / np.linalg.norm(quat), self.quat * (1, -1, -1, -1)))
        angle = float(np.linalg.norm(turn))
        wanted = float(min(angle, max_stoppable_step(np.array(angle), np.array(self.max_change)), self.max_step))
        change = turn * (wanted / max(angle, 1e-12)) - self.step
        size = float(np.linalg.norm(change))
        self.step = self.step + change * min(1.0, self.max_change / max(size, 1e-12))
        moved = quat_multiply(quat_from_rotvec(self.step), self.quat)
        self.quat = moved / np.linalg.norm(moved)
        return self.quat

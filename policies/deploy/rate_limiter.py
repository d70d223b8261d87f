"""Rate limiters: motion within position, speed and acceleration limits, tick by tick; numpy only.

    max_stoppable_step(D) = the greatest step from which braking still ends within the distance D

A step v that is followed by v - d, v - 2 d, ... covers n v - d n (n - 1) / 2 in n ticks. If the last step was at most
max_stoppable_step(D) + d, then a step exists that keeps all limits, and after it the condition holds again.

A tick may be a `fraction` of a period: speed then changes by at most that fraction of its limit per period, and the
step is at most that fraction of the greatest one. A goal may be passed when ticks become shorter while braking for it;
a bound is not, because `max_step_at_bound` holds for ticks of any later length.
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


def max_step_at_bound(distance: Array, slowing: Array) -> Array:
    """Return the greatest step (n,) after which braking ends within `distance`, at any later ticks.

    A speed v needs v^2 / (2 a) to stop in ticks without length; with the step s = v f and `slowing` c = a f^2 that is
    s^2 / (2 c), so that s + s^2 / (2 c) must not exceed the distance.
    """
    return np.sqrt(slowing * (slowing + 2.0 * np.maximum(distance, 0.0))) - slowing


class RateLimiter:
    """Limiter of values (n,) to bounds, speed and acceleration on their way to goals."""

    def __init__(self, lower: Any, upper: Any, max_step: Any, max_change: Any) -> None:
        """Per value: bounds, greatest step per tick, greatest change of the step from one tick to the next."""
        self.lower, self.upper = np.array(lower, dtype=np.float64), np.array(upper, dtype=np.float64)
        self.max_step = np.broadcast_to(np.array(max_step, dtype=np.float64), self.lower.shape)
        self.max_change = np.broadcast_to(np.array(max_change, dtype=np.float64), self.lower.shape)
        self.value = (self.lower + self.upper) / 2
        """(n,) present values."""
        self.velocity = np.zeros_like(self.lower)
        """(n,) motion per period."""

    def reset(self, value: Array) -> None:
        """Start at rest at `value`; from outside the bounds the way back keeps all limits."""
        self.value = np.array(value, dtype=np.float64)
        self.velocity = np.zeros_like(self.value)

    def step_towards(self, goal: Array, fraction: float = 1.0) -> Array:
        """Move one tick of `fraction` periods towards finite goals (n,); return the new values (n,)."""
        change, lower, upper = self.max_change * fraction**2, self.lower, self.upper
        gap = np.clip(goal, lower, upper) - self.value
        step = np.sign(gap) * np.minimum(np.abs(gap), max_stoppable_step(np.abs(gap), change))
        step = np.clip(step, self.velocity * fraction - change, self.velocity * fraction + change)
        step = np.clip(step, -self.max_step * fraction, self.max_step * fraction)
        step = np.minimum(step, max_step_at_bound(upper - self.value, change))
        step = np.maximum(step, -max_step_at_bound(self.value - lower, change))
        self.value = np.clip(self.value + step, np.minimum(lower, self.value), np.maximum(upper, self.value))
        self.velocity = step / fraction
        return self.value.copy()


class RotationRateLimiter:
    """Limiter of an orientation to an angular speed and acceleration on its way to goals."""

    def __init__(self, max_step: float, max_change: float) -> None:
        """`max_step`: greatest angle per tick [rad]; `max_change`: of the rotation vector from one tick to the next."""
        self.max_step, self.max_change = max_step, max_change
        self.quat = np.array([1.0, 0.0, 0.0, 0.0])
        """(4,) present orientation, wxyz."""
        self.velocity = np.zeros(3)
        """(3,) rotation vector per period, world frame [rad]."""

    def reset(self, quat: Array) -> None:
        """Start at rest at a finite quaternion of any length but zero."""
        self.quat, self.velocity = quat / np.linalg.norm(quat), np.zeros(3)

    def step_towards(self, quat: Array, fraction: float = 1.0) -> Array:
        """Rotate one tick of `fraction` periods towards a quaternion other than zero; return the new one (4,)."""
        turn = rotvec_from_quat(quat_multiply(quat / np.linalg.norm(quat), self.quat * (1, -1, -1, -1)))
        angle, change = np.linalg.norm(turn), self.max_change * fraction**2
        step = _within(turn, np.zeros(3), float(max_stoppable_step(np.array(angle), np.array(change))))
        step = _within(step, self.velocity * fraction, change)
        step = _within(step, np.zeros(3), self.max_step * fraction)
        self.velocity = step / fraction
        moved = quat_multiply(quat_from_rotvec(step), self.quat)
        self.quat = moved / np.linalg.norm(moved)
        return self.quat.copy()


def _within(vector: Array, centre: Array, radius: float) -> Array:
    """Return the vector (3,) at most `radius` away from `centre` that is next to `vector`."""
    away = vector - centre
    return centre + away * min(1.0, radius / max(float(np.linalg.norm(away)), 1e-12))

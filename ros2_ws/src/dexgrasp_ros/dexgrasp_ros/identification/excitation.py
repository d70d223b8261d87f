"""Excitation targets of one joint for system identification: steps, a slow triangle, a chirp.

    hold, small and medium steps, full range and back, slow triangle, chirp, hold

Small steps identify gain and friction; the full range effort limit and damping; the triangle friction; the chirp gain,
damping and delay.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from dexgrasp.utils.bounds import Bounds, bounded

Array = NDArray[np.float64]


@dataclass(frozen=True)
@bounded
class ExcitationCfg:
    """Excitation of a joint."""

    rate_hz: Annotated[float, Bounds(50, 1000)] = 100.0
    """Rate of the targets [Hz]."""
    margin_rad: Annotated[float, Bounds(0, 1)] = 0.05
    """Distance from the ends of the joint range [rad]."""
    reach_rad: Annotated[float, Bounds(0.001, 6.3)] = 0.5
    """Largest distance from the rest pose [rad]."""
    small_rad: Annotated[float, Bounds(0.001, 6.3)] = 0.08
    """Size of small steps [rad]."""
    step_s: Annotated[float, Bounds(0.01, 60)] = 0.4
    """Hold time of a step [s]."""
    jump_rad: Annotated[float, Bounds(0.001, 6.3)] = 0.7
    """Largest step of a target; steps that saturate the servo identify its effort limit [rad]."""
    triangle_rad_s: Annotated[float, Bounds(0.001, 20)] = 0.4
    """Speed of the slow triangle [rad/s]."""
    chirp_rad: Annotated[float, Bounds(0, 3.15)] = 0.1
    """Amplitude of the chirp [rad]."""
    chirp_hz: Annotated[tuple[float, float], Bounds(0.01, 500)] = (0.5, 6.0)
    """First and last frequency of the chirp [Hz]."""
    chirp_s: Annotated[float, Bounds(0.01, 600)] = 2.0
    """Duration of the chirp [s]."""


def excite(rest_rad: float, lower_rad: float, upper_rad: float, cfg: ExcitationCfg) -> Array:
    """Return targets (tick,) [rad] of one joint at `rate_hz`, from rest to rest within its range."""
    low = max(lower_rad + cfg.margin_rad, rest_rad - cfg.reach_rad)
    high = min(upper_rad - cfg.margin_rad, rest_rad + cfg.reach_rad)
    if not low < rest_rad < high:
        raise ValueError(f"the rest pose {rest_rad:.3f} rad is not within {low:.3f} and {high:.3f} rad")
    ticks = round(cfg.step_s * cfg.rate_hz)
    small = [rest_rad + cfg.small_rad, rest_rad, rest_rad - cfg.small_rad, rest_rad]
    medium = [rest_rad + (high - rest_rad) / 2, rest_rad + (low - rest_rad) / 2]
    near, far = (low, min(low + cfg.jump_rad, high)), (max(high - cfg.jump_rad, low), high)
    steps = np.repeat([rest_rad, rest_rad, *small, *medium, *near, *near, *far, *far, rest_rad], ticks)
    amplitude = min(cfg.chirp_rad, high - rest_rad, rest_rad - low)
    slow, fast = rest_rad + _triangle(amplitude, cfg), rest_rad + amplitude * _chirp(cfg)
    goal = np.concatenate([steps, slow, np.full(ticks, rest_rad), fast, np.full(2 * ticks, rest_rad)])
    return _limited(np.clip(goal, low, high), cfg.jump_rad)


def _triangle(amplitude: float, cfg: ExcitationCfg) -> Array:
    corners = np.cumsum([0.0, 1.0, 2.0, 2.0, 1.0]) * amplitude / cfg.triangle_rad_s
    time_s = np.arange(0.0, corners[-1], 1.0 / cfg.rate_hz)
    return np.interp(time_s, corners, amplitude * np.array([0.0, 1.0, -1.0, 1.0, 0.0]))


def _chirp(cfg: ExcitationCfg) -> Array:
    """Return a sine whose frequency rises linearly (tick,)."""
    time_s = np.arange(0.0, cfg.chirp_s, 1.0 / cfg.rate_hz)
    first, last = cfg.chirp_hz
    return np.sin(2 * np.pi * (first * time_s + (last - first) / (2 * cfg.chirp_s) * time_s**2))


def _limited(goal: Array, step: float) -> Array:
    """Return the targets with each change limited to `step`."""
    target = goal.copy()
    for i in range(1, len(goal)):
        target[i] = target[i - 1] + np.clip(goal[i] - target[i - 1], -step, step)
    return target

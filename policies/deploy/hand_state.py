"""Decide whether the hand is empty: one rule for simulator, evaluation and robot.

Uses comparison and bit operators only, so that it takes floats, numpy arrays and torch tensors alike.
"""

from typing import Any


def is_hand_empty(
    grip: Any,
    rise_m: Any,
    visible_fraction: Any,
    *,
    lift_ends: Any,
    holding: Any,
    lift_m: float,
    min_rise_fraction: float,
    min_visible_fraction: float,
    grip_threshold_unseen: float,
    grip_threshold_hold: float,
) -> Any:
    """Return whether the hand is empty, (env,) or one bool.

    Where the lift ends, the hand is empty if the object did not rise with it, or if the object is hardly visible and
    the grip is weak. An object that is seen to rise counts as held, however weak the grip. In the hold the grip alone
    decides. Elsewhere the result is False.

    Readings, (env,) or numbers: `grip`, confidence in 0..1 that thumb and a finger touch the object; `rise_m`, rise of
    the object's lowest points since the lift began [m]; `visible_fraction`, object pixels relative to the first view.
    Phases: `lift_ends`, the step after the lift; `holding`, later steps. `lift_m`: height of the lift [m].
    """
    left_behind = rise_m < min_rise_fraction * lift_m
    unseen = visible_fraction < min_visible_fraction
    missed = left_behind | (unseen & (grip < grip_threshold_unseen))
    return (lift_ends & missed) | (holding & (grip < grip_threshold_hold))

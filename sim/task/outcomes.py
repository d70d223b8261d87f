"""Success and failure kinds of a trial, decided from the true state of the object."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dexgrasp.perception.transforms import quat_rotate_inverse
from dexgrasp.sim.engine.base import State
from dexgrasp.sim.robots.hand import HandSpec

RISE_M = 0.1
"""Least rise of the object above its start for success."""
SLIP_M = 0.08
"""Largest motion of the object relative to the palm since the end of the lift for success."""
TOUCH_GRACE_S = 0.1
"""Longest time without contact for success: contacts flicker for a step."""
WORKSPACE_M = 0.35
"""An object further than this from the origin along x or y, or below the table, ends the episode."""
BELOW_TABLE_M = -0.05
"""Height of an object's centre below which it has left the workspace."""
LEFT_TABLE_M = 0.02
"""Rise during the lift below which the object was missed or pushed away rather than dropped."""
PUSHED_M = 0.08
"""Motion over the table, without the shifts of a disturbance, beyond which a missed object was pushed away."""
FAILURES = ("missed", "dropped_in_lift", "dropped_in_hold", "pushed_away", "unstable")


SUCCESS = "success"
"""Verdict of a trial without failure."""


def failure_in_words(failure: str) -> str:
    """Return one of FAILURES as people read it."""
    return failure.replace("_", " ")


@dataclass(frozen=True)
class Outcome:
    """Result of one trial. Lengths in metres."""

    trial: int
    object: str
    disturbance: str
    success: bool
    failure: str
    """Empty, or one of FAILURES."""
    lift_m: float
    """Rise of the object at the end of the trial."""
    slip_m: float
    """Furthest motion relative to the palm during the hold."""
    penetration_m: float
    """Deepest penetration of hand and object during the trial."""
    attempts: int = 1
    """Number of grasps."""
    opposed_share: float = math.nan
    """Share of the steps of the hold in which thumb and another finger touched the object; NaN without a hold."""
    contact: str = ""
    """How the object stood among others: free, touching or stacked; empty where it stood alone."""
    neighbours: int = 0
    """Number of the other objects on the table."""
    neighbours_moved: int = 0
    """Number of those that moved further than 5 cm from their start at any time of the trial."""
    neighbours_toppled: int = 0
    """Number of those that ended tilted by more than 45 degrees from their start."""
    neighbours_fallen: int = 0
    """Number of those that left the workspace, as if they fell off the table."""
    removed: int = -1
    """Number of objects that were taken off a table that is cleared; -1: one wanted object was to be taken."""

    @property
    def verdict(self) -> str:
        """Return the outcome in words: success, or the failure."""
        return failure_in_words(self.failure) if self.failure else SUCCESS


def opposed_contact(contact: Tensor, thumb: Tensor, fingers: Tensor) -> Tensor:
    """Return whether thumb and another finger touch the object (env,).

    `contact` (env, body) bool; `thumb`, `fingers`: masks (body,) of the bodies of either.
    """
    return (contact & thumb).any(dim=1) & (contact & fingers).any(dim=1)


class OutcomeTracker:
    """Decides the outcomes of a batch of episodes from the true states of the objects."""

    def __init__(self, num_envs: int, step_s: float, hand: HandSpec, device: torch.device | str = "cpu") -> None:
        def zeros(*size: int) -> Tensor:
            return torch.zeros(num_envs, *size, dtype=torch.float64, device=device)

        self._grace = max(1, round(TOUCH_GRACE_S / step_s))
        self._thumb, self._fingers = (torch.tensor(mask, device=device) for mask in (hand.thumb_mask, hand.finger_mask))
        self.start_pos_w = zeros(3)
        self._anchor_p = zeros(3)
        self.held = zeros().bool()
        """(env,) whether the object has been held since the lift ended."""
        self.rise_m, self._best_rise_m, self._lift_end_rise_m = zeros(), zeros(), zeros()
        self.slip_m, self.penetration_m, self._untouched = zeros(), zeros(), zeros()
        self._pushed_m = zeros()
        self._hold_steps, self._opposed_steps = zeros(), zeros()
        self.attempts = torch.ones_like(self._pushed_m, dtype=torch.int64)
        """(env,) number of grasps."""
        self.unstable, self._lost = zeros().bool(), zeros().bool()

    def reset(self, rows: Tensor, state: State) -> None:
        """Reset the episodes of `rows`; heights count from the present positions of the objects."""
        self.start_pos_w[rows] = state.object_pos_w[rows].double()
        self.held[rows] = self.unstable[rows] = self._lost[rows] = False
        for tracked in (self.rise_m, self._best_rise_m, self._lift_end_rise_m, self.slip_m, self.penetration_m):
            tracked[rows] = 0.0
        self._pushed_m[rows] = 0.0
        self._untouched[rows] = 0.0
        self._hold_steps[rows] = self._opposed_steps[rows] = 0.0
        self.attempts[rows] = 1

    def restart_attempt(self, rows: Tensor) -> None:
        """Discard the grasps of `rows`: the next ones decide. Heights still count from the start of the trial."""
        self.held[rows] = False
        self._best_rise_m[rows] = self._lift_end_rise_m[rows] = self.slip_m[rows] = 0.0
        self._hold_steps[rows] = self._opposed_steps[rows] = 0.0
        self.attempts[rows] += 1

    def update(
        self,
        state: State,
        *,
        lifting: Tensor,
        lift_ends: Tensor,
        holding: Tensor,
        unstable: Tensor,
        strayed: Tensor,
        shift_xy_w: Tensor,
    ) -> None:
        """Update after a control step.

        Masks (env,): in the lift, at its last step, in the hold, physics not finite, object out of the workspace.
        `shift_xy_w` (env, 2): by how much a disturbance has moved the object [m].
        """
        offset = state.object_pos_w - self.start_pos_w
        in_palm = quat_rotate_inverse(state.palm_quat_w, state.object_pos_w - state.palm_pos_w)
        self.rise_m = offset[:, 2].clone()
        self._best_rise_m = torch.where(lifting, torch.maximum(self._best_rise_m, self.rise_m), self._best_rise_m)
        self._pushed_m = torch.where(lifting | holding, self._pushed_m, (offset[:, :2] - shift_xy_w).norm(dim=1))
        self._lift_end_rise_m = torch.where(lift_ends, self.rise_m, self._lift_end_rise_m)
        self._anchor_p = torch.where(lift_ends[:, None], in_palm, self._anchor_p)
        slip = (in_palm - self._anchor_p).norm(dim=1)
        self.slip_m = torch.where(holding, torch.maximum(self.slip_m, slip), self.slip_m)
        self.penetration_m = torch.maximum(self.penetration_m, state.penetration_m)
        opposed = holding & opposed_contact(state.object_contact, self._thumb, self._fingers)
        self._hold_steps = self._hold_steps + holding
        self._opposed_steps = self._opposed_steps + opposed
        self._untouched = torch.where(state.object_contact.any(dim=1), 0.0, self._untouched + 1)
        good = (self.rise_m >= RISE_M) & (self.slip_m < SLIP_M) & (self._untouched < self._grace)
        self.unstable |= unstable
        self._lost |= strayed
        self.held = (self.held | lift_ends) & (good | ~holding) & ~self.unstable & ~self._lost

    def failure(self, row: int) -> str:
        """Return the failure of the finished episode of `row`; empty for a success."""
        return self.outcomes([row], [0], [""], "")[0].failure

    def outcomes(
        self, rows: Sequence[int], trials: Sequence[int], names: Sequence[str], disturbance: str
    ) -> list[Outcome]:
        """Return the finished episodes of `rows` as records."""
        if not rows:
            return []
        columns = (
            self.held,
            self.unstable,
            self._best_rise_m,
            self._lift_end_rise_m,
            self._pushed_m,
            self.rise_m,
            self.slip_m,
            self.penetration_m,
            self._opposed_steps / self._hold_steps,
            self.attempts,
        )
        table = torch.stack([column[list(rows)].double() for column in columns], dim=1).tolist()
        records = []
        for trial, name, values in zip(trials, names, table, strict=True):
            held, unstable, best_rise_m, lift_end_rise_m, pushed_m, *measured, attempts = values
            rise_m, slip_m, penetration_m, opposed_share = measured
            failure = _failure(
                held=bool(held),
                unstable=bool(unstable),
                best_rise_m=best_rise_m,
                lift_end_rise_m=lift_end_rise_m,
                pushed_m=pushed_m,
            )
            record = Outcome(
                trial=trial,
                object=name,
                disturbance=disturbance,
                success=not failure,
                failure=failure,
                lift_m=rise_m,
                slip_m=slip_m,
                penetration_m=penetration_m,
                attempts=int(attempts),
                opposed_share=math.nan if math.isnan(opposed_share) else opposed_share,  # one NaN: records stay equal
            )
            records.append(record)
        return records


def _failure(*, held: bool, unstable: bool, best_rise_m: float, lift_end_rise_m: float, pushed_m: float) -> str:
    """Return how a finished episode failed; empty for a success."""
    if held:
        return ""
    if unstable:
        return "unstable"
    if best_rise_m < LEFT_TABLE_M:
        return "pushed_away" if pushed_m > PUSHED_M else "missed"
    return "dropped_in_lift" if lift_end_rise_m < RISE_M else "dropped_in_hold"

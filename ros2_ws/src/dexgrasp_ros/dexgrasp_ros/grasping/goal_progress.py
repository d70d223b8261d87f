"""Course of a goal of an action of the grasp node, from the outputs of its ticks; without ROS."""

import numpy as np

from dexgrasp.utils.text import counted
from dexgrasp_ros.grasping.types import Output

OUTCOMES = ("SUCCEEDED", "REFUSED", "EMPTY", "FAULT", "STOPPED", "INTERRUPTED")
"""Names of the outcomes in the actions of dexgrasp_msgs, by number."""
SUCCEEDED, REFUSED, EMPTY, FAULT, STOPPED, INTERRUPTED = range(len(OUTCOMES))
STATES_OF = {
    "grasp": ("pregrasp", "grasp", "lift", "hold", "retreat"),
    "release": ("release",),
    "home": ("home",),
    "place": ("release",),
}
"""States that a goal of each action runs through."""
_INTERRUPTED = {
    "idle": "the grasp node was deactivated",
    **{state: f"another request began {state}" for state in ("pregrasp", "grasp", "lift", "hold", "release", "home")},
}
Outcome = tuple[int, str]
"""Outcome and message."""


class GoalProgress:
    """Counts the attempts of a goal that was accepted, and tells how it ends."""

    def __init__(self, action: str, hold_s: float = 0.0) -> None:
        """`action`: one of STATES_OF; `hold_s`: time that a grasp must hold the object [s]."""
        self.action, self.hold_s = action, hold_s
        self.attempts, self.grip = 0, np.nan
        self.cancelled = False
        self._state = ""
        self._held_since_s: float | None = None

    def update(self, output: Output, now_s: float) -> Outcome | None:
        """Return outcome and message of a goal that the output of a tick at a time [s] ends, else None."""
        before, self._state = self._state, output.state
        self.attempts += output.state == "pregrasp" and before != "pregrasp"
        if output.proposal is not None:
            self.grip = float(output.proposal.grip)
        if output.state == "fault":
            stopped = self.cancelled or output.fault == "stopped by request"
            return (STOPPED if stopped else FAULT), output.fault
        if self.action == "grasp":
            return self._grasp_outcome(output, before, now_s)
        if output.state in STATES_OF[self.action]:
            return None
        return (SUCCEEDED, "") if output.state == "idle" else (INTERRUPTED, _INTERRUPTED[output.state])

    def _grasp_outcome(self, output: Output, before: str, now_s: float) -> Outcome | None:
        if output.state == "hold":
            if before != "hold" or self._held_since_s is None:
                self._held_since_s = now_s
            if output.hand_is_empty:
                return EMPTY, f"the hand is empty after {counted(self.attempts, 'grasp')}"
            return (SUCCEEDED, "") if now_s - self._held_since_s >= self.hold_s else None
        if output.state in STATES_OF["grasp"]:
            return None
        if (before, output.state) == ("retreat", "idle"):
            return EMPTY, "regrasp given up: perception published no plan in time"
        return INTERRUPTED, _INTERRUPTED[output.state]

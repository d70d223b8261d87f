"""Repeats the goals of actions in a log of the grasp node: each result must follow from the ticks."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dexgrasp_ros.grasping.goal_progress import OUTCOMES, GoalProgress, Outcome
from dexgrasp_ros.grasping.types import Output


@dataclass(eq=False)
class _LoggedGoal:
    text: str
    progress: GoalProgress
    begun: bool = False
    outcome: Outcome | None = None


class LoggedGoals:
    """Goals of a log that have not ended, by their ids."""

    def __init__(self) -> None:
        self._open: dict[str, _LoggedGoal] = {}
        self._output, self._now_s = Output("idle", "", None), np.nan

    def ask(self, values: dict[str, Any]) -> None:
        """Take a goal that was asked."""
        action, goal = values["action"], values["goal"]
        text = " ".join([action, *(f"{key}={value}" for key, value in goal.items())])
        self._open[values["id"]] = _LoggedGoal(text, GoalProgress(action, goal.get("hold_s", 0.0)))

    def begin(self, number: str) -> None:
        """Take a goal that was accepted: the ticks after this are of it."""
        if number in self._open:
            self._open[number].begun = True

    def cancel(self, number: str) -> None:
        """Take a goal whose client has cancelled it."""
        if number in self._open:
            self._open[number].progress.cancelled = True

    def tick(self, output: Output, now_s: float | None = None) -> None:
        """Take the output of a tick; without a time [s] that of the last tick."""
        self._output, self._now_s = output, self._now_s if now_s is None else now_s
        for goal in self._open.values():
            if goal.begun and goal.outcome is None:
                goal.outcome = goal.progress.update(output, self._now_s)

    def end(self, number: str, state: str, fault: str) -> tuple[dict[str, Any] | None, str]:
        """Return the result of a goal as it is logged, and the goal as text.

        The result is None for a goal that was refused, or asked before the log. `state` and `fault`: of the state
        machine, which may have changed since the last tick.
        """
        goal = self._open.pop(number, None)
        if goal is None:
            return None, "asked before the log"
        if not goal.begun:
            return None, goal.text
        if goal.outcome is None:
            goal.outcome = goal.progress.update(replace(self._output, state=state, fault=fault), self._now_s)
        code, message = goal.outcome or (None, "")
        return {"outcome": code, "message": message, "attempts": goal.progress.attempts}, goal.text

    @property
    def texts(self) -> list[str]:
        """Return the goals that have not ended, as texts."""
        return [f"goal {number[:8]}: {goal.text}: not ended" for number, goal in self._open.items()]


def ended_text(number: str, text: str, values: dict[str, Any]) -> str:
    """Return a goal and its logged result as text."""
    return f"goal {number[:8]}: {text}: {OUTCOMES[values['outcome']]} {values['message']}".rstrip()

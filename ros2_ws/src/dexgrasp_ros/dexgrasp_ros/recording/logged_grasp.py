"""Grasp state machine that logs each call that changes its state."""

from contextlib import contextmanager
from typing import Any

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.grasping.state_machine import GraspStateMachine
from dexgrasp_ros.grasping.types import Inputs, Output
from dexgrasp_ros.recording.decision_log import Write, inputs_row, output_row


class LoggedGraspStateMachine(GraspStateMachine):
    """Logs calls from outside, with their inputs and results; not those that it makes itself."""

    def __init__(self, *args: Any, write: Write, settings: Any = None, **options: Any) -> None:
        """`write`: of a DecisionLog; `settings`: parameters of the node, logged at each activation.

        Other arguments: of GraspStateMachine.
        """
        super().__init__(*args, **options)
        self._write, self._settings, self._depth = write, settings, 0

    def activate(self, inputs: Inputs) -> str:
        """Activate; the event has all that the calls after it depend on, home as well."""
        with self._call() as log:
            home, given, scale = self._home, self._home_given, self._speed_goal
            reason = super().activate(inputs)
            log(
                "activate",
                inputs=inputs_row(inputs),
                reason=reason,
                home=self._home if home is None else home,
                home_given=given,
                speed_scale=scale,
                settings=self._settings,
            )
        return reason

    def deactivate(self) -> None:
        """Deactivate."""
        with self._call() as log:
            super().deactivate()
            log("deactivate")

    def tick(self, inputs: Inputs) -> Output:
        """Run one control period; ticks of an inactive machine are not logged."""
        with self._call() as log:
            active = self.active
            output = super().tick(inputs)
            if active:
                log("tick", inputs=inputs_row(inputs), output=output_row(output))
        return output

    def request(self, name: str, inputs: Inputs) -> str:
        """Handle a request."""
        with self._call() as log:
            reason = super().request(name, inputs)
            log("request", name=name, inputs=inputs_row(inputs), reason=reason)
        return reason

    def place(self, T_world_palm: Pose, inputs: Inputs) -> str:
        """Begin to place the object."""
        with self._call() as log:
            reason = super().place(T_world_palm, inputs)
            log("place", palm=T_world_palm, inputs=inputs_row(inputs), reason=reason)
        return reason

    def limit_attempts(self, attempts: int) -> None:
        """Limit the attempts."""
        with self._call() as log:
            super().limit_attempts(attempts)
            log("limit_attempts", attempts=attempts)

    def slow_down(self, speed_scale: float) -> None:
        """Change the speeds."""
        with self._call() as log:
            super().slow_down(speed_scale)
            log("slow_down", speed_scale=speed_scale)

    def fail(self, reason: str) -> None:
        """Enter fault."""
        with self._call() as log:
            super().fail(reason)
            log("fail", reason=reason)

    def pause(self, reason: str) -> None:
        """Pause or enter fault."""
        with self._call() as log:
            super().pause(reason)
            log("pause", reason=reason)

    @contextmanager
    def _call(self) -> Any:
        """Yield the function that logs, or one that does nothing inside of another call."""
        self._depth += 1
        try:
            yield self._write if self._depth == 1 else _nothing
        finally:
            self._depth -= 1


def _nothing(*_: Any, **__: Any) -> None:
    """Log nothing."""

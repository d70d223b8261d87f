"""Where the time of training goes, CPU or GPU: printed at its end, and in TensorBoard as profile/*."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dexgrasp.utils.timers import Stopwatch, device_clock
from policies.milestones import Milestone

if TYPE_CHECKING:
    from policies.ppo import GraspPPO

PARTS = ("physics", "task", "policy", "update", "aside")
"""Physics steps; observations, rewards, view and resets; the networks in the roll-out; learning; the rest."""


class Profile(Milestone):
    """Measures the parts of training as shares of the process's CPU time, or of time on a GPU. The last callback."""

    model: "GraspPPO"  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, aside: Sequence[Milestone]) -> None:
        """`aside`: what these do between iterations is not learning."""
        super().__init__()
        self._watch, self._aside = Stopwatch(), aside

    def _on_training_start(self) -> None:
        env = self.model.env
        watch = self._watch = Stopwatch(device_clock(env.task.device))
        watch.wrap(env.task.engine, "step", "physics")
        for method in ("step", "reset"):
            watch.wrap(env.streams, method, "task")
        for milestone in self._aside:
            watch.wrap(milestone, "between", "aside")
        self._part = watch.timing("aside")
        self._part.__enter__()

    def _on_rollout_start(self) -> None:
        self._turn("policy")
        for part, share in self.shares().items():
            self.logger.record(f"profile/{part}", share)

    def _on_rollout_end(self) -> None:
        self._turn("update")

    def _on_training_end(self) -> None:
        self._part.__exit__(None, None, None)

    def _turn(self, part: str) -> None:
        self._part.__exit__(None, None, None)
        self._part = self._watch.timing(part)
        self._part.__enter__()

    def shares(self) -> dict[str, float]:
        """Share of each part so far."""
        total = sum(self._watch.seconds.values())
        return {part: self._watch.seconds.get(part, 0.0) / total for part in PARTS} if total > 0 else {}

    def __str__(self) -> str:
        return ", ".join(f"{part} {100 * share:.0f} %" for part, share in self.shares().items())

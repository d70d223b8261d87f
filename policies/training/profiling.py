"""Profile of training: shares of CPU or GPU time, printed at the end and logged as profile/*."""

from collections.abc import Sequence

from dexgrasp.policies.algorithms.learner import IterationCallback, Learner
from dexgrasp.utils.timers import Stopwatch, device_clock

PARTS = ("physics", "task", "policy", "update", "aside")
"""Physics steps; observations, rewards, camera and resets; networks in the rollout; updates; everything else."""


class ProfilerCallback(IterationCallback):
    """Measures the parts of training as shares of the process's CPU time, or of time on a GPU. The last callback."""

    def __init__(self, aside: Sequence[IterationCallback]) -> None:
        """`aside`: callbacks whose work after an iteration counts as `aside`, not as update."""
        self._watch, self._aside = Stopwatch(), aside

    def on_training_start(self, learner: Learner) -> None:
        """Start the clock."""
        env = learner.env
        watch = self._watch = Stopwatch(device_clock(env.task.device))
        watch.wrap(env.task.engine, "step", "physics")
        for method in ("step", "reset"):
            watch.wrap(env.streams, method, "task")
        for callback in self._aside:
            watch.wrap(callback, "on_iteration_end", "aside")
        self._part = watch.timing("aside")
        self._part.__enter__()

    def on_rollout_start(self, learner: Learner) -> None:
        """Log the shares so far; what follows is the rollout's."""
        self._turn("policy")
        for part, share in self.shares().items():
            learner.logger.record(f"profile/{part}", share)

    def on_rollout_end(self, learner: Learner) -> None:
        """Count what follows as update."""
        self._turn("update")

    def on_training_end(self, learner: Learner) -> None:
        """Stop the clock."""
        self._part.__exit__(None, None, None)

    def _turn(self, part: str) -> None:
        self._part.__exit__(None, None, None)
        self._part = self._watch.timing(part)
        self._part.__enter__()

    def shares(self) -> dict[str, float]:
        """Return the share of each part so far."""
        total = sum(self._watch.seconds.values())
        return {part: self._watch.seconds.get(part, 0.0) / total for part in PARTS} if total > 0 else {}

    def __str__(self) -> str:
        return ", ".join(f"{part} {100 * share:.0f} %" for part, share in self.shares().items())

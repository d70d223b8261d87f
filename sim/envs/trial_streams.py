"""Task construction from options, and one seeded sequence of trials per environment.

Environment i runs the trials 0, 1, 2, ... of seed i one after another, independent of its neighbours: a row of a batch
repeats a single environment of that seed.
"""

import numbers
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dexgrasp.sim.engine.config import EngineName, WarpCfg
from dexgrasp.sim.objects import ObjectLibrary, open_library
from dexgrasp.sim.randomization.episode_draws import RandomizationCfg
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import GraspTask, StepResult, TaskCfg, task_class


def make_task(
    num_envs: int = 1,
    objects: str | ObjectLibrary = "shipped",
    hand: str | HandSpec = "allegro",
    mount: str = "floating",
    disturbance: str = "none",
    task: TaskCfg | None = None,
    physics: PhysicsCfg | None = None,
    randomization: RandomizationCfg | None = None,
    num_threads: int = 0,
    seed: int = 0,
    engine: EngineName = "cpu",
    warp: WarpCfg | None = None,
    in_order: bool = False,
    auto_reset: bool = False,
) -> GraspTask:
    """Return a task. `randomization` replaces that of `task`; None takes the defaults of the dataclass.

    `num_threads` 0 takes all cores, but no more than there are environments; results do not depend on it. `engine`:
    cpu, or warp for a GPU, with the buffer sizes `warp`. `in_order`: trial i uses object i modulo the library's size,
    otherwise objects are drawn evenly. `auto_reset`: the task starts the next trial where an episode ended.
    """
    if isinstance(num_envs, bool) or not isinstance(num_envs, numbers.Integral) or num_envs < 1:
        raise ValueError(f"num_envs must be an integer of at least 1, got {num_envs!r}")
    for name, value, kind in (
        ("task", task, TaskCfg),
        ("physics", physics, PhysicsCfg),
        ("randomization", randomization, RandomizationCfg),
    ):
        if value is not None and not isinstance(value, kind):
            raise TypeError(
                f"{name} must be a {kind.__name__}, got {value!r}; dexgrasp.make and dexgrasp.make_gym take the names "
                f"of presets"
            )
    cfg = task or TaskCfg()
    return task_class(cfg)(
        cfg if randomization is None else replace(cfg, randomization=randomization),
        HandSpec.load(hand) if isinstance(hand, str) else hand,
        open_library(objects) if isinstance(objects, str) else objects,
        physics or PhysicsCfg(),
        num_envs=num_envs,
        num_threads=num_threads or min(num_envs, os.cpu_count() or 1),
        seed=seed,
        mount=mount,
        disturbance=disturbance,
        auto_reset=auto_reset,
        in_order=in_order,
        engine=engine,
        warp=warp,
    )


class TrialStreams:
    """A task in which each environment continues with the next trial of its own seed when an episode ends."""

    def __init__(self, task: GraspTask, observe: Callable[[GraspTask], dict[str, Tensor]] | None = None) -> None:
        """`observe` returns further observations, which must not share memory with the task."""
        if task.auto_reset:
            raise ValueError("the task resets finished episodes itself; make it with auto_reset=False")
        self.task, self._observe = task, observe
        self.next_trial = torch.zeros(task.num_envs, dtype=torch.int64)
        """(env,) number of the trial that the next reset starts."""
        self.grip: Tensor | None = None
        """(env,) grip that the policy feels, 0 to 1, for the next step: see `GraspTask.step`; None: not known."""
        self.seed(range(task.seed, task.seed + task.num_envs))

    def seed(self, seeds: Sequence[int | None]) -> None:
        """Set one seed per environment, from its next reset on; None keeps that environment's sequence."""
        if len(seeds) != self.task.num_envs:
            raise ValueError(f"one seed per environment is needed ({self.task.num_envs}), got {len(seeds)}")
        for row, seed in enumerate(seeds):
            if seed is not None:
                self.task.seeds[row], self.next_trial[row] = seed, 0

    def continue_at(self, trials: Sequence[int] | None) -> None:
        """Set the number of each environment's next trial; None changes nothing."""
        if trials is not None:
            self.next_trial[:] = torch.tensor(trials)

    def reset(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Start the next trial in `rows`; return the observations of all environments.

        `rows`: sorted, int64; None: all.
        """
        rows = torch.arange(self.task.num_envs) if rows is None else rows
        rows = rows.cpu()
        obs = self.task.reset_rows(rows, self.next_trial[rows].tolist())
        self.next_trial[rows] += 1
        return self._extended(obs)

    def step(self, action: Tensor, grip: Tensor | None = None, reset: bool = True) -> StepResult:
        """Step the task and reset finished episodes.

        `grip` replaces the reported grip confidence. `reset` False: finished episodes are not reset.

        Where episodes ended, `obs` starts the next ones and info["final_obs"] ends the finished ones.
        """
        step = self.task.step(action, self.grip if grip is None else grip)
        self.grip = None
        step = replace(step, obs=self._extended(step.obs))
        ended = (step.terminated | step.truncated).nonzero().squeeze(1)
        if len(ended) and not step.info["outcomes"]:  # on a GPU a step of the task does not ask for them
            step.info["outcomes"] = self.task.outcomes(step.terminated | step.truncated)
        if not len(ended) or not reset:
            return step
        return replace(step, obs=self.reset(ended), info=step.info | {"final_obs": step.obs})

    def _extended(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        return obs if self._observe is None else obs | self._observe(self.task)

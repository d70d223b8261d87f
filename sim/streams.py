"""What the faces of the task share: how it is made from options, and environments that each follow their own seed.

Environment i plays the trials 0, 1, 2, ... of seed i one after another, whatever ends beside it; so one row of a batch
repeats what a single environment of that seed does.
"""

import os
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sim.engine_cfg import EngineName, WarpCfg
from sim.hands import HandSpec
from sim.objects import ObjectLibrary, open_library
from sim.randomize import RandomizeCfg
from sim.scene import PhysicsCfg
from sim.step import Step
from sim.task import GraspTask, task_class
from sim.task_cfg import TaskCfg


def make_task(
    num_envs: int = 1,
    objects: str | ObjectLibrary = "shipped",
    hand: str | HandSpec = "allegro",
    mount: str = "floating",
    disturbance: str = "none",
    task: TaskCfg | None = None,
    physics: PhysicsCfg | None = None,
    randomize: RandomizeCfg | None = None,
    num_threads: int = 0,
    seed: int = 0,
    engine: EngineName = "cpu",
    warp: WarpCfg | None = None,
) -> GraspTask:
    """A task that leaves resets to its caller. `randomize` replaces that of `task`; None takes a class's defaults.

    `num_threads` 0 takes all cores, but no more than there are environments; results do not depend on it. `engine`:
    cpu, or warp for a GPU, whose buffers `warp` sizes.
    """
    for name, value, kind in (
        ("task", task, TaskCfg),
        ("physics", physics, PhysicsCfg),
        ("randomize", randomize, RandomizeCfg),
    ):
        if value is not None and not isinstance(value, kind):
            raise TypeError(
                f"{name} must be a {kind.__name__}, got {value!r}; for one of configs/{name} write "
                f'configs.load_option({kind.__name__}, "{name}", "{value}")'
            )
    cfg = task or TaskCfg()
    return task_class(cfg)(
        cfg if randomize is None else replace(cfg, randomize=randomize),
        HandSpec.load(hand) if isinstance(hand, str) else hand,
        open_library(objects) if isinstance(objects, str) else objects,
        physics or PhysicsCfg(),
        num_envs=num_envs,
        num_threads=num_threads or min(num_envs, os.cpu_count() or 1),
        seed=seed,
        mount=mount,
        disturbance=disturbance,
        auto_reset=False,
        engine=engine,
        warp=warp,
    )


class TrialStreams:
    """A task whose finished environments go on at once with the next trial of their own seed."""

    def __init__(self, task: GraspTask) -> None:
        if task.auto_reset:
            raise ValueError("the task resets finished episodes itself; make it with auto_reset=False")
        self.task = task
        self.next_trial = torch.zeros(task.num_envs, dtype=torch.int64)
        """(env,) number of the trial that the next reset starts."""
        self.seed(range(task.seed, task.seed + task.num_envs))

    def seed(self, seeds: Sequence[int | None]) -> None:
        """One seed per environment, from its next reset on; None leaves that environment's stream alone."""
        if len(seeds) != self.task.num_envs:
            raise ValueError(f"one seed per environment is needed ({self.task.num_envs}), got {len(seeds)}")
        for row, seed in enumerate(seeds):
            if seed is not None:
                self.task.seeds[row], self.next_trial[row] = seed, 0

    def reset(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Start the next trial in `rows` (sorted, int64; None: all). Observation groups of all environments."""
        rows = torch.arange(self.task.num_envs) if rows is None else rows
        rows = rows.cpu()
        obs = self.task.restart(rows, self.next_trial[rows].tolist())
        self.next_trial[rows] += 1
        return obs

    def step(self, action: Tensor, grip: Tensor | None = None) -> Step:
        """One step of the task. Where episodes ended, `obs` opens the next ones and info["final_obs"] closes these."""
        step = self.task.step(action, grip)
        ended = (step.terminated | step.truncated).nonzero().squeeze(1)
        if not len(ended):
            return step
        return replace(step, obs=self.reset(ended), info=step.info | {"final_obs": step.obs})

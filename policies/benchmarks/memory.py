"""Measure the memory of an environment, in a process of its own."""

import gc
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch

from dexgrasp.sim.objects import ObjectLibrary, open_library
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.sim.task.task_cfg import TaskCfg


def make_task(
    cfg: TaskCfg, hand: HandSpec, library: ObjectLibrary, physics: PhysicsCfg, *, envs: int, threads: int, seed: int
) -> GraspTask:
    """Return the task that `bench engine` measures: object i in trial i, no automatic resets."""
    return GraspTask(
        cfg, hand, library, physics, num_envs=envs, num_threads=threads, seed=seed, in_order=True, auto_reset=False
    )


def memory_mb_per_env(*, cfg: TaskCfg, hand: str, objects: str, physics: PhysicsCfg, envs: int, seed: int) -> float:
    """Return the growth of a new process by a task of `envs` environments, divided by `envs` [MB]."""
    job = partial(_task_mb, cfg=cfg, hand=hand, objects=objects, physics=physics, envs=envs, seed=seed)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        return child.submit(job).result() / envs


def _task_mb(cfg: TaskCfg, hand: str, objects: str, physics: PhysicsCfg, envs: int, seed: int) -> float:
    spec, library = HandSpec.load(hand), open_library(objects)
    before = _resident_mb()
    task = make_task(cfg, spec, library, physics, envs=envs, threads=1, seed=seed)
    task.reset(range(envs))
    task.step(torch.zeros(envs, task.num_actions))
    return _resident_mb() - before


def _resident_mb() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

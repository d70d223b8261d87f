"""What an environment costs in memory, measured in a process of its own."""

import gc
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sim.hands import HandSpec
from sim.objects import open_library
from sim.scene import PhysicsCfg
from sim.task import GraspTask

if TYPE_CHECKING:
    from policies.bench import BenchCfg


def memory_mb_per_env(cfg: "BenchCfg", physics: PhysicsCfg, envs: int) -> float:
    """Growth of a fresh process by a task of `envs` environments, over `envs` [MB]."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        return child.submit(_task_mb, cfg, physics, envs).result() / envs


def _task_mb(cfg: "BenchCfg", physics: PhysicsCfg, envs: int) -> float:
    hand, library = HandSpec.load(cfg.hand), open_library(cfg.objects)
    before = _resident_mb()
    task = GraspTask(cfg.task, hand, library, physics, envs, 1, cfg.seed, in_order=True, auto_reset=False)
    task.reset(range(envs))
    task.step(torch.zeros(envs, task.num_actions))
    return _resident_mb() - before


def _resident_mb() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

"""`dexgrasp bench engine`: speed of the task and of training on it, time of its parts, memory.

CPU seconds are summed over all threads, so that other processes change them little. "Bare" replays the recorded
controls of the same episodes through `mujoco.batch.Batch.step` alone; the final states agree bit for bit. Memory is
measured in a process of its own.
"""

import gc
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import numpy as np
import torch

from dexgrasp import assets, configs
from dexgrasp.policies.benchmarks import gpu
from dexgrasp.policies.run_directory import Run
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.policies.training.train import make_env, make_learner
from dexgrasp.sim.engine.config import EngineName, WarpCfg
from dexgrasp.sim.engine.cpu import CpuEngine
from dexgrasp.sim.envs.gymnasium_env import GraspEnv
from dexgrasp.sim.objects import ObjectLibrary, open_library
from dexgrasp.sim.randomization.episode_draws import RandomizationCfg
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg
from dexgrasp.utils.bounds import Bounds, Seed, bounded
from dexgrasp.utils.files import write_json
from dexgrasp.utils.text import print_table
from dexgrasp.utils.timers import Stopwatch

NOISE_SD = 0.3
"""Standard deviation of the random actions on top of the scripted grasp, as in training."""


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


@dataclass(frozen=True)
@bounded
class BenchEngineCfg:
    """Measure the speed and the memory of the simulated task."""

    objects: str = "shipped"
    """Object library, as in `evaluate`."""
    hand: str = "allegro"
    """Hand by name (a folder of assets/hands) or path."""
    num_envs: Annotated[tuple[int, ...], Bounds(1, 65_536, items=(1, 64))] = (1, 16, 64, 256)
    """Numbers of environments."""
    threads: Annotated[tuple[int, ...], Bounds(1, 1024, items=(1, 64))] = (1, 2)
    """Numbers of threads."""
    presets: tuple[str, ...] = ("reference", "balanced", "turbo")
    """Physics presets."""
    repeats: Annotated[int, Bounds(1, 1000)] = 2
    """Episodes per cell of the table; the fastest one counts."""
    engine: EngineName = "cpu"
    """cpu: MuJoCo's batch. warp: MuJoCo Warp, without the numbers for threads and memory."""
    warp: WarpCfg = field(default_factory=WarpCfg)
    """Buffer sizes of engine=warp."""
    seed: Seed = 0
    """Seed of objects, poses and actions."""
    out: str = ""
    """Run directory; empty: runs/bench-engine-<time>."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """The task; a training episode by default."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated: they may register rewards and tasks."""

    def __post_init__(self) -> None:
        if not self.presets:
            raise ValueError("presets must not be empty")


@dataclass
class Cell:
    """One row of the table. Rates are control steps per second."""

    preset: str
    envs: int
    threads: int
    per_wall_s: float
    per_cpu_s: float
    grasp_per_cpu_s: float
    """Rate from the end of the approach to the end of the episode, where the hand is in contact."""
    over_bare: float
    """CPU time of the whole task, resets included, divided by that of bare stepping."""
    shares: dict[str, float]
    """Share of CPU time by part."""
    mb_per_env: float


def bench_engine(cfg: BenchEngineCfg) -> None:
    """Measure every cell, print the table, write RUN/bench.json."""
    torch.set_num_threads(1)
    physics = {name: configs.load_option(PhysicsCfg, "physics", name) for name in cfg.presets}
    hand, library = HandSpec.load(cfg.hand), open_library(cfg.objects)
    if cfg.engine == "warp":
        gpu.bench_stepping(cfg, hand, library, list(physics.values()))
        return
    with Run.open(cfg.out, cfg) as run:
        cells, first = [], physics[cfg.presets[0]]
        usual = physics.get("balanced", first)
        fixed = {"cfg": cfg.task, "hand": cfg.hand, "objects": cfg.objects, "physics": first, "seed": cfg.seed}
        memory = {envs: memory_mb_per_env(**fixed, envs=envs) for envs in cfg.num_envs}
        for preset in cfg.presets:
            for threads in cfg.threads:
                for envs in cfg.num_envs:
                    size = {"envs": envs, "threads": threads, "mb_per_env": memory[envs]}
                    cells.append(measure(cfg, hand, library, physics[preset], **size))
                    print(_line(cells[-1]), flush=True)
        others = {
            "thread_pool": thread_pool_rate(cfg, hand, library, usual),
            "async_vector_env": async_rate(cfg, usual),
        }
        trained = [stage for stage in ("teacher", "student") if f"{cfg.hand}/{stage}" in assets.policies()]
        others |= {f"training_{stage}": training_rate(cfg, usual, stage) for stage in trained}
        if cfg.task.randomization != RandomizationCfg():
            others["randomization"] = randomization_cost(cfg, hand, library, usual)
        table = {"cells": [vars(cell) for cell in cells], "others": others, "cpu_count": os.cpu_count()}
        write_json(run.path / "bench.json", table | {"facts": run.facts})
        _show(cells, others, run.path)


def measure(
    cfg: BenchEngineCfg,
    hand: HandSpec,
    library: ObjectLibrary,
    physics: PhysicsCfg,
    *,
    envs: int,
    threads: int,
    mb_per_env: float,
) -> Cell:
    """Measure one cell: the fastest of `repeats` episodes of all environments, resets included."""
    task = make_task(cfg.task, hand, library, physics, envs=envs, threads=threads, seed=cfg.seed)
    task.reset(range(envs))
    runs = [_episode(task, cfg.seed) for _ in range(cfg.repeats)]
    best = min(runs, key=lambda run: run["cpu_s"])
    steps = envs * task.episode_steps
    bare = min(_bare_cpu_s(task, best["controls"], best["start"], best["end"]) for _ in range(cfg.repeats))
    total = sum(best["parts"].values())
    return Cell(
        preset=physics.name,
        envs=envs,
        threads=threads,
        per_wall_s=steps / min(run["wall_s"] for run in runs),
        per_cpu_s=steps / best["cpu_s"],
        grasp_per_cpu_s=best["grasp_steps"] * envs / best["grasp_cpu_s"],
        over_bare=best["cpu_s"] / bare,
        shares={part: seconds / total for part, seconds in best["parts"].items()},
        mb_per_env=mb_per_env,
    )


def _episode(task: GraspTask, seed: int) -> dict:
    """Run one episode of all rows and time the steps of the engine's batch and the parts of the task."""
    watch, engine = Stopwatch(), cpu_engine(task)
    batch = engine.batch
    recorder = engine.batch = RecordedBatch(batch, watch)
    for method, part in gpu.TIMED_METHODS.items():
        watch.wrap(task, method, part)
    noise = torch.randn(task.episode_steps, task.num_envs, task.num_actions, generator=torch.manual_seed(seed))
    wall, cpu = time.perf_counter(), time.process_time()
    with watch.timing("rest"):
        task.reset(range(task.num_envs))
        start, approach = batch.state.copy(), round(task.grasp_steps * task.cfg.scripted_grasp.approach_fraction)
        grasp_cpu = 0.0
        for step in range(task.episode_steps):
            if step == approach:
                grasp_cpu = time.process_time()
            task.step(NOISE_SD * noise[step])
    end = time.process_time()
    engine.batch = batch
    for method in gpu.TIMED_METHODS:
        delattr(task, method)
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": end - cpu,
        "grasp_cpu_s": end - grasp_cpu,
        "grasp_steps": task.episode_steps - approach,
        "parts": watch.seconds,
        "controls": recorder.controls,
        "start": start,
        "end": batch.state.copy(),
    }


class RecordedBatch:
    """Proxy of the engine's batch that times its steps and records controls and pushes."""

    def __init__(self, batch: Any, watch: Stopwatch) -> None:
        self._batch, self._watch = batch, watch
        self.controls: list[tuple[np.ndarray, np.ndarray, int]] = []
        """Controls, pushes and number of substeps of each call of `step`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def step(self, ids: np.ndarray | None = None, nstep: int = 1) -> None:
        """Step all rows as `mujoco.batch.Batch.step` does.

        Raises ValueError for `ids`: a replay steps all rows.
        """
        if ids is not None:
            raise ValueError(f"bench engine replays steps of all rows, the engine stepped rows {ids.tolist()} only")
        self.controls.append((self._batch.ctrl.copy(), self._batch.xfrc_applied.copy(), nstep))
        with self._watch.timing("physics"):
            self._batch.step(nstep=nstep)


def cpu_engine(task: GraspTask) -> CpuEngine:
    """Return the engine of the task; raises TypeError unless it is the CPU engine."""
    if not isinstance(task.engine, CpuEngine):
        raise TypeError(f"bench engine measures the CPU engine, the task has {type(task.engine).__name__}")
    return task.engine


def _bare_cpu_s(
    task: GraspTask, controls: list[tuple[np.ndarray, np.ndarray, int]], start: np.ndarray, end: np.ndarray
) -> float:
    """Return the CPU seconds of recorded controls through `Batch.step`; raises RuntimeError for another final state."""
    batch = cpu_engine(task).batch
    batch.state[:] = start
    spent = 0.0
    for ctrl, push, nstep in controls:
        batch.ctrl, batch.xfrc_applied = ctrl, push
        begin = time.process_time()
        batch.step(nstep=nstep)
        spent += time.process_time() - begin
    if not np.array_equal(batch.state, end):
        raise RuntimeError("the replayed controls ended in another state: the comparison would be of unequal work")
    return spent


def thread_pool_rate(cfg: BenchEngineCfg, hand: HandSpec, library: ObjectLibrary, physics: PhysicsCfg) -> dict:
    """Return the rates of a thread pool over `mj_step` and of `Batch.step` with recorded controls.

    Measured at the largest size.
    """
    import mujoco  # after dexgrasp.sim, which refuses a MUJOCO_GL that MuJoCo does not know

    envs, threads = max(cfg.num_envs), max(cfg.threads)
    task = make_task(cfg.task, hand, library, physics, envs=envs, threads=threads, seed=cfg.seed)
    episode = _episode(task, cfg.seed)
    cpu_engine(task).batch.state[:] = episode["start"]
    models = [task.engine.get_model(row) for row in range(envs)]
    datas = [task.engine.get_data(row) for row in range(envs)]
    wall, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        for ctrl, push, nstep in episode["controls"]:
            for data, row, force in zip(datas, ctrl, push, strict=True):
                data.ctrl[:], data.xfrc_applied[:] = row, force
            list(pool.map(partial(mujoco.mj_step, nstep=nstep), models, datas))
    steps = envs * task.episode_steps
    rates = {"per_wall_s": steps / (time.perf_counter() - wall), "per_cpu_s": steps / (time.process_time() - cpu)}
    wall, cpu = time.perf_counter(), time.process_time()
    _bare_cpu_s(task, episode["controls"], episode["start"], episode["end"])
    ours = {
        "batch_per_wall_s": steps / (time.perf_counter() - wall),
        "batch_per_cpu_s": steps / (time.process_time() - cpu),
    }
    what = "bare physics of the same controls, ThreadPoolExecutor over mj_step against mujoco.batch.Batch"
    return {"envs": envs, "threads": threads, "what": what, **rates, **ours}


def randomization_cost(cfg: BenchEngineCfg, hand: HandSpec, library: ObjectLibrary, physics: PhysicsCfg) -> dict:
    """Return the CPU time that randomisation adds, as a share of the time without it, at the largest size."""
    envs, plain = max(cfg.num_envs), replace(cfg.task, randomization=RandomizationCfg())
    tasks = [
        make_task(task, hand, library, physics, envs=envs, threads=1, seed=cfg.seed)
        for task in (plain, replace(plain, randomization=replace(cfg.task.randomization, size_scales=(1.0,))))
    ]
    for task in tasks:
        task.reset(range(envs))
    rounds = [[_overhead_s(_episode(task, cfg.seed)) for task in tasks] for _ in range(cfg.repeats)]
    off, on = (min(column) for column in zip(*rounds, strict=True))
    physics_s = min(_episode(tasks[0], cfg.seed)["parts"]["physics"] for _ in range(cfg.repeats))
    what = f"randomization={cfg.task.randomization.name} over off, share of stepping time"
    return {"envs": envs, "what": what, "share": (on - off) / (physics_s + off)}


def training_rate(cfg: BenchEngineCfg, physics: PhysicsCfg, stage: str) -> dict:
    """Return the rate of training on one thread, updates included, from the hand's shipped policy on.

    The task is that of the recipe. The iteration before, which compiles the objects, does not count.
    """
    envs, policies = (
        max(cfg.num_envs),
        {"init_checkpoint": stage} | ({"teacher": "teacher"} if stage == "student" else {}),
    )
    words = [f"{key}={cfg.hand}/{policy}" for key, policy in policies.items()]
    training = configs.load(TrainCfg, "train", [f"recipe={stage}", *words])
    chosen = {"hand": cfg.hand, "objects": cfg.objects, "physics": physics, "seed": cfg.seed}
    training = replace(training, num_envs=envs, num_threads=1, **chosen)
    learner = make_learner(training, make_env(training), Path("no-run"))
    steps = envs * learner.num_steps
    learner.learn(steps)
    begin = time.process_time()
    learner.learn((1 + cfg.repeats) * steps)
    rate = cfg.repeats * steps / (time.process_time() - begin)
    return {"envs": envs, "what": f"training of a {stage}, updates included", "per_cpu_s": rate}


def _overhead_s(episode: dict) -> float:
    """Return the CPU seconds without physics: randomised physics is faster or slower at random."""
    return sum(seconds for part, seconds in episode["parts"].items() if part != "physics")


def async_rate(cfg: BenchEngineCfg, physics: PhysicsCfg) -> dict:
    """Return the wall-clock rate of `gymnasium.vector.AsyncVectorEnv` with one process per environment."""
    envs, steps = min(8, max(cfg.num_envs)), 60

    def make() -> GraspEnv:
        torch.set_num_threads(1)
        return GraspEnv(objects=cfg.objects, hand=cfg.hand, task=cfg.task, physics=physics, seed=cfg.seed)

    vector = gymnasium.vector.AsyncVectorEnv([make] * envs)
    vector.reset(seed=cfg.seed)
    rng = np.random.default_rng(cfg.seed)
    wall = time.perf_counter()
    for _ in range(steps):
        vector.step(rng.normal(0, NOISE_SD, vector.action_space.shape).astype(np.float32))
    rate = envs * steps / (time.perf_counter() - wall)
    vector.close()
    return {"envs": envs, "what": "whole task, gymnasium AsyncVectorEnv, one process each", "per_wall_s": rate}


def _line(cell: Cell) -> str:
    return f"{cell.preset} N={cell.envs} threads={cell.threads}: {cell.per_wall_s:.0f}/s, {cell.per_cpu_s:.0f}/cpu-s"


def _show(cells: list[Cell], others: dict[str, dict], path: Path) -> None:
    columns = "preset, envs, threads|steps/s|steps/cpu-s|in grasp|/ bare|physics|features|rewards|reset|rest|MB/env"
    table: list[list[str]] = [[*columns.split("|")]]
    for cell in cells:
        parts = [f"{cell.shares.get(p, 0):.1%}" for p in ("physics", "features", "rewards", "reset", "rest")]
        rates = [f"{rate:,.0f}" for rate in (cell.per_wall_s, cell.per_cpu_s, cell.grasp_per_cpu_s)]
        first = f"{cell.preset}, {cell.envs}, {cell.threads}"
        table.append([first, *rates, f"{cell.over_bare:.3f}", *parts, f"{cell.mb_per_env:.2f}"])
    print_table(table, "control steps, whole task")
    for other in others.values():
        rates = ", ".join(f"{value:,.0f} {key}" for key, value in other.items() if key.endswith("_s"))
        rates += f"{other['share']:.1%}" if "share" in other else ""
        print(f"{other['what']}, {other['envs']} environments: {rates}")
    print(f"bench: {path / 'bench.json'}")

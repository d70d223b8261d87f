"""`dexgrasp bench gpu`: parity, stepping rate and learning rate of engine=warp on one GPU.

parity      against the CPU engine: without contact in every quantity, with contact in the scripted grasp's successes,
            with several seeds, and with one of them again
physics     time of the physics alone in each phase of an episode, with several limits of the solvers
stepping    control steps per second of the whole task, resets included, and where the time goes; buffers that it needs
learning    control steps per second of the training of a teacher

Without a GPU all parts run at a small size on Warp's CPU backend: a functional test without meaning for a GPU.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from dexgrasp import configs
from dexgrasp.policies.benchmarks.engine_parity import ALLOWED, FLIGHT, HAND, free_motion, repeats
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.run_directory import WARP_PACKAGES, Run, versions
from dexgrasp.policies.training.callbacks import ObjectCurriculum, ProfilerCallback
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.policies.training.train import make_env, make_learner
from dexgrasp.sim.engine.config import WarpCfg
from dexgrasp.sim.engine.cpu import CpuEngine
from dexgrasp.sim.engine.factory import make_engine
from dexgrasp.sim.objects import ObjectLibrary, open_library
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import ModelPool, PhysicsCfg
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg
from dexgrasp.utils.bounds import Bounds, NumTrials, Seed, bounded
from dexgrasp.utils.files import write_json
from dexgrasp.utils.text import print_table
from dexgrasp.utils.timers import Stopwatch, device_clock, wall_clock

Part = Literal["parity", "physics", "stepping", "learning"]
GOALS = {"stepping": 100_000, "learning": 80_000}
"""Control steps per second asked of one data-centre GPU."""
NOISE_SD = 0.3
"""Standard deviation of the random actions on top of the scripted grasp: what training does."""
TIMED_METHODS = {
    "_read_sensors": "features",
    "_update_camera": "features",
    "_update_history": "features",
    "_update_vectors": "features",
    "observe": "features",
    "compute_reward": "rewards",
    "_new_episodes": "reset",
}
"""Method of GraspTask -> part of a step that its time counts for."""
NO_GPU = "no GPU here: Warp's CPU backend at tiny size. These figures show that it works; they are NOT a GPU's."

log = logging.getLogger("dexgrasp")


@dataclass(frozen=True)
@bounded
class BenchGpuCfg:
    """Measure engine=warp on one GPU: parity with the CPU engine, stepping rate, learning rate."""

    parts: tuple[Part, ...] = ("parity", "physics", "stepping", "learning")
    """Names of the measurements."""
    objects: str = "shipped"
    """Object library, as in `evaluate`."""
    hand: str = "allegro"
    """Hand by name (a folder of assets/hands) or path."""
    num_envs: Annotated[tuple[int, ...], Bounds(1, 65_536, items=(1, 64))] = (4096, 8192, 16384)
    """Numbers of environments of physics and stepping; learning uses the second, or the only one."""
    trials: NumTrials = 576
    """Scripted grasps on each engine, with each seed."""
    seeds: Annotated[int, Bounds(1, 1000)] = 3
    """Seeds of the scripted grasps; the first is `seed`, and Warp plays it twice."""
    iterations: Annotated[int, Bounds(1, 10_000)] = 4
    """Number of timed iterations of learning, after one warm-up iteration."""
    seed: Seed = 0
    """Seed of objects, poses and actions."""
    out: str = ""
    """Run directory; empty: runs/bench-gpu-<time>."""
    warp: WarpCfg = field(default_factory=WarpCfg)
    """Buffer sizes of engine=warp."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """The task; a training episode by default."""
    physics: PhysicsCfg = field(default_factory=PhysicsCfg)
    """Physics settings."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated: they may register rewards and tasks."""

    def tiny(self) -> "BenchGpuCfg":
        """Return a configuration small enough for a CPU."""
        task = replace(self.task, grasp_s=0.6, lift_s=0.3, hold_s=0.2)
        sizes = replace(self.warp, nconmax=self.warp.nconmax or 160, njmax=self.warp.njmax or 480)
        return replace(self, num_envs=(4,), trials=min(self.trials, 4), iterations=1, task=task, warp=sizes)


def bench_gpu(cfg: BenchGpuCfg) -> None:
    """Measure all parts, print the results, write RUN/bench.json."""
    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    if not gpu:
        print(NO_GPU)
        cfg = cfg.tiny()
    hand, library = HandSpec.load(cfg.hand), open_library(cfg.objects)
    found: dict[str, Any] = {"device": describe(), "is_gpu": gpu, "versions": versions(WARP_PACKAGES)}
    with Run.open(cfg.out, cfg) as run:
        for part in cfg.parts:
            start_s = time.monotonic()
            measure = {"parity": _parity, "physics": _physics, "stepping": _stepping, "learning": _learning}[part]
            found[part] = measure(cfg, hand, library)
            log.info("%s: %.0f s", part, time.monotonic() - start_s)
            write_json(run.path / "bench.json", found | {"facts": run.facts, "config": configs.as_dict(cfg)})
        if not gpu:
            print(NO_GPU)
        print(f"bench: {run.path / 'bench.json'}")


def describe() -> str:
    """Return the name of the GPU."""
    if not torch.cuda.is_available():
        return "CPU"
    about = torch.cuda.get_device_properties(0)
    return f"{about.name}, {about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def _parity(cfg: BenchGpuCfg, hand: HandSpec, library: ObjectLibrary) -> dict[str, Any]:
    pool, rows = ModelPool(hand, library, cfg.physics), min(16, max(cfg.num_envs))
    engines = CpuEngine(pool, rows), make_engine("warp", pool, rows, warp=cfg.warp)
    free = free_motion(engines, hand, library)
    evaluation = EvaluateCfg(hand=cfg.hand, trials=cfg.trials, num_envs=cfg.trials, seed=cfg.seed, warp=cfg.warp)
    with_contact = repeats(replace(evaluation, task=cfg.task, physics=cfg.physics), hand, library, cfg.seeds)
    _show_parity(free)
    print("\n".join(with_contact.lines()))
    return {"free": free, "allowed": ALLOWED, "grasps": asdict(with_contact) | {"kept": with_contact.kept}}


def _physics(cfg: BenchGpuCfg, hand: HandSpec, library: ObjectLibrary) -> dict[str, Any]:
    from dexgrasp.policies.benchmarks import gpu_physics  # needs MuJoCo Warp

    rows = []
    for envs in cfg.num_envs:
        task, actions = _task_and_actions(cfg, hand, library, cfg.physics, envs)
        rows += gpu_physics.compare_limits(task, actions, cfg.warp)
    evaluation = EvaluateCfg(hand=cfg.hand, trials=cfg.trials, num_envs=cfg.trials, seed=cfg.seed, warp=cfg.warp)
    played = replace(evaluation, task=cfg.task, physics=cfg.physics)
    outcomes = gpu_physics.alike_with_limits(played, hand, library)
    gpu_physics.show(rows, outcomes)
    return {"times": rows, "outcomes": outcomes}


def _task_and_actions(
    cfg: Any, hand: HandSpec, library: ObjectLibrary, physics: PhysicsCfg, envs: int
) -> tuple[GraspTask, torch.Tensor]:
    """Return a task on Warp, and noise on the scripted grasp for one episode, (step, env, action)."""
    options = {"in_order": True, "auto_reset": False, "engine": "warp", "warp": cfg.warp}
    task = GraspTask(cfg.task, hand, library, physics, envs, 1, cfg.seed, **options)
    noise = torch.randn(task.episode_steps, envs, task.num_actions, generator=torch.manual_seed(cfg.seed))
    return task, (NOISE_SD * noise).to(task.device)


def _stepping(cfg: BenchGpuCfg, hand: HandSpec, library: ObjectLibrary) -> list[dict[str, Any]]:
    cells = []
    for envs in cfg.num_envs:
        cells.append(stepping(cfg, hand, library, cfg.physics, envs))
        print(_line("stepping", cells[-1]), flush=True)
    show_stepping(cells)
    return cells


def stepping(cfg: Any, hand: HandSpec, library: ObjectLibrary, physics: PhysicsCfg, envs: int) -> dict[str, Any]:
    """Return rates, shares and buffers of one episode of `envs` environments, after a warm-up episode.

    `cfg`: with `task`, `seed` and `warp`.
    """
    task, actions = _task_and_actions(cfg, hand, library, physics, envs)
    for _ in range(warm_up(cfg.warp)):
        _episode(task, actions)
    wall_s = _timed(task, lambda: _episode(task, actions))
    reset_s = _timed(task, lambda: task.reset(range(envs)))
    steps = envs * task.episode_steps
    return {
        "preset": physics.name,
        "envs": envs,
        "per_s": steps / wall_s,
        "without_resets_per_s": steps / max(wall_s - reset_s, 1e-9),
        "shares": _shares(task, actions),
        "buffers": _buffers(task),
    }


def warm_up(warp: WarpCfg) -> int:
    """Return the number of episodes until a step costs what it costs from then on.

    CUDA graphs are recorded in the second one.
    """
    return 2 if warp.cuda_graphs else 1


def bench_stepping(cfg: Any, hand: HandSpec, library: ObjectLibrary, presets: Sequence[PhysicsCfg]) -> None:
    """`dexgrasp bench engine engine=warp`: every preset with every number of environments; RUN/bench.json."""
    with Run.open(cfg.out, cfg) as run:
        cells = []
        for physics in presets:
            for envs in cfg.num_envs:
                cells.append(stepping(cfg, hand, library, physics, envs))
                print(_line("stepping", cells[-1]), flush=True)
        write_json(run.path / "bench.json", {"device": describe(), "cells": cells, "facts": run.facts})
        show_stepping(cells)
        print(f"bench: {run.path / 'bench.json'}" if torch.cuda.is_available() else NO_GPU)


def _episode(task: GraspTask, actions: torch.Tensor) -> None:
    task.reset(range(task.num_envs))
    for action in actions:
        task.step(action)


def _timed(task: GraspTask, work: Any) -> float:
    """Return the seconds until the device has finished the work."""
    clock = wall_clock(task.device)
    start = clock()
    work()
    return clock() - start


def _shares(task: GraspTask, actions: torch.Tensor) -> dict[str, float]:
    """Return the share of each part of an episode of plain steps; the synchronisation after each adds a little time."""
    task.graphed_step = None
    watch = Stopwatch(device_clock(task.device))
    watch.wrap(task.engine, "step", "physics")
    for method, part in TIMED_METHODS.items():
        watch.wrap(task, method, part)
    with watch.timing("rest"):
        _episode(task, actions)
    for owner, method in ((task.engine, "step"), *((task, method) for method in TIMED_METHODS)):
        delattr(owner, method)
    total = sum(watch.seconds.values())
    return {part: seconds / total for part, seconds in watch.seconds.items()}


def _buffers(task: GraspTask) -> dict[str, Any]:
    """Return the largest demand on each buffer and its capacity."""
    from dexgrasp.sim.engine.warp import WarpEngine

    assert isinstance(task.engine, WarpEngine)
    used = torch.cuda.mem_get_info(task.device) if task.device.type == "cuda" else (0, 0)
    return vars(task.engine.buffers.peak_usage()) | task.engine.buffer_sizes | {"gpu_gib": (used[1] - used[0]) / 2**30}


def _learning(cfg: BenchGpuCfg, hand: HandSpec, library: ObjectLibrary) -> dict[str, Any]:
    envs = cfg.num_envs[min(1, len(cfg.num_envs) - 1)]
    shared = {"objects": cfg.objects, "hand": cfg.hand, "task": cfg.task, "physics": cfg.physics, "seed": cfg.seed}
    training = TrainCfg(stage="teacher", engine="warp", warp=cfg.warp, num_envs=envs, **shared)
    found = learning(training, cfg.iterations)
    print(_line("learning", found))
    print("  " + ", ".join(f"{part} {share:.0%}" for part, share in found["shares"].items()))
    return found


def learning(cfg: TrainCfg, iterations: int) -> dict[str, Any]:
    """Return the rate of `iterations` iterations after a warm-up, and the shares of the parts.

    An iteration includes rollouts, resets and updates.
    """
    env = make_env(cfg)
    model = make_learner(cfg, env, Path("no-run"))
    steps = env.num_envs * model.num_steps
    first = warm_up(cfg.warp)
    model.learn(first * steps, [ObjectCurriculum(cfg.disturbance_step)])
    profile = ProfilerCallback([])
    callbacks = [ObjectCurriculum(cfg.disturbance_step), profile]
    wall_s = _timed(env.task, lambda: model.learn((first + iterations) * steps, callbacks))
    shares = profile.shares()
    return {"envs": env.num_envs, "per_s": iterations * steps / wall_s, "shares": shares, "buffers": _buffers(env.task)}


def _line(part: str, cell: dict[str, Any]) -> str:
    goal = f" ({cell['per_s'] / GOALS[part]:.0%} of {GOALS[part]:,})" if torch.cuda.is_available() else ""
    return f"{part}, {cell['envs']} environments: {cell['per_s']:,.0f} control steps/s{goal}"


def _show_parity(free: dict[int, dict[str, float]]) -> None:
    table = [("quantity", *(f"{steps} steps" for steps in free))]
    table += [(name, *(f"{found[name]:.1e}" for found in free.values())) for name in (*HAND, *FLIGHT)]
    for group, place in (("hand, allowed", 0), ("object, allowed", 1)):
        table += [(group, *(f"{ALLOWED[steps][place]:.0e}" for steps in free))]
    print_table(table, "CPU and Warp without contact, differences")


def show_stepping(cells: list[dict[str, Any]]) -> None:
    """Print the table of the stepping rates."""
    columns = "preset, envs|steps/s|no resets|physics|features|rewards|reset|rest|rows|njmax|contacts|room"
    table: list[list[str]] = [[*columns.split("|")]]
    for cell in cells:
        rates = [f"{cell[name]:,.0f}" for name in ("per_s", "without_resets_per_s")]
        parts = [f"{cell['shares'].get(part, 0):.0%}" for part in ("physics", "features", "rewards", "reset", "rest")]
        buffers = cell["buffers"]
        most = str(max(buffers["contacts"], buffers["pairs"]))
        room = [str(buffers["rows"]), str(buffers["njmax"]), most, str(buffers["naconmax"])]
        table.append([f"{cell['preset']}, {cell['envs']}", *rates, *parts, *room])
    print_table(table, "engine=warp: control steps/s, shares of time, buffers")

"""Time of Warp's physics in episodes, by phase, with different limits of its solvers.

A hand in the air costs a third of one that closes: a rate belongs to a phase. Every setting starts from identical
states of one episode of the scripted grasp with noise. Beside its time stand the difference that it makes to the
positions, and the trials of a scripted grasp that end as with MuJoCo's own limits.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from dexgrasp.policies.benchmarks.engine_parity import scripted_outcomes, share_alike
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.sim.engine.config import WarpCfg
from dexgrasp.sim.engine.warp import SOLVER_LIMITS, WarpEngine
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.utils.text import print_table
from dexgrasp.utils.timers import wall_clock

PHASES = ("approach", "closing", "lift", "hold")
REPEATS = 5
"""Timed control steps of a phase, after one that loads kernels and records graphs."""
LIMITS: tuple[dict[str, int], ...] = (
    {},
    *({"iterations": most} for most in (20, 10, 6)),
    *({"ls_iterations": most} for most in (20, 10)),
    {"ccd_iterations": 12},
    {"iterations": 10, "ls_iterations": 20, "ccd_iterations": 12},
    {"max_contacts_per_sensor": 128},
)
"""Settings that are compared; what a setting leaves out is MuJoCo's own. The first is the reference, and the last one
may be too small, which leaves its mark on an engine."""


@dataclass(frozen=True)
class PhysicsSnapshot:
    """State of a batch at one moment of an episode, with the targets of the step that follows."""

    physics: tuple[Tensor, ...]
    targets: tuple[Tensor, Tensor, Tensor]


def compare_limits(task: GraspTask, actions: Tensor, warp: WarpCfg) -> list[dict[str, Any]]:
    """Return time per control step [ms] by phase, rate and difference of every setting of LIMITS.

    `actions` (step, env, action): of one episode; `warp`: buffer sizes.
    """
    engine = task.engine
    assert isinstance(engine, WarpEngine)
    snapshots, reference, rows = _snapshots(task, engine, actions), {}, []
    for limits in LIMITS:
        engine.set_solver(with_limits(warp, limits))
        times, gaps, iterations = {}, [], []
        for phase, snapshot in snapshots.items():
            for _ in range(2):  # the palm comes from the target of the step before: now that of this snapshot
                _step(engine, snapshot, task.step_s)
            after = engine.physics_state[0].clone()
            gaps.append((after - reference.setdefault(phase, after)).abs().amax(dim=1))
            iterations.append(engine.solver_iterations())
            times[phase] = 1e3 * _seconds(engine, snapshot, task.step_s)
        try:
            engine.check()
        except BufferError as error:
            print(f"{task.num_envs}, {_named(limits)}: {error}")
            continue
        gap = float(torch.cat(gaps).sort().values[math.ceil(0.99 * sum(map(len, gaps))) - 1])
        mean_s = 1e-3 * sum(times.values()) / len(times)
        found = {"ms": times, "per_s": task.num_envs / mean_s, "gap_p99": gap, "iterations": max(iterations)}
        rows.append({"envs": task.num_envs, "limits": limits} | found)
    engine.set_solver(warp)
    return rows


def with_limits(warp: WarpCfg, limits: Mapping[str, int]) -> WarpCfg:
    """Return the buffer sizes of `warp` with these limits, and MuJoCo's own for the others."""
    return replace(warp, **dict.fromkeys(SOLVER_LIMITS, 0) | dict(limits))


def alike_with_limits(cfg: EvaluateCfg, hand: HandSpec, library: ObjectLibrary) -> list[dict[str, Any]]:
    """Return successes of scripted grasps with every setting, and the share that ends as with the first."""
    first, rows = None, []
    for limits in LIMITS:
        try:
            outcomes = scripted_outcomes(replace(cfg, engine="warp", warp=with_limits(cfg.warp, limits)), hand, library)
        except BufferError as error:
            print(f"scripted grasp, {_named(limits)}: {error}")
            continue
        first = first or outcomes
        successes = sum(outcome.success for outcome in outcomes)
        found = {"successes": successes, "trials": len(outcomes), "alike": share_alike(first, outcomes)}
        rows.append({"limits": limits} | found)
    return rows


def _snapshots(task: GraspTask, engine: WarpEngine, actions: Tensor) -> dict[str, PhysicsSnapshot]:
    """Play an episode; return the state in the middle of each phase."""
    task.reset(range(task.num_envs))
    grasp, lift, end = task.grasp_steps, task.grasp_steps + task.lift_steps, task.episode_steps
    close = round(task.cfg.scripted_grasp.approach_fraction * grasp)
    at = {(a + b) // 2: phase for phase, (a, b) in zip(PHASES, pairwise((0, close, grasp, lift, end)), strict=True)}
    found = {}
    for number, action in enumerate(actions):
        task.step(action)
        if number in at:
            state = engine.state
            targets = state.joint_target.clone(), state.palm_pos_w.clone(), state.palm_quat_w.clone()
            physics = tuple(tensor.clone() for tensor in engine.physics_state)
            found[at[number]] = PhysicsSnapshot(physics=physics, targets=targets)
    return found


def _step(engine: WarpEngine, snapshot: PhysicsSnapshot, period_s: float) -> None:
    for live, kept in zip(engine.physics_state, snapshot.physics, strict=True):
        live.copy_(kept)
    engine.step(*snapshot.targets, period_s)


def _seconds(engine: WarpEngine, snapshot: PhysicsSnapshot, period_s: float) -> float:
    """Return the mean time of a control step of the physics, with the copies that put the state back."""
    clock = wall_clock(engine.device)
    begin = clock()
    for _ in range(REPEATS):
        _step(engine, snapshot, period_s)
    return (clock() - begin) / REPEATS


def show(rows: Sequence[Mapping[str, Any]], outcomes: Sequence[Mapping[str, Any]]) -> None:
    """Print both tables."""
    table = [["envs, limits", *PHASES, "steps/s", "iterations", "|dq|"]]
    for row in rows:
        times = [f"{row['ms'][phase]:.2f}" for phase in PHASES]
        rest = [f"{row['per_s']:,.0f}", str(row["iterations"]), f"{row['gap_p99']:.0e}"]
        table.append([f"{row['envs']}, {_named(row['limits'])}", *times, *rest])
    print_table(table, "physics in an episode: ms per control step, most iterations, |dq| (99 %)")
    for row in outcomes:
        alike = f"{100 * row['alike']:.1f} % end as with MuJoCo's own limits"
        print(f"scripted grasp, {_named(row['limits'])}: {row['successes']} of {row['trials']}; {alike}")


def _named(limits: Mapping[str, int]) -> str:
    return " ".join(f"{name}={most}" for name, most in limits.items()) or "MuJoCo's own"

"""`dexgrasp bench deploy`: time of a control step of an exported policy and of the safety gate.

Measured on one core.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from dexgrasp.policies.agents import registry
from dexgrasp.policies.deploy.bundle import read_bundle
from dexgrasp.policies.deploy.policy import Command, Observation, Policy, PregraspPlan
from dexgrasp.policies.deploy.safety_gate import DesiredCommand, MeasuredState, SafetyCfg, SafetyGate
from dexgrasp.policies.run_directory import Run
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.files import write_json
from dexgrasp.utils.timers import latency_summary

WARM_UP = 50


@dataclass(frozen=True)
@bounded
class BenchDeployCfg:
    """Measure the time of a control step of an exported policy and of the safety gate."""

    policy: str = "allegro/student"
    """Exported policy: a shipped name (allegro/student) or a bundle directory."""
    steps: Annotated[int, Bounds(1, 10_000_000)] = 2000
    """Number of timed control steps."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    safety: SafetyCfg = field(default_factory=SafetyCfg)
    """Limits of the safety gate."""


def bench_deploy(cfg: BenchDeployCfg) -> None:
    """Measure the times, print them, write RUN/bench.json."""
    source = registry.find_policy(cfg.policy, kind="bundle")
    with Run.open(cfg.out, cfg) as run:
        timed = measure(source.path, cfg)
        write_json(run.file("bench.json"), timed | {"facts": run.facts})
        for name, row in timed.items():
            wall, cpu = row["wall_ms"], row["cpu_ms"]
            print(
                f"{name:12s} median {wall['median']:.3f} ms  p99 {wall['p99']:.3f} ms   "
                f"(of the thread alone: {cpu['median']:.3f} ms, {cpu['p99']:.3f} ms)"
            )
        print(f"bench: {run.path / 'bench.json'}")


def measure(folder: Path, cfg: BenchDeployCfg) -> dict[str, Any]:
    """Return the times of `act` and of the gate over recorded readings [ms].

    Wall-clock time, and CPU time of the thread.
    """
    policy, plan, readings = Policy.load(folder), *recorded(folder)
    policy.reset(plan)
    gate = SafetyGate(policy.contract.hand, policy.rate_hz, cfg.safety, palm_follows=False)  # readings are a recording
    first = readings[0]
    gate.reset(first.joint_pos, first.palm_pos_w, first.palm_quat_w, 0.0)
    command = policy.act(first)

    def act(i: int) -> Command:
        return policy.act(readings[i % len(readings)])

    def guard(i: int) -> None:
        now_s, sensed = i / policy.rate_hz, readings[i % len(readings)]
        wanted = DesiredCommand(
            joint_target=command.joint_target,
            palm_pos_w=command.palm_pos_w,
            palm_quat_w=command.palm_quat_w,
            stamp_s=now_s,
        )
        measured = MeasuredState(
            joint_pos=sensed.joint_pos,
            palm_pos_w=sensed.palm_pos_w,
            palm_quat_w=sensed.palm_quat_w,
            stamp_s=now_s,
        )
        gate(wanted, measured, now_s)

    return {"act": _time(act, cfg.steps), "safety_gate": _time(guard, cfg.steps)}


def recorded(folder: Path) -> tuple[PregraspPlan, list[Observation]]:
    """Return a plan and the readings of a bundle's recording, without batch dimension."""
    golden = read_bundle(folder).golden
    plan = PregraspPlan(
        palm_pos_w=golden["in/start_pos_w"][0],
        palm_quat_w=golden["in/start_quat_w"][0],
        depth_m=golden["in/depth_m"][0],
        closing=golden["in/closing"][0],
        floor_m=golden["in/floor_m"][0],
        joint_pos=golden["in/joint_target"][0],
    )
    sensed = [name for name in Observation.__dataclass_fields__ if f"in/{name}" in golden]
    rows = len(golden["in/joint_pos"])
    return plan, [Observation(**{name: golden[f"in/{name}"][row] for name in sensed}) for row in range(rows)]


def _time(call: Callable[[int], Any], steps: int) -> dict[str, dict[str, float]]:
    wall, cpu = [], []
    for i in range(1, WARM_UP + steps + 1):
        start_s, thread_s = time.perf_counter(), time.thread_time()
        call(i)
        cpu.append(1e3 * (time.thread_time() - thread_s))
        wall.append(1e3 * (time.perf_counter() - start_s))
    return {"wall_ms": latency_summary(wall[WARM_UP:], 99), "cpu_ms": latency_summary(cpu[WARM_UP:], 99)}

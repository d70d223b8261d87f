"""`dexgrasp bench ros`: latency from depth image to command and command jitter, in closed loop."""

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from dexgrasp.policies.deploy.bundle import read_contract
from dexgrasp.policies.deploy.shipped import find_bundle
from dexgrasp.policies.run_directory import Run
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.files import write_json
from dexgrasp.utils.text import counted, print_table
from dexgrasp.utils.timers import PERCENTILES, latency_percentiles
from dexgrasp_ros import config
from dexgrasp_ros.simulation.closed_loop import ClosedLoop, Trial, robot_parameters
from dexgrasp_ros.simulation.latency_parts import latency_parts
from dexgrasp_ros.simulation.sim_robot import SimRobotCfg
from dexgrasp_ros.simulation.video import write_video

ROWS = ("camera_age", "policy", "command", "camera_to_command", "period")
"""Rows: age of the newest depth image when the policy runs; policy; tick to command; depth stamp to command; period.
Ages are in simulated time, whose steps are those of /clock."""
SLOWEST = 1.1
"""Median period, in control periods, up to which the machine keeps real time: on an idle one it is 1.00."""


@dataclass(frozen=True)
@bounded
class BenchRosCfg:
    """Options of the closed-loop benchmark, in which each node is a process."""

    policy: str = "allegro/student"
    """Exported policy: a shipped name or a bundle directory."""
    arm: str = "ur5e"
    """Arm: a name in assets/arms, a folder with arm.yaml, an arm.yaml, or an MJCF or URDF file."""
    hand: str = ""
    """Hand: a folder with hand.yaml; empty: the one of the policy, in assets/hands."""
    trials: Annotated[int, Bounds(1, 10_000)] = 10
    """Number of grasps, of objects spread evenly over the shipped library."""
    domain: Annotated[int, Bounds(0, 101)] = 77
    """ROS_DOMAIN_ID, 0 to 101; no other robot may use it."""
    start_timeout_s: Annotated[float, Bounds(1, 3600)] = 60.0
    """Longest start of a node [s]."""
    video: bool = False
    """Also write RUN/grasp.mp4 of the first successful grasp, rendered from joint states and object poses."""
    out: str = ""
    """Run directory; empty: a new one under runs/."""


def bench_ros(cfg: BenchRosCfg) -> int:
    """Measure, print the table, write RUN/bench.json; return 1 where nothing was measured or held, else 0."""
    bundle = find_bundle(cfg.policy)
    with Run.open(cfg.out, cfg) as run:
        set_local_transport(cfg.domain, run.path)
        hand = cfg.hand or read_contract(bundle).hand.name
        nodes = robot_parameters(hand, cfg.arm)
        with ClosedLoop(bundle, run.path / "nodes", cfg.video, cfg.start_timeout_s, **nodes) as loop:
            trials, frames = [], []
            for i in range(cfg.trials):
                trials.append(run_trial(loop, str(i * 144 // cfg.trials)))
                frames = frames or (trials[-1].success and list(loop.frames))
            loop.spin(1.5)  # until the last timing report has arrived
            timing, parts = dict(loop.timing), latency_parts(loop.marks)
        measured = {name: float(value) for name, value in timing.items() if math.isfinite(float(value))}
        result: dict[str, Any] = {"timing_ms": measured, "facts": run.facts}
        result["parts_ms"] = {
            name: {p: 1e3 * value for p, value in zip(PERCENTILES, latency_percentiles(values), strict=True)}
            for name, values in parts.items()
            if values
        }
        result["trials"] = [asdict(trial) for trial in trials]
        write_json(run.path / "bench.json", result)
        show(measured, result["parts_ms"], trials)
        if late := pace_warning(measured, 1000 / read_contract(bundle).control.rate_hz):
            print(late)
        if cfg.video and frames:
            held = next(trial.object for trial in trials if trial.success)
            write_video(run.path / "grasp.mp4", frames, SimRobotCfg(object=held, **nodes["sim_robot"]))
            print(f"video: {run.path / 'grasp.mp4'}")
    return exit_status(measured, trials)


def exit_status(timing_ms: Mapping[str, float], trials: Sequence[Trial]) -> int:
    """Return 1 where no period of commands was measured or no object was held, else 0."""
    return int("period_p50_ms" not in timing_ms or not any(trial.success for trial in trials))


def pace_warning(timing_ms: Mapping[str, float], needed_ms: float) -> str:
    """Return a warning where commands come late or not at all; empty where they come in time."""
    period_ms = timing_ms.get("period_p50_ms")
    if period_ms is not None and period_ms <= SLOWEST * needed_ms:
        return ""
    found = "no period of commands was measured" if period_ms is None else f"period p50 {period_ms:.0f} ms"
    return f"this machine does not keep real time: {found} where {needed_ms:.0f} ms are needed; end other programs"


def run_trial(loop: ClosedLoop, name: str) -> Trial:
    """Grasp an object, given by number or name, and print the result."""
    trial = loop.grasp(name)
    print(
        f"object {name:>4}  {'held' if trial.success else 'lost'}  {trial.lifted_m:6.3f} m  {trial.reason}", flush=True
    )
    return trial


def set_local_transport(domain: int, logs: Path) -> None:
    """Set domain, transport and log folder of all nodes in the environment of this process."""
    os.environ.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(config("fastdds.xml")))
    os.environ.setdefault("ROS_LOG_DIR", str(logs if logs.is_dir() else tempfile.gettempdir()))
    os.environ |= {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def show(timing_ms: Mapping[str, float], parts_ms: Mapping[str, Mapping[int, float]], trials: list[Trial]) -> None:
    """Print the percentiles of the grasp node and those of the parts of the latency."""
    held = sum(trial.success for trial in trials)
    table = [("milliseconds", *(f"p{percent}" for percent in PERCENTILES))]
    for row in ROWS:
        values = (timing_ms.get(f"{row}_p{percent}_ms") for percent in PERCENTILES)
        table.append((row.replace("_", " "), *("-" if value is None else f"{value:.1f}" for value in values)))
    if parts_ms:
        table.append(("parts, monotonic clock", *[""] * len(PERCENTILES)))
    for name, values in parts_ms.items():
        table.append((name.replace("_", " "), *(f"{values[percent]:.1f}" for percent in PERCENTILES)))
    print_table(table, f"closed loop, {held} of {counted(len(trials), 'object')} held")

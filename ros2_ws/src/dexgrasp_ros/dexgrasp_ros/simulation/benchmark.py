"""`dexgrasp bench ros`: latency from depth image to command and command jitter, in closed loop."""

import os
import tempfile
from collections.abc import Mapping
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


def bench_ros(cfg: BenchRosCfg) -> dict[str, Any]:
    """Measure, print the table, write RUN/bench.json; returns what it holds."""
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
        result = {"timing_ms": {name: float(value) for name, value in timing.items()}, "facts": run.facts}
        result["parts_ms"] = {
            name: {p: 1e3 * value for p, value in zip(PERCENTILES, latency_percentiles(values), strict=True)}
            for name, values in parts.items()
            if values
        }
        result["trials"] = [asdict(trial) for trial in trials]
        write_json(run.path / "bench.json", result)
        show(result["timing_ms"], result["parts_ms"], trials)
        if cfg.video and frames:
            held = next(trial.object for trial in trials if trial.success)
            write_video(run.path / "grasp.mp4", frames, SimRobotCfg(object=held, **nodes["sim_robot"]))
            print(f"video: {run.path / 'grasp.mp4'}")
    return result


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


def show(timing_ms: dict[str, float], parts_ms: Mapping[str, Mapping[int, float]], trials: list[Trial]) -> None:
    """Print the percentiles of the grasp node and those of the parts of the latency."""
    held = sum(trial.success for trial in trials)
    table = [("milliseconds", *(f"p{percent}" for percent in PERCENTILES))]
    for row in ROWS:
        values = (timing_ms.get(f"{row}_p{percent}_ms", float("nan")) for percent in PERCENTILES)
        table.append((row.replace("_", " "), *(f"{value:.1f}" for value in values)))
    if parts_ms:
        table.append(("parts, monotonic clock", *[""] * len(PERCENTILES)))
    for name, values in parts_ms.items():
        table.append((name.replace("_", " "), *(f"{values[percent]:.1f}" for percent in PERCENTILES)))
    print_table(table, f"closed loop, {held} of {counted(len(trials), 'object')} held")

"""`dexgrasp bench ros`: from the depth image's stamp to the command, and how even commands are, in the closed loop."""

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dexgrasp_ros import config
from dexgrasp_ros.closed_loop import ClosedLoop, Trial
from dexgrasp_ros.film import film
from dexgrasp_ros.timing import PERCENTILES
from policies.runs import Run, write_json
from policies.shipped import find_bundle

ROWS = ("camera_age", "policy", "command", "camera_to_command", "period")
"""Newest depth when the policy runs; the policy; tick to sent; depth stamp to command; time between commands."""


@dataclass(frozen=True)
class RosBenchCfg:
    """Grasp with simulated robot, perception and grasp node in processes of their own, and time the messages."""

    policy: str = "allegro/student"
    """Exported policy: a shipped name or a bundle directory."""
    trials: int = 10
    """Grasps, of objects spread over the shipped library."""
    domain: int = 77
    """ROS_DOMAIN_ID, 0 to 101; on it no other robot may live."""
    video: bool = False
    """Also RUN/grasp.mp4 of the first object that was held, drawn from what the robot said."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"trials must be at least 1, got {self.trials}")
        if not 0 <= self.domain <= 101:
            raise ValueError(f"domain must lie in 0..101, got {self.domain}")


def bench_ros(cfg: RosBenchCfg) -> dict[str, Any]:
    """Measure, print the table, write RUN/bench.json; returns what it holds."""
    bundle = find_bundle(cfg.policy)
    with Run.open(cfg.out, cfg) as run:
        local_transport(cfg.domain, run.path)
        with ClosedLoop(bundle, run.path / "nodes", cfg.video) as loop:
            trials, seen = [], []
            for i in range(cfg.trials):
                trials.append(grasped(loop, str(i * 144 // cfg.trials)))
                seen = seen or (trials[-1].success and list(loop.moments))
            loop.spin(1.5)  # the last report
            timing = dict(loop.timing)
        result = {"timing_ms": {name: float(value) for name, value in timing.items()}, "facts": run.facts}
        result["trials"] = [asdict(trial) for trial in trials]
        write_json(run.path / "bench.json", result)
        show(result["timing_ms"], trials)
        if cfg.video and seen:
            film(run.path / "grasp.mp4", seen, next(trial.object for trial in trials if trial.success))
            print(f"video: {run.path / 'grasp.mp4'}")
    return result


def grasped(loop: ClosedLoop, thing: str) -> Trial:
    """One grasp, with a line about it."""
    trial = loop.grasp(thing)
    print(
        f"object {thing:>4}  {'held' if trial.success else 'lost'}  {trial.lifted_m:6.3f} m  {trial.reason}", flush=True
    )
    return trial


def local_transport(domain: int, logs: Path) -> None:
    """Set what all nodes of this machine need: a domain, a transport that loses no images, a place for logs."""
    os.environ.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(config("fastdds.xml")))
    os.environ.setdefault("ROS_LOG_DIR", str(logs if logs.is_dir() else tempfile.gettempdir()))
    os.environ |= {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def show(timing_ms: dict[str, float], trials: list[Trial]) -> None:
    """The table."""
    held = sum(trial.success for trial in trials)
    columns = (f"p{percent}" for percent in PERCENTILES)
    table = Table("milliseconds", *columns, title=f"closed loop, {held} of {len(trials)} objects held")
    for row in ROWS:
        values = (timing_ms.get(f"{row}_p{percent}_ms", float("nan")) for percent in PERCENTILES)
        table.add_row(row.replace("_", " "), *(f"{value:.1f}" for value in values))
    Console(width=90).print(table)

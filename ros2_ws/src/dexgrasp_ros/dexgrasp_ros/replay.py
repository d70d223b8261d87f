"""`dexgrasp replay BAG`: perception and policy once more on what was recorded; the first difference ends with status 1.

The bag is one of record.py (MCAP); it is read with rosbags, without ROS. Each stage gets what was recorded before it:
perception the frames and readings, the grasp machine the readings, points and plans. Commands of services are not in a
bag: what an operator asked for follows from the recorded states.
"""

import importlib
import importlib.util
import sys
import types
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dexgrasp_ros.grasp_types import GraspCfg
from dexgrasp_ros.replay_cfg import ReplayToleranceCfg, ReplayTopicsCfg
from perception.segment import SegmentCfg
from policies.safety import SafetyCfg

PACKAGES = ("builtin_interfaces", "diagnostic_msgs", "geometry_msgs", "sensor_msgs", "std_msgs", "trajectory_msgs")


@dataclass(frozen=True)
class ReplayCfg:
    """A bag, and what the nodes were told that wrote it."""

    bag: str
    """Folder of the bag."""
    policy: str
    """Exported policy: a shipped name (allegro/student) or a bundle directory."""
    hand: str = "sim_allegro"
    """Driver of the hand."""
    arm: str = "sim_ur5e"
    """Driver of the arm; empty: none was known to perception, and the arm's commands are not compared."""
    hand_body: str = ""
    """capsules.json of the hand; empty = that of assets/hands."""
    camera_file: str = ""
    """Where the camera stood; empty = the simulated camera."""
    palm_source: str = "arm"
    """arm or topic, as the grasp node was told."""
    reach: bool = True
    """Whether perception asked what the arm can reach."""
    preview: bool = False
    """The bag is of a dry run or of shadow mode."""
    shadow: bool = False
    """It is of shadow mode."""
    perception: bool = True
    """Compare points and plans."""
    compare_policy: bool = True
    """Compare states and commands."""
    segment: SegmentCfg = field(default_factory=SegmentCfg)
    """Of the perception node."""
    grasp: GraspCfg = field(default_factory=GraspCfg)
    """Of the grasp node."""
    safety: SafetyCfg = field(default_factory=SafetyCfg)
    """Of the grasp node."""
    topics: ReplayTopicsCfg = field(default_factory=ReplayTopicsCfg)
    """Where to find what."""
    tolerance: ReplayToleranceCfg = field(default_factory=ReplayToleranceCfg)
    """What counts as the same."""


def replay(cfg: ReplayCfg) -> int:
    """Replays the bag and prints what was compared; 1 where something differs."""
    if importlib.util.find_spec("rosbags") is None:
        raise ImportError("reading bags needs rosbags: pip install 'dexgrasp[ros]'")
    if not Path(cfg.bag).exists():
        raise FileNotFoundError(f"no bag '{cfg.bag}'")
    stand_in()
    from dexgrasp_ros.replay_run import run

    report = run(cfg)
    print(report.text())
    return int(report.first is not None)


def stand_in() -> None:
    """Where the messages of ROS are not installed, those of rosbags take their place."""
    with suppress(ImportError):
        for package in PACKAGES:
            importlib.import_module(f"{package}.msg")
        return
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    for package in PACKAGES:
        module, messages = types.ModuleType(package), types.ModuleType(f"{package}.msg")
        for name, kind in store.types.items():
            if name.startswith(f"{package}/msg/"):
                setattr(messages, name.rsplit("/", 1)[1], kind)
        sys.modules |= {package: module, messages.__name__: messages}

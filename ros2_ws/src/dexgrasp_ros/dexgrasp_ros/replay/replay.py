"""`dexgrasp replay BAG`: runs perception and policy on a bag; exit status 1 where results differ.

The bag is one of the recorder node (MCAP); it is read with rosbags, without ROS. Each stage gets its recorded inputs:
perception the frames and readings, the grasp state machine the readings, points and plans. Service calls are not in a
bag: requests of the operator are derived from the recorded states.

Runs a bag through perception and grasp state machine; import it after the message packages.
"""

import importlib
import importlib.util
import sys
import types
from contextlib import suppress
from pathlib import Path

from dexgrasp.policies.deploy.shipped import find_bundle
from dexgrasp_ros import config
from dexgrasp_ros.perception.config import PerceptionCfg
from dexgrasp_ros.replay.bag import Bag
from dexgrasp_ros.replay.config import ReplayCfg
from dexgrasp_ros.replay.grasping import GraspReplay
from dexgrasp_ros.replay.perception import PerceptionReplay
from dexgrasp_ros.replay.report import ReplayReport

PACKAGES = ("builtin_interfaces", "diagnostic_msgs", "geometry_msgs", "sensor_msgs", "std_msgs", "trajectory_msgs")


def replay(cfg: ReplayCfg) -> int:
    """Replay the bag and print the comparison; return 1 where results differ, else 0."""
    if importlib.util.find_spec("rosbags") is None:
        raise ImportError("reading a bag needs rosbags: pip install 'dexgrasp[ros]'")
    if not Path(cfg.bag).exists():
        raise FileNotFoundError(f"no bag '{cfg.bag}': give the folder that the recorder node wrote")
    provide_message_packages()  # before the imports of the stages

    report = run(cfg)
    print(report.text())
    return int(report.first is not None)


def provide_message_packages() -> None:
    """Register the message classes of rosbags as ROS packages, where these are not installed."""
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


def run(cfg: ReplayCfg) -> ReplayReport:
    """Compare the results recorded in the bag with those of the current code."""
    bag, report = Bag(cfg.bag), ReplayReport()
    stages = []
    if cfg.perception:
        stages.append(PerceptionReplay(bag, cfg.topics, perception_cfg(cfg), cfg.tolerance, report))
    if cfg.compare_policy:
        stages.append(GraspReplay(bag, cfg, report))
    topics = {topic for stage in stages for topic in stage.topics}
    if missing := sorted({cfg.topics.points, cfg.topics.state} & topics - set(bag.topics)):
        report.notes.append(f"not in the bag: {', '.join(missing)}")
    for recorded in bag.messages(topics):
        for stage in stages:
            if recorded.topic in stage.topics:
                stage.process(recorded)
    for stage in stages:
        stage.finish()
    return report


def perception_cfg(cfg: ReplayCfg) -> PerceptionCfg:
    """Return the parameters of the recorded perception node."""
    return PerceptionCfg(
        bundle=str(find_bundle(cfg.policy)),
        hand=cfg.hand,
        arm=cfg.arm,
        hand_body=cfg.hand_body,
        camera_file=cfg.camera_file or str(config("cameras/sim.yaml")),
        check_reachability=cfg.check_reachability,
        segment=cfg.segment,
    )

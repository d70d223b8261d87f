"""Runs a bag through perception and grasp state machine; import it after the message packages."""

from dexgrasp.policies.deploy.shipped import find_bundle
from dexgrasp_ros import config
from dexgrasp_ros.perception.config import PerceptionCfg
from dexgrasp_ros.replay.bag import Bag
from dexgrasp_ros.replay.config import ReplayCfg
from dexgrasp_ros.replay.grasping import GraspReplay
from dexgrasp_ros.replay.perception import PerceptionReplay
from dexgrasp_ros.replay.report import ReplayReport


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

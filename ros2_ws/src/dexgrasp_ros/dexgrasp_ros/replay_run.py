"""Runs a bag through perception and the grasp machine. Imported once message classes are there, see replay.py."""

from dexgrasp_ros import config
from dexgrasp_ros.perception_cfg import PerceptionCfg
from dexgrasp_ros.replay import ReplayCfg
from dexgrasp_ros.replay_bag import Bag
from dexgrasp_ros.replay_grasp import GraspReplay
from dexgrasp_ros.replay_perception import PerceptionReplay
from dexgrasp_ros.replay_report import Report
from policies.shipped import find_bundle


def run(cfg: ReplayCfg) -> Report:
    """Compare what the bag holds with what comes out now."""
    bag, report = Bag(cfg.bag), Report()
    stages = []
    if cfg.perception:
        stages.append(PerceptionReplay(bag, cfg.topics, perception_cfg(cfg), cfg.tolerance, report))
    if cfg.compare_policy:
        stages.append(GraspReplay(bag, cfg, report))
    topics = {topic for stage in stages for topic in stage.topics}
    if missing := sorted({cfg.topics.points, cfg.topics.state} & topics - set(bag.topics)):
        report.notes.append(f"not in the bag: {', '.join(missing)}")
    for event in bag.events(topics):
        for stage in stages:
            if event.topic in stage.topics:
                stage.take(event)
    for stage in stages:
        stage.end()
    return report


def perception_cfg(cfg: ReplayCfg) -> PerceptionCfg:
    """What the perception node was told."""
    return PerceptionCfg(
        bundle=str(find_bundle(cfg.policy)),
        hand=cfg.hand,
        arm=cfg.arm,
        hand_body=cfg.hand_body,
        camera_file=cfg.camera_file or str(config("cameras/sim.yaml")),
        reach=cfg.reach,
        segment=cfg.segment,
    )

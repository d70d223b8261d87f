"""Runs a bag through perception and grasp state machine; import it after the message packages."""

from dexgrasp.policies.deploy.bundle import read_contract
from dexgrasp.policies.deploy.shipped import find_bundle
from dexgrasp_ros import config
from dexgrasp_ros.perception.config import PerceptionCfg
from dexgrasp_ros.replay.bag import Bag
from dexgrasp_ros.replay.config import ReplayCfg
from dexgrasp_ros.replay.decisions import Event, GraspDecisions, PerceptionDecisions, read_log
from dexgrasp_ros.replay.grasping import GraspReplay
from dexgrasp_ros.replay.logged_messages import LoggedMessages
from dexgrasp_ros.replay.perception import PerceptionReplay
from dexgrasp_ros.replay.report import ReplayReport


def run(cfg: ReplayCfg) -> ReplayReport:
    """Compare the results recorded in the bag with those of the current code."""
    bag, report = Bag(cfg.bag), ReplayReport()
    stages = []
    if cfg.perception and not _repeat_perception(bag, cfg, report):
        stages.append(PerceptionReplay(bag, cfg.topics, perception_cfg(cfg), cfg.tolerance, report))
    if cfg.compare_policy and not _repeat_grasp(bag, cfg, report):
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
    logs = sorted({cfg.topics.grasp_log, cfg.topics.perception_log} & set(bag.topics))
    if logs and not any(report.counts.values()):
        text = "the bag has a log of decisions, but nothing in it could be compared: was the recorder started too late?"
        report.add_difference(logs[0], 0.0, text)
    return report


def _repeat_perception(bag: Bag, cfg: ReplayCfg, report: ReplayReport) -> bool:
    """Repeat the log of perception; return whether the bag holds one."""
    events = _events(bag, cfg, cfg.topics.perception_log, report)
    decisions = PerceptionDecisions(bag, cfg, perception_cfg(cfg), events, report)
    if not _usable(decisions, events, report):
        return False
    decisions.repeat_all()
    LoggedMessages(bag, cfg, read_contract(find_bundle(cfg.policy)), report).compare_perception(events)
    return True


def _repeat_grasp(bag: Bag, cfg: ReplayCfg, report: ReplayReport) -> bool:
    """Repeat the log of the grasp node; return whether the bag holds one."""
    events = _events(bag, cfg, cfg.topics.grasp_log, report)
    decisions = GraspDecisions(bag, cfg, events, report)
    if not _usable(decisions, events, report):
        return False
    decisions.repeat_all()
    LoggedMessages(bag, cfg, read_contract(find_bundle(cfg.policy)), report).compare_grasp(events)
    return True


def _events(bag: Bag, cfg: ReplayCfg, topic: str, report: ReplayReport) -> list[Event]:
    return read_log(bag, topic, report) if cfg.exact and topic in bag.topics else []


def _usable(decisions: GraspDecisions | PerceptionDecisions, events: list[Event], report: ReplayReport) -> bool:
    """Return whether a log can be repeated; note where it begins too late."""
    if events and not decisions.complete:
        begin = f"begins with event {events[0].number}, after '{decisions.begins}': the recorder started too late"
        report.notes.append(f"{decisions.topic}: {begin}; compared with tolerances instead")
    return decisions.complete


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

"""Untrained policies: random weights in the files that a training leaves behind."""

import torch

import configs
from policies.checkpoint import CheckpointData, TrainingState, write_checkpoint
from policies.networks import GraspPolicy
from policies.student import StudentPolicy
from policies.train import TrainCfg
from sim.hands import HandSpec
from sim.observations import observation_layouts
from sim.task_cfg import TaskCfg
from sim.view_cfg import ViewCfg

TASK = TaskCfg(rate_hz=20.0, grasp_s=1.6, lift_s=0.7, hold_s=0.5, finger_action_rad=0.2, view=ViewCfg(mode="refreshed"))
"""Unlike the defaults of an evaluation in what belongs to a policy."""


def make_run(folder, encoder="conv", task=TASK):
    """best.zip and config.yaml of a student in `folder`."""
    torch.manual_seed(7)
    hand = HandSpec.load("allegro")
    layouts = observation_layouts(hand, task.view.live)
    policy = StudentPolicy(layouts, 6 + len(hand.joint_names), encoder, hidden=(64, 32))
    with torch.no_grad():
        policy.actor.net[-1].weight.mul_(40.0)
        policy.actor.normaliser.mean.normal_(0.0, 0.1)
        policy.actor.normaliser.var.uniform_(0.05, 0.5)
    save(folder, policy, TrainCfg(stage="student", encoder=encoder, task=task, hidden=(64, 32)))
    return folder


def make_teacher_run(folder, task=TASK):
    """best.zip and config.yaml of a teacher in `folder`."""
    hand = HandSpec.load("allegro")
    policy = GraspPolicy(observation_layouts(hand, task.view.live), 6 + len(hand.joint_names), hidden=(64, 32))
    save(folder, policy, TrainCfg(stage="teacher", task=task, hidden=(64, 32)))
    return folder


def save(folder, policy, cfg):
    """The files of a run."""
    tensors = {f"policy/{name}": value for name, value in policy.state_dict().items()}
    facts = {"command": ["dexgrasp", "train"], "config": configs.as_dict(cfg)}
    write_checkpoint(folder / "best.zip", CheckpointData(policy.architecture, TrainingState(), facts, tensors))
    configs.save(cfg, folder / "config.yaml")

"""Untrained policies: random weights in the files that a training leaves behind."""

import torch

from dexgrasp import configs
from dexgrasp.policies.agents.checkpoint import CheckpointData, TrainingState, write_checkpoint
from dexgrasp.policies.networks.actor_critic import GraspPolicy
from dexgrasp.policies.networks.student import StudentPolicy
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.sim.task.observations import observation_layouts

TASK = TaskCfg(
    rate_hz=20.0, grasp_s=1.6, lift_s=0.7, hold_s=0.5, finger_action_rad=0.2, camera=CameraCfg(mode="latest")
)
"""Unlike the defaults of an evaluation in what belongs to a policy."""


def make_run(folder, encoder="conv", task=TASK):
    """best.zip and config.yaml of a student in `folder`."""
    torch.manual_seed(7)
    hand = HandSpec.load("allegro")
    layouts = observation_layouts(hand, task.camera.live)
    policy = StudentPolicy(layouts, 6 + len(hand.joint_names), encoder, hidden=(64, 32))
    with torch.no_grad():
        policy.actor.net[-1].weight.mul_(40.0)
        policy.actor.normaliser.mean.normal_(0.0, 0.1)
        policy.actor.normaliser.var.uniform_(0.05, 0.5)
    save(folder, policy, TrainCfg(stage="student", history_encoder=encoder, task=task, hidden=(64, 32)))
    return folder


def make_teacher_run(folder, task=TASK):
    """best.zip and config.yaml of a teacher in `folder`."""
    hand = HandSpec.load("allegro")
    policy = GraspPolicy(observation_layouts(hand, task.camera.live), 6 + len(hand.joint_names), hidden=(64, 32))
    save(folder, policy, TrainCfg(stage="teacher", task=task, hidden=(64, 32)))
    return folder


def save(folder, policy, cfg):
    """The files of a run."""
    tensors = {f"policy/{name}": value for name, value in policy.state_dict().items()}
    facts = {"command": ["dexgrasp", "train"], "config": configs.as_dict(cfg)}
    write_checkpoint(folder / "best.zip", CheckpointData(policy.architecture, TrainingState(), facts, tensors))
    configs.save(cfg, folder / "config.yaml")

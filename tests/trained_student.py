"""A student that nobody trained: random weights in the files that a training leaves behind."""

import io
import zipfile

import torch
from gymnasium import spaces

import configs
from perception.observation import student_layout
from policies.student import StudentPolicy
from policies.train import TrainCfg
from sim.hands import HandSpec
from sim.observations import teacher_layout
from sim.task_cfg import TaskCfg
from sim.view_cfg import ViewCfg

TASK = TaskCfg(rate_hz=20.0, grasp_s=1.6, lift_s=0.7, hold_s=0.5, finger_action_rad=0.2, view=ViewCfg(mode="refreshed"))
"""Unlike the defaults of an evaluation in what belongs to a policy."""


def make_run(folder, encoder="conv", task=TASK):
    """best.zip and config.yaml in `folder`."""
    torch.manual_seed(7)
    hand = HandSpec.load("allegro")
    sizes = len(hand.joint_names), len(hand.keypoint_names), 6 + len(hand.joint_names)
    layouts = {
        "student": student_layout(*sizes, task.view.live),
        "teacher": teacher_layout(*sizes, len(hand.contact_bodies)),
    }
    seen = spaces.Dict({name: spaces.Box(-9, 9, (layout.size,)) for name, layout in layouts.items()})
    shape = {"layouts": layouts, "encoder": encoder, "hidden": (64, 32)}
    policy = StudentPolicy(seen, spaces.Box(-1, 1, (sizes[2],)), lambda _: 0.0, **shape)
    with torch.no_grad():
        policy.actor.net[-1].weight.mul_(40.0)
        policy.actor.normaliser.mean.normal_(0.0, 0.1)
        policy.actor.normaliser.var.uniform_(0.05, 0.5)
    write_checkpoint(folder / "best.zip", policy.state_dict())
    configs.save(TrainCfg(stage="student", encoder=encoder, task=task, hidden=(64, 32)), folder / "config.yaml")
    return folder


def write_checkpoint(path, tensors, data=b"{}"):
    """The entries of a checkpoint of Stable-Baselines3 that matter here."""
    stored = io.BytesIO()
    torch.save(tensors, stored)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", data)
        archive.writestr("policy.pth", stored.getvalue())

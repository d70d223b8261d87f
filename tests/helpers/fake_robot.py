"""A robot, a camera and policies for the grasp machine: all that it is asked and told in a test."""

import math
from dataclasses import replace
from functools import cache

import numpy as np

from dexgrasp import assets
from dexgrasp.policies.deploy.policy import Command, Policy, PregraspPlan
from dexgrasp.policies.deploy.safety_gate import SafetyCfg
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.grasping.state_machine import GraspStateMachine
from dexgrasp_ros.grasping.types import GraspCfg, Inputs
from dexgrasp_ros.object_estimate import ObjectEstimate

DT = 0.05
DOWN = np.array(
    [math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0]
)  # x, the palm's normal, points down; z, the fingers, along x
HOME = Pose(np.array([0.05, 0.0, 0.45]), DOWN)
GOAL = Pose(np.array([-0.1, 0.1, 0.2]), DOWN)


@cache
def student():
    """The shipped policy."""
    return Policy.load(assets.path("policies/allegro/student/bundle"))


def contract():
    return student().contract


def open_pose():
    return np.array(contract().grasp.power.open_pose)


def a_plan(goal=GOAL):
    style = contract().grasp.power
    return PregraspPlan(
        palm_pos_w=goal.pos_m,
        palm_quat_w=goal.quat,
        depth_m=0.1,
        closing=style.closing,
        floor_m=style.floor_m,
        joint_pos=style.open_pose,
    )


def points():
    return np.random.default_rng(0).uniform([-0.13, 0.07, 0.0], [-0.07, 0.13, 0.06], (256, 3))


class World:
    """A robot that is where it was told to be, a tick later, and a camera that always sees what always stays there."""

    def __init__(self, policy, shadow=False, **cfg):
        self.machine = GraspStateMachine(policy, GraspCfg(**({"attempts": 1} | cfg)), SafetyCfg(), shadow=shadow)
        self.now_s, self.joints, self.palm = 100.0, open_pose() * 0.8, HOME
        self.changes = {}
        self.outputs = []

    def inputs(self, **changes):
        given = Inputs(
            now_s=self.now_s,
            joint_pos=self.joints,
            joints_stamp_s=self.now_s,
            palm_pos_w=self.palm.pos_m,
            palm_quat_w=self.palm.quat,
            palm_stamp_s=self.now_s,
            estimate=ObjectEstimate(points(), stamp_s=self.now_s),
            plan=a_plan(),
            plan_stamp_s=self.now_s,
        )
        return replace(given, **(self.changes | changes))

    def begin(self):
        assert self.machine.activate(self.inputs()) == ""
        return self

    def ask(self, name, **changes):
        return self.machine.request(name, self.inputs(**changes))

    def tick(self, follow=True, **changes):
        self.now_s += DT
        output = self.machine.tick(self.inputs(**changes))
        self.outputs.append(output)
        if follow and output.safe is not None:
            self.joints = output.safe.joint_target
            self.palm = Pose(output.safe.palm_pos_w, output.safe.palm_quat_w)
        return output

    def run_until(self, state, limit=1200):
        for _ in range(limit):
            if self.tick().state == state:
                return self
        raise AssertionError(f"no {state}, but {self.outputs[-1].state}: {self.outputs[-1].fault}")

    def states(self):
        found = [output.state for output in self.outputs]
        return [state for state, before in zip(found, [None, *found], strict=False) if state != before]


class Wild:
    """A policy that says anything and may throw."""

    rate_hz = 20.0

    def __init__(self):
        self.contract = contract()
        self.answer, self.steps, self.grip, self.object_bottom_m = 0.0, 0, 1.0, 0.0

    @property
    def phase(self):
        return "grasp" if self.steps < 3 else "lift" if self.steps < 6 else "hold"

    def reset(self, plan):
        self.steps = 0

    def act(self, observation):
        self.steps += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        scale = self.answer
        palm = observation.palm_pos_w + scale, observation.palm_quat_w
        return Command(
            observation.joint_pos + scale, *palm, np.zeros(22), np.array(self.grip), np.array(self.object_bottom_m)
        )


def in_state(state, policy=None):
    """A world in which the machine is in that state; by default with a policy that stays where it is."""
    world = World(policy or Wild(), attempts=2 if state == "retreat" else 1).begin()
    if state == "idle":
        return world
    assert world.ask("home" if state == "home" else "grasp") == ""
    if state in ("pregrasp", "home"):
        world.tick()
        return world
    world.run_until("hold" if state == "release" else state)
    if state == "release":
        assert world.ask("release") == ""
        world.tick()
    return world

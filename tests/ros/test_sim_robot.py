"""The simulated robot against hand-worked values, MuJoCo, and the task that evaluation runs."""

import math

import numpy as np
import pytest
import torch

from dexgrasp.perception.cameras.extrinsics import CameraPose
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.rendering.offscreen import RenderUnavailable
from dexgrasp.sim.robots.arm import ArmIK
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg
from dexgrasp_ros import config
from dexgrasp_ros.simulation.sim_robot import (
    PUSH_S,
    CommandError,
    JointServos,
    SimDepthCamera,
    SimRobot,
    SimRobotCfg,
    pinhole,
    upright,
)

DT = 1 / 120


@pytest.fixture(scope="module")
def robot():
    return SimRobot(SimRobotCfg())


def joint(robot, name, column="position"):
    joints = robot.read_joints()
    return getattr(joints, column)[joints.names.index(name)]


def test_targets_move_evenly_to_what_was_commanded_last():
    servos = JointServos(["a", "b"])
    servos.reset([0.0, 1.0])
    servos.command([1.0, 1.0], act_s=2.0, reach_s=0.5)
    servos.command({"b": 3.0, "a": 0.5}, act_s=2.25, reach_s=0.25)
    assert servos.targets(1.9).tolist() == [0.0, 1.0]
    assert servos.targets(2.1) == pytest.approx([0.2, 1.0])  # 0.1 s of 0.5 s
    assert servos.targets(2.35) == pytest.approx([0.5, 1.8])  # from (0.5, 1.0), 0.1 s of 0.25 s
    assert servos.targets(9.0).tolist() == [0.5, 3.0]
    servos.command([7.0, 8.0], act_s=9.5, reach_s=0.0)
    assert servos.targets(9.5).tolist() == [7.0, 8.0]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ([1.0], "expected 2 finite positions"),
        ([1.0, math.nan], "expected 2 finite positions"),
        ([[1.0, 2.0]], "expected 2 finite positions"),
        ({"a": 1.0}, r"missing joints \['b'\]"),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, r"unknown joints \['c'\]"),
    ],
)
def test_a_command_that_does_not_fit_moves_nothing(target, text):
    servos = JointServos(["a", "b"])
    servos.reset([0.1, 0.2])
    with pytest.raises(CommandError, match=text):
        servos.command(target, 0.0, 0.0)
    assert servos.targets(10.0).tolist() == [0.1, 0.2]


def test_a_commanded_joint_arrives_and_the_others_stay(robot):
    robot.reset(0, 0)
    start = robot.read_joints()
    goal = dict(zip(robot.arm.joint_names, robot.arm.home, strict=True)) | {"wrist_3": robot.arm.home[-1] + 0.3}
    fingers = robot.hand.open_pose.copy()
    fingers[1] += 0.4
    robot.command("arm", goal, reach_s=0.5)
    robot.command("hand", fingers)
    robot.step_to(robot.time_s + 2.0)
    change = robot.read_joints().position - start.position
    wanted = np.zeros(len(robot.names))
    wanted[robot.names.index("wrist_3")], wanted[robot.names.index("ffj1")] = 0.3, 0.4
    np.testing.assert_allclose(change, wanted, atol=2e-3)  # servos without an integral part


def test_efforts_are_those_of_the_servos_law(robot):
    robot.reset(0, 0)
    robot.command("hand", robot.hand.open_pose - 0.05)
    robot.step_to(robot.time_s + 3 * DT)
    before = robot.read_joints()
    robot.step_to(robot.time_s + DT)  # MuJoCo's efforts are those that led to the state
    hand = slice(len(robot.arm.joint_names), None)
    target = np.clip(robot.hand.open_pose - 0.05, robot.hand.joint_lower, robot.hand.joint_upper)
    law = robot.hand.kp * (target - before.position[hand]) - robot.hand.kd * before.velocity[hand]
    assert np.abs(law).max() > 0.05
    np.testing.assert_allclose(robot.read_joints().effort[hand], law, rtol=0.02, atol=2e-3)


def test_a_command_acts_after_the_latency(robot):
    late = SimRobot(SimRobotCfg(latency_s=0.05))
    late.step_to(0.1)
    late.command("hand", late.hand.open_pose + 0.1)
    rest = joint(late, "ffj1")
    late.step_to(0.1 + 0.05 - DT)
    assert joint(late, "ffj1") == pytest.approx(rest, abs=1e-6)
    late.step_to(0.1 + 0.05 + 4 * DT)
    assert joint(late, "ffj1") > rest + 0.01


def test_noise_of_readings_has_its_width_and_is_not_in_the_joints():
    noisy = SimRobot(SimRobotCfg(joint_noise_rad=0.01))
    readings = np.stack([noisy.read_joints().position for _ in range(300)])
    assert 0.009 < np.ptp(readings, axis=0).max() / 2 <= 0.01
    np.testing.assert_allclose(readings.mean(0)[:6], noisy.arm.home, atol=0.002)


def test_the_arms_kinematics_puts_the_palm_where_mujoco_has_it(robot):
    robot.reset(0, 0)
    robot.command("arm", robot.arm.home + np.array([0.2, -0.1, 0.15, 0.3, -0.2, 0.5]), reach_s=0.5)
    robot.step_to(robot.time_s + 1.5)
    q = torch.from_numpy(robot.read_joints().position[:6])[None]
    pos, quat = ArmIK(robot.arm, robot.hand).forward(q)
    truth = robot.ground_truth()
    np.testing.assert_allclose(pos[0], truth.palm_pos_w, atol=1e-6)
    assert abs(float(quat[0] @ torch.from_numpy(truth.palm_quat_w))) == pytest.approx(1.0, abs=1e-6)


def test_an_object_lies_where_evaluation_would_put_it(robot, allegro, balanced):
    task = GraspTask(TaskCfg(), allegro, open_library("shipped"), balanced, 1, 1, seed=7, in_order=True)
    task.reset([3])
    robot.reset(3, 7)
    assert robot.object == task.objects[0]
    truth = robot.ground_truth()
    np.testing.assert_allclose(truth.object_pos_w, task.engine.state.object_pos_w[0], atol=1e-12)
    np.testing.assert_allclose(truth.object_quat_w, task.engine.state.object_quat_w[0], atol=1e-12)
    robot.reset(robot.object, 7)
    np.testing.assert_array_equal(robot.ground_truth().object_pos_w, truth.object_pos_w)


def test_a_reset_brings_everything_back_but_the_clock(robot):
    robot.reset(0, 0)
    start, time_s = robot.ground_truth(), robot.time_s
    robot.command("arm", robot.arm.home - 0.2)
    robot.push()
    robot.step_to(time_s + 0.5)
    robot.command("hand", robot.hand.open_pose - 0.1)
    robot.reset(0, 0)
    robot.step_to(robot.time_s + 0.5)
    np.testing.assert_allclose(robot.ground_truth().palm_pos_w, start.palm_pos_w, atol=2e-3)
    np.testing.assert_allclose(robot.ground_truth().object_pos_w, start.object_pos_w, atol=2e-3)
    assert robot.time_s == pytest.approx(time_s + 1.0, abs=2 * DT)


def test_a_push_moves_the_object_and_ends(robot):
    robot.reset("box_test_s0_00000", 0)
    start = robot.ground_truth().object_pos_w
    robot.step_to(robot.time_s + 0.5)
    assert np.linalg.norm(robot.ground_truth().object_pos_w - start) < 1e-3
    robot.push()
    robot.step_to(robot.time_s + PUSH_S + 1.0)
    pushed = robot.ground_truth()
    assert np.linalg.norm((pushed.object_pos_w - start)[:2]) > 5e-3
    robot.step_to(robot.time_s + 0.5)
    np.testing.assert_allclose(robot.ground_truth().object_pos_w, pushed.object_pos_w, atol=1e-3)
    assert not pushed.touched
    assert abs(pushed.lifted_m) < 0.1


def test_an_object_that_is_not_there_is_named_with_those_that_are(robot):
    with pytest.raises(ValueError, match=r"object 9999: the library has \d+ objects"):
        robot.reset(9999, 0)
    with pytest.raises((KeyError, ValueError), match="box"):
        robot.reset("bax_test_s0_00000", 0)


@pytest.mark.parametrize(
    "wrong", [{"drop": 1.0}, {"latency_s": -0.1}, {"state_rate_hz": 0.0}], ids=lambda wrong: next(iter(wrong))
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimRobotCfg(**wrong)


def camera(**options):
    try:
        return SimDepthCamera(SimRobotCfg(**options))
    except RenderUnavailable as error:
        pytest.skip(str(error))


def test_depth_of_the_table_is_its_distance(robot):
    robot.reset(0, 0)
    depth_m = camera(flaws=False).capture(robot.snapshot())
    T = CameraPose.load(config("cameras/sim.yaml")).T_world_cam
    x, y = pinhole(640, 480).rays().astype(float)
    table_m = -T[2, 3] / (T[2, 0] * x + T[2, 1] * y + T[2, 2])  # where the ray meets z = 0
    near = slice(360, None)  # in front of the workspace there is nothing but table
    np.testing.assert_allclose(depth_m[near], table_m[near], rtol=1e-3)
    assert (depth_m < table_m - 0.02).mean() > 0.02  # the robot and the object


def test_flaws_are_those_of_a_stereo_camera(robot):
    robot.reset(0, 0)
    exact, spoiled = camera(flaws=False).capture(robot.snapshot()), camera().capture(robot.snapshot())
    near = slice(360, None)
    assert 0.015 < (spoiled[near] == 0).mean() < 0.03
    seen = spoiled[near] > 0
    error = (spoiled - exact)[near][seen]
    assert 0.0005 < np.median(np.abs(error)) < 0.003
    np.testing.assert_allclose(spoiled / 0.001, np.rint(spoiled / 0.001), atol=1e-6)


def test_a_small_image_has_the_same_field_of_view(robot):
    small = camera(flaws=False, width=160, height=120)
    assert small.intrinsics.fx == pytest.approx(385 / 4)
    full = camera(flaws=False).capture(robot.snapshot())
    np.testing.assert_allclose(small.capture(robot.snapshot())[100, 80], full[400:404, 320:324].mean(), rtol=5e-3)


def test_a_tilted_camera_is_refused():
    T = CameraPose.load(config("cameras/sim.yaml")).T_world_cam.copy()
    T[:3, :2] = T[:3, :2] @ np.array([[0.8, -0.6], [0.6, 0.8]])
    with pytest.raises(ValueError, match="x axis of the simulated camera must be horizontal"):
        upright(T, "tilted.yaml")

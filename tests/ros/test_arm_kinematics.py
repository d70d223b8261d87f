"""The arm behind the grasp node: against the simulator's own kinematics of arm and hand."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dexgrasp import assets
from dexgrasp.policies.deploy.bundle import read_contract
from dexgrasp.sim.robots.arm import ArmIK, ArmSpec
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.drivers import config
from dexgrasp_ros.drivers.arm_kinematics import ArmKinematics
from dexgrasp_ros.grasping.scripted_motions import MotionCfg, ScriptedMotion, approach
from dexgrasp_ros.perception.config import arm_body
from tests.helpers import arms, published_arms

STEP_S = 0.05


@pytest.fixture(scope="module")
def hand():
    return read_contract(assets.path("policies/allegro/student/bundle")).hand


@pytest.fixture(scope="module")
def arm(hand):
    return ArmKinematics("ur5e", hand, STEP_S, speed=0.5)


def test_the_palm_is_where_the_simulator_has_it(arm, allegro):
    ik = ArmIK(ArmSpec.load("ur5e"), allegro)
    rng = np.random.default_rng(0)
    for q in arm.home + rng.uniform(-0.5, 0.5, (5, 6)):
        pos, quat = ik.forward(torch.from_numpy(q[None]))
        found = arm.palm(q)
        np.testing.assert_allclose(found.pos_m, pos[0], atol=1e-12)
        assert found.angle_rad(Pose(quat[0].numpy(), quat[0].numpy())) < 1e-6


def test_at_home_the_palm_looks_down_on_the_middle_of_the_workspace(arm):
    home = arm.palm(arm.home)
    np.testing.assert_allclose(home.pos_m[:2], 0, atol=2e-3)
    assert home.normal[2] < -0.999


def test_the_first_command_is_where_the_arm_stands(arm):
    rng = np.random.default_rng(1)
    for q in arm.home + rng.uniform(-0.3, 0.3, (5, 6)):
        np.testing.assert_allclose(arm.step_towards(q, arm.palm(q)), q, atol=1e-3)


def test_a_pose_is_reached_at_the_speed_that_is_allowed(arm):
    home = arm.palm(arm.home)
    goal = Pose(home.pos_m + np.array([0.1, -0.1, 0.05]), home.quat)
    q, steps = arm.home, []
    for _ in range(60):
        after = arm.step_towards(q, goal)
        steps.append(np.abs(after - q).max())
        q = after
    assert arm.palm(q).distance_m(goal) < 1e-3
    assert arm.palm(q).angle_rad(goal) < 1e-2
    assert max(steps) <= 0.5 * np.pi * STEP_S + 1e-6


def test_a_base_that_stands_elsewhere_carries_the_palm_along(arm, hand):
    moved = ArmKinematics(
        "ur5e", hand, STEP_S, base=((-0.35, 0.1, 0.02), np.pi)
    )  # 0.1 m to the front and left, a little higher
    np.testing.assert_allclose(moved.palm(arm.home).pos_m, arm.palm(arm.home).pos_m + np.array([0.1, 0.1, 0.02]))


def test_what_is_out_of_reach_is_said_to_be(arm):
    assert arm.reaches(arm.palm(arm.home))
    assert not arm.reaches(Pose(np.array([1.5, 0.0, 0.3]), arm.palm(arm.home).quat))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("arm") / "own.urdf"
    path.write_text(arms.urdf())
    return path


def test_an_arm_by_its_file_is_driven_and_removed_from_the_image_where_its_driver_says(own, hand):
    driver = config.load("arms", f"sim:{own}")
    assert (driver.arm, driver.command.joints) == (str(own), tuple(arms.JOINTS))
    (own.parent / "driver.yaml").write_text(
        "arm: own.urdf\nsource: test\nbase: {pos_w: [-0.6, 0, 0.05], yaw_rad: 0.0}\n"
        f"command: {{type: joint_trajectory, topic: /c, joints: [{', '.join(arms.JOINTS)}]}}\n"
        f"state: {{topic: /joint_states, names: {{{', '.join(f'{name}: {name}' for name in arms.JOINTS)}}}}}\n"
    )
    stated = config.load("arms", str(own.parent / "driver.yaml"))
    assert stated.arm == str(own)
    kinematics = ArmKinematics(str(own), hand, STEP_S, ((-0.6, 0.0, 0.05), 0.0))
    home = kinematics.palm(kinematics.home)
    np.testing.assert_allclose(home.pos_m, [0, 0, 0.3], atol=3e-3)
    body = arm_body(stated, "driver.yaml", hand)
    q = np.linspace(-0.4, 0.4, 7)
    pos, quat = body.hand_base(torch.tensor(q))
    palm = Pose(pos.numpy(), quat.numpy()) @ Pose.of(hand.palm_pos_b, hand.palm_quat_b)
    np.testing.assert_allclose(palm.pos_m, kinematics.palm(q).pos_m, atol=1e-6)
    tip = arms.flange(q)[:3, 3] + [-0.6, 0, 0.05]
    np.testing.assert_allclose(pos, tip, atol=1e-6)
    assert body.capsules(torch.tensor(q)).contain(tip[:, None].astype(np.float32), 0.1).all()


@pytest.mark.parametrize("name", list(published_arms.ARMS))
def test_a_published_arm_has_its_flange_where_its_table_says(name, hand, tmp_path):
    arm = ArmKinematics(str(published_arms.write(tmp_path, name)), hand, STEP_S)
    rng, base = np.random.default_rng(0), np.array(published_arms.ARMS[name].base_m)
    for q in arm.home + rng.uniform(-0.3, 0.3, (5, 7)):
        pose = published_arms.flange(name, q)
        palm = pose[:3, 3] + pose[:3, :3] @ np.array(hand.palm_pos_b) + base
        np.testing.assert_allclose(arm.palm(q).pos_m, palm, atol=1e-6)


@pytest.mark.slow
def test_a_pose_behind_a_joint_limit_is_not_reached_from_home(hand, tmp_path):
    """Poses that are reached are those to which the arm gets along the scripted way, in steps of a control period."""
    arm = ArmKinematics(str(published_arms.write(tmp_path, "fr3")), hand, STEP_S)
    rng, agree = np.random.default_rng(1), []
    for _ in range(20):
        turn = arm.palm(arm.home).quat
        spin = Rotation.from_rotvec([0.0, 0.0, rng.uniform(-np.pi, np.pi)]) * Rotation.from_quat(np.roll(turn, -1))
        goal = Pose(rng.uniform([-0.1, -0.1, 0.15], [0.1, 0.1, 0.3]), np.roll(spin.as_quat(), 1))
        q, motion = arm.home.copy(), MotionCfg()
        palm, fingers = arm.palm(q), np.zeros(16)
        way = ScriptedMotion(approach(palm, goal, fingers, motion.transit_height_m), palm, fingers, motion, 0.05)
        for _ in range(600):
            q = arm.step_towards(q, way.step(arm.palm(q), fingers)[0])
            if way.done:
                break
        agree.append((arm.reaches(goal), way.done))
    assert {True, False} == {done for _, done in agree}
    assert all(done for found, done in agree if found)  # none is promised in vain
    assert sum(found for found, _ in agree) >= 0.8 * sum(done for _, done in agree)

"""Arms from files of others: base, tip, limits, gains, place and home are found in the model or derived from it."""

import logging
import math

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp import assets
from dexgrasp.perception.transforms import quat_conjugate, quat_multiply, quat_rotate, rotvec_from_quat
from dexgrasp.policies.cli.main import main
from dexgrasp.sim.robots.arm import CLEARANCE_M, ArmIK, ArmSpec
from dexgrasp.sim.robots.arms import arm_values
from dexgrasp.sim.robots.arms.arm_model import read_arm_model
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.mount import attach
from dexgrasp.sim.task.actions import WristCfg, wrist_on
from tests.helpers import arms

MM = 1e-3


@pytest.fixture(scope="module")
def hand() -> HandSpec:
    return HandSpec.load("allegro")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("arms")
    (folder / "own.xml").write_text(arms.mjcf())
    (folder / "own.urdf").write_text(arms.urdf())
    return {kind: str(folder / f"own.{kind}") for kind in ("xml", "urdf")}


@pytest.fixture(scope="module")
def arm(files, hand) -> ArmSpec:
    return ArmSpec.load(files["urdf"], hand)


@pytest.fixture(scope="module")
def ik(arm, hand) -> ArmIK:
    return ArmIK(arm, hand)


def _angle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return rotvec_from_quat(quat_multiply(quat_conjugate(a), b)).norm(dim=-1)


def _tip_pose(path, q: np.ndarray, **stated) -> np.ndarray:
    """Return the pose (4, 4) of the tip of a model that was read, in its base."""
    model = read_arm_model(path, **stated)
    compiled = model.to_mjspec(tuple(joint.name for joint in model.joints)).compile()
    data = mujoco.MjData(compiled)
    data.qpos[:] = q
    mujoco.mj_kinematics(compiled, data)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = data.site(model.tip).xmat.reshape(3, 3), data.site(model.tip).xpos
    return pose


@pytest.mark.parametrize("kind", ["xml", "urdf"])
def test_kinematics_of_mjcf_and_urdf_are_those_worked_out_by_hand(files, kind, tmp_path):
    path = tmp_path.__class__(files[kind])
    for seed in range(4):
        q = np.random.default_rng(seed).uniform(-1.5, 1.5, 7)
        np.testing.assert_allclose(_tip_pose(path, q), arms.flange(q), atol=1e-9)


def test_hinges_off_the_origin_two_in_a_body_and_shifted_zeros_keep_their_motion(tmp_path):
    body = (
        '<mujoco><compiler angle="radian"/><worldbody><body name="stand" pos="0.3 0.1 0.2" quat="0.9 0 0.1 0.2">'
        '<body name="one" pos="0 0 0.3" quat="0.8 0.3 0 0.1"><joint name="p" axis="0 0 1" pos="0.02 0 0.01" ref="0.3"/>'
        '<joint name="t" axis="0 1 0" pos="0 0.03 0"/><geom size="0.05" pos="0.01 0 0"/>'
        '<body name="two" pos="0.2 0 0.1"><joint name="w" axis="0 0.6 0.8" ref="-0.2"/><geom size="0.04"/>'
        '<site name="tool0" pos="0 0 0.1"/></body></body></body></worldbody></mujoco>'
    )
    path = tmp_path / "odd.xml"
    path.write_text(body)
    source = mujoco.MjModel.from_xml_string(body)
    data = mujoco.MjData(source)
    for seed in range(3):
        data.qpos[:] = q = np.random.default_rng(seed).uniform(-1, 1, 3)
        mujoco.mj_kinematics(source, data)
        stand, site = data.body("stand"), data.site("tool0")
        turned = stand.xmat.reshape(3, 3).T
        pose = _tip_pose(path, q)
        np.testing.assert_allclose(pose[:3, 3], turned @ (site.xpos - stand.xpos), atol=1e-9)
        np.testing.assert_allclose(pose[:3, :3], turned @ site.xmat.reshape(3, 3), atol=1e-9)


def test_the_shipped_arm_is_bit_for_bit_that_of_its_file():
    folder = assets.path("arms/ur5e")
    model = read_arm_model(folder / "arm.xml")
    made = model.to_mjspec(tuple(joint.name for joint in model.joints)).compile()
    source = mujoco.MjModel.from_xml_path(str(folder / "arm.xml"))
    for name in (
        "body_pos",
        "body_quat",
        "body_mass",
        "body_inertia",
        "body_ipos",
        "jnt_axis",
        "geom_size",
        "geom_pos",
    ):
        np.testing.assert_array_equal(getattr(made, name), getattr(source, name))


def test_limits_come_from_the_model_and_defaults_take_the_place_of_others(files, arm):
    np.testing.assert_allclose(arm.joint_lower, [row[2][0] for row in arms.JOINTS.values()])
    np.testing.assert_allclose(arm.effort_limit, arms.EFFORT_NM)
    np.testing.assert_allclose(arm.speed_limit, arms.SPEED_RAD_S)
    in_mjcf = ArmSpec.load(files["xml"])
    np.testing.assert_allclose(in_mjcf.effort_limit, arms.EFFORT_NM)
    np.testing.assert_allclose(in_mjcf.speed_limit, arm_values.SPEED_RAD_S)
    np.testing.assert_allclose(arm.kd / arm.kp, 2 * 1.5 / 100)  # the lag of the shipped arm: 250 / 8000


def test_gains_are_near_those_of_the_shipped_arm_where_its_model_has_none(tmp_path):
    stated = ArmSpec.load("ur5e")
    path = tmp_path / "ur.xml"
    path.write_text(assets.path("arms/ur5e/arm.xml").read_text())
    derived = ArmSpec.load(str(path))
    assert (derived.kp[:3] / stated.kp[:3] > 0.5).all() and (derived.kp / stated.kp < 4).all()
    assert (derived.effort_limit > arm_values.LEAST_EFFORT_NM - 1e-9).all()


def test_visual_geoms_do_not_collide_and_are_no_capsules(files, arm):
    assert arm.compiled.ngeom == 7
    assert ArmSpec.load(files["xml"]).compiled.ngeom == 8  # and the stand
    assert max(radius for *_, radius in arm.sticks) == pytest.approx(0.04)


def test_home_holds_the_palm_over_the_table_facing_down_and_is_always_the_same(arm, ik, files, hand):
    pos, quat = ik.forward(torch.tensor(arm.home)[None])
    np.testing.assert_allclose(pos[0], [0, 0, 0.3], atol=3 * MM)
    normal = quat_rotate(quat, torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64))
    assert normal[0, 2] < -math.cos(math.radians(1))
    assert ik.room(torch.tensor(arm.home)) > 0.2
    (copy := arm.folder / "copy.urdf").write_text(arms.urdf())
    np.testing.assert_array_equal(ArmSpec.load(str(copy), hand).home, arm.home)


def test_most_poses_of_the_workspace_are_reached_without_the_table(arm, ik):
    pos_w, quat_w = arm_values.workspace_poses(20)
    q, reached = ik.reach(pos_w, quat_w)
    assert reached.sum() >= 18
    pos, quat = ik.forward(q[reached])
    assert (pos - pos_w[reached]).norm(dim=-1).max() < MM
    assert _angle(quat, quat_w[reached]).max() < math.radians(0.5)
    data = mujoco.MjData(arm.compiled)
    for row in q[reached].numpy():
        assert (row >= arm.joint_lower - 1e-9).all() and (row <= arm.joint_upper + 1e-9).all()
        data.qpos[:] = row
        mujoco.mj_kinematics(arm.compiled, data)
        for body, *ends, radius in arm.sticks[2:]:
            lowest = min((data.xpos[body] + data.xmat[body].reshape(3, 3) @ end)[2] for end in ends) - radius
            assert lowest >= CLEARANCE_M - 1e-9


def test_a_pose_beside_the_home_configuration_is_found_by_the_search(arm, hand):
    """Home folded the wrong way: the turned starts alone do not reach what the arm can reach."""
    pos_w, quat_w = arm_values.workspace_poses(6)
    ik = ArmIK(arm.__class__(**{**vars_of(arm), "home": arm.joint_upper * 0.95}), hand)
    assert ik.reaches(pos_w, quat_w).sum() >= 5
    assert not ik.reaches(pos_w + torch.tensor([3.0, 0.0, 0.0]), quat_w).any()


def vars_of(arm: ArmSpec) -> dict:
    names = arm.__dataclass_fields__
    return {name: getattr(arm, name) for name in names}


def test_the_simulated_arm_lifts_the_palm_within_two_millimetres(arm, hand, ik):
    spec = mujoco.MjSpec()
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    attach(spec, hand, str(arm.folder / "own.urdf"))
    model = spec.compile()
    data = mujoco.MjData(model)
    q = torch.tensor(arm.home)[None]
    pos_w, quat_w = ik.forward(q)
    data.qpos[:7], data.qpos[7:] = q[0], hand.open_pose
    data.ctrl[:] = data.qpos
    for step in range(20):
        goal = pos_w + torch.tensor([0.0, 0.0, min(0.01 * (step + 1), 0.1)])
        q = ik.solve(q, goal, quat_w)
        data.ctrl[:7] = q[0]
        mujoco.mj_step(model, data, nstep=25)
    pos, quat = ik.forward(torch.tensor(data.qpos[None, :7]))
    assert (pos - goal).norm() < 2 * MM
    assert _angle(quat, quat_w) < math.radians(0.5)


def test_a_gripper_below_the_tip_is_left_out_and_told(tmp_path, caplog, hand):
    path = tmp_path / "with gripper.urdf"
    path.write_text(arms.urdf(arms.gripper("tool0")))
    with caplog.at_level(logging.INFO, logger="dexgrasp"):
        arm = ArmSpec.load(str(path), hand)
    assert arm.joint_names == tuple(arms.JOINTS)
    assert "7 joints from 'stand' to 'tool0'; left out with joints left_finger, right_finger" in caplog.text
    path.write_text(arms.urdf(arms.gripper("link_a7"), tip="camera").replace('name="camera"', 'name="grip_frame"', 0))
    assert read_arm_model(path).tip == "grip"  # without a known name: where the fingers branch off


def test_tips_of_ros_whose_x_points_forward_are_turned_to_z(tmp_path):
    path = tmp_path / "own.urdf"
    turned = '<origin xyz="0 0 0.1" rpy="0 -1.5707963267948966 0"/>'
    path.write_text(arms.urdf(tip="flange").replace('<origin xyz="0 0 0.1"/></joint>', turned + "</joint>"))
    q = np.linspace(-0.5, 0.5, 7)
    np.testing.assert_allclose(_tip_pose(path, q), arms.flange(q), atol=1e-6)


def test_what_arm_yaml_states_wins(files, hand, tmp_path, arm):
    file = tmp_path / "arm.yaml"
    rows = "".join(f"  {name}: {{home: 0.1, speed_limit: 1.25, range: [-1, 1]}}\n" for name in arms.JOINTS)
    file.write_text(
        f"name: mine\nmodel: {files['urdf']}\nbase: stand\ntip: link_a7\nplace: {{pos_w: [-0.5, 0, 0.1], yaw_rad: 1}}\n"
        f"joints:\n{rows}"
    )
    for place in (file, tmp_path):
        mine = ArmSpec.load(str(place), hand)
        assert (mine.name, mine.flange) == ("mine", "link_a7")
        np.testing.assert_allclose(mine.home, 0.1)
        np.testing.assert_allclose(mine.speed_limit, 1.25)
        np.testing.assert_allclose(mine.joint_upper, 1)
        np.testing.assert_allclose(mine.base_pos_w, [-0.5, 0, 0.1])
        np.testing.assert_allclose(mine.effort_limit, arms.EFFORT_NM)
    assert ArmSpec.load(f"{files['urdf']}:tip=link_a6").joint_names == tuple(arms.JOINTS)[:6]


def test_joints_and_bodies_of_one_name_are_told_apart(tmp_path, hand):
    path = tmp_path / "own.xml"
    taken = hand.joint_names[0]
    path.write_text(arms.mjcf().replace('"a3"', f'"{taken}"').replace('"link_a3"', '"palm"'))
    arm = ArmSpec.load(str(path), hand)
    assert arm.joint_names[2] == f"arm_{taken}"
    spec = mujoco.MjSpec()
    attach(spec, hand, str(path))
    model = spec.compile()
    assert [model.joint(i).name for i in range(model.njnt)] == [*arm.joint_names, *hand.joint_names]
    assert model.body("palm").id > model.body("arm_palm").id


def test_the_wrist_follows_from_arm_and_hand(files, hand):
    assert ArmSpec.load("ur5e").wrist(hand) == (0.195, 0.055)  # 0.0996 + 0.095 and 0.04 + 0.015, rounded up
    assert wrist_on("ur5e", hand, WristCfg()) == wrist_on("floating", hand, WristCfg()) == WristCfg()
    assert ArmSpec.load("ur5e").wrist(HandSpec.load("leap")) == (0.184, 0.055)
    own = wrist_on(files["urdf"], hand, WristCfg())
    assert own.offset_m == pytest.approx(0.08 + 0.1 + 0.095)  # the last axis meets that of joint 6 at link 6
    assert own.clearance_m == pytest.approx(0.04 + 0.015)
    assert wrist_on(files["urdf"], hand, WristCfg(offset_m=0.3)).offset_m == 0.3


SHORT = {name: arms.JOINTS[name] for name in ("a1", "a2", "a4", "a6", "a7")}
SLIDE = '<body name="car"><joint name="rail" type="slide" axis="1 0 0" range="0 1"/><geom size="0.1"/>'
BAD = {
    "no such tip": (arms.mjcf(), ":tip=tol0", r"tip 'tol0' is no site or body; known: tool0.*Did you mean 'tool0'"),
    "no such base": (arms.mjcf(), ":base=stnd", r"base 'stnd' is no body; known: stand.*Did you mean 'stand'"),
    "tip above base": (
        arms.mjcf(),
        ":base=link_a5,tip=link_a2",
        r"no joint leads from base 'link_a5' to tip 'link_a2'",
    ),
    "an unknown key": (arms.mjcf(), ":tips=tool0", r"expected :base=NAME, :tip=NAME"),
    "two tips": (
        arms.mjcf(tip='<site name="left_tool0"/><site name="right_tool0" pos="0 0 0.1"/>'),
        "",
        r"may be left_tool0, right_tool0: state it, arm.xml:tip=left_tool0, or as `tip` in an arm.yaml",
    ),
    "a closed chain": (
        arms.mjcf(tail='<equality><connect body1="link_a7" body2="stand" anchor="0 0 0"/></equality>'),
        "",
        r"<equality> couples link_a7, stand; expected an open chain",
    ),
    "a coupled joint": (
        arms.mjcf(tail='<equality><joint joint1="a4" joint2="a2"/></equality>'),
        "",
        r"<equality> couples link_a4, link_a2",
    ),
    "a sliding joint": (
        arms.mjcf()
        .replace('<body name="stand">', SLIDE + '<body name="stand">')
        .replace("</worldbody>", "</body></worldbody>"),
        "",
        r"joint 'rail' slides; expected hinges from base to tip: give a base below it, arm.xml:base=car",
    ),
    "millimetres": (
        arms.mjcf(joints={name: (1e3 * row[0], *row[1:]) for name, row in arms.JOINTS.items()}),
        "",
        r"the arm is 1230 m long from base 'stand' to tip 'tool0'; expected 0.15 to 4 m: .*millimetres",
    ),
    "a collider of no size": (
        arms.mjcf(extra='<geom type="box" size="0.1 0.1 1e-9"/>'),
        "",
        r"a collider of '.*' has a size of 1e-09 m; expected at least 1e-05 m",
    ),
    "no joints": (
        "<mujoco><worldbody><body name='b'><geom size='1'/></body></worldbody></mujoco>",
        "",
        "no body is moved",
    ),
    "no XML": ("hinge", "", "not a valid MJCF"),
    "a missing mesh": (
        arms.mjcf(
            extra='<geom type="mesh" mesh="shell"/>', tail='<asset><mesh name="shell" file="shell.stl"/></asset>'
        ),
        "",
        r"mesh 'shell' of the arm: no file .*shell.stl",
    ),
    "too short": (
        arms.mjcf(joints=arms.JOINTS | {"a1": (0.9, "z", (-1, 1))}),
        "",
        r"does not bring the palm over .*`place`",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_arm_is_refused_in_one_line(case, tmp_path, hand):
    text, stated, message = BAD[case]
    (tmp_path / "arm.xml").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        ArmSpec.load(f"{tmp_path / 'arm.xml'}{stated}", hand)
    assert "\n" not in str(caught.value)
    assert stated.startswith(":tips") or "arm.xml" in str(caught.value)


def test_a_sliding_joint_is_held_by_the_base_that_the_message_names(tmp_path):
    (tmp_path / "arm.xml").write_text(BAD["a sliding joint"][0])
    assert len(read_arm_model(tmp_path / "arm.xml", base="car").joints) == 7


def test_five_joints_are_taken_and_told(tmp_path, hand, caplog):
    (tmp_path / "arm.xml").write_text(arms.mjcf(joints=SHORT))
    with caplog.at_level(logging.INFO, logger="dexgrasp"):
        arm = ArmSpec.load(str(tmp_path / "arm.xml"), hand)
    assert "with fewer than 6 joints it reaches few orientations of the palm" in caplog.text
    pos, _ = ArmIK(arm, hand).forward(torch.tensor(arm.home)[None])
    np.testing.assert_allclose(pos[0, :2], 0, atol=4 * MM)


def test_joints_without_limits_turn_freely_to_either_side(tmp_path):
    (tmp_path / "own.urdf").write_text(arms.urdf().replace('"revolute"', '"continuous"', 1))
    joint = read_arm_model(tmp_path / "own.urdf").joints[0]
    assert (joint.lower, joint.upper) == (-2 * math.pi, 2 * math.pi)


@pytest.mark.parametrize(
    "text", ["name: x\n", "name: x\nmodel: none.xml\n", "name: x\nmodel: own.xml\njoints: {z: {home: 0}}\n"]
)
def test_a_wrong_arm_yaml_is_refused_with_its_key(tmp_path, text):
    (tmp_path / "arm.yaml").write_text(text)
    (tmp_path / "own.xml").write_text(arms.mjcf())
    with pytest.raises((ValueError, FileNotFoundError), match=r"arm.yaml: ('model'|joints: joint 'z' is unknown)"):
        ArmSpec.load(str(tmp_path))


def test_the_command_takes_an_arm_by_its_file(files, tmp_path, capsys):
    words = ["policy=synergy", f"arm={files['urdf']}", "trials=1", "num_envs=1", "num_threads=1", "physics=turbo"]
    assert main(["evaluate", *words, "attempts=1", f"out={tmp_path / 'run'}"]) == 0
    assert "of 1 trial succeeded" in capsys.readouterr().err
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert f"mount: {files['urdf']}" in config and "offset_m: 0.275" in config

"""Couplings of joints: read from models and hand.yaml, held while grasping, refused where they are no lines."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp import configs
from dexgrasp.perception.motors import Coupling, Motors, resolve_chains
from dexgrasp.perception.transforms import quat_rotate
from dexgrasp.sim.engine.base import InitialState, PhysicsVariation
from dexgrasp.sim.engine.config import WarpCfg
from dexgrasp.sim.engine.factory import make_engine
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.randomization.episode_draws import RandomizationCfg
from dexgrasp.sim.robots.coupling_sweep import sweep
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import ModelPool, PhysicsCfg
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg
from tests.helpers import six_motor_hand as six

HELD = 0.02
"""Largest deviation from a coupling while the hand closes, as a share of the joint's range."""


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
    return HandSpec.load(six.write(tmp_path_factory.mktemp("six"), "yaml"))


@pytest.mark.parametrize("way", ["equalities", "tendons", "mimic", "yaml"])
def test_each_way_to_state_the_couplings_gives_the_same_hand(tmp_path, way):
    found = HandSpec.load(six.write(tmp_path, way))
    assert found.motors.names == tuple(six.MOTORS)
    assert {joint: line.follows for joint, line in found.coupled.items()} == {k: v[0] for k, v in six.RESOLVED.items()}
    for joint, (_, ratio, offset) in six.RESOLVED.items():
        line = found.coupled[joint]
        assert (line.ratio, line.offset) == pytest.approx((ratio, offset), abs=1e-9)
    assert (found.num_actions, len(found.joint_names)) == (12, 12)
    model = found.to_mjspec().compile()
    assert (model.nu, model.neq, model.ntendon) == (6, 6, 0)
    limits = dict(zip(found.joint_names, zip(found.joint_lower, found.joint_upper, strict=True), strict=True))
    assert limits["index_2"] == pytest.approx((0.05 * 1.1 - 0.04, 1.5 * 1.1 - 0.04))  # those that the motor reaches
    assert limits["thumb_4"] == pytest.approx((0.0, 0.6 * 1.5 * 0.8))
    open_pose = dict(zip(found.joint_names, found.open_pose, strict=True))
    assert open_pose["index_2"] == pytest.approx(0.3 * 1.1 - 0.04)


def test_hand_yaml_goes_before_the_model(tmp_path):
    rows = six.hand_yaml()["joints"] | {"thumb_3": {"range": [0, 1], "open": 0.1, "closing": 1.0}}
    stated = {"index_2": {"follows": "index_1", "ratio": 0.5}, "thumb_3": None}
    found = HandSpec.load(six.write(tmp_path, "equalities", coupled=stated, joints=rows))
    assert found.motors.names == (*six.MOTORS, "thumb_3")
    assert found.coupled["index_2"] == Coupling("index_1", 0.5, 0.0)
    assert found.coupled["thumb_4"] == Coupling("thumb_3", 0.8, 0.0)  # its chain ends at the joint that has a motor now


def test_hand_yaml_may_turn_a_coupling_round(tmp_path):
    rows = six.hand_yaml()["joints"]
    rows |= {"index_2": rows["index_1"], "index_1": {}}
    file = six.write(tmp_path, "equalities", coupled={"index_1": {"follows": "index_2", "ratio": 0.9}}, joints=rows)
    found = HandSpec.load(file)
    assert found.coupled["index_1"] == Coupling("index_2", 0.9, 0.0)
    assert found.motors.names == ("index_2", *six.MOTORS[1:])


def test_the_curve_of_a_polynomial_counts_within_the_range_of_hand_yaml(tmp_path, caplog):
    rows = six.hand_yaml()["joints"] | {"index_1": {"range": [0.4, 0.8], "open": 0.5, "closing": 1.0}}
    rest = {joint: line for joint, line in six_coupled().items() if joint != "index_2"}
    file = six.write(tmp_path, "yaml", joints=rows, coupled=rest)
    (tmp_path / "hand.xml").write_text(six.mjcf(_POLY.format("0 1 0.2 0 0")))
    with caplog.at_level("INFO", "dexgrasp"):
        line = HandSpec.load(file).coupled["index_2"]
    assert line.ratio == pytest.approx(1 + 0.2 * 1.2, abs=1e-3)  # the mean slope of x + 0.2 x^2 from 0.4 to 0.8
    assert "index_2 = 1.24 index_1 -0.06" in caplog.text and "(within 0.00" in caplog.text


def test_a_left_hand_has_the_same_couplings(tmp_path):
    left, right = (HandSpec.load(six.write(tmp_path, "yaml"), side) for side in ("left", "right"))
    assert left.coupled == right.coupled and left.to_mjspec().compile().neq == 6


def test_positions_and_limits_worked_by_hand():
    motors = Motors(("a", "b", "c"), {"b": Coupling("a", -2.0, 0.1)})
    assert (motors.names, motors.joints, motors.of_joint) == (("a", "c"), [0, 2], [0, 0, 1])
    np.testing.assert_allclose(motors.joint_positions(np.array([0.3, 0.7])), [0.3, -0.5, 0.7])
    torch.testing.assert_close(motors.joint_positions(torch.tensor([[0.3, 0.7]])), torch.tensor([[0.3, -0.5, 0.7]]))
    np.testing.assert_allclose(motors.positions(np.array([0.3, -0.5, 0.7])), [0.3, 0.7])
    np.testing.assert_allclose(motors.moved(np.array([0.01, 0.02])), [0.01, -0.02, 0.02])
    lower, upper = motors.limits([0.0, -1.5, -1.0], [1.0, 0.0, 1.0])  # b leaves a 0.05 to 0.8
    np.testing.assert_allclose([lower, upper], [[0.05, -1.0], [0.8, 1.0]])
    every = Motors(("a", "b"), {})
    values = torch.zeros(2)
    assert every.joint_positions(values) is values and every.positions(values) is values  # not a copy


def test_chains_are_multiplied_out():
    chain = {"c": Coupling("b", 2.0, 0.1), "b": Coupling("a", 3.0, 0.2)}
    line = resolve_chains(chain, "abc")["c"]
    assert (line.follows, line.ratio, line.offset) == ("a", 6.0, pytest.approx(0.5))


_PULLEY = """<mujoco><compiler angle="radian"/><worldbody><body name="base">
  <geom type="box" size=".02 .02 .02" mass=".1"/>
  <body name="a"><joint name="a" axis="0 1 0" range="0 1.5" damping=".05" stiffness=".1" limited="true"/>
    <geom type="capsule" fromto="0 0 0 0 0 .05" size=".01" mass=".01"/><site name="s1" pos=".02 0 .02"/>
    <body name="b" pos="0 0 .05">
      <joint name="b" axis="0 1 0" range="0 1.5" damping=".05" stiffness=".1" limited="true"/>
      <geom type="capsule" fromto="0 0 0 0 0 .03" size=".01" mass=".01"/><site name="s2" pos=".02 0 .02"/></body></body>
  <site name="s0" pos=".02 0 -.03"/></body></worldbody>
  <tendon><spatial name="pull"><site site="s0"/><site site="s1"/><site site="s2"/></spatial></tendon>
  <actuator><position name="pull" tendon="pull" kp="2000" ctrlrange=".06 .12"/></actuator></mujoco>"""


def test_a_sweep_of_a_spatial_tendon_moves_the_joints_that_it_passes():
    model = mujoco.MjModel.from_xml_string(_PULLEY)
    found = sweep(model, 0)
    assert set(found) == {"a", "b"} and all(np.ptp(values) > 0.3 for values in found.values())


def _settled(hand, physics, engine, warp=None):
    """Close the hand on an object in front of the palm; return the deviation of each joint and what was touched."""
    library, rows = open_library("shipped"), 3
    pool = ModelPool(hand, library, configs.load_option(PhysicsCfg, "physics", physics), "floating")
    engine = make_engine(engine, pool, rows, 1, warp)
    palm = torch.tensor([0, 0, 0.6]).double().repeat(rows, 1)
    quat = torch.tensor([0.5**0.5, 0, 0.5**0.5, 0]).double().repeat(rows, 1)
    nominal = PhysicsVariation.none(rows, len(hand.motors.names))
    away = quat_rotate(quat, torch.tensor([0.06, 0.0, 0.045]).double().repeat(rows, 1))
    start = InitialState(
        objects=[library.names[17 * i] for i in range(rows)],
        object_pos_w=palm + away,
        object_quat_w=torch.tensor([1.0, 0, 0, 0]).double().repeat(rows, 1),
        palm_pos_w=palm,
        palm_quat_w=quat,
        joint_pos=torch.tensor(hand.open_pose).repeat(rows, 1),
        variation=replace(nominal, gravity=torch.zeros(rows, 3).double()),
    )
    engine.reset(torch.arange(rows), start)
    motors, span = hand.motors, torch.tensor(hand.joint_upper - hand.joint_lower)
    worst, touched = torch.zeros(len(span)).double(), torch.zeros(rows).bool()
    for _ in range(16 if warp is None else 6):
        ahead = motors.positions(engine.state.joint_pos.double()) + 0.5 * hand.power.closing
        engine.step(ahead, palm, quat, 0.05)
        joints = engine.state.joint_pos.double()
        worst = torch.maximum(worst, ((joints - motors.joint_positions(motors.positions(joints))).abs() / span).amax(0))
        touched |= engine.state.object_contact.any(dim=1)
    torque = engine.state.joint_torque.abs().amax(dim=0)
    return worst, touched, torque


@pytest.mark.parametrize("physics", ["reference", "balanced", "turbo"])
def test_the_coupling_holds_while_the_hand_closes_on_an_object(hand, physics):
    worst, touched, torque = _settled(hand, physics, "cpu")
    assert touched.all()
    assert 0 < worst.max() < HELD
    assert torque.shape == (6,) and torque.max() > 0.1  # the object stops the motors


@pytest.mark.slow
def test_the_coupling_holds_in_warp_too(hand):
    pytest.importorskip("mujoco_warp")
    worst, touched, _ = _settled(hand, "balanced", "warp", WarpCfg(nconmax=200, njmax=400))
    assert touched.any()
    assert 0 < worst.max() < HELD


def test_a_task_speaks_of_motors_in_actions_and_of_joints_in_observations(hand):
    task = GraspTask(
        replace(TaskCfg(), randomization=RandomizationCfg(joint_bias_rad=0.03, kp_scale=(0.5, 2.0))),
        hand,
        open_library("shipped"),
        configs.load_option(PhysicsCfg, "physics", "balanced"),
        num_envs=2,
        num_threads=1,
    )
    sizes = {term.name: term.size for term in task.layouts["student"].terms}
    assert (sizes["joint_pos"], sizes["tracking_error"], sizes["last_action"]) == (12, 6, 12)
    assert sizes["history"] == 10 * (12 + 6 + 6)
    task.reset([0, 1])
    joints, motors = task.engine.state.joint_pos, hand.motors
    torch.testing.assert_close(joints, motors.joint_positions(motors.positions(joints)))  # the reset sets followers too
    error = task.sensed.joint_pos - joints
    torch.testing.assert_close(error, motors.moved(task.draws.joint_bias))  # and their readings follow
    model = task.engine.get_model(0)
    nominal = hand.kp * task.draws.kp_scale[0].numpy()
    np.testing.assert_allclose(model.actuator_gainprm[-6:, 0], nominal)
    task.step(torch.ones(2, 12))
    assert task.engine.state.joint_target.shape == (2, 6)


_POLY = '<equality><joint joint1="index_2" joint2="index_1" polycoef="{}"/></equality>'
_TENDON = '<tendon>{}</tendon><actuator><position name="m" tendon="t"/>{}</actuator>'
_PAIR = '<fixed name="t"><joint joint="index_1" coef="1"/><joint joint="index_2" coef="1"/></fixed>'


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_POLY.format("0 0 1 0 0"), r"'index_2' follows 'index_1' along a curve that a line misses by .* rad, \d+% of"),
        (_POLY.format("0.2 0 0 0 0"), "'index_2' does not move with 'index_1': ratio 0"),
        (_POLY.format("0 1 0 0 0").replace('joint2="index_1" ', ""), "holds joint 'index_2' still; .*`frozen`"),
        (_POLY.format("0 1 0 0 0") * 2, "'index_2' follows itself or two joints"),
        (
            _POLY.format("0 1 0 0 0") + '<actuator><motor joint="index_1"/><motor joint="index_2"/></actuator>',
            "'index_2' follows 'index_1' and has an actuator of its own; expected one motor for both",
        ),
        (_TENDON.format(_PAIR, '<motor joint="index_1"/>'), "'index_1' has two motors: an actuator of its own and 'm'"),
        (
            '<tendon><fixed name="t" stiffness="2"><joint joint="index_1" coef="1"/><joint joint="index_2" coef="1"/>'
            "</fixed></tendon>",
            "tendon 't' moves joint 'index_1', which has no actuator, by a spring or a limit, with slack",
        ),
        (
            '<tendon><fixed name="t"><joint joint="index_1" coef="1"/><joint joint="index_2" coef="1"/>'
            '<joint joint="ring_1" coef="1"/></fixed></tendon><equality><tendon name="e" tendon1="t"/></equality>',
            "equality 'e' couples 3 joints .*; expected two",
        ),
        (
            '<equality><connect body1="index_2" body2="ring_2" anchor="0 0 0"/></equality>',
            "closed loops without an actuator",
        ),
    ],
)
def test_what_a_model_couples_otherwise_is_refused_with_the_reason(tmp_path, model, message):
    file = six.write(tmp_path, "yaml", coupled={})
    (tmp_path / "hand.xml").write_text(six.mjcf(model))
    with pytest.raises(ValueError, match=message):
        HandSpec.load(file)


@pytest.mark.parametrize(
    ("coupled", "message"),
    [
        (
            {"index_2": {"follows": "index_2", "ratio": 1}},
            r"hand\.yaml: coupled: 'index_2' follows no motor: index_2 -> index_2 is a cycle",
        ),
        (
            {"index_2": {"follows": "index_1", "ratio": 1}, "index_1": {"follows": "index_2", "ratio": 1}},
            "'index_1' follows no motor: index_1 -> index_2 -> index_1 is a cycle",
        ),
        ({"index_2": {"follows": "index_1", "ratio": 0}}, r"coupled\[index_2\]: ratio must be at least 0.001"),
        ({"index_2": {"follows": "index_1", "ratio": float("nan")}}, r"'coupled\[index_2\]\.ratio' expects float"),
        ({"index_2": {"follows": "index_1"}}, r"'coupled\[index_2\]\.ratio' has no value"),
        ({"index_2": {"follows": "inde_1", "ratio": 1}}, "joint 'inde_1' of the coupling of 'index_2' is unknown"),
        ({"indx_2": {"follows": "index_1", "ratio": 1}}, "joint 'indx_2' of the coupling of 'indx_2' is unknown"),
    ],
)
def test_a_wrong_coupling_in_hand_yaml_is_one_line(tmp_path, coupled, message):
    file = six.write(tmp_path, "yaml", coupled=six_coupled() | coupled)
    with pytest.raises(ValueError, match=message) as error:
        HandSpec.load(file)
    assert "\n" not in str(error.value)


def six_coupled():
    """The couplings of the hand as hand.yaml states them."""
    return {joint: dict(zip(("follows", "ratio", "offset"), line, strict=True)) for joint, line in six.COUPLED.items()}


@pytest.mark.parametrize(
    ("row", "joint", "message"),
    [
        ({"closing": 1.0}, "index_2", r"joints\[index_2\] states closing, but 'index_2' follows 'index_1'.*null"),
        ({"kp": 1.0}, "index_2", r"joints\[index_2\] states kp, but"),
        ({"range": [0.0, 1.0]}, "index_2", "'index_2' follows 'index_1' from 0.015 to 1.61 rad, beyond its range"),
        ({"open": 0.1, "closing": 1.0}, "index_1", r"joints\[index_1\] lacks range; expected range, open and closing"),
    ],
)
def test_a_row_that_does_not_fit_the_coupling_is_one_line(tmp_path, row, joint, message):
    file = six.write(tmp_path, "yaml", joints=six.hand_yaml()["joints"] | {joint: row})
    with pytest.raises(ValueError, match=message):
        HandSpec.load(file)

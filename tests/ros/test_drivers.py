"""Adapters: hand-worked conversions, round trips, every shipped description against the hand or arm that it names."""

import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dexgrasp import assets
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.drivers.adapters import JointAdapter, JointInterpolator, PoseAdapter
from dexgrasp_ros.drivers.config import CONFIG, AdapterCfg, AdapterError, CommandCfg, StateCfg, load, shipped
from dexgrasp_ros.drivers.joint_mapping import JointMap, JointStateError, Units
from dexgrasp_ros.drivers.joint_states import JointStates
from dexgrasp_ros.joint_test.record import check_record, fingerprint_v1

JOINTS = ("a", "b", "c")
DRIVER = {"a": "A", "b": "B", "c": "C"}
HANDS = shipped("hands")
ARMS = shipped("arms")


def joints_of(kind, name):
    """Names and ranges in the description of a hand or an arm."""
    file = assets.path(f"{kind}/{name}/{kind[:-1]}.yaml")
    rows = yaml.safe_load(file.read_text())["joints"]
    return list(rows), np.array([row["range"] for row in rows.values()])


def test_order_sign_zero_and_unit_worked_by_hand():
    # the driver wants c, a, b; counts in half degrees for c, backwards for a, from pi for b
    units = Units(sign=(1, -1, 1), offset_rad=(0.0, 0.5, math.pi), scale=(360 / math.pi, 1, 1))
    conversion = JointMap(JOINTS, DRIVER, ("C", "A", "B"), units)
    np.testing.assert_allclose(conversion.to_driver([0.1, 0.2, math.pi / 2]), [180.0, 0.4, math.pi + 0.2])
    np.testing.assert_allclose(conversion.from_driver([180.0, 0.4, math.pi + 0.2]), [0.1, 0.2, math.pi / 2])
    assert conversion.read({"B": math.pi, "x": 9.0, "A": 0.5, "C": 0.0}) == pytest.approx([0.0, 0.0, 0.0])


@settings(deadline=None)
@given(
    order=st.permutations(["A", "B", "C"]),
    sign=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    offset=st.tuples(*[st.floats(-4, 4)] * 3),
    scale=st.tuples(*[st.sampled_from([0.25, 1.0, 4.0, 180 / math.pi])] * 3),
    values=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
)
def test_there_and_back_is_where_it_was(order, sign, offset, scale, values):
    conversion = JointMap(JOINTS, DRIVER, order, Units(sign, offset, scale))
    sent = conversion.to_driver(values)
    np.testing.assert_allclose(conversion.from_driver(sent), values, atol=1e-13 / min(scale))
    np.testing.assert_allclose(conversion.read(dict(zip(order, sent, strict=True))), values, atol=1e-13 / min(scale))


@settings(deadline=None)
@given(order=st.permutations(["A", "B", "C"]), sign=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
def test_without_offset_and_unit_the_round_trip_is_exact(order, sign):
    conversion = JointMap(JOINTS, DRIVER, order, Units(sign))
    values = [0.1, -2.3, math.pi]
    assert conversion.from_driver(conversion.to_driver(values)).tolist() == values


@pytest.mark.parametrize(
    ("names", "order", "reason"),
    [
        ({"a": "A", "b": "B"}, ("A", "B"), r"no driver joint for \['c'\]"),
        ({**DRIVER, "d": "D"}, ("A", "B", "C"), r"\['d'\] are not joints"),
        (DRIVER, ("A", "B", "B"), r"\['B'\] are listed more than once"),
        (DRIVER, ("A", "B", "X"), r"different: \['C', 'X'\]"),
    ],
)
def test_a_map_that_cannot_be_right_is_refused(names, order, reason):
    with pytest.raises(ValueError, match=reason):
        JointMap(JOINTS, names, order, Units())


@pytest.mark.parametrize("wrong", [{"sign": 2.0}, {"offset_rad": math.nan}, {"scale": -1.0}, {"sign": (1.0, 1.0)}])
def test_units_that_cannot_be_right_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        JointMap(JOINTS, DRIVER, ("A", "B", "C"), Units(**wrong))


@pytest.mark.parametrize("name", HANDS)
def test_every_shipped_hand_speaks_of_all_joints_of_its_hand(name):
    cfg = load("hands", name)
    joints, limits = joints_of("hands", cfg.hand)
    adapter = JointAdapter(cfg, joints)
    assert sorted(adapter.command_map.joint_names) == sorted(joints)
    for target in (limits[:, 0], limits[:, 1], limits.mean(axis=1)):
        sent = adapter.command(target)
        np.testing.assert_allclose(adapter.read(dict(zip(cfg.command.joints, sent, strict=True))), target, atol=1e-12)
    assert cfg.source


@pytest.mark.parametrize("name", ARMS)
def test_every_shipped_arm_speaks_of_all_joints_of_its_arm(name):
    cfg = load("arms", name)
    if cfg.state is not None:
        joints, _ = joints_of("arms", cfg.arm)
        assert JointAdapter(cfg, joints).state_map.joint_names == tuple(joints)
    assert cfg.source
    assert cfg.state is not None or cfg.command.type == "pose"


def test_the_descriptions_that_were_promised_are_shipped():
    assert {"allegro_v4", "allegro_v5", "leap", "sim_allegro", "sim_leap"} <= set(HANDS)
    types = {name: load("arms", name).command.type for name in ARMS}
    assert types == {
        "cartesian_pose": "pose",
        "sim_ur5e": "joint_trajectory",
        "ur5e_forward_position": "float64_array",
        "ur5e_scaled_trajectory": "joint_trajectory",
        "ur5e_servo_twist": "twist",
    }


def test_leap_by_hand():
    joints, _ = joints_of("hands", "leap")
    adapter = JointAdapter(load("hands", "leap"), joints)
    target = dict.fromkeys(joints, 0.0) | {"if_mcp": 0.3, "if_rot": -0.2, "th_ipl": 1.0}
    sent = adapter.command([target[name] for name in joints])
    pi = 3.14159
    assert sent == pytest.approx([pi - 0.2, pi + 0.3, *[pi] * 13, pi + 1.0])  # side before forward, thumb last


def test_the_first_digit_of_a_v4_joint_is_the_finger_and_0_is_the_thumb():
    joints, _ = joints_of("hands", "allegro")
    adapter = JointAdapter(load("hands", "allegro_v4"), joints)
    target = dict.fromkeys(joints, 0.0) | {"thj0": 1.2, "ffj3": 0.5, "rfj1": 0.7}
    sent = dict(zip(adapter.cfg.command.joints, adapter.command([target[name] for name in joints]), strict=True))
    assert {name: value for name, value in sent.items() if value} == {
        "ah_joint00": 1.2,
        "ah_joint13": 0.5,
        "ah_joint31": 0.7,
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"comand": {}}, "unknown key 'comand'. Did you mean 'command'"),
        (
            {"command": {"type": "float64_array", "topic": "/c", "joints": ["A"], "rate": 3}},
            "'command.rate'. Did you mean",
        ),
        (
            {"command": {"type": "torque", "topic": "/c"}},
            "'command.type' expects one of .*, got 'torque'",
        ),
        ({"command": {"type": "float64_array", "topic": "/c"}}, "needs command.joints and state"),
        ({"command": {"type": "twist", "topic": "/c"}}, "needs command.frame"),
        ({"state": None}, "needs command.joints and state"),
        ({"source": None}, "source"),
    ],
)
def test_a_wrong_description_is_refused_with_the_key(tmp_path, change, reason):
    text = yaml.safe_load((CONFIG / "hands" / "allegro_v4.yaml").read_text()) | change
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(text))
    with pytest.raises(AdapterError, match=rf"mine.yaml: .*{reason}"):
        load("hands", str(path))


def test_an_unknown_description_is_answered_with_those_that_are_shipped():
    with pytest.raises(AdapterError, match="no hand 'allegro'; shipped: allegro_v4, allegro_v5, leap"):
        load("hands", "allegro")
    with pytest.raises(AdapterError, match="it describes a hand"):
        load("arms", str(CONFIG / "hands" / "leap.yaml"))


def test_the_fingerprint_changes_with_what_a_wave_test_tells_about():
    cfg = load("hands", "leap")
    turned = replace(cfg, command=replace(cfg.command, sign=-1.0))
    assert cfg.fingerprint == load("hands", "leap").fingerprint != turned.fingerprint
    assert replace(cfg, note="other").fingerprint == cfg.fingerprint


SMALL = AdapterCfg(
    command=CommandCfg(type="joint_state", topic="/c", joints=("A",)),
    source="a test",
    hand="leap",
    state=StateCfg(topic="/s", names={"a": "A"}),
)
SMALL_JSON = (
    '{"arm":null,"base":null,"command":{"frame":null,"gain_hz":4.0,"joints":["A"],"offset_rad":0.0,"qos":{"depth":1,'
    '"durability":"volatile","reliability":"reliable"},"rate_hz":null,"scale":1.0,"sign":1.0,"topic":"/c",'
    '"type":"joint_state"},"hand":"leap","state":{"ignore":[],"names":{"a":"A"},"offset_rad":null,"qos":{"depth":10,'
    '"durability":"volatile","reliability":"best_effort"},"scale":null,"sign":null,"stamp":"header","topic":"/s"}}'
)
"""Canonical JSON of its values, written by hand: sorted keys, no blanks, no names of classes."""
SMALL_REPR = (
    "(CommandCfg(type='joint_state', topic='/c', joints=('A',), sign=1.0, offset_rad=0.0, scale=1.0, rate_hz=None, "
    "frame=None, gain_hz=4.0, qos=QosCfg(reliability='reliable', durability='volatile', depth=1)), "
    "StateCfg(topic='/s', names={'a': 'A'}, sign=None, offset_rad=None, scale=None, ignore=(), stamp='header', "
    "qos=QosCfg(reliability='best_effort', durability='volatile', depth=10)), 'leap', None, None)"
)
"""What version 1 hashed."""


def test_the_fingerprint_is_the_hash_of_plain_values_and_outlives_a_renamed_class():
    by_hand = hashlib.sha256(SMALL_JSON.encode()).hexdigest()
    assert SMALL.fingerprint == by_hand == "66ec515d0dd3c93f504e932451f071dbab5f81a16f353c5cb867fae20281bf86"

    class RenamedCfg(CommandCfg):
        pass

    renamed = replace(SMALL, command=RenamedCfg(type="joint_state", topic="/c", joints=("A",)))
    assert repr(renamed) != repr(SMALL)
    assert renamed.fingerprint == SMALL.fingerprint
    assert fingerprint_v1(renamed) == fingerprint_v1(SMALL)


def test_a_record_of_version_1_stays_valid_for_the_values_that_it_was_made_for(tmp_path):
    path = tmp_path / "wave.json"
    record = {"version": 1, "fingerprint": hashlib.sha256(SMALL_REPR.encode()).hexdigest(), "joints": ["a"]}
    path.write_text(json.dumps(record))
    assert check_record(path, SMALL, ["a"]) == ""
    turned = replace(SMALL, command=replace(SMALL.command, sign=-1.0))
    assert "has changed since" in check_record(path, turned, ["a"])
    path.write_text(json.dumps(record | {"version": 2}))  # the old hash under the new version
    assert "has changed since" in check_record(path, SMALL, ["a"])
    path.write_text(json.dumps(record | {"version": 3}))
    assert "has version 3, not 2" in check_record(path, SMALL, ["a"])


def test_a_record_of_every_shipped_hand_made_before_version_2_is_accepted():
    # fingerprints that commit f8a0396 wrote
    before = {"allegro_v4": "fe13080b45490e5d", "allegro_v5": "3b0b80cddef79dd7", "leap": "18f57c9076b23a49"}
    assert {name: fingerprint_v1(load("hands", name))[:16] for name in before} == before


def test_hand_and_arm_may_share_a_topic():
    states = shared_states()
    hand, arm = states._adapters["hand"], states._adapters["arm"]
    fingers, q = np.linspace(0.3, 0.45, 16), np.arange(6.0)
    both = [*hand.state_map.order, *arm.state_map.order]
    values = [*hand.command(fingers), *arm.command(q)]
    states.update("/joint_states", dict(zip(both[::-1], values[::-1], strict=True)), 5.0, 5.1)
    np.testing.assert_allclose(states.newest("hand")[0], fingers)
    np.testing.assert_allclose(states.newest("arm")[0], q)
    states.update("/joint_states", dict(zip(arm.state_map.order, arm.command(q + 1), strict=True)), 6.0, 6.1)
    assert (states.newest("hand")[1], states.newest("arm")[1]) == (5.0, 6.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda names: names[:-1], "lack \\['ah_joint33'\\]"),
        (lambda names: [f"left_{name}" for name in names], "unknown joints \\['left_"),
    ],
)
def test_what_is_wrong_with_a_message_is_said_and_nothing_of_it_counts(change, reason):
    states = shared_states()
    names = change(list(states._adapters["hand"].state_map.order))
    with pytest.raises(JointStateError, match=reason):
        states.update("/joint_states", dict.fromkeys(names, 0.0), 1.0, 1.0)
    assert states.newest("hand")[0] is None


def test_joints_that_are_not_read_spoil_nothing():
    """NaN and missing values of other joints, in any order, once or twice; NaN of a joint that is read is refused."""
    states, nan = shared_states(), float("nan")
    order = states._adapters["hand"].state_map.order
    values = dict.fromkeys(order, 0.25)
    expected = states._adapters["hand"].read(values)
    for at_s, others in enumerate(({"gripper": 0.1}, {"gripper": nan}, {"a": float("inf"), "b": nan}), 1):
        states.update("/joint_states", others | values, at_s, at_s)
        states.update("/joint_states", dict(reversed((values | others).items())), at_s + 0.5, at_s)
        assert states.newest("hand")[1] == at_s + 0.5
        np.testing.assert_array_equal(states.newest("hand")[0], expected)
    with pytest.raises(JointStateError, match=f"values of \\['{order[3]}'\\] are not finite"):
        states.update("/joint_states", values | {order[3]: nan}, 9.0, 9.0)
    assert states.newest("hand")[1] == 3.5


def test_joints_of_others_are_let_pass_where_only_the_hand_matters():
    hand = JointAdapter(load("hands", "sim_allegro"), joints_of("hands", "allegro")[0])
    states = JointStates({"hand": hand}, others=True)
    states.update("/joint_states", dict.fromkeys([*hand.state_map.order, "elbow"], 0.25), 1.0, 1.0)
    assert states.newest("hand")[0].tolist() == [0.25] * 16
    states.update("/joint_states", {"elbow": 0.0}, 2.0, 2.0)
    assert states.newest("hand")[1] == 1.0
    with pytest.raises(JointStateError, match="lack"):
        states.update("/joint_states", {"ffj0": 0.0, "elbow": 0.0}, 3.0, 3.0)


def test_an_empty_stamp_is_refused_or_replaced_as_the_description_says():
    cfg = load("hands", "allegro_v4")
    joints, _ = joints_of("hands", "allegro")
    for stamp, expected in (("header", None), ("arrival", 7.0)):
        adapter = JointAdapter(replace(cfg, state=replace(cfg.state, stamp=stamp)), joints)
        states = JointStates({"hand": adapter})
        if expected is None:
            with pytest.raises(JointStateError, match="stamp is empty"):
                states.update("/joint_states", dict.fromkeys(adapter.state_map.order, 0.0), 0.0, 7.0)
        else:
            states.update("/joint_states", dict.fromkeys(adapter.state_map.order, 0.0), 0.0, 7.0)
            assert states.newest("hand")[1] == expected


def shared_states():
    """An Allegro and a UR5e on /joint_states."""
    hand = JointAdapter(load("hands", "allegro_v4"), joints_of("hands", "allegro")[0])
    arm = JointAdapter(load("arms", "ur5e_scaled_trajectory"), joints_of("arms", "ur5e")[0])
    return JointStates({"hand": hand, "arm": arm})


poses = st.builds(
    lambda pos, turn: Pose(np.array(pos), np.roll(Rotation.from_rotvec(turn).as_quat(), 1)),
    st.tuples(*[st.floats(-1, 1)] * 3),
    st.tuples(*[st.floats(-2, 2)] * 3),
)


@settings(deadline=None)
@given(a=poses, b=poses)
def test_poses_multiply_as_their_matrices_do(a, b):
    def matrix(pose):
        found = np.eye(4)
        found[:3, :3] = Rotation.from_quat(np.roll(pose.quat, -1)).as_matrix()
        found[:3, 3] = pose.pos_m
        return found

    np.testing.assert_allclose(matrix(a @ b), matrix(a) @ matrix(b), atol=1e-12)
    np.testing.assert_allclose(matrix(a.inverse() @ a), np.eye(4), atol=1e-12)
    turn = Rotation.from_rotvec(a.turn_to(b)) * Rotation.from_quat(np.roll(a.quat, -1))
    np.testing.assert_allclose(turn.as_matrix(), matrix(b)[:3, :3], atol=1e-9)
    step = a.step_towards(b, 0.01, 0.02)
    assert a.distance_m(step) <= 0.01 + 1e-12
    assert a.angle_rad(step) <= 0.02 + 1e-9


def test_a_pose_for_a_cartesian_controller_by_hand():
    # the palm 0.1 m in front of the flange along its z, base_link at x = -0.45: the palm faces down at 0.5 m
    adapter = PoseAdapter(load("arms", "cartesian_pose"), Pose.of((0, 0, 0.1), (1, 0, 0, 0)))
    down = (0.0, 1.0, 0.0, 0.0)  # turned by pi about x: z points down
    found = adapter.pose(Pose.of((0.1, 0.2, 0.5), down))
    np.testing.assert_allclose(found.pos_m, [0.55, 0.2, 0.6])
    np.testing.assert_allclose(np.abs(found.quat), down)


@settings(deadline=None)
@given(palm=poses, mounted=poses)
def test_a_cartesian_pose_there_and_back_is_where_it_was(palm, mounted):
    adapter = PoseAdapter(load("arms", "cartesian_pose"), mounted)
    back = adapter.palm(adapter.pose(palm))
    np.testing.assert_allclose(back.pos_m, palm.pos_m, atol=1e-12)
    assert back.angle_rad(palm) < 1e-6


def test_a_twist_leads_to_the_goal():
    adapter = PoseAdapter(load("arms", "ur5e_servo_twist"), Pose.of((0.01, 0.02, 0.1), (1, 0, 0, 0)))
    palm = Pose.of((0.1, 0.2, 0.5), (0, 1, 0, 0))
    goal = Pose.of((0.2, 0.2, 0.4), (0, np.cos(0.1), np.sin(0.1), 0))
    linear, angular = adapter.twist(palm, palm)
    assert not linear.any() and not angular.any()
    dt = 0.01
    for _ in range(200):  # a robot that does as it is told, its flange in base_link
        linear, angular = adapter.twist(goal, palm)
        flange = adapter.pose(palm)
        turned = Rotation.from_rotvec(angular * dt) * Rotation.from_quat(np.roll(flange.quat, -1))
        palm = adapter.palm(Pose(flange.pos_m + linear * dt, np.roll(turned.as_quat(), 1)))
    assert palm.distance_m(goal) < 1e-3
    assert palm.angle_rad(goal) < 1e-2


def test_commands_between_ticks_by_hand():
    ramp = JointInterpolator(0.1)
    ramp.set_goal(np.array([1.0, 0.0]), 0.0)
    assert ramp.at(0.0).tolist() == ramp.at(9.0).tolist() == [1.0, 0.0]  # the first at once
    ramp.set_goal(np.array([2.0, 0.0]), 1.0)
    assert [float(ramp.at(now_s)[0]) for now_s in (0.9, 1.0, 1.05, 1.1, 5.0)] == pytest.approx([1, 1, 1.5, 2, 2])
    ramp.set_goal(np.array([0.0, 4.0]), 1.05)  # early: from where it is
    assert ramp.at(1.1).tolist() == pytest.approx([0.75, 2.0])

"""Couplings of a driver: motors that move several joints, in both directions, by hand; refusals with file and key."""

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp.perception.motors import Coupling
from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.config import CONFIG, AdapterCfg, AdapterError, CommandCfg, StateCfg, load

JOINTS = ("wrist_1", "wrist_2", "thumb")
DIFFERENTIAL = {"M1": {"wrist_1": 1.0, "wrist_2": 1.0}, "M2": {"wrist_1": -1.0, "wrist_2": 1.0}}
"""Two motors turn together and against each other, as in a differential wrist."""


def driver(names, couplings=DIFFERENTIAL, joints=("M1", "M2", "T"), state=None, **units):
    return AdapterCfg(
        command=CommandCfg(type="float64_array", topic="/c", joints=joints, **units),
        source="a test",
        hand="my_hand",
        state=StateCfg(topic="/s", names=names, **(state or {})),
        couplings=couplings,
    )


UNITS = {"sign": (1, -1, 1), "offset_rad": (10.0, 20.0, 500.0), "scale": (100.0, 200.0, 1000.0)}


def test_commands_by_hand():
    adapter = JointAdapter(driver({"thumb": "T"}, **UNITS), JOINTS)
    # M1: 0.1 + 0.3 = 0.4 -> 50; M2: -0.1 + 0.3 = 0.2 -> -40 + 20; T: 0.2 -> 700
    np.testing.assert_allclose(adapter.command([0.1, 0.3, 0.2]), [50.0, -20.0, 700.0])
    np.testing.assert_allclose(adapter.targets([50.0, -20.0, 700.0]), [0.1, 0.3, 0.2])


def test_motors_that_are_reported_give_the_joints():
    adapter = JointAdapter(driver({"thumb": "T"}, **UNITS), JOINTS)
    assert set(adapter.state_map.order) == {"M1", "M2", "T"}
    np.testing.assert_allclose(adapter.read({"T": 700.0, "M1": 50.0, "M2": -20.0, "other": 1.0}), [0.1, 0.3, 0.2])


def test_joints_that_are_reported_by_name_have_no_units_of_the_motors():
    names = {"thumb": "T", "wrist_1": "W1", "wrist_2": "W2"}
    adapter = JointAdapter(driver(names, **UNITS), JOINTS)
    np.testing.assert_allclose(adapter.read({"W1": 0.1, "W2": 0.3, "T": 700.0}), [0.1, 0.3, 0.2])
    scalar = JointAdapter(driver(names, scale=1000.0, offset_rad=500.0), JOINTS)
    np.testing.assert_allclose(scalar.read({"W1": 0.1, "W2": 0.3, "T": 700.0}), [0.1, 0.3, 0.2])


def test_units_of_reported_joints_may_be_stated():
    names = {"thumb": "T", "wrist_1": "W1", "wrist_2": "W2"}
    degrees = 180 / np.pi
    state = {"scale": (1000.0, degrees, degrees), "offset_rad": (500.0, 0.0, 0.0), "sign": (1, 1, -1)}
    adapter = JointAdapter(driver(names, state=state, **UNITS), JOINTS)  # order: T of command.joints, then W1, W2
    sent = {"T": 700.0, "W1": 0.1 * degrees, "W2": -0.3 * degrees}
    np.testing.assert_allclose(adapter.read(sent), [0.1, 0.3, 0.2])


def test_a_tendon_over_two_joints_of_which_one_follows_by_hand():
    """One motor has the sum of both joints of a finger, as in a Shadow finger; joint 1 follows joint 2."""
    coupled = {"FFJ1": Coupling("FFJ2", 0.5, 0.1)}
    tendon = {"J0": {"FFJ1": 1.0, "FFJ2": 1.0}}
    adapter = JointAdapter(driver({}, tendon, ("J0",)), ("FFJ2", "FFJ1"), coupled)
    np.testing.assert_allclose(adapter.command([0.6]), [0.6 + 0.4])
    np.testing.assert_allclose(adapter.read({"J0": 1.0}), [0.6, 0.4])
    both = JointAdapter(driver({"FFJ2": "J2", "FFJ1": "J1"}, tendon, ("J0",), scale=1000.0), ("FFJ2", "FFJ1"), coupled)
    np.testing.assert_allclose(both.command([0.6]), [1000.0])
    np.testing.assert_allclose(both.read({"J2": 0.6, "J1": 0.35}), [0.6, 0.35])  # measured, not computed


@settings(deadline=None)
@given(
    ratios=st.lists(st.sampled_from([-2.0, -1.0, 0.5, 1.0, 3.0]), min_size=4, max_size=4).filter(
        lambda r: abs(r[0] * r[3] - r[1] * r[2]) > 0.1
    ),
    target=st.tuples(*[st.floats(-3, 3)] * 3),
    scale=st.floats(0.1, 1000),
)
def test_there_and_back_is_where_it_was(ratios, target, scale):
    couplings = {
        "M1": {"wrist_1": ratios[0], "wrist_2": ratios[1]},
        "M2": {"wrist_1": ratios[2], "wrist_2": ratios[3]},
    }
    adapter = JointAdapter(driver({"thumb": "T"}, couplings, scale=scale), JOINTS)
    sent = adapter.command(target)
    np.testing.assert_allclose(adapter.targets(sent), target, atol=1e-9)
    np.testing.assert_allclose(adapter.read(dict(zip(("M1", "M2", "T"), sent, strict=True))), target, atol=1e-9)


ONE = {"ah_joint10": {"ffj0": 1.0}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"couplings": {"ah_joint10": {}}}, "couplings.ah_joint10 names no joint"),
        ({"couplings": {"nobody": {"ffj0": 1.0}}}, "couplings: 'nobody' is not in command.joints"),
        ({"couplings": {"ah_joint10": {"ffj0": 0.0}}}, "couplings.ah_joint10.ffj0: the ratio must have a magnitude"),
        (
            {"couplings": {"ah_joint10": {"ffj0": float("nan")}}},
            "couplings.ah_joint10.+ffj0",
        ),
        (
            {"couplings": {"ah_joint10": {"ffj0": float("inf")}}},
            "couplings.ah_joint10.+ffj0",
        ),
        (
            {"couplings": {"ah_joint10": {"ffj0": 1e4}}},
            "couplings.ah_joint10.+ffj0",
        ),
        ({"couplings": {"ah_joint10": {"ffj0": "x"}}}, "couplings.ah_joint10.+ffj0.+ expects float"),
        ({"command": ("offset_rad", 11.0)}, "command.offset_rad: 11.0 is more than 10 rad at command.scale 1.0"),
        ({"couplings": {"ah_joint10": 3.0}}, "couplings.ah_joint10"),
        (
            {"couplings": {"ah_joint10": {"ffj0": 1.0, "ffj1": 1.0}, "ah_joint11": {"ffj0": 2.0, "ffj1": 2.0}}},
            r"couplings: the motions of \['ah_joint10', 'ah_joint11'\] depend on each other",
        ),
        (
            {"command": ("joints", ["ah_joint10", "ah_joint10"])},
            r"command.joints: \['ah_joint10'\] are listed more than",
        ),
        ({"command": ("plugin", "x:Y")}, "command.type plugin needs command.plugin, and no other type has one"),
        ({"command": ("type", "plugin")}, "command.type plugin needs command.plugin"),
        ({"command": ("type", "gripper_command")}, "gripper_command has one motor: command.joints names 16"),
        (
            {"command": {"type": "follow_joint_trajectory", "rate_hz": 100}},
            "takes one goal per control period: remove command.rate_hz",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_right_is_refused_with_file_and_key(tmp_path, change, reason):
    text = yaml.safe_load((CONFIG / "hands" / "allegro_v4.yaml").read_text())
    for key, value in change.items():
        if key == "command":
            text["command"] |= value if isinstance(value, dict) else dict([value])
        else:
            text[key] = value
    with pytest.raises(AdapterError, match=rf"mine.yaml: .*({reason})"):
        load("hands", written(tmp_path, text))


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("couplings", {"ah_joint10": {"nobody": 1.0}}, r"couplings.ah_joint10: \['nobody'\] are not joints"),
        ("names", {"nobody": "x"}, r"state.names: \['nobody'\] are not joints of this hand"),
        ("names", None, r"command.joints: \['ah_joint00',.* are neither in state.names nor in couplings"),
        ("names", {"ffj1": None}, r"command.joints: \['ah_joint11'\] are neither in state.names nor in couplings"),
        ("names", {"ffj0": "ah_joint10"}, r"state.names: \['ah_joint10'\] are motors of couplings"),
        ("couplings", {"ah_joint10": {"ffj1": 1.0}}, r"command.joints: \['ah_joint11'\] are neither in state.names"),
        ("couplings", {"ah_joint10": {"ffj1": 1.0}, "ah_joint11": {"ffj1": 1.0}}, "depend on each other"),
    ],
)
def test_what_contradicts_the_hand_is_refused_with_file_and_key(tmp_path, part, value, reason):
    text = yaml.safe_load((CONFIG / "hands" / "allegro_v4.yaml").read_text())
    text["couplings"] = {"ah_joint10": {"ffj0": 2.0}}
    text["state"]["names"].pop("ffj0")
    names = [f"{finger}j{i}" for finger in ("ff", "mf", "rf", "th") for i in range(4)]
    JointAdapter(load("hands", written(tmp_path, text)), names)
    place = text["state"]["names"] if part == "names" else text["couplings"]
    changed = {} if value is None else {key: item for key, item in (place | value).items() if item is not None}
    (text["state"] if part == "names" else text)[part] = changed
    path = written(tmp_path, text)
    with pytest.raises(AdapterError, match=rf"mine.yaml: .*{reason}"):
        JointAdapter(load("hands", path), names, file=path)


def test_couplings_of_a_cartesian_arm_are_refused(tmp_path):
    text = yaml.safe_load((CONFIG / "arms" / "cartesian_pose.yaml").read_text())
    path = written(tmp_path, text | {"couplings": ONE})
    with pytest.raises(AdapterError, match=r"mine.yaml: .*couplings are of joint commands, not of command.type pose"):
        load("arms", path)


def written(folder, text):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(text))
    return str(path)


def test_the_fingerprint_of_a_joint_test_counts_couplings_and_plugins():
    plain = driver({"thumb": "T"}, {}, ("T",))
    assert driver({"thumb": "T"}, {"T": {"thumb": 2.0}}, ("T",)).fingerprint != plain.fingerprint
    assert driver({"thumb": "T"}, {}, ("T",), max_effort=1.0).fingerprint != plain.fingerprint
    assert driver({"thumb": "T"}, {}, ("T",), state={"plugin": "x:Y"}).fingerprint != plain.fingerprint

"""The wave test without ROS: what it finds of hands that are wired wrongly, what it says of right ones."""

import mujoco
import numpy as np
import pytest

from dexgrasp import assets
from dexgrasp.policies.deploy.bundle import read_contract
from dexgrasp_ros.joint_test.sequence import JointTest, JointTestCfg, Verdict, assess_motion, table

BUNDLE = str(assets.path("policies/allegro/student/bundle"))
HAND = read_contract(BUNDLE).hand
NAMES = HAND.joint_names
LOWER, UPPER = np.array(HAND.joint_lower_rad), np.array(HAND.joint_upper_rad)
DT = 0.05


def joint_test(chosen, cfg):
    return JointTest(
        names=NAMES,
        lower=LOWER,
        upper=UPPER,
        chosen=chosen,
        cfg=cfg,
        period_s=DT,
        kinematics=vars(HAND.kinematics),
        palm_quat_b=HAND.palm_quat_b,
    )


def waved(answer, chosen=NAMES):
    """Verdicts on a hand that makes `answer(target)` of its targets."""
    wave = joint_test(chosen, JointTestCfg(settle_s=0.1))
    rest = LOWER + 0.3 * (UPPER - LOWER)
    joints = rest
    wave.start(rest)
    for _ in range(1000):
        target, _ = wave.step(joints)
        assert (target >= LOWER).all() and (target <= UPPER).all()
        assert np.count_nonzero(np.abs(target - rest) > 1e-9) <= 1  # one joint at a time
        joints = answer(target, rest)
        if wave.done:
            assert np.abs(target - rest).max() < 1e-9  # all are back
            return wave
    raise AssertionError("it does not end")


def test_a_hand_that_follows_passes_and_comes_back():
    wave = waved(lambda target, rest: target)
    assert wave.passed
    assert [verdict.joint for verdict in wave.verdicts] == list(NAMES)
    assert all(verdict.measured_rad == pytest.approx(verdict.commanded_rad) for verdict in wave.verdicts)
    np.testing.assert_allclose([abs(verdict.commanded_rad) for verdict in wave.verdicts], 0.15)


def test_joints_that_are_swapped_are_named():
    order = [NAMES.index(name) for name in ["mfj1" if n == "ffj1" else "ffj1" if n == "mfj1" else n for n in NAMES]]
    wave = waved(lambda target, rest: rest + (target - rest)[order])
    faults = {verdict.joint: verdict.fault for verdict in wave.verdicts if verdict.fault}
    assert faults == {"ffj1": "wrong order: mfj1 moved instead", "mfj1": "wrong order: ffj1 moved instead"}
    assert not wave.passed


@pytest.mark.parametrize(
    ("factor", "fault"),
    [
        (-1.0, "wrong sign: it moved backwards"),
        (0.0, "it did not move"),
        (0.25, "it moved too little: blocked, or a wrong unit"),
        (57.3, "it moved too far: a wrong unit"),
        (0.8, ""),
    ],
)
def test_what_is_wrong_with_a_joint_is_said(factor, fault):
    wave = waved(lambda target, rest: rest + factor * (target - rest), ["rfj2"])
    assert [verdict.fault for verdict in wave.verdicts] == [fault]


def test_a_joint_that_is_coupled_to_another_is_found():
    def coupled(target, rest):
        joints = target.copy()
        joints[3] += target[2] - rest[2]
        return joints

    wave = waved(coupled, ["ffj2", "ffj3"])
    assert [verdict.fault for verdict in wave.verdicts] == ["ffj3 moved as well", ""]


def test_swapped_and_turned_round_by_hand():
    verdict = assess_motion(["a", "b"], 0, 0.2, np.array([0.01, -0.19]), "")
    assert verdict.fault == "wrong order: b moved instead, and backwards"


def test_some_joints_alone_do_not_pass_the_hand():
    wave = waved(lambda target, rest: target, ["ffj0"])
    assert not wave.verdicts[0].fault
    assert not wave.passed


def test_a_joint_that_does_not_stay_where_it_is_told_to_ends_the_test():
    def turned(target, rest):
        joints = target.copy()
        joints[5] = -target[5]  # as a driver that counts the other way makes of it
        return joints

    wave = waved(turned)
    assert [(verdict.joint, verdict.commanded_rad) for verdict in wave.verdicts] == [("mfj1", 0.0)]
    assert "commanded to hold" in wave.verdicts[0].fault
    assert not wave.passed


def test_an_unknown_joint_is_refused():
    with pytest.raises(ValueError, match=r"unknown joints \['if_mcp'\]"):
        waved(lambda target, rest: target, ["if_mcp"])


def test_words_say_what_mujoco_shows(allegro):
    model = mujoco.MjModel.from_xml_path(str(assets.path("hands/allegro/hand.xml")))
    data = mujoco.MjData(model)
    wave = joint_test(NAMES, JointTestCfg())
    rest = LOWER + 0.3 * (UPPER - LOWER)
    words = {name: wave.motion(k, rest, 0.15) for k, name in enumerate(NAMES)}
    for k, name in enumerate(NAMES):
        tips = []
        for joints in (rest, rest + 0.15 * np.eye(16)[k]):
            for joint, value in zip(NAMES, joints, strict=True):
                data.joint(joint).qpos = value
            mujoco.mj_kinematics(model, data)
            tips.append(
                {site: data.site(site).xpos.copy() for site in ("index_tip", "thumb_tip", "ring_tip", "middle_tip")}
            )
        moved = {site: tips[1][site] - tips[0][site] for site in tips[0]}
        most = max(moved, key=lambda site: np.linalg.norm(moved[site]))
        assert words[name].startswith(f"{most} {1e3 * np.linalg.norm(moved[most]):.0f} mm ")
    assert words["ffj1"].endswith("towards the object")  # closing: positive
    assert words["thj3"].split()[0] == "thumb_tip"
    assert "of the palm" in words["mfj0"]  # sideways


def test_the_table_has_a_row_for_each_joint():
    verdicts = [
        Verdict("ffj0", 0.15, 0.149, "ffj1", 0.001, "index_tip 9 mm up", ""),
        Verdict("x", 0.1, 0, "y", 0, "", "no"),
    ]
    lines = table(verdicts, {"ffj0": 0.15}).splitlines()
    assert [line.split()[0] for line in lines] == ["joint", "ffj0", "x"]
    assert "+0.150" in lines[1] and lines[1].endswith("ok") and lines[2].endswith("no")
    assert "reference" in lines[0] and lines[2].split()[3] == "-"

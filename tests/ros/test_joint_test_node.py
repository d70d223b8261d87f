"""The wave test as a process, against the simulated robot."""

import json

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from std_msgs.msg import Bool

from dexgrasp import assets
from dexgrasp.policies.deploy.bundle import read_contract
from dexgrasp_ros import config
from tests.helpers.ros import LATCHED, Process

pytestmark = pytest.mark.ros
BUNDLE = str(assets.path("policies/allegro/student/bundle"))
NAMES = read_contract(BUNDLE).hand.joint_names


def run(folder, hand="sim_allegro", joints=("ffj1", "mfj1"), **parameters):
    """Exit code and output of a wave test."""
    given = {
        "bundle": BUNDLE,
        "hand": hand,
        "use_sim_time": True,
        "wave_test": str(folder / "wave.json"),
        "wave.settle_s": 0.3,
        "wave.speed_rad_s": 1.0,
        "safety.joints_timeout_s": 30.0,
        **({"joints": list(joints)} if joints else {}),
        **parameters,
    }
    with Process("dexgrasp_ros.nodes.joint_test_node", folder, **given) as process:
        return process.wait(180.0), process.text()


def described(folder, change):
    """The simulated hand, described otherwise."""
    text = yaml.safe_load(config("hands/sim_allegro.yaml").read_text())
    change(text)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(text))
    return str(path)


def test_a_right_description_passes(robot, tmp_path):
    code, text = run(tmp_path, results=str(tmp_path / "table.json"))
    assert code == 0, text + robot.text()
    assert "not all joints were moved" in text
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [row["joint"] for row in rows] == ["ffj1", "mfj1"]
    assert all(abs(row["measured_rad"] - row["commanded_rad"]) < 0.05 for row in rows)


def test_a_pressed_emergency_stop_ends_it(robot, ros, tmp_path):
    ros.publisher(Bool, "/estop", LATCHED, subscribers=0).publish(Bool(data=True))
    code, text = run(tmp_path)
    assert code == 1 and "emergency stop" in text, text


def test_a_wrong_order_and_a_wrong_sign_are_found(robot, tmp_path):
    def swap(text):
        joints = text["command"]["joints"]
        a, b = joints.index("ffj1"), joints.index("mfj1")
        joints[a], joints[b] = joints[b], joints[a]
        text["command"]["sign"] = [-1.0 if name == "mfj0" else 1.0 for name in joints]
        text["state"]["sign"] = 1.0

    hand = described(tmp_path, swap)
    code, text = run(tmp_path, hand, ("ffj1", "mfj0"))
    assert code == 1, text
    assert "wrong order: mfj1 moved instead" in text
    assert "wrong sign: it moved backwards" in text
    assert not (tmp_path / "wave.json").exists()


@pytest.mark.slow
def test_all_joints_are_recorded_and_the_reference_is_printed_beside(robot, tmp_path):
    results = str(tmp_path / "table.json")
    code, text = run(tmp_path, joints=(), results=results)
    assert code == 0, text
    assert json.loads((tmp_path / "wave.json").read_text())["joints"] == list(NAMES)
    code, text = run(tmp_path, reference=results)
    assert code == 0
    assert "reference" in text


def test_a_real_robot_asks_whoever_watches(robot, tmp_path):
    code, text = run(tmp_path, joints=("ffj1",), robot="real")  # the terminal of a test is empty
    assert code == 1
    assert "Was this the motion of the hand: index_tip" in text
    assert "FAILED: ffj1: the motion was not confirmed" in text

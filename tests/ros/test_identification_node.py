"""The identification over ROS: against the simulated robot, and what it says when it cannot begin."""

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray

from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp_ros import message_conversions as m
from dexgrasp_ros.identification.excitation import ExcitationCfg, excite
from dexgrasp_ros.identification.gate import make_gate
from dexgrasp_ros.joint_gate import PALM, pass_gate
from dexgrasp_ros.nodes.identification_node import IdentificationNode
from tests.helpers.ros import SENSOR, Process

pytestmark = pytest.mark.ros


def test_without_joint_states_nothing_moves_and_it_is_said(ros, tmp_path):
    sent = ros.listen(Float64MultiArray, "/hand_controller/commands")
    made = ros.add(node(ros, timeout_s=0.5, out=str(tmp_path)))
    ros.until(lambda: made.finished, "the end")
    assert made.failure.startswith("no joint states on /joint_states")
    assert sent == []


def test_joint_states_that_fall_silent_end_it_with_the_hand_held(ros, tmp_path):
    hand = HandSpec.load("allegro")
    sent = ros.listen(Float64MultiArray, "/hand_controller/commands")
    joints = ros.publisher(JointState, "/joint_states", SENSOR, subscribers=0)
    where = np.clip(np.full(16, 0.3), hand.joint_lower, hand.joint_upper)
    # At the default 0.2 s a machine that delays this test once ends the motion before its 20 targets.
    with Process("dexgrasp_ros.nodes.identification_node", tmp_path, stale_s=2.0) as process:

        def moving():
            assert process.alive(), process.text()
            joints.publish(m.joint_message(hand.joint_names, where, ros.node.get_clock().now().nanoseconds * 1e-9))
            ros.spin(0.01)
            return len(sent) > 20

        ros.until(moving, "targets", 120.0)
        assert process.wait(120.0) == 1
        assert "FAILED: joint states are 2." in process.text()
    np.testing.assert_allclose(sent[0].data, where, atol=0.01)  # from where the hand is
    ros.until(lambda: np.allclose(sent[-1].data, where), "the hold")


def test_the_gate_lets_the_excitation_pass_and_nothing_else():
    cfg = ExcitationCfg()
    hand, gate = HandSpec.load("allegro"), make_gate("allegro", cfg, stale_s=0.2)
    rest = (hand.joint_lower + hand.joint_upper) / 2
    gate.reset(rest, *PALM, 0.0)
    joints, now_s = rest, 0.0
    for target in excite(rest[3], hand.joint_lower[3], hand.joint_upper[3], cfg):
        now_s += 1 / cfg.rate_hz
        wanted = rest.copy()
        wanted[3] = target
        safe = pass_gate(gate, wanted, joints, now_s, now_s)
        assert safe.fault == ""
        assert abs(safe.joint_target[3] - target) < 0.35  # a reversed step takes two periods, for the acceleration
        joints = joints + np.clip(safe.joint_target - joints, -0.07, 0.07)  # 7 rad/s
    np.testing.assert_allclose(safe.joint_target, rest, atol=1e-9)
    beyond = pass_gate(gate, rest + 10.0, joints, now_s + 0.01, now_s + 0.01)
    assert (beyond.joint_target <= hand.joint_upper).all()
    assert "command" in pass_gate(gate, np.full(16, np.nan), joints, now_s + 0.02, now_s + 0.02).fault
    gate.reset(joints, *PALM, now_s)
    assert "readings: 0.300 s old" in pass_gate(gate, rest, joints, now_s, now_s + 0.3).fault


def test_readings_that_no_hand_can_have_end_it(ros, tmp_path):
    hand = HandSpec.load("allegro")
    sent = ros.listen(Float64MultiArray, "/hand_controller/commands")
    joints = ros.publisher(JointState, "/joint_states", SENSOR, subscribers=0)
    made = ros.add(node(ros, stale_s=5.0, out=str(tmp_path)))

    def read(finger_rad):
        where = np.full(16, 0.3)
        where[5] = finger_rad
        where = np.clip(where, hand.joint_lower, hand.joint_upper) + (where - 0.3) * (finger_rad > 1)
        joints.publish(m.joint_message(hand.joint_names, where, ros.node.get_clock().now().nanoseconds * 1e-9))
        ros.spin(0.02)

    ros.until(lambda: read(0.3) or len(sent) > 5, "targets")
    ros.until(lambda: read(4.0) or made.finished, "the end")
    assert "is more than 0.5 rad outside its range" in made.failure


def test_an_emergency_stop_ends_it_with_the_hand_held(ros, tmp_path):
    hand = HandSpec.load("allegro")
    sent = ros.listen(Float64MultiArray, "/hand_controller/commands")
    joints = ros.publisher(JointState, "/joint_states", SENSOR, subscribers=0)
    made = ros.add(node(ros, stale_s=5.0, out=str(tmp_path)))
    where = np.clip(np.full(16, 0.3), hand.joint_lower, hand.joint_upper)

    def read():
        joints.publish(m.joint_message(hand.joint_names, where, ros.node.get_clock().now().nanoseconds * 1e-9))
        ros.spin(0.02)

    ros.until(lambda: read() or len(sent) > 5, "targets")
    button = ros.publisher(Bool, "/estop")
    button.publish(Bool(data=True))
    button.publish(Bool(data=False))
    ros.until(lambda: read() or made.finished, "the end")
    assert made.failure == "emergency stop"
    ros.until(lambda: np.allclose(sent[-1].data, where), "the hold")
    count = len(sent)
    for _ in range(10):
        read()
    assert len(sent) == count


def node(ros, **values):
    given = [Parameter(name, value=value) for name, value in values.items()]
    return IdentificationNode(context=ros.context, parameter_overrides=given)


def test_a_real_hand_is_not_moved_before_its_wave_test(ros, tmp_path):
    with pytest.raises(ValueError, match="no joint test of this hand is recorded"):
        node(ros, robot="real", wave_test=str(tmp_path / "none.json"))


def test_a_joint_that_the_hand_has_not_is_named(ros):
    with pytest.raises(ValueError, match=r"unknown joints \['ffj9'\]; joints of the hand: \['ffj0'"):
        node(ros, joints=["ffj9"])


def test_a_log_that_is_none_is_refused(ros, tmp_path):
    made = ros.add(node(ros, log=str(tmp_path / "none.npz"), out=str(tmp_path)))
    ros.until(lambda: made.finished, "its end")
    assert "none.npz" in made.failure


def paces(reports):
    """Shares of real time that the simulated robot kept."""
    rows = [row for item in reports for status in item.status for row in status.values if row.key == "pace"]
    return [float(row.value) for row in rows]


@pytest.mark.slow
def test_the_simulated_robot_is_identified(ros, tmp_path):
    out = tmp_path / "found"
    options = {"use_sim_time": True, "timeout_s": 300.0, "out": out, "joints": ["ffj2", "thj3"]}
    with (
        Process("dexgrasp_ros.nodes.sim_robot_node", tmp_path, camera_rate_hz=0.0, state_rate_hz=200.0) as robot,
        Process("dexgrasp_ros.nodes.identification_node", tmp_path, **options) as process,
    ):
        reports = ros.listen(DiagnosticArray, "/diagnostics")
        ros.until(lambda: not process.alive(), "its end", 600.0)
        assert process.wait() == 0, process.text() + robot.text()
    if min(paces(reports)) < 0.95:
        pytest.skip("this machine is too busy to simulate a hand in real time")
    found = yaml.safe_load((out / "identified.yaml").read_text())
    hand = HandSpec.load("allegro")
    for name, values in found["measured"].items():
        i = hand.joint_names.index(name)
        assert values["kp"] == pytest.approx(hand.kp[i], rel=0.1)
        assert values["total_damping"] == pytest.approx(hand.kd[i] + hand.damping[i], rel=0.1)
        assert values["effort_limit"] == pytest.approx(hand.effort_limit[i], rel=0.1)
        assert values["friction_loss"] < 0.005
        assert values["delay_s"] < 0.03

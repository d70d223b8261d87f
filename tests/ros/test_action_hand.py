"""Joint test and identification of a hand whose driver takes goals of actions, of real servers in this process."""

import os

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs the extra `ros`")
pytest.importorskip("control_msgs.action", reason="needs a sourced build of ros2_ws (make test-ros)")

from control_msgs import action as actions
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState

from dexgrasp import assets
from dexgrasp_ros import config, message_conversions
from dexgrasp_ros.identification.excitation import ExcitationCfg
from dexgrasp_ros.identification.hand_model import load_hand
from dexgrasp_ros.nodes.identification_node import IdentificationNode
from dexgrasp_ros.nodes.joint_test_node import JointTestNode
from tests.helpers.action_server import Controller
from tests.helpers.ros import SENSOR

pytestmark = [pytest.mark.ros, pytest.mark.messages]
BUNDLE = str(assets.path("policies/allegro/student/bundle"))
NAMES = tuple(yaml.safe_load(config("hands/sim_allegro.yaml").read_text())["command"]["joints"])
KINDS = {
    "follow_joint_trajectory": actions.FollowJointTrajectory,
    "parallel_gripper_command": actions.ParallelGripperCommand,
}


class Hand(Controller):
    """A hand that is at once where its newest goal says, and reports that 50 times a second."""

    def __init__(self, command_type, start):
        self.positions, self.trace, self.reported = np.array(start), [], []
        super().__init__(KINDS[command_type], f"/hand/{command_type}", int(os.environ["ROS_DOMAIN_ID"]))
        states = self.node.create_publisher(JointState, "/joint_states", SENSOR)

        def report():
            self.reported.append(self.positions)
            now_s = self.node.get_clock().now().nanoseconds * 1e-9
            states.publish(message_conversions.joint_message(NAMES, self.positions, now_s))

        self.node.create_timer(0.02, report)

    def _answer(self, goal):
        if self.kind is actions.FollowJointTrajectory:
            names, positions = goal.trajectory.joint_names, goal.trajectory.points[0].positions
        else:
            names, positions = goal.command.name, goal.command.position
        assert tuple(names) == NAMES
        self.trace.append(np.array(positions))
        if self.accept:
            self.positions = self.trace[-1]
        return super()._answer(goal)


@pytest.fixture(params=KINDS)
def hand(request, ros_domain, tmp_path):
    """The hand in its rest pose, and the file of its driver."""
    text = yaml.safe_load(config("hands/sim_allegro.yaml").read_text())
    text["command"] |= {"type": request.param, "topic": f"hand/{request.param}"}
    path = tmp_path / "hand.yaml"
    path.write_text(yaml.safe_dump(text))
    made = Hand(request.param, load_hand("allegro", ExcitationCfg()).rest)
    made.file = str(path)
    yield made
    made.close()


def node(ros, kind, **values):
    given = [Parameter(name, value=value) for name, value in values.items()]
    return ros.add(kind(context=ros.context, parameter_overrides=given))


def moved(hand):
    """Names of the joints that the goals have moved."""
    return [name for name, span in zip(NAMES, np.ptp(hand.trace, axis=0), strict=True) if span > 1e-3]


def held(hand):
    """Whether the last goal is where the hand was measured last, or just before."""
    return min(np.abs(hand.trace[-1] - positions).max() for positions in hand.reported[-50:]) < 1e-6


def joint_test(ros, hand, folder):
    parameters = {"safety.joints_timeout_s": 30.0, "wave.settle_s": 0.3, "wave.speed_rad_s": 1.0}
    files = {"bundle": BUNDLE, "hand": hand.file, "wave_test": str(folder / "wave.json")}
    return node(ros, JointTestNode, joints=["ffj1", "mfj2"], **files, **parameters)


def test_the_joint_test_moves_the_chosen_joints_by_goals(ros, hand, tmp_path):
    made = joint_test(ros, hand, tmp_path)
    ros.until(lambda: made.finished, "the end of the joint test")
    assert made.failure == "" and moved(hand) == ["ffj1", "mfj2"]
    verdicts = made.test.verdicts
    assert [verdict.joint for verdict in verdicts] == ["ffj1", "mfj2"]
    for verdict in verdicts:
        assert verdict.measured_rad == pytest.approx(verdict.commanded_rad, abs=1e-6)
        places = np.array(hand.trace)[:, NAMES.index(verdict.joint)]
        assert np.ptp(places) == pytest.approx(abs(verdict.commanded_rad), abs=1e-6)
        assert len(np.unique(places)) >= 3  # in steps, of which a busy machine merges some
    assert hand.most_running <= 2


def test_a_rejected_goal_ends_the_joint_test_with_the_reason(ros, hand, tmp_path):
    made = joint_test(ros, hand, tmp_path)
    ros.until(lambda: len(hand.goals) > 3, "goals")
    hand.accept = False
    ros.until(lambda: made.finished, "the end of the joint test")
    assert "a goal was rejected" in made.failure
    assert held(hand)
    assert not (tmp_path / "wave.json").exists()


def test_the_identification_excites_one_joint_by_goals_and_ends_with_one_that_fails(ros, hand, tmp_path):
    files = {"hand": hand.file, "out": str(tmp_path / "found")}
    made = node(ros, IdentificationNode, joints=["ffj2"], stale_s=30.0, **files)
    rest = hand.positions.copy()
    reached = lambda: hand.trace and np.ptp(hand.trace, axis=0).max() > 0.1  # noqa: E731
    ros.until(reached, "steps of the excitation")
    assert moved(hand) == ["ffj2"]
    np.testing.assert_allclose(hand.trace[0], rest, atol=1e-6)  # from where the hand is
    hand.accept = False
    ros.until(lambda: made.finished, "the end of the identification")
    assert "a goal was rejected" in made.failure
    count = len(hand.goals)
    ros.spin(0.3)
    assert len(hand.goals) <= count + 1 and not (tmp_path / "found" / "log.npz").exists()
    assert held(hand)

"""The grasp node with an arm that takes goals of FollowJointTrajectory: gate, faults, reset, the last goal."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs the extra `ros`")
pytest.importorskip("control_msgs.action", reason="needs a sourced build of ros2_ws (make test-ros)")

from control_msgs import action as actions
from rclpy.lifecycle import TransitionCallbackReturn
from trajectory_msgs.msg import JointTrajectory

from dexgrasp.sim.robots.arm import ArmSpec
from dexgrasp_ros import config, message_conversions
from tests.helpers.action_server import Controller
from tests.helpers.grasp_bench import ARM, QUICK, Bench

pytestmark = [pytest.mark.ros, pytest.mark.messages]
NAME = "/arm_controller/follow_joint_trajectory"


class Arm(Controller):
    """Carries what its goals say to the simulated robot."""

    def __init__(self):
        super().__init__(actions.FollowJointTrajectory, NAME, int(os.environ["ROS_DOMAIN_ID"]))
        self._relay = self.node.create_publisher(JointTrajectory, ARM, 1)

    def _answer(self, goal):
        self._relay.publish(goal.trajectory)
        return super()._answer(goal)

    def positions(self):
        """Positions (goal, joint) [rad] of all goals."""
        return np.array([goal.trajectory.points[0].positions for goal in self.goals])


@pytest.fixture
def arm(ros_domain):
    made = Arm()
    yield made
    made.close()


@pytest.fixture
def bench(ros, robot, arm, tmp_path):
    return Bench(ros, robot, tmp_path)


def arm_file(folder):
    text = yaml.safe_load(Path(config("arms/sim_ur5e.yaml")).read_text())
    text["command"] |= {"type": "follow_joint_trajectory", "topic": "arm_controller/follow_joint_trajectory"}
    path = folder / "action_arm.yaml"
    path.write_text(yaml.safe_dump(text))
    return str(path)


def test_goals_keep_the_limits_and_move_the_robot(bench, arm):
    bench.start(arm=arm_file(bench.folder))
    bench.perceive()
    assert bench.ask("grasp").success
    bench.ros.until(lambda: len(arm.goals) > 30 and np.ptp(arm.positions(), axis=0).max() > 0.1, "a motion")
    assert bench.ask("stop").success
    steps = np.abs(np.diff(arm.positions(), axis=0))
    limit = ArmSpec.load("ur5e").speed_limit * QUICK["arm_speed"] * 0.05
    assert steps.max() > 0.01 and (steps <= limit + 1e-6).all()
    assert arm.most_running <= 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ends": "abort", "replaced_as": "abort", "code": -4}, "a goal was aborted (-4"),
        ({"accept": False}, "a goal was rej"),
    ],
    ids=["aborted", "rejected"],
)
def test_a_goal_that_is_not_executed_is_a_fault_that_holds_and_can_be_reset(bench, arm, change, reason):
    node = bench.start(arm=arm_file(bench.folder))
    bench.perceive()
    assert bench.ask("grasp").success
    bench.ros.until(lambda: bench.state == "pregrasp" and len(arm.goals) > 15, "a motion")
    before = dict(vars(arm))
    vars(arm).update(change)
    bench.ros.until(lambda: bench.state == "fault", "the fault")
    assert node._output.fault.startswith(f"{NAME}: {reason}")
    count = len(arm.goals)
    held = lambda: len(arm.goals) >= count + 10 and np.ptp(arm.positions()[-5:], axis=0).max() < 1e-3  # noqa: E731
    bench.ros.until(held, "that the hold goes on, at rest once the arm has braked")
    vars(arm).update({key: before[key] for key in change})
    bench.ros.spin(0.5)
    answer = bench.ask("reset_fault")  # the failure of the past does not keep itself
    assert answer.success, answer.message
    bench.ros.until(lambda: bench.state == "idle", "idle")
    bench.ros.spin(0.3)
    assert bench.state == "idle"


def test_a_failure_of_the_last_activation_does_not_keep_the_node_from_the_next(bench, arm):
    node = bench.start(arm=arm_file(bench.folder))
    arm.ends, arm.code = "abort", -5
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS  # its hold is the goal that is aborted
    robot = node._configured.robot
    bench.ros.until(lambda: robot.failure(), "the failure")
    arm.ends, arm.code = "succeed", 0
    bench.ros.spin(0.3)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS, node._refusal


def test_the_last_goal_holds_where_the_arm_is_and_is_waited_for(bench, arm):
    node = bench.start(arm=arm_file(bench.folder))
    bench.perceive()
    assert bench.ask("grasp").success
    bench.ros.until(lambda: bench.state == "pregrasp" and len(arm.goals) > 15, "a motion")
    arm.answer_s = 0.1
    node.close()
    assert arm.goals  # nothing spins here: the goal has arrived
    held = message_conversions.trajectory_point(
        JointTrajectory(joint_names=arm.goals[-1].trajectory.joint_names, points=arm.goals[-1].trajectory.points)
    )[0]
    measured = [message_conversions.joints_from_message(message) for message in bench.joints[-100:]]
    assert min(max(abs(joints[name] - held[name]) for name in held) for joints in measured) < 1e-6
    count = len(arm.goals)
    time.sleep(0.3)
    assert len(arm.goals) == count


def test_without_a_server_the_node_says_so(ros, robot, tmp_path):
    bench = Bench(ros, robot, tmp_path)
    node = bench.start(active=False, arm=arm_file(bench.folder))
    bench.ros.until(lambda: "no action server" in node._refusal, "the reason")

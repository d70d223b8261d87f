"""Paths asked of a stand-in for move_group, over real ROS. Most need moveit_msgs, which `make test-ros` builds."""

import itertools
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import message_conversions
from dexgrasp_ros.approach import moveit_planner
from dexgrasp_ros.approach.moveit_planner import MoveItPlanner, PlannedArm, PlannerCfg, joints_in_order
from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.arm_kinematics import ArmKinematics
from dexgrasp_ros.drivers.config import load
from dexgrasp_ros.typed_messages import optional_module
from tests.helpers.grasp_bench import CONTRACT, DOWN, GOAL
from tests.ros.test_grasp_node import bench  # noqa: F401

pytestmark = pytest.mark.ros
SERVICES = optional_module("moveit_msgs.srv")


def needs_moveit(test):
    """Skip a test without moveit_msgs, which a sourced build of ros2_ws has."""
    missing = pytest.mark.skipif(SERVICES is None, reason="needs a sourced build of ros2_ws (make test-ros)")
    return pytest.mark.messages(missing(test))


class MoveGroup:
    """Answers like move_group: straight lines in joint space, two waypoints, its own order and one joint more."""

    def __init__(self, ros):
        self.ros, self.requests, self.wait, self.change = ros, [], [], lambda response: None
        group = ReentrantCallbackGroup()
        ros.node.create_service(SERVICES.GetMotionPlan, "/plan_kinematic_path", self._plan, callback_group=group)

    async def _plan(self, request, response):
        plan = request.motion_plan_request
        self.requests.append(plan)
        number = len(self.requests)
        if self.wait:
            await self.wait.pop(0)
        start = dict(zip(plan.start_state.joint_state.name, plan.start_state.joint_state.position, strict=True))
        goal = {row.joint_name: row.position for row in plan.goal_constraints[0].joint_constraints}
        messages = optional_module("trajectory_msgs.msg")
        trajectory = response.motion_plan_response.trajectory.joint_trajectory
        trajectory.joint_names = [*reversed(start), "gripper"]
        for values in (start, goal):
            positions = [*(float(values[name]) for name in reversed(start)), float(number)]
            trajectory.points.append(messages.JointTrajectoryPoint(positions=positions))
        response.motion_plan_response.error_code.val = 1
        self.change(response.motion_plan_response)
        return response


def planned_arm():
    arm = ArmKinematics("ur5e", CONTRACT.hand, 0.05)
    return PlannedArm(arm, JointAdapter(load("arms", "sim_ur5e"), arm.joint_names), lambda: arm.home)


def ask(ros, planner, goal, plan_id=1):
    ros.until(planner.ask(goal, plan_id).done, "an answer")
    return planner.path(plan_id)


def test_an_arm_that_takes_poses_gets_no_path(ros):
    planner = MoveItPlanner(ros.node, PlannerCfg(), None)
    assert ask(ros, planner, Pose.of(GOAL, DOWN)) == (None, moveit_planner.NO_JOINTS)
    planner.destroy()


@pytest.mark.skipif(SERVICES is not None, reason="moveit_msgs is installed")
def test_without_moveit_msgs_the_reason_names_the_package(bench):  # noqa: F811
    node = bench.start(approach="moveit")
    bench.perceive()
    assert bench.ask("grasp").message == moveit_planner.NO_MESSAGES
    assert bench.state == "idle" and node._configured.machine._attempts_left == 0


def test_joints_are_taken_by_name():
    np.testing.assert_array_equal(joints_in_order(["c", "a", "b"], [3, 1, 2], ["a", "b", "c"]), [1, 2, 3])
    for names, values, text in (
        (["a"], [1], r"lacks the joints \['b'\]"),
        (["a", "b"], [1], "1 positions for"),
        (["a", "a"], [1, 2], "2 positions for"),
    ):
        with pytest.raises(ValueError, match=text):
            joints_in_order(names, values, ["a", "b"])


@needs_moveit
def test_a_grasp_follows_a_path_of_two_waypoints(bench):  # noqa: F811
    group = MoveGroup(bench.ros)
    node = bench.start(approach="moveit")
    bench.perceive()
    before, _ = message_conversions.trajectory_point(bench.arm[-1])
    assert bench.ask("grasp").success
    request = group.requests[0]
    names = list(load("arms", "sim_ur5e").command.joints) or list(before)
    assert list(request.start_state.joint_state.name) == names
    start = request.start_state.joint_state.position  # the last command, of a tick later
    np.testing.assert_allclose(start, [before[name] for name in names], atol=1e-9)
    assert (request.group_name, len(request.goal_constraints[0].joint_constraints)) == ("manipulator", 6)
    stage = node._configured.machine._script._stages[0]
    assert len(stage.via) > 10
    assert max(a.distance_m(b) for a, b in itertools.pairwise(stage.via)) < 0.03
    bench.ros.until(lambda: bench.state == "grasp", "the policy")
    assert node._configured.inputs.palm()[0].distance_m(Pose.of(GOAL, DOWN)) < 0.03


@needs_moveit
def test_an_answer_to_an_earlier_question_is_not_used(ros):
    group, planner = MoveGroup(ros), MoveItPlanner(ros.node, PlannerCfg(answer_s=0.5), planned_arm())
    ros.until(planner._client.service_is_ready, "the service")
    held = Future()
    group.wait = [held]
    path, reason = ask(ros, planner, Pose.of(GOAL, DOWN))
    assert path is None and reason == "plan_kinematic_path did not answer within 0.5 s"
    other = Pose.of([0.0, -0.1, 0.3], DOWN)
    second = planner.ask(other, 2)
    held.set_result(None)  # the first answer arrives now
    ros.until(lambda: len(group.requests) == 2, "the second request")
    ros.until(second.done, "the second answer")
    assert planner.path(2)[0].poses[-1].distance_m(other) < 0.005
    assert planner.path(1)[0] is None and planner.path(3)[0] is None
    planner.clear()
    assert planner.path(2)[0] is None
    planner.destroy()


def _reverse(plan):
    plan.trajectory.joint_trajectory.points.reverse()


@needs_moveit
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda plan: setattr(plan.error_code, "val", -12), "error code -12"),
        (lambda plan: plan.trajectory.joint_trajectory.joint_names.pop(0), "positions for the joints"),
        (lambda plan: plan.trajectory.joint_trajectory.points.clear(), "finite joint positions"),
        (lambda plan: plan.trajectory.joint_trajectory.points[0].positions.__setitem__(0, float("nan")), "finite"),
        (_reverse, "the planned path begins 0."),
    ],
)
def test_a_path_that_does_not_fit_is_refused_with_the_reason(bench, change, reason):  # noqa: F811
    MoveGroup(bench.ros).change = change
    node = bench.start(approach="moveit")
    bench.perceive()
    answer = bench.ask("grasp")
    assert not answer.success and reason in answer.message
    assert (bench.state, bench.begun, node._configured.machine._attempts_left) == ("idle", 0, 0)


@needs_moveit
def test_joint_positions_that_cannot_be_found_end_the_search_a_few_steps_at_a_time(ros, monkeypatch):
    arm = planned_arm()
    MoveGroup(ros)
    planner = MoveItPlanner(ros.node, PlannerCfg(), arm)
    ros.until(planner._client.service_is_ready, "the service")
    steps, search = [], planner._search

    def timed():
        start_s = time.process_time()
        search()
        steps.append(time.process_time() - start_s)

    monkeypatch.setattr(planner, "_search", timed)
    path, reason = ask(ros, planner, Pose.of([3.0, 0.0, 0.3], DOWN))
    assert path is None and reason.startswith("no joint positions for the pre-grasp were found: 2.")
    assert len(steps) == moveit_planner.MOST_STEPS / moveit_planner.STEPS_AT_ONCE
    assert np.median(steps) < 0.02
    planner.destroy()
    short = MoveItPlanner(ros.node, PlannerCfg(), PlannedArm(arm.kinematics, arm.adapter, lambda: np.zeros(3)))
    ros.until(short._client.service_is_ready, "the service")
    assert ask(ros, short, Pose.of(GOAL, DOWN))[1].startswith("no path could be asked for: ")
    short.destroy()

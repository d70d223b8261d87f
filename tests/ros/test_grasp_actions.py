"""Actions of the grasp node over real ROS; they need the package dexgrasp_msgs, which `make test-ros` builds."""

import json
import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")
pytest.importorskip("dexgrasp_msgs", reason="needs a sourced build of ros2_ws (make test-ros)")

from action_msgs.msg import GoalStatus
from dexgrasp_msgs import action as actions
from dexgrasp_msgs.msg import GraspState
from geometry_msgs.msg import PoseStamped, TransformStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from dexgrasp_ros import message_conversions
from dexgrasp_ros.grasping import goal_progress
from tests.helpers.grasp_bench import GOAL
from tests.helpers.ros import LATCHED, RELIABLE
from tests.ros.test_grasp_node import bench  # noqa: F401

pytestmark = [pytest.mark.ros, pytest.mark.slow]


class Call:
    """A goal that was sent, its feedback and its result."""

    def __init__(self, ros, kind, name, **fields):
        self.ros, self.feedback = ros, []
        self._client = ActionClient(ros.node, kind, f"/grasp/{name}")
        ros.until(self._client.server_is_ready, f"the action {name}")
        sent = self._client.send_goal_async(
            kind.Goal(**fields), feedback_callback=lambda message: self.feedback.append(message.feedback)
        )
        ros.until(sent.done, "the acceptance of the goal")
        assert sent.result().accepted
        self._handle = sent.result()
        self.id = bytes(self._handle.goal_id.uuid).hex()
        self._result = self._handle.get_result_async()

    def cancel(self):
        answer = self._handle.cancel_goal_async()
        self.ros.until(answer.done, "the answer to the cancellation")
        return len(answer.result().goals_canceling)

    def ended(self):
        """Status and result."""
        self.ros.until(self._result.done, f"a result; last feedback: {self.feedback[-1:]}", 180.0)
        return self._result.result().status, self._result.result().result


def logged_goals(ros):
    """Events of goals in the log of decisions: a list that grows."""
    events = []

    def take(message):
        event = json.loads(message.data)
        if event["call"].startswith("goal"):
            events.append((event["call"], event["id"], event))

    kept = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    ros.node.create_subscription(String, "/grasp/decisions", take, kept)
    return events


def test_outcomes_of_nodes_and_messages_agree():
    for kind in (actions.Grasp, actions.Release, actions.Home, actions.Place):
        numbers = [getattr(kind.Result, name) for name in goal_progress.OUTCOMES]
        assert numbers == [getattr(goal_progress, name) for name in goal_progress.OUTCOMES] == list(range(6))


def test_a_grasp_is_placed_elsewhere_and_the_arm_goes_home(bench):  # noqa: F811
    bench.start()
    palms, states = bench.ros.listen(PoseStamped, "/grasp/palm"), bench.ros.listen(GraspState, "/grasp/status", LATCHED)
    log = logged_goals(bench.ros)
    bench.perceive()
    grasp = Call(bench.ros, actions.Grasp, "grasp", hold_s=0.5)
    status, result = grasp.ended()
    # the plan stands beside the object: the fingers close on nothing, and the only attempt finds that out
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, actions.Grasp.Result.EMPTY), result.message
    assert (result.attempts, result.message) == (1, "the hand is empty after 1 grasp")
    assert 0.0 <= result.grip <= 1.0
    bench.ros.until(lambda: len(log) == 3, "the log of the goal")
    assert [row[:2] for row in log] == [(call, grasp.id) for call in ("goal", "goal_begun", "goal_ended")]
    assert (log[0][2]["action"], log[0][2]["goal"]) == ("grasp", {"attempts": 0, "hold_s": 0.5, "target": ""})
    assert (log[2][2]["outcome"], log[2][2]["message"], log[2][2]["attempts"]) == (2, result.message, 1)
    log.clear()
    seen = [message.state for message in grasp.feedback]
    assert [state for i, state in enumerate(seen) if state not in seen[:i]] == ["pregrasp", "grasp", "lift", "hold"]
    assert math.isnan(grasp.feedback[0].grip) and not math.isnan(grasp.feedback[-1].grip)
    assert max(message.palm_error_m for message in grasp.feedback) < 0.12
    target = PoseStamped()
    target.header.frame_id = "somewhere_else"
    status, result = Call(bench.ros, actions.Place, "place", palm=target).ended()
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, actions.Place.Result.REFUSED)
    assert result.message.startswith("tf does not join the frames 'world' and 'somewhere_else'")
    bench.ros.until(lambda: len(log) == 2, "the log of the refused goal")
    assert log[0][2]["goal"]["frame"] == "somewhere_else" and log[1][2]["outcome"] == actions.Place.Result.REFUSED
    goal_m = np.array([GOAL[0], GOAL[1] - 0.12, GOAL[2] + 0.02])
    frames = bench.ros.publisher(TFMessage, "/tf_static", LATCHED)
    shelf = TransformStamped(child_frame_id="shelf")
    shelf.header.frame_id, shelf.transform.translation.x = "world", 0.3
    frames.publish(TFMessage(transforms=[shelf]))
    bench.ros.spin(0.3)
    target = message_conversions.pose_message(goal_m - [0.3, 0, 0], [0.5**0.5, 0.0, 0.5**0.5, 0.0], 0.0, "shelf")
    palms.clear()
    status, result = Call(bench.ros, actions.Place, "place", palm=target).ended()
    assert (status, result.outcome) == (GoalStatus.STATUS_SUCCEEDED, actions.Place.Result.SUCCEEDED), result.message
    way = np.array([message_conversions.pose_from_message(message)[0] for message in palms])
    assert np.linalg.norm(way - goal_m, axis=1).min() < 0.02
    status, result = Call(bench.ros, actions.Home, "home").ended()
    assert result.outcome == actions.Home.Result.SUCCEEDED, result.message
    assert [message.state for message in states] == [message.data for message in bench.states]
    assert {(message.active, message.mode, message.reason) for message in states[1:]} == {(True, "live", "")}


def test_a_goal_names_its_object_and_one_that_perception_does_not_see_is_refused(bench):  # noqa: F811
    bench.start()
    bench.perceive()
    log = logged_goals(bench.ros)
    nobody = Call(bench.ros, actions.Grasp, "grasp", target="nearest").ended()[1]
    assert nobody.outcome == actions.Grasp.Result.REFUSED and "is perception running?" in nobody.message
    bench.ros.until(lambda: len(log) == 2, "the log of the goal")
    assert log[0][2]["goal"] == {"attempts": 0, "hold_s": 0.0, "target": "nearest"}
    assert (log[1][2]["outcome"], log[1][2]["message"]) == (nobody.outcome, nobody.message)

    bench.ros.add(perception := Node("perception", context=bench.ros.context))
    perception.declare_parameter("segment.target", "largest")
    plans, asked = {"0.1,0,0.05": "8", "largest": "9", "nearest": "10"}, []  # of the objects that are there

    def check(changes):
        asked.append(changes[0].value)
        if asked[-1] == "9999,3":
            return SetParametersResult(successful=False, reason="target: outside the image")
        bench.plan_id = bench.held_id = plans.get(asked[-1], bench.plan_id)
        return SetParametersResult(successful=True)

    perception.add_on_set_parameters_callback(check)

    def held():
        return perception.get_parameter("segment.target").value

    def grasp(target):
        """What perception was asked for by a goal that grasps, and is then released."""
        asked.clear()
        result = Call(bench.ros, actions.Grasp, "grasp", target=target).ended()[1]
        assert (result.attempts, bench.state) == (1, "hold"), result.message  # with or without the object
        late = Call(bench.ros, actions.Grasp, "grasp", target="best").ended()[1]
        assert late.message == "a grasp starts in idle, not in hold"  # perception is not asked
        assert Call(bench.ros, actions.Release, "release").ended()[0] == GoalStatus.STATUS_SUCCEEDED
        return asked

    sent = len(bench.states)
    refused = Call(bench.ros, actions.Grasp, "grasp", target="9999,3").ended()[1]
    assert refused.message == "perception refuses: target: outside the image"
    absent = Call(bench.ros, actions.Grasp, "grasp", target="best")
    second = Call(bench.ros, actions.Grasp, "grasp", target="nearest").ended()[1]
    assert second.message.startswith("another goal chooses its target")
    absent = absent.ended()[1]
    assert absent.message.startswith("no plan for the target best within 5 s: is it there?")
    assert {r.outcome for r in (refused, absent, second)} == {actions.Grasp.Result.REFUSED}
    assert (asked, held()) == (["9999,3", "best", "largest"], "largest")
    assert (bench.state, len(bench.states)) == ("idle", sent)  # nothing has moved

    assert (grasp("0.1,0,0.05"), held()) == (["0.1,0,0.05"], "0.1,0,0.05")
    bench.plan_id = bench.held_id = "11"
    assert (grasp(""), held()) == (["largest"], "largest")  # without a target: the node's own comes back
    assert grasp("") == []
    grasp("0.1,0,0.05")
    perception.set_parameters([Parameter("segment.target", value="nearest")])  # by an operator
    assert (grasp(""), held()) == ([], "nearest")


def test_refusals_interruptions_stops_and_faults_have_outcomes_with_reasons(bench):  # noqa: F811
    bench.start()
    status, result = Call(bench.ros, actions.Grasp, "grasp").ended()
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, actions.Grasp.Result.REFUSED)
    assert result.message == "no plan received: does perception see the object?"
    bench.perceive()
    grasp = Call(bench.ros, actions.Grasp, "grasp")
    bench.ros.until(lambda: bench.state == "pregrasp", "the begin of the grasp")
    second = Call(bench.ros, actions.Grasp, "grasp").ended()[1]
    assert (second.outcome, second.message) == (actions.Grasp.Result.REFUSED, "a grasp starts in idle, not in pregrasp")
    assert bench.ros.call(Trigger, "/grasp/home").success  # the service is another door to the same machine
    result = grasp.ended()[1]
    assert (result.outcome, result.message) == (actions.Grasp.Result.INTERRUPTED, "another request began home")
    home = Call(bench.ros, actions.Home, "home").ended()[1]
    assert (home.outcome, home.message[:11]) == (actions.Home.Result.REFUSED, "home starts")
    bench.ros.until(lambda: bench.state == "idle", "home", 120.0)

    grasp = Call(bench.ros, actions.Grasp, "grasp")
    bench.ros.until(lambda: len(grasp.feedback) > 10, "a motion")
    assert grasp.cancel() == 1
    status, result = grasp.ended()
    assert (status, result.outcome) == (GoalStatus.STATUS_CANCELED, actions.Grasp.Result.STOPPED)
    assert (bench.state, result.message) == ("fault", "stopped by request")
    bench.ros.until(lambda: bench.ask("reset_fault").success, "the reset")

    grasp = Call(bench.ros, actions.Grasp, "grasp")
    bench.ros.until(lambda: grasp.feedback, "the begin of the grasp")
    bench.ros.publisher(Bool, "/estop", RELIABLE).publish(Bool(data=True))
    status, result = grasp.ended()
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, actions.Grasp.Result.FAULT)
    assert result.message == "emergency stop"

"""Commands as goals of actions: real clients and servers of control_msgs, goals that replace each other, failures."""

import os
import re
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")
pytest.importorskip("control_msgs.action", reason="needs a sourced build of ros2_ws (make test-ros)")

from control_msgs import action as actions

from dexgrasp_ros.drivers.action_writer import ActionWriter
from dexgrasp_ros.drivers.config import AdapterCfg, CommandCfg, StateCfg
from dexgrasp_ros.drivers.publishers import TopicWriter, joint_writer
from tests.helpers.action_server import Controller

pytestmark = [pytest.mark.ros, pytest.mark.messages]
NAME, JOINTS = "/arm_controller/follow_joint_trajectory", ("A", "B")
TRAJECTORY = CommandCfg(type="follow_joint_trajectory", topic=NAME, joints=JOINTS)
PERIOD_S = 0.05


def domain():
    return int(os.environ["ROS_DOMAIN_ID"])


@pytest.fixture
def server(ros):
    controller = Controller(actions.FollowJointTrajectory, NAME, domain())
    yield controller
    controller.close()


@pytest.fixture
def writer(ros, server):
    made = ActionWriter(ros.node, TRAJECTORY)
    wait(lambda: made.not_ready() == "")
    yield made
    made.destroy()


def wait(condition, timeout_s=20.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def stream(writer, rate_hz, seconds):
    """Sends positions that count up, one per period; returns their number."""
    count, start = round(rate_hz * seconds), time.monotonic()
    for i in range(count):
        writer.send(np.array([i, -i]) / 1000, 1 / rate_hz)
        time.sleep(max(0.0, start + (i + 1) / rate_hz - time.monotonic()))
    return count


def test_a_command_is_a_goal_of_one_point_two_periods_ahead(writer, server):
    writer.send(np.array([0.5, -1.0]), PERIOD_S)
    assert writer.acknowledged(5.0)
    trajectory = server.goals[0].trajectory
    assert (trajectory.joint_names, len(trajectory.points)) == (["A", "B"], 1)
    assert list(trajectory.points[0].positions) == [0.5, -1.0]
    ahead = trajectory.points[0].time_from_start
    assert ahead.sec + ahead.nanosec * 1e-9 == pytest.approx(0.1)
    wait(lambda: server.ended == ["succeed"])
    assert writer.failure() == ""


@pytest.mark.parametrize("replaced_as", ["canceled", "abort"])
def test_goals_replace_each_other_at_the_rate_of_the_policy(writer, server, replaced_as):
    server.replaced_as = replaced_as
    sent = stream(writer, 20, 1.5)
    assert writer.acknowledged(5.0) and writer.failure() == ""
    assert len(server.goals) >= 0.8 * sent  # a busy machine merges some
    assert server.goals[-1].trajectory.points[0].positions[0] == (sent - 1) / 1000
    assert server.most_running <= 2 and writer.most_running <= 5
    wait(lambda: server.ended.count("succeed") == 1)  # the last one alone
    assert writer.failure() == ""


def test_a_slow_server_gets_the_newest_command_and_no_queue(writer, server):
    server.answer_s = 0.15
    sent = stream(writer, 60, 1.0)
    assert writer.acknowledged(5.0) and writer.failure() == ""
    assert len(server.goals) <= 10
    assert server.goals[-1].trajectory.points[0].positions[0] == (sent - 1) / 1000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"accept": False}, "a goal was rejected"),
        ({"ends": "abort", "code": -4}, r"a goal was aborted \(-4: the path left its tolerance\)"),
        ({"ends": "abort"}, "a goal was aborted"),
        ({"ends": "canceled"}, "a goal was cancelled, not by this node"),
        ({"replaced_as": "abort", "code": -4}, r"a goal was aborted \(-4"),
        ({"answer_s": 0.8}, r"a goal was not answered within 0\.5 s"),
        ({"replaces": False, "duration_s": 60.0}, "21 goals run at once: the server does not replace a goal"),
    ],
    ids=lambda item: "-".join(map(str, item)) if isinstance(item, dict) else "",
)
def test_goals_that_are_not_executed_are_a_failure_until_it_is_cleared(writer, server, change, reason):
    vars(server).update(change)
    stream(writer, 30, 1.0 if "replaces" in change else 0.2)
    wait(lambda: writer.failure())
    assert re.fullmatch(f"{re.escape(NAME)}: {reason}.*", writer.failure())
    if "replaces" in change:
        return
    vars(server).update(accept=True, ends="succeed", replaced_as="canceled", code=0, answer_s=0.0)
    time.sleep(1.0)
    writer.clear()
    assert writer.failure() == ""
    writer.send(np.zeros(2), PERIOD_S)
    assert writer.acknowledged(5.0)
    time.sleep(0.3)
    assert writer.failure() == ""


def test_a_late_end_of_an_earlier_goal_is_not_a_failure_of_those_after_clear(writer, server):
    server.ends, server.duration_s = "abort", 0.3
    writer.send(np.zeros(2), PERIOD_S)
    assert writer.acknowledged(5.0)
    writer.clear()
    wait(lambda: server.ended == ["abort"])
    time.sleep(0.2)
    assert writer.failure() == ""


def test_the_last_goal_arrives_before_the_client_is_gone(ros, server):
    server.answer_s = 0.1
    writer = ActionWriter(ros.node, TRAJECTORY)
    wait(lambda: writer.not_ready() == "")
    for i in range(4):
        writer.send(np.full(2, float(i)), PERIOD_S)
        time.sleep(0.01)
    writer.destroy()
    assert server.goals[-1].trajectory.points[0].positions[0] == 3.0


def test_a_missing_server_and_another_client_are_named(ros):
    alone = ActionWriter(ros.node, TRAJECTORY)
    assert (
        alone.not_ready()
        == f"no action server {NAME} (control_msgs/action/FollowJointTrajectory): is the driver running?"
    )
    server = Controller(actions.FollowJointTrajectory, NAME, domain())
    wait(lambda: alone.not_ready() == "")
    other = ActionWriter(ros.node, TRAJECTORY)
    wait(lambda: "others send goals to" in alone.not_ready())
    other.destroy()
    wait(lambda: alone.not_ready() == "")
    server.close()
    alone.destroy()


@pytest.mark.parametrize("kind", ["gripper_command", "parallel_gripper_command"])
def test_a_gripper_gets_position_and_effort_and_may_stall_on_an_object(ros, kind):
    name = "/gripper_controller/gripper_cmd"
    action = actions.GripperCommand if kind == "gripper_command" else actions.ParallelGripperCommand
    server = Controller(action, name, domain())
    command = CommandCfg(type=kind, topic=name, joints=("G",), max_effort=20.0)
    writer = joint_writer(ros.node, AdapterCfg(command=command, source="a test", hand="x", state=STATE), preview=False)
    wait(lambda: writer.not_ready() == "")
    server.ends, server.stalled = "abort", True
    writer.send(np.array([0.03]), PERIOD_S)
    assert writer.acknowledged(5.0)
    goal = server.goals[0].command
    if kind == "gripper_command":
        assert (goal.position, goal.max_effort) == (0.03, 20.0)
    else:
        assert (goal.name, list(goal.position), list(goal.effort)) == (["G"], [0.03], [20.0])
    wait(lambda: server.ended == ["abort"])
    time.sleep(0.2)
    assert writer.failure() == ""
    server.stalled = False
    writer.send(np.array([0.02]), PERIOD_S)
    wait(lambda: writer.failure() == f"{name}: a goal was aborted")
    writer.destroy()
    server.close()


STATE = StateCfg(topic="/s", names={"g": "G"})


def test_a_dry_run_sends_no_goals(ros):
    cfg = AdapterCfg(command=TRAJECTORY, source="a test", arm="x", state=StateCfg("/s", {"a": "A", "b": "B"}))
    writer = joint_writer(ros.node, cfg, preview=True)
    assert isinstance(writer, TopicWriter) and writer.topic == f"/preview{NAME}"
    writer.destroy()


@pytest.mark.slow
@pytest.mark.parametrize("rate_hz", [20, 60])
def test_goals_do_not_pile_up(writer, server, rate_hz):
    """Prints goals, goals at once, the time until the last one was answered, and cores of client and server."""
    cpu_s, start_s = time.process_time(), time.monotonic()
    sent = stream(writer, rate_hz, 20.0)
    cores = (time.process_time() - cpu_s) / (time.monotonic() - start_s)
    sent_s = time.monotonic()
    assert writer.acknowledged(5.0) and writer.failure() == ""
    late_ms = 1e3 * (time.monotonic() - sent_s)
    gaps_ms = 1e3 * np.diff(server.times)
    print(
        f"\n{rate_hz} Hz: {sent} commands, {len(server.goals)} goals, apart p50 {np.median(gaps_ms):.1f} ms, p99 "
        f"{np.percentile(gaps_ms, 99):.1f} ms; at once {server.most_running} in the server, {writer.most_running} in "
        f"the client; the last answered after {late_ms:.1f} ms; client and server {cores:.2f} cores"
    )
    assert late_ms < 300.0 and server.most_running <= 2 and writer.most_running <= 10
    assert server.goals[-1].trajectory.points[0].positions[0] == (sent - 1) / 1000

"""Nodes on simulated time that nobody publishes: said once, in plain words, and repeated in the diagnostics."""

import time

import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from dexgrasp import assets
from dexgrasp.policies.deploy.bundle import read_contract
from dexgrasp_ros import config
from dexgrasp_ros.clock_watch import CLOCK_STOPPED, NO_CLOCK, ClockAge, ClockWatch, clock_missing
from dexgrasp_ros.message_conversions import OK, WARN, joint_message, to_stamp
from dexgrasp_ros.nodes.grasp_node import GraspNode
from tests.helpers.ros import PACKAGE, SENSOR, Process

pytestmark = pytest.mark.ros
BUNDLE = str(assets.path("policies/allegro/student/bundle"))
ARM = ["shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3"]
PARAMETERS = {
    "grasp_node": {"bundle": BUNDLE},
    "perception_node": {"bundle": BUNDLE, "arm": "sim_ur5e", "camera_file": str(config("cameras/sim.yaml"))},
    "joint_test_node": {"bundle": BUNDLE, "hand": "sim_allegro"},
    "identification_node": {"bundle": BUNDLE, "hand": "sim_allegro"},
    "leap_state_node": {"service_type": "std_srvs/srv/Trigger"},  # the maker's own is not installed here
    "recorder_node": {},
    "description_node": {},
}
"""Node -> parameters without which it does not start; the simulated robot publishes /clock itself."""


def test_every_node_is_tried():
    nodes = {path.stem for path in (PACKAGE / "dexgrasp_ros" / "nodes").glob("*_node.py")}
    assert nodes == {*PARAMETERS, "sim_robot_node"}


def test_only_time_in_which_the_process_ran_counts_as_a_clock_that_stands_still():
    age = ClockAge(period_s=0.02)
    for k in range(20):
        age.look(0.02 * k, 10**7 * k)
    assert age.still_s == 0.0
    age.look(2.0, 19 * 10**7)  # this process did not run for 1.6 s: messages of the clock wait to be read
    assert age.still_s == pytest.approx(0.04)
    for k in range(1, 11):
        age.look(2.0 + 0.02 * k, 19 * 10**7)
    assert age.still_s == pytest.approx(0.24)
    age.look(2.22, 10**7)  # a clock that starts anew advances
    assert age.still_s == 0.0


def test_two_publishers_of_the_clock_are_said(ros):
    node = ros.add(Node("timed", context=ros.context, parameter_overrides=[Parameter("use_sim_time", value=True)]))
    clocks = [ros.publisher(Clock, "/clock", SENSOR) for _ in range(2)]
    clocks[0].publish(Clock(clock=to_stamp(5.0)))
    ros.until(lambda: clock_missing(node) == "2 nodes publish /clock: stop all but one", "both")
    ros.node.destroy_publisher(clocks[1])
    ros.until(lambda: clock_missing(node) == "", "one of them alone")


def statuses(reports, name):
    return [(s.level, s.message) for report in reports for s in report.status if s.name == name]


@pytest.mark.slow
@pytest.mark.parametrize("node", PARAMETERS)
def test_a_node_without_a_clock_says_so_once_and_warns(ros, tmp_path, node):
    reports = ros.listen(DiagnosticArray, "/diagnostics")
    module = f"dexgrasp_ros.nodes.{node}"
    with Process(module, tmp_path, node="tested", use_sim_time=True, **PARAMETERS[node]) as process:
        ros.until(
            lambda: len(statuses(reports, "tested: clock")) >= 3 or not process.alive(), f"a warning: {process.text()}"
        )
        assert set(statuses(reports, "tested: clock")) == {(WARN, NO_CLOCK)}
        assert process.text().count(NO_CLOCK) == 1


def test_a_grasp_node_blames_the_clock_and_not_the_readings_and_starts_once_it_is_heard(ros, capfd):
    reports = ros.listen(DiagnosticArray, "/diagnostics")
    overrides = [Parameter(k, value=v) for k, v in {"bundle": BUNDLE, "use_sim_time": True, "settle_s": 0.0}.items()]
    node = ros.add(GraspNode(context=ros.context, parameter_overrides=overrides))
    ClockWatch(node)
    names = [*read_contract(BUNDLE).hand.joint_names, *ARM]
    ros.listen(Float64MultiArray, "/hand_controller/commands")  # the drivers
    ros.listen(JointTrajectory, "/scaled_joint_trajectory_controller/joint_trajectory")
    readings = ros.publisher(JointState, "/joint_states", SENSOR)
    ros.node.create_timer(
        0.05, lambda: readings.publish(joint_message(names, [0.4] * 16 + [0, -1.6, 1.6, -1.6, -1.6, 0], time.time()))
    )
    ros.until(lambda: len(statuses(reports, "grasp: clock")) >= 2, "the warning")
    assert statuses(reports, "grasp: inputs")[-1] == (WARN, NO_CLOCK)
    assert node._refusal == NO_CLOCK
    said = capfd.readouterr()
    assert (said.out + said.err).count(NO_CLOCK) == 1
    assert "s old" not in said.out + said.err
    clock = ros.publisher(Clock, "/clock", SENSOR)
    timer = ros.node.create_timer(0.02, lambda: clock.publish(Clock(clock=to_stamp(time.time()))))
    ros.until(lambda: statuses(reports, "grasp: clock")[-1][0] == OK, "the time")
    ros.until(lambda: node._output.safe is not None, "the start")
    timer.cancel()
    ros.until(lambda: statuses(reports, "grasp: clock")[-1] == (WARN, CLOCK_STOPPED), "the end of the clock")

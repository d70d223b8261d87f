"""Two simulated robots in one graph, started as by the launch file: they share tf and the emergency stop only."""

from contextlib import ExitStack

import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from geometry_msgs.msg import PoseStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import Trigger

from dexgrasp_ros import launch_arguments
from dexgrasp_ros.message_conversions import seconds
from tests.helpers.ros import LATCHED, RELIABLE, SENSOR, Process

pytestmark = [pytest.mark.ros, pytest.mark.slow]
DEFAULTS = {item.name: item.default for item in launch_arguments.ARGUMENTS}
ROBOTS = {"left": {"hand": "allegro", "seed": "0"}, "right": {"hand": "leap", "seed": "1"}}
PATIENCE = {
    "sim_robot": {"camera_rate_hz": 8.0, "state_rate_hz": 50.0},
    "perception": {"readings_timeout_s": 1.0},
    "grasp": {
        **dict.fromkeys(("safety.joints_timeout_s", "safety.points_timeout_s", "grasp.plan_timeout_s"), 60.0),
        "clock_timeout_s": 30.0,
        "grasp.late_periods": 600.0,
    },
}
"""For eight processes on two cores."""
SHARED = {"/tf", "/tf_static", "/estop", "/rosout", "/parameter_events"}


class Robot:
    """What the test hears of one robot."""

    def __init__(self, ros, name):
        self.ros, self.name = ros, name
        self.joints = ros.listen(JointState, f"/{name}/joint_states", SENSOR)
        self.clock = ros.listen(Clock, f"/{name}/clock", SENSOR)
        self.states = ros.listen(String, f"/{name}/grasp/state", LATCHED)
        self.plans = ros.listen(Float64MultiArray, f"/{name}/perception/plan")
        self.palms = ros.listen(PoseStamped, f"/{name}/grasp/palm")
        self.described = ros.listen(String, f"/{name}/robot_description", LATCHED)

    @property
    def state(self):
        return self.states[-1].data if self.states else ""

    def ask(self, request):
        return self.ros.call(Trigger, f"/{self.name}/grasp/{request}")

    def fingers(self):
        return dict(zip(self.joints[-1].name, self.joints[-1].position, strict=True))

    @property
    def is_ready(self):
        if self.state == "fault":  # a busy machine misses a tick
            self.ask("reset_fault")
        return self.state == "idle" and self.plans and self.palms and self.described


def test_two_robots_grasp_and_stop_without_mixing(ros, tmp_path):
    robots = [Robot(ros, name) for name in ROBOTS]
    with ExitStack() as stack:
        running = []
        for name, given in ROBOTS.items():
            for item in launch_arguments.nodes(DEFAULTS | given | {"namespace": name}):
                parameters = item.parameters | PATIENCE.get(item.name, {})
                remap = dict(item.remappings)
                process = Process(
                    *(f"dexgrasp_ros.nodes.{item.executable}", tmp_path),
                    **{"remap": remap, "node": item.name, "namespace": item.namespace} | parameters,
                )
                running.append(stack.enter_context(process))

        def alive():
            for process in running:
                assert process.alive(), process.text()
            return True

        ros.until(lambda: alive() and all(robot.is_ready for robot in robots), "plans of both", 300.0)
        left, right = robots
        assert {"ffj0", "shoulder_pan"} <= set(left.fingers()) and "if_mcp" not in left.fingers()
        assert {"if_mcp", "shoulder_pan"} <= set(right.fingers()) and "ffj0" not in right.fingers()
        assert 'name="left_hand_base"' in left.described[0].data and 'name="right_hand_base"' in right.described[0].data
        assert (left.palms[-1].header.frame_id, right.palms[-1].header.frame_id) == ("left_world", "right_world")
        _check_graph(ros)

        before, moved = right.fingers(), len(right.joints)
        answers = []
        ros.until(lambda: alive() and (answers.append(left.ask("grasp")) or answers[-1].success), f"{answers}", 120.0)
        ros.until(lambda: alive() and left.state != "pregrasp" and left.state != "idle", "a motion of the left", 180.0)
        assert right.state == "idle" and len(right.joints) > moved + 20
        assert max(abs(value - before[name]) for name, value in right.fingers().items()) < 0.02
        assert seconds(left.clock[-1].clock) > 0 and seconds(right.clock[-1].clock) > 0

        button = ros.publisher(Bool, "/estop", RELIABLE, subscribers=2)
        button.publish(Bool(data=True))
        ros.until(lambda: alive() and {robot.state for robot in robots} == {"fault"}, "the stop of both")
        button.publish(Bool(data=False))


def _check_graph(ros):
    """Every topic lies in a namespace or is shared, and no node of one robot reads or writes one of the other's."""
    for topic, _ in ros.node.get_topic_names_and_types():
        assert topic in SHARED or topic.split("/")[1] in ROBOTS, topic
        ends = ros.node.get_publishers_info_by_topic(topic) + ros.node.get_subscriptions_info_by_topic(topic)
        owners = {end.node_namespace for end in ends} - {"/"}  # the test itself
        assert topic in SHARED or owners == {f"/{topic.split('/')[1]}"}, (topic, owners)

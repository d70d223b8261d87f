"""The simulated robot as a node: topics of real drivers, refusals, lost messages, the clock."""

import math
import signal

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from dexgrasp_ros import message_conversions
from dexgrasp_ros.message_conversions import depth_from_image, intrinsics_from_info
from dexgrasp_ros.nodes.sim_robot_node import SimRobotNode
from dexgrasp_ros.simulation.sim_robot import pinhole
from tests.helpers.ros import Process

pytestmark = pytest.mark.ros


@pytest.fixture
def start(ros):
    """Starts the node in this process, without a camera unless asked for."""
    made = []

    def make(**parameters):
        given = {"camera_rate_hz": 0.0} | parameters
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        made.append(ros.add(SimRobotNode(context=ros.context, parameter_overrides=overrides)))
        return made[-1]

    yield make
    for node in made:
        node.close()


def wait_for_time(ros, node, time_s):
    end = node.robot.time_s + time_s
    ros.until(lambda: node.robot.time_s >= end, f"{time_s} s of simulated time")


def test_joint_states_have_names_positions_velocities_and_efforts(ros, start):
    heard, node = ros.listen(JointState, "/joint_states"), start()
    ros.until(lambda: len(heard) > 20, "joint states")
    message = heard[-1]
    assert tuple(message.name) == (*node.robot.arm.joint_names, *node.robot.hand.joint_names)
    assert len(message.position) == len(message.velocity) == len(message.effort) == 22
    np.testing.assert_allclose(message.position[:6], node.robot.arm.home, atol=1e-3)
    stamps = np.array([message_conversions.seconds(item.header.stamp) for item in heard])
    assert (np.diff(stamps) > 0).all()


def test_commands_come_in_by_the_topics_of_real_drivers(ros, start):
    node = start()
    arm, hand = node.robot.arm, node.robot.hand
    home, fingers = arm.home, hand.open_pose
    by_name = dict(zip(reversed(hand.joint_names), reversed(fingers + 0.02), strict=True))
    given = [
        (
            "/scaled_joint_trajectory_controller/joint_trajectory",
            message_conversions.trajectory_message(arm.joint_names, home + 0.1, 0.1),
        ),
        ("/forward_position_controller/commands", message_conversions.array_message(home - 0.1)),
        (
            "/hand_controller/joint_trajectory",
            message_conversions.trajectory_message(hand.joint_names, fingers - 0.1, 0.1),
        ),
        ("/hand_controller/commands", message_conversions.array_message(fingers - 0.2)),
        ("/hand_controller/joint_cmd", message_conversions.joint_message(list(by_name), list(by_name.values()), 0.0)),
    ]
    for topic, message in given:
        group = "hand" if "hand" in topic else "arm"
        ros.publisher(type(message), topic).publish(message)
        positions = {JointTrajectory: lambda m: m.points[0].positions, JointState: lambda m: m.position[::-1]}
        goal = pytest.approx(list(positions.get(type(message), lambda m: m.data)(message)))
        servos = node.robot.servos[group]
        ros.until(lambda servos=servos, goal=goal: servos.targets(node.robot.time_s) == goal, topic)


@pytest.mark.parametrize(
    ("topic", "message", "text"),
    [
        ("/hand_controller/commands", message_conversions.array_message([0.0] * 15), "16 finite values"),
        ("/hand_controller/commands", message_conversions.array_message([math.nan] * 16), "16 finite values"),
        ("/forward_position_controller/commands", message_conversions.array_message([0.0] * 7), "6 finite values"),
        (
            "/hand_controller/joint_cmd",
            message_conversions.joint_message(["ffj9"], [0.0], 0.0),
            "unknown joints ['ffj9']",
        ),
        (
            "/scaled_joint_trajectory_controller/joint_trajectory",
            message_conversions.trajectory_message(["elbow"], [0.0], 0.1),
            "missing joints ['shoulder_lift'",
        ),
        ("/hand_controller/joint_trajectory", JointTrajectory(), "one point, got 0"),
    ],
)
def test_a_command_that_does_not_fit_is_refused_with_the_reason_and_moves_nothing(ros, start, topic, message, text):
    heard, node = ros.listen(DiagnosticArray, "/diagnostics"), start()
    before = node.robot.read_joints().position
    ros.publisher(type(message), topic).publish(message)

    def refusals():
        return [status for item in heard for status in item.status if status.level == message_conversions.ERROR]

    ros.until(refusals, "a diagnostic")
    assert refusals()[0].name == "sim_robot: commands"
    assert text in refusals()[0].message
    wait_for_time(ros, node, 0.2)
    np.testing.assert_allclose(node.robot.read_joints().position, before, atol=1e-3)


def test_the_share_of_lost_messages_is_as_asked(ros, start):
    states, clocks = ros.listen(JointState, "/joint_states"), ros.listen(Clock, "/clock")
    node = start(drop=0.2)
    ros.until(lambda: len(clocks) > 300, "300 ticks", 120.0)
    assert 0.73 < len(states) / len(clocks) < 0.87  # 3 standard deviations of 300 are 0.07
    publisher = ros.publisher(Float64MultiArray, "/hand_controller/commands")
    command = message_conversions.array_message(node.robot.hand.open_pose)
    for _ in range(400):
        publisher.publish(command)
        ros.spin(0.002)
    ros.until(lambda: node._accepted > 280, "commands")
    assert 280 < node._accepted < 360


def test_the_clock_never_jumps_back_not_even_at_a_reset(ros, start):
    clocks, poses = ros.listen(Clock, "/clock"), ros.listen(PoseStamped, "/sim_robot/object_pose")
    node = start()
    ros.until(lambda: len(clocks) > 10 and poses, "the clock")
    first, _ = message_conversions.pose_from_message(poses[-1])
    node.set_parameters([Parameter("object", value="3"), Parameter("seed", value=5)])
    answer = ros.call(Trigger, "/sim_robot/reset")
    assert answer.success
    assert answer.message == f"{node.robot.library.names[3]} is on the table, seed 5"
    count = len(clocks)
    ros.until(lambda: len(clocks) > count + 10, "the clock after the reset")
    assert (np.diff([message_conversions.seconds(item.clock) for item in clocks]) > 0).all()
    assert np.linalg.norm(message_conversions.pose_from_message(poses[-1])[0] - first) > 1e-3


def test_a_reset_to_an_object_that_is_not_there_changes_nothing(ros, start):
    node = start()
    node.set_parameters([Parameter("object", value="999999")])
    answer = ros.call(Trigger, "/sim_robot/reset")
    assert not answer.success
    assert "numbered from 0" in answer.message
    assert node.robot.object == node.robot.library.names[0]


def test_a_push_moves_the_object(ros, start):
    poses, node = ros.listen(PoseStamped, "/sim_robot/object_pose"), start()
    wait_for_time(ros, node, 0.3)
    before, _ = message_conversions.pose_from_message(poses[-1])
    assert ros.call(Trigger, "/sim_robot/push").success
    wait_for_time(ros, node, 0.5)
    assert np.linalg.norm(message_conversions.pose_from_message(poses[-1])[0] - before) > 2e-3


def test_images_come_with_their_camera_and_one_clock(ros, tmp_path):
    images, infos = (
        ros.listen(Image, "/camera/camera/depth/image_rect_raw"),
        ros.listen(CameraInfo, "/camera/camera/depth/camera_info"),
    )
    states, reports = ros.listen(JointState, "/joint_states"), ros.listen(DiagnosticArray, "/diagnostics")
    with Process("dexgrasp_ros.nodes.sim_robot_node", tmp_path, width=320, height=240) as process:
        ros.until(lambda: (images and infos and states and reports) or not process.alive(), "messages", 60.0)
        if not process.alive() and "headless OpenGL" in process.text():
            pytest.skip("no OpenGL")
        assert process.alive(), process.text()
        assert intrinsics_from_info(infos[0]) == pinhole(320, 240)
        depth_m = depth_from_image(images[0])
        assert depth_m.shape == (240, 320)
        assert 0.3 < np.median(depth_m[180:]) < 0.8
        assert images[0].header.frame_id == "camera_depth_optical_frame"
        image_s, state_s = (message_conversions.seconds(item[-1].header.stamp) for item in (images, states))
        assert abs(image_s - state_s) < 2.0
        paces = [status for item in reports for status in item.status if status.name == "sim_robot: pace"]
        assert paces and "of real time" in paces[0].message
        assert process.stop(signal.SIGINT) == 0, process.text()


def test_a_wrong_option_ends_the_process_with_the_reason(ros_domain, tmp_path):
    with Process("dexgrasp_ros.nodes.sim_robot_node", tmp_path, drop=1.5) as process:
        assert process.wait() == 2
        assert "cannot start: sim_robot: 'drop' must lie in 0..0.99, got 1.5" in process.text()

"""The perception node in real ROS: it publishes what its pure part says; bad input is told of and shows nothing."""

import array
import time
from dataclasses import replace

import numpy as np
import pytest

from dexgrasp_ros.perception.config import hand_body

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from dexgrasp import assets
from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.cameras.extrinsics import CameraPose, pose_to_dict
from dexgrasp.perception.cameras.open import save_folder
from dexgrasp.perception.cameras.temporal_filter import FIRST_VIEW_FRAMES
from dexgrasp.perception.segmentation.scene_items import scene_items
from dexgrasp.policies.deploy.bundle import read_contract
from dexgrasp.sim.sensors.synthetic_scenes import make_scene
from dexgrasp_ros import message_conversions as m
from dexgrasp_ros.message_conversions import (
    depth_from_image,
    estimate_from_message,
    image_from_depth,
    info_from_intrinsics,
)
from dexgrasp_ros.nodes.perception_node import PerceptionNode
from dexgrasp_ros.perception.object_observer import ObjectObserver
from tests.helpers.ros import LATCHED, SENSOR, Process
from tests.ros.test_node_parameters import Door

pytestmark = pytest.mark.ros

BUNDLE = assets.path("policies/allegro/student/bundle")
JOINTS = read_contract(BUNDLE).hand.joint_names
AWAY = (0.3, 0.3, 0.6)
"""Where the palm waits, outside the picture."""


@pytest.fixture(scope="module")
def scene(household):
    return make_scene("plain", household, 3)


class Robot:
    """What a camera, a hand and a grasp node publish."""

    def __init__(self, ros, scene):
        self.ros, self.scene = ros, scene
        self.points = ros.listen(PointCloud2, "/perception/points")
        self.plans = ros.listen(Float64MultiArray, "/perception/plan")
        self.pregrasps = ros.listen(PoseStamped, "/perception/pregrasp")
        self.diagnostics = ros.listen(DiagnosticArray, "/diagnostics")
        self.info = ros.publisher(CameraInfo, "/camera/camera/depth/camera_info", SENSOR)
        self.depth = ros.publisher(Image, "/camera/camera/depth/image_rect_raw", SENSOR)
        self.joints = ros.publisher(JointState, "/joint_states", SENSOR)
        self.palm = ros.publisher(PoseStamped, "/grasp/palm", SENSOR)
        self.state = ros.publisher(String, "/grasp/state", LATCHED)

    def now_s(self):
        return self.ros.node.get_clock().now().nanoseconds * 1e-9

    def image(self, stamp_s, encoding="16UC1"):
        return image_from_depth(self.scene.frame.depth_m, stamp_s, "camera", encoding)

    def read(self, stamp_s):
        self.joints.publish(m.joint_message(JOINTS, np.full(16, 0.4), stamp_s))
        self.palm.publish(m.pose_message(AWAY, (1, 0, 0, 0), stamp_s, "world"))

    def frame(self, image=None, readings=True):
        """One frame with the readings of its time; sensors are best effort, so each is let arrive."""
        stamp_s = self.now_s()
        self.info.publish(info_from_intrinsics(self.scene.frame.intrinsics, stamp_s, "camera"))
        if readings:
            self.read(stamp_s)
        self.ros.spin(0.01)
        self.depth.publish(self.image(stamp_s) if image is None else image)
        self.ros.spin(0.02)
        return stamp_s

    def until_seen(self):
        end = time.monotonic() + 60
        before = len(self.plans)
        while len(self.plans) == before:
            assert time.monotonic() < end, self.status("perception: object")
            self.frame()

    def status(self, name):
        found = [status for array_ in self.diagnostics for status in array_.status if status.name == name]
        return (found[-1].level, found[-1].message, {v.key: v.value for v in found[-1].values}) if found else None

    def until_told(self, name, text):
        self.ros.until(lambda: (now := self.status(name)) and text in now[1], f"'{text}' from {name}")
        return self.status(name)


def parameters(scene, **others):
    place = pose_to_dict(scene.frame.T_world_cam)
    values = {"bundle": str(BUNDLE), "camera_pos_m": place["pos_m"], "camera_quat_wxyz": place["quat_wxyz"]} | others
    return [Parameter(name, value=value) for name, value in values.items()]


@pytest.fixture
def robot(ros, scene):
    ros.add(PerceptionNode(context=ros.context, parameter_overrides=parameters(scene)))
    return Robot(ros, scene)


def newest(robot):
    return estimate_from_message(robot.points[-1])


def expected(scene):
    """What the pure part makes of twelve such frames."""
    contract = read_contract(BUNDLE)
    body = hand_body(assets.path("hands/allegro"), contract.hand)
    observer = ObjectObserver(contract, scene.frame.intrinsics, hand=body)
    depth_m = depth_from_image(image_from_depth(scene.frame.depth_m, 0.0, "camera"))
    for _ in range(FIRST_VIEW_FRAMES):
        estimate = observer.observe(replace(scene.frame, depth_m=depth_m))
    return estimate


def test_points_and_plan_are_those_of_the_pure_part(robot, scene):
    robot.until_seen()
    last_s = robot.frame()
    robot.ros.until(lambda: newest(robot).stamp_s == pytest.approx(last_s, abs=1e-6), "points")
    robot.ros.until(lambda: m.plan_from_message(robot.plans[-1])[1] == pytest.approx(last_s, abs=1e-6), "its plan")
    estimate, found = expected(scene), newest(robot)
    np.testing.assert_allclose(found.points_w, estimate.points_w, atol=1e-6)
    assert (found.visible_fraction, found.view_fresh, robot.points[-1].header.frame_id) == (1.0, True, "world")
    plan, _ = m.plan_from_message(robot.plans[-1])
    for name, value in vars(estimate.plan).items():
        np.testing.assert_allclose(getattr(plan, name), value, atol=1e-9)
    pos, quat = m.pose_from_message(robot.pregrasps[-1])
    np.testing.assert_allclose(pos, estimate.plan.palm_pos_w, atol=1e-9)
    np.testing.assert_allclose(quat, estimate.plan.palm_quat_w, atol=1e-9)
    level, _, values = robot.until_told("perception: object", "seen")
    assert level == m.OK
    assert int(values["object"]) > 100
    assert float(robot.status("perception: camera")[2]["rate_hz"]) > 1


def test_the_target_changes_between_grasps_and_a_refused_one_loses_nothing(robot, scene):
    robot.until_seen()
    before = m.plan_id_of(robot.plans[-1])
    door = Door(robot.ros, "perception")
    assert door.set("segment.target", "9999,3").startswith("target: pixel (9999, 3) lies outside the image")
    assert "expected largest, nearest, best" in door.set("segment.target", "the mug")
    assert m.plan_id_of(robot.plans[-1]) == before
    assert door.set("segment.target", "nearest") == ""
    robot.until_seen()
    assert m.plan_id_of(robot.plans[-1]) > before
    robot.state.publish(String(data="pregrasp"))
    robot.ros.spin(0.2)
    assert door.set("segment.target", "best") == "the target changes between grasps, not in pregrasp"


@pytest.mark.parametrize("rest", ["idle", "retreat"])
def test_a_grasp_follows_the_first_view_and_ends_with_a_new_one(robot, rest):
    robot.until_seen()
    robot.state.publish(String(data="pregrasp"))
    robot.ros.spin(0.2)
    del robot.points[:], robot.plans[:]
    last_s = robot.frame()
    robot.ros.until(lambda: robot.points, "points")
    first = newest(robot)
    assert first.stamp_s == pytest.approx(last_s, abs=1e-6)
    assert (robot.plans, first.visible_fraction) == ([], 1.0)
    robot.state.publish(String(data="lift"))
    robot.ros.spin(0.2)
    robot.frame()
    robot.ros.until(lambda: len(robot.points) > 1, "points of a frame behind the hand")
    robot.ros.spin(0.2)
    del robot.points[:]
    later_s = robot.now_s()
    robot.joints.publish(m.joint_message(JOINTS, np.full(16, 0.4), later_s))
    robot.palm.publish(m.pose_message(np.add(AWAY, (0, 0, 0.05)), (1, 0, 0, 0), later_s, "world"))

    def moved():
        return robot.points and np.linalg.norm(newest(robot).points_w.mean(0) - middle) > 0.045

    middle = first.points_w.mean(0)
    robot.ros.until(moved, "points that go along with the palm")
    shift = newest(robot).points_w.mean(0) - middle
    np.testing.assert_allclose(shift, (0, 0, 0.05), atol=0.004)
    robot.state.publish(String(data=rest))
    robot.ros.spin(0.2)
    robot.until_seen()


def test_without_readings_of_the_robot_a_grasp_shows_nothing(robot):
    robot.until_seen()
    robot.state.publish(String(data="grasp"))
    robot.ros.spin(0.3)
    robot.frame()
    robot.until_told("perception: object", "in grasp without a first view")


def rgb(robot):
    data = array.array("B", bytes(640 * 480 * 3))
    return Image(header=m.header(robot.now_s(), "camera"), height=480, width=640, encoding="rgb8", step=1920, data=data)


def smaller(robot):
    return image_from_depth(robot.scene.frame.depth_m[::2, ::2], robot.now_s(), "camera")


def earlier(robot):
    return image_from_depth(robot.scene.frame.depth_m, robot.now_s() - 100.0, "camera")


def empty(robot):
    return image_from_depth(np.zeros((480, 640)), robot.now_s(), "camera")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (rgb, "16UC1 (mm) or 32FC1 (m), got 'rgb8'"),
        (smaller, "of shape (480, 640), got float32 (240, 320): do image and camera_info belong together?"),
        (earlier, "the clock jumped back by 99."),
        (empty, "no depth within the range"),
    ],
)
def test_an_image_that_must_not_be_used_is_told_of_and_shows_nothing(robot, make, text):
    robot.until_seen()
    robot.ros.spin(0.2)
    del robot.points[:], robot.plans[:]
    robot.depth.publish(make(robot))
    level, message, _ = robot.until_told("perception: object", text)
    assert level == m.ERROR, message
    assert (robot.points, robot.plans) == ([], [])


def test_zero_intrinsics_are_told_of(robot):
    robot.info.publish(CameraInfo(width=640, height=480))
    level, _, _ = robot.until_told("perception: readings", "no usable intrinsics")
    assert level == m.ERROR
    robot.depth.publish(robot.image(robot.now_s()))
    robot.until_told("perception: object", "no camera_info received")
    assert robot.points == []


def test_another_size_while_nothing_has_begun_is_another_camera(robot, scene):
    robot.until_seen()
    half = Intrinsics(320, 240, 192.5, 192.5, 159.5, 119.5)
    del robot.plans[:]
    end = time.monotonic() + 60
    while not robot.plans:
        assert time.monotonic() < end
        stamp_s = robot.now_s()
        robot.info.publish(info_from_intrinsics(half, stamp_s, "camera"))
        robot.read(stamp_s)
        robot.ros.spin(0.02)
        robot.depth.publish(image_from_depth(scene.frame.depth_m[::2, ::2], stamp_s, "camera", "32FC1"))
        robot.ros.spin(0.03)


def test_joint_states_with_a_missing_joint_are_told_of(robot):
    robot.joints.publish(m.joint_message(JOINTS[:-1], np.zeros(15), robot.now_s()))
    robot.until_told("perception: readings", "lack ['thj3']")


@pytest.mark.parametrize("frame", ["", "base_link"])
def test_a_palm_pose_in_another_frame_is_told_of(robot, frame):
    robot.palm.publish(m.pose_message(AWAY, (1, 0, 0, 0), robot.now_s(), frame))
    robot.until_told("perception: readings", f"the palm pose is in frame '{frame}', expected 'world'")


def test_a_silent_camera_is_told_of(robot):
    level, message, _ = robot.until_told("perception: camera", "no frame yet")
    assert level == m.STALE
    assert "/camera/camera/depth/image_rect_raw, 1 publishers" in message


def test_a_recording_is_played_and_its_end_is_told(ros, scene, tmp_path):
    frame = scene.frame
    save_folder(tmp_path / "frames", [frame] * 32, rate_hz=6.0)
    CameraPose(frame.T_world_cam).save(tmp_path / "camera.yaml")
    given = {"source": str(tmp_path / "frames"), "camera_file": str(tmp_path / "camera.yaml")}
    points = ros.listen(PointCloud2, "/perception/points")
    diagnostics = ros.listen(DiagnosticArray, "/diagnostics")
    node = ros.add(PerceptionNode(context=ros.context, parameter_overrides=parameters(scene, **given)))
    try:
        ros.until(lambda: points, "points of the recording")
        np.testing.assert_allclose(estimate_from_message(points[0]).points_w, expected(scene).points_w, atol=1e-6)
        ros.until(lambda: any("has no more" in s.message for a in diagnostics for s in a.status), "its end")
    finally:
        node.close()


def test_the_process_ends_when_asked_to(ros, scene, tmp_path):
    place = pose_to_dict(scene.frame.T_world_cam)
    known = {"bundle": BUNDLE, "camera_pos_m": place["pos_m"], "camera_quat_wxyz": place["quat_wxyz"]}
    with Process("dexgrasp_ros.nodes.perception_node", tmp_path, **known) as process:
        ros.publisher(Image, "/camera/camera/depth/image_rect_raw", SENSOR)
        assert process.stop() == 0, process.text()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"camera_quat_wxyz": ""}, "the camera pose is missing"),
        ({"camera_file": "none.yaml"}, "none.yaml"),
        ({"hand": "sim_leap"}, "is for the hand 'allegro', driver 'sim_leap' is for 'leap': give another"),
        ({"arm": "cartesian_pose"}, "leave `arm` empty"),
        ({"bundle": "nowhere"}, "nowhere/contract.json is missing"),
        ({"hand_body": "nowhere.json"}, r"nowhere.json cannot be read .*python -m dexgrasp.sim.robots.capsules"),
    ],
)
def test_parameters_that_cannot_be_are_refused(ros, scene, given, text):
    with pytest.raises((ValueError, OSError), match=text):
        PerceptionNode(context=ros.context, parameter_overrides=parameters(scene, **given))


def test_a_lifecycle_manager_takes_the_camera_and_gives_it_back(ros, scene):
    given = parameters(scene, autostart=False)
    node = ros.add(PerceptionNode(context=ros.context, parameter_overrides=given))
    depth = "/camera/camera/depth/image_rect_raw"

    def transition(name):  # in this process: the services are those of rclpy
        return getattr(node, f"trigger_{name}")() == TransitionCallbackReturn.SUCCESS

    def change(name, value):
        return node.set_parameters([Parameter(name, value=value)])[0].reason

    assert transition("configure")
    assert node.count_subscribers(depth) == 0
    assert "out of range" in change("held_object_rate_hz", 0.0)
    assert change("readings_timeout_s", 0.5) == ""
    assert transition("activate")
    assert node.cfg.readings_timeout_s == 0.5
    assert "changes while the node is not active" in change("readings_timeout_s", 0.6)
    robot = Robot(ros, scene)
    robot.until_seen()
    assert transition("deactivate")
    ros.until(lambda: node.count_subscribers(depth) == 0, "the release of the camera")
    ros.spin(0.3)
    heard = len(robot.points)
    assert change("camera_quat_wxyz", [2.0, 0.0, 0.0, 0.0]) != ""
    assert transition("activate")
    ros.until(lambda: node.count_subscribers(depth) == 1, "the camera")
    before = len(robot.plans)
    ros.until(lambda: robot.frame() and len(robot.plans) > before, "a plan from frames after the start")
    assert len(robot.points) > heard
    assert transition("deactivate")
    assert transition("cleanup")


def test_the_scene_is_judged_when_asked(robot, scene):
    def check():
        return robot.ros.call(Trigger, "/perception/check_scene")

    assert "no depth image came within 2 s: is the camera running" in check().message
    robot.until_seen()
    answer = check()
    items = scene_items(scene.frame, [0.0])
    for item in items:
        assert f"{item.light}: {item.name}: {item.measured}" in answer.message, answer.message
    told = answer.message.splitlines()
    assert len(told) == len(items) + 1 and any(": frames: " in line for line in told)  # one image gives no rate
    assert Door(robot.ros, "perception").set("segment.target", "best") == ""
    robot.until_seen()
    assert ": object size: " in check().message  # no grasp is planned for it
    empty = image_from_depth(np.zeros_like(scene.frame.depth_m), robot.now_s(), "camera")
    robot.frame(empty)
    robot.ros.until(lambda: "bad: holes: 100 % of the workspace" in check().message, "an image without depth")
    assert not check().success
    robot.until_seen()
    robot.state.publish(String(data="pregrasp"))
    robot.ros.until(lambda: "check the scene in idle" in check().message, "the state of a grasp")

"""Frames, description and markers over real ROS, against MuJoCo's forward kinematics."""

import mujoco
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from geometry_msgs.msg import PoseStamped
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import Float64MultiArray, String

from dexgrasp import configs
from dexgrasp.perception.cameras.extrinsics import CameraPose
from dexgrasp.policies.deploy.policy import PregraspPlan
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.mount import attach
from dexgrasp.utils.rotations import Pose, matrix_from_quat
from dexgrasp_ros import config, message_conversions
from dexgrasp_ros.description.config import DescriptionCfg
from dexgrasp_ros.description.robot_model import read_robot_model
from dexgrasp_ros.message_conversions import estimate_message
from dexgrasp_ros.nodes.description_node import DescriptionNode
from dexgrasp_ros.object_estimate import ObjectEstimate
from tests.helpers.ros import LATCHED, SENSOR

pytestmark = pytest.mark.ros
STATIC = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TURNED = (0.5**0.5, 0.0, 0.5**0.5, 0.0)
STAMP_S = 12.5


def start(ros, **parameters):
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    return ros.add(DescriptionNode(context=ros.context, parameter_overrides=overrides))


def joint_states(ros, model, rng):
    """Publishes positions of all joints until told to stop; returns them."""
    positions = {model.joint(i).name: float(rng.uniform(*model.jnt_range[i])) for i in range(model.njnt)}
    publisher = ros.node.create_publisher(JointState, "joint_states", SENSOR)
    message = message_conversions.joint_message(list(positions), list(positions.values()), STAMP_S)
    ros.until(publisher.get_subscription_count, "the node's ears")
    publisher.publish(message)
    return positions


def world_model(hand, mount="ur5e"):
    world = mujoco.MjSpec()
    attach(world, HandSpec.load(hand), mount)
    return world.compile()


def at(model, positions):
    data = mujoco.MjData(model)
    for name, value in positions.items():
        data.qpos[model.joint(name).qposadr[0]] = value
    mujoco.mj_kinematics(model, data)
    return data


class Frames:
    """A listener as tf2's: the newest transform of each frame, multiplied out to the world."""

    def __init__(self, ros, prefix=""):
        types = pytest.importorskip("tf2_msgs.msg", reason="needs a sourced build of ros2_ws (make test-ros)")
        self.messages = [
            ros.listen(types.TFMessage, topic, qos) for topic, qos in (("/tf", 100), ("/tf_static", STATIC))
        ]
        self.prefix = prefix

    @property
    def edges(self):
        items = [item for messages in self.messages for message in messages for item in message.transforms]
        return {item.child_frame_id: item for item in items}

    def pose(self, frame, root="world"):
        pose, edges, frame = Pose.of((0, 0, 0), (1, 0, 0, 0)), self.edges, self.prefix + frame
        while frame != self.prefix + root:
            item = edges[frame]
            p, q = item.transform.translation, item.transform.rotation
            pose, frame = Pose.of((p.x, p.y, p.z), (q.w, q.x, q.y, q.z)) @ pose, item.header.frame_id
        return pose


@pytest.mark.parametrize(("hand", "prefix"), [("allegro", ""), ("leap", "left_")])
def test_the_description_and_the_joint_states_are_those_of_the_model(ros, hand, prefix):
    described = ros.listen(String, "/robot_description", LATCHED)
    joints = ros.listen(JointState, "/description/joint_states")
    start(ros, hand=f"sim_{hand}", tf_prefix=prefix, base_frame=f"{prefix}world")
    model = world_model(hand)
    positions = joint_states(ros, model, np.random.default_rng(0))
    ros.until(lambda: described and joints, "the description")
    found = dict(zip(joints[-1].name, joints[-1].position, strict=True))
    assert found == {prefix + name: value for name, value in positions.items()}
    spec = mujoco.MjSpec.from_string(described[0].data)
    spec.compiler.fusestatic = False
    read = spec.compile()
    data, wanted = at(read, found), at(model, positions)
    for i in range(1, model.nbody):
        body = prefix + {"palm": "hand_base", "base": "arm_base"}.get(model.body(i).name, model.body(i).name)
        np.testing.assert_allclose(data.body(body).xpos, wanted.xpos[i], atol=1e-6)
        np.testing.assert_allclose(data.body(body).xmat, wanted.xmat[i], atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "left_"])
def test_frames_are_where_mujoco_puts_the_bodies(ros, prefix):
    frames = Frames(ros, prefix)
    world = f"{prefix}world"
    start(ros, tf_prefix=prefix, base_frame=world, camera_file=str(config("cameras/sim.yaml")))
    model, hand = world_model("allegro"), HandSpec.load("allegro")
    positions = joint_states(ros, model, np.random.default_rng(1))
    plans = ros.publisher(Float64MultiArray, "perception/plan")
    clouds = ros.publisher(PointCloud2, "perception/points", SENSOR)
    motors = len(hand.motors.names)
    plan = PregraspPlan([0.1, -0.05, 0.3], TURNED, 0.08, np.zeros(motors), 0.05, np.zeros(motors))
    plans.publish(message_conversions.plan_message(plan, STAMP_S))
    points = np.array([[0.1, 0.2, 0.0], [0.2, 0.2, 0.1], [0.1, 0.3, 0.02]], np.float32)
    clouds.publish(estimate_message(ObjectEstimate(points, stamp_s=STAMP_S), world))
    wanted = {prefix + name for name in ("base", "tool", "palm", "pregrasp", "object", "camera_depth_optical_frame")}
    ros.until(lambda: wanted <= set(frames.edges), f"frames {wanted}, beside {set(frames.edges)}")
    data = at(model, positions)
    for i in range(1, model.nbody):
        name = {"palm": "hand_base", "base": "arm_base"}.get(model.body(i).name, model.body(i).name)
        pose = frames.pose(name)
        np.testing.assert_allclose(pose.pos_m, data.xpos[i], atol=1e-6)
        np.testing.assert_allclose(matrix_from_quat(pose.quat), data.xmat[i].reshape(3, 3), atol=1e-6)
    flange = Pose.of(data.body("palm").xpos, data.body("palm").xquat)
    palm = flange @ Pose.of(hand.palm_pos_b, hand.palm_quat_b)
    assert frames.pose("tool").distance_m(flange) < 1e-6 and frames.pose("tool").angle_rad(flange) < 1e-6
    assert frames.pose("palm").distance_m(palm) < 1e-6 and frames.pose("palm").angle_rad(palm) < 1e-6
    assert frames.pose("pregrasp").distance_m(Pose.of([0.1, -0.05, 0.3], TURNED)) < 1e-9
    assert frames.pose("pregrasp").angle_rad(Pose.of([0.1, -0.05, 0.3], TURNED)) < 1e-9
    np.testing.assert_allclose(frames.pose("object").pos_m, [0.15, 0.25, 0.05], atol=1e-6)
    T = np.asarray(CameraPose.load(str(config("cameras/sim.yaml"))).T_world_cam)
    camera = frames.pose("camera_depth_optical_frame")
    np.testing.assert_allclose(camera.pos_m, T[:3, 3], atol=1e-9)
    np.testing.assert_allclose(matrix_from_quat(camera.quat), T[:3, :3], atol=1e-6)
    assert {item.header.frame_id for item in frames.edges.values()} | set(frames.edges) == {
        name
        for name in {item.header.frame_id for item in frames.edges.values()} | set(frames.edges)
        if name.startswith(prefix)
    }
    stamps = {
        round(message_conversions.seconds(item.header.stamp), 6) for m in frames.messages[0] for item in m.transforms
    }
    assert stamps == {STAMP_S}  # a stamp is sent once: tf2 warns of repeated ones
    sent = [item.child_frame_id for message in frames.messages[0] for item in message.transforms]
    ros.spin(0.2)
    assert len(sent) == len(set(sent)) == len([item for message in frames.messages[0] for item in message.transforms])


def test_a_hand_on_an_arm_of_unknown_kinematics_hangs_on_the_palm_pose(ros):
    frames = Frames(ros)
    start(ros, arm="cartesian_pose")
    model, hand = HandSpec.load("leap").model, HandSpec.load("allegro")
    del model
    joint_states(ros, hand.model, np.random.default_rng(2))
    palm = Pose.of([0.1, 0.2, 0.4], TURNED)
    palms = ros.publisher(PoseStamped, "grasp/palm", SENSOR)
    palms.publish(message_conversions.pose_message(palm.pos_m, palm.quat, STAMP_S, "world"))
    ros.until(lambda: {"hand_base", "palm", "ff_distal"} <= set(frames.edges), "frames")
    assert frames.pose("palm").distance_m(palm) < 1e-6 and frames.pose("palm").angle_rad(palm) < 1e-6


def test_markers_show_workspace_pregrasp_and_the_way_to_the_nearest_points(ros):
    types = pytest.importorskip("visualization_msgs.msg")
    markers = ros.listen(types.MarkerArray, "/description/markers")
    start(ros, marker_rate_hz=20.0)
    model, hand = world_model("allegro"), HandSpec.load("allegro")
    positions = joint_states(ros, model, np.random.default_rng(3))
    motors = len(hand.motors.names)
    plan = PregraspPlan([0.1, -0.05, 0.3], TURNED, 0.08, np.zeros(motors), 0.05, np.zeros(motors))
    ros.publisher(Float64MultiArray, "perception/plan").publish(message_conversions.plan_message(plan, STAMP_S))
    points = np.random.default_rng(0).uniform(-0.2, 0.2, (200, 3)).astype(np.float32)
    cloud = estimate_message(ObjectEstimate(points, stamp_s=STAMP_S), "world")
    ros.publisher(PointCloud2, "perception/points", SENSOR).publish(cloud)

    def of(name):
        return [item for item in markers[-1].markers if item.ns == name] if markers else []

    ros.until(lambda: of("keypoints") and of("pregrasp"), "markers")
    assert len(of("workspace")) == 1 and len({(m.ns, m.id) for m in markers[-1].markers}) == len(markers[-1].markers)
    data = at(model, positions)
    ends = np.array([(p.x, p.y, p.z) for p in of("keypoints")[0].points]).reshape(-1, 2, 3)
    sites = np.array([data.site(name).xpos for name in hand.keypoint_names])
    np.testing.assert_allclose(ends[:, 0], sites, atol=1e-6)
    gap = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    np.testing.assert_allclose(gap, np.linalg.norm(sites[:, None] - points[None], axis=2).min(1), atol=1e-6)
    middle = np.mean([(m.pose.position.x, m.pose.position.y, m.pose.position.z) for m in of("pregrasp")], axis=0)
    assert np.linalg.norm(middle - [0.1, -0.05, 0.3]) < 0.15


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"hand_model": "leap"}, "is a driver of the hand allegro, hand_model is leap"),
        ({"urdf_file": "broken.urdf"}, "is not XML"),
        ({"urdf_file": "other.urdf"}, "lacks the joints"),
        ({"urdf_file": "links.urdf"}, r"several links of the URDF are called \['a', 'b'\]: rename"),
        ({"urdf_file": "joints.urdf"}, r"several joints of the URDF are called \['turn'\]: rename"),
        ({"urdf_file": "mimic.urdf"}, r"joint 'turn' of the URDF mimics 'spin', which is no joint"),
        ({"rate_hz": 0.0}, "rate_hz"),
    ],
)
def test_what_cannot_be_described_is_refused_in_one_line(tmp_path, monkeypatch, given, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.urdf").write_text("<robot")
    links, ends = "".join(f"<link name='{name}'/>" for name in "abc"), "<parent link='a'/><child link='{}'/></joint>"
    joints = [f"<joint name='turn' type='continuous'>{ends.format(child)}" for child in "bc"]
    (tmp_path / "links.urdf").write_text(f"<robot name='x'>{links}<link name='a'/><link name='b'/></robot>")
    (tmp_path / "joints.urdf").write_text(f"<robot name='x'>{links}{''.join(joints)}</robot>")
    mimic = joints[0].replace("<parent", "<mimic joint='spin'/><parent") + joints[1].replace("turn", "roll")
    (tmp_path / "mimic.urdf").write_text(f"<robot name='x'>{links}{mimic}</robot>")
    (tmp_path / "other.urdf").write_text('<robot name="x"><link name="world"/></robot>')
    with pytest.raises(ValueError, match=text) as raised:
        read_robot_model(configs.from_dict(DescriptionCfg, given, "description"), "/")
    assert "\n" not in str(raised.value)

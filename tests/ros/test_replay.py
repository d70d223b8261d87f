"""Recordings replayed: the same comes out again, one changed value is found, ROS is not needed."""

import array
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros` to make the bag")
pytest.importorskip("rosbags", reason="needs the extra `ros`")

from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState, PointCloud2
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from dexgrasp import assets
from dexgrasp.perception.cameras.extrinsics import CameraPose
from dexgrasp.policies.cli import main
from dexgrasp.policies.deploy.policy import Policy
from dexgrasp.sim.sensors.synthetic_scenes import make_scene
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import message_conversions as m
from dexgrasp_ros.drivers import config
from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.arm_kinematics import ArmKinematics
from dexgrasp_ros.drivers.publishers import joint_command
from dexgrasp_ros.grasping.config import GraspNodeCfg
from dexgrasp_ros.grasping.goal_progress import GoalProgress
from dexgrasp_ros.grasping.types import GraspCfg, Inputs
from dexgrasp_ros.message_conversions import depth_from_image, estimate_message, image_from_depth, info_from_intrinsics
from dexgrasp_ros.perception.config import PerceptionCfg, make_inputs
from dexgrasp_ros.recording.decision_log import DecisionLog
from dexgrasp_ros.recording.logged_grasp import LoggedGraspStateMachine
from dexgrasp_ros.recording.logged_perception import LoggedPerceptionStateMachine
from dexgrasp_ros.replay.bag import Bag

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = assets.path("policies/allegro/student/bundle")
DEPTH, INFO = "/camera/camera/depth/image_rect_raw", "/camera/camera/depth/camera_info"
FRAME = "camera_depth_optical_frame"
FRAME_TICKS, GRASP_AT, END_S = 2, 30, 40.0
HOLD_TICKS, TICKS_OF_CHANGED = 10, 160
CHOOSE_AT, GRASP_OF_TARGET_AT, TARGET_TICKS = 30, 60, 80
GOAL_ID, HOLD_S = "0123456789abcdef" * 2, 0.2
TYPES = get_typestore(Stores.ROS2_JAZZY)
MARKS = "std_msgs/msg/Float64MultiArray"
KINDS = {
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/JointState": JointState,
    "sensor_msgs/msg/PointCloud2": PointCloud2,
    "std_msgs/msg/Float64MultiArray": Float64MultiArray,
    "std_msgs/msg/String": String,
    "trajectory_msgs/msg/JointTrajectory": JointTrajectory,
}


class RecordedGrasp:
    """A grasp by the nodes' pure parts, with a robot that does what it is told; all messages, as they would come."""

    def __init__(self, scene, camera_file, target=""):
        self.scene, self.messages, self.now_s = scene, [], 100.0
        self.target, self.plan_ids = target, []
        policy = Policy.load(BUNDLE)
        hand = policy.contract.hand
        drivers = config.load("hands", "sim_allegro"), config.load("arms", "sim_ur5e")
        self.arm = ArmKinematics(drivers[1].arm, hand, 1 / policy.rate_hz)
        self.adapters = [JointAdapter(d, n) for d, n in zip(drivers, (hand.joint_names, self.arm.joint_names),
                                                            strict=True)]  # fmt: skip
        self.logs = {
            name: DecisionLog(lambda text, name=name: self.tell(f"/{name}/decisions", String(data=text)))
            for name in ("grasp", "perception")
        }
        settings = GraspNodeCfg(bundle=str(BUNDLE), grasp=GraspCfg(attempts=2))
        self.machine = LoggedGraspStateMachine(
            policy, settings.grasp, settings.safety, None, write=self.logs["grasp"].write, settings=settings
        )  # home is the pose at activation, as where the palm pose comes from a topic
        cfg = PerceptionCfg(bundle=str(BUNDLE), arm="sim_ur5e", camera_file=str(camera_file), check_reachability=False)
        self.settings = cfg
        self.q_hand = np.array(policy.contract.grasp.power.open_pose)
        self.q_arm, self.goal = self.arm.home.copy(), None
        self.period_s, self.estimate, self.plan, self.plan_s = 1 / policy.rate_hz, None, None, -np.inf
        self.states = [""]
        self.progress, self.outcome = GoalProgress("grasp", HOLD_S), None
        self.image = image_from_depth(scene.frame.depth_m, 0.0, FRAME)

    def run(self, ticks=10**9):
        tick = held = 0
        self.watch = LoggedPerceptionStateMachine(
            make_inputs(self.settings).setup, self.logs["perception"].write, self.settings
        )
        while held < HOLD_TICKS and self.now_s < 100.0 + END_S and tick < ticks:
            self.now_s = m.seconds(m.to_stamp(self.now_s + self.period_s))
            self.tell("/clock", Clock(clock=m.to_stamp(self.now_s)))
            self.read()
            if self.target and tick == CHOOSE_AT:
                self.watch.choose(self.target)
            if tick % FRAME_TICKS == 0:
                self.look()
            self.tick("grasp" if tick == (GRASP_OF_TARGET_AT if self.target else GRASP_AT) else "")
            held += self.machine.state == "hold"
            tick += 1
        return self.messages

    def tell(self, topic, message):
        self.messages.append((topic, message))

    def read(self):
        adapters, values = self.adapters, (self.q_hand, self.q_arm)
        names = [name for adapter in adapters for name in adapter.state_map.order]
        position = np.concatenate([a.state_map.to_driver(v) for a, v in zip(adapters, values, strict=True)])
        self.tell("/joint_states", m.joint_message(names, position, self.now_s))
        for part, value in zip(("hand", "arm"), values, strict=True):
            self.watch.on_joint_state(part, value, self.now_s)

    def look(self):
        camera = self.scene.frame.intrinsics
        self.watch.on_camera_info(camera)
        self.tell(INFO, info_from_intrinsics(camera, self.now_s, FRAME))
        self.image.header = m.header(self.now_s, FRAME)
        self.tell(DEPTH, self.image)
        self.publish(self.watch.on_depth(depth_from_image(self.image), self.now_s))

    def publish(self, estimate):
        if estimate is None:
            return
        if estimate.plan is not None:
            self.tell("/perception/plan", m.plan_message(estimate.plan, estimate.stamp_s, estimate.plan_id))
            self.plan, self.plan_s = estimate.plan, estimate.stamp_s
            self.plan_ids.append(estimate.plan_id)
        self.tell("/perception/points", estimate_message(estimate, "world"))
        self.estimate = estimate

    def tick(self, request):
        palm = self.arm.palm(self.q_arm)
        inputs = Inputs(
            now_s=self.now_s,
            joint_pos=self.q_hand,
            joints_stamp_s=self.now_s,
            palm_pos_w=palm.pos_m,
            palm_quat_w=palm.quat,
            palm_stamp_s=self.now_s,
            estimate=self.estimate,
            plan=self.plan,
            plan_stamp_s=self.plan_s,
        )
        if not self.machine.active:
            assert self.machine.activate(inputs) == ""
            self.goal = self.q_arm
            self.logs["grasp"].write("arm_start", goal=self.goal)
        if request:
            goal = {"attempts": 0, "hold_s": HOLD_S} | ({"target": self.target} if self.target else {})
            self.logs["grasp"].write("goal", action=request, id=GOAL_ID, goal=goal)
            assert self.machine.request(request, inputs) == ""
            self.logs["grasp"].write("goal_begun", id=GOAL_ID)
        self.tell("/grasp/palm", m.pose_message(palm.pos_m, palm.quat, self.now_s, "world"))
        output = self.machine.tick(inputs)
        assert output.fault == ""
        self.goal = self.arm.step_towards(self.goal, Pose(output.safe.palm_pos_w, output.safe.palm_quat_w))
        self.logs["grasp"].write("arm", goal=self.goal)
        begun = self.progress.attempts > 0 or bool(request)
        if begun and self.outcome is None and (ended := self.progress.update(output, self.now_s)):
            self.outcome = dict(zip(("outcome", "message"), ended, strict=True), attempts=self.progress.attempts)
            self.logs["grasp"].write("goal_ended", id=GOAL_ID, **self.outcome)
        for adapter, target in zip(self.adapters, (output.safe.joint_target, self.goal), strict=True):
            command = adapter.cfg.command
            message = joint_command(command.type, command.joints, adapter.command(target), self.period_s, self.now_s)
            self.tell(command.topic, message)
        self.q_hand, self.q_arm = output.safe.joint_target, self.goal
        if output.state != self.states[-1]:
            self.states.append(output.state)
            self.tell("/grasp/state", String(data=output.state))
            self.watch.on_grasp_state(output.state)


def type_name(message):
    kind = type(message)
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def cdr(message):
    """As it goes over the wire."""
    return bytes(TYPES.serialize_cdr(plain(message), type_name(message)))


def plain(value):
    """A message of ROS as rosbags has it."""
    if hasattr(value, "get_fields_and_field_types"):
        fields = {name: plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
        return TYPES.types[type_name(value)](**fields)
    if isinstance(value, array.array):
        return np.array(value)
    return [plain(item) for item in value] if isinstance(value, list) else value


def write(folder, raw):
    """A bag as record.py writes it: (topic, type, bytes), 1 ms apart."""
    connections = {}
    with Writer(folder, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP) as bag:
        for number, (topic, kind, data) in enumerate(raw):
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, kind, typestore=TYPES)
            bag.write(connections[topic], 10**15 + number * 10**6, data)
    return folder


@pytest.fixture(scope="module")
def recorded(household, tmp_path_factory):
    """Messages of a whole grasp, serialised at once, and the camera's file. No hand is there: it feels empty once."""
    scene = make_scene("plain", household, 3)
    camera_file = tmp_path_factory.mktemp("camera") / "camera.yaml"
    CameraPose(scene.frame.T_world_cam).save(camera_file)
    grasp = RecordedGrasp(scene, camera_file)
    raw = []
    grasp.tell = lambda topic, message: raw.append((topic, type_name(message), cdr(message)))
    grasp.run()
    assert grasp.machine.state == "hold" and grasp.states.count("pregrasp") == 2
    assert grasp.outcome["attempts"] == 2
    return raw, camera_file


@pytest.fixture(scope="module")
def bag(recorded, tmp_path_factory):
    return write(tmp_path_factory.mktemp("bags") / "whole", recorded[0])


def words(bag, camera_file, **others):
    return ["replay", str(bag), f"policy={BUNDLE}", f"camera_file={camera_file}", "check_reachability=false",
            "grasp.attempts=2", "exact=false", *(f"{key}={value}" for key, value in others.items())]  # fmt: skip


def begun(raw, ticks):
    """The messages of so many periods of the policy."""
    return raw[: [place for place, row in enumerate(raw) if row[0] == "/grasp/palm"][ticks]]


def counted(text, topic):
    line = next(line for line in text.splitlines() if line.startswith(f"{topic}: "))
    return int(line.split()[1])


def test_what_was_recorded_comes_out_again(bag, recorded, capsys):
    raw, camera_file = recorded
    exact = {f"tolerance.{name}": 1e-5 for name in ("points_m", "fraction", "plan_m", "plan_rad", "joints_rad")}
    assert main.main(words(bag, camera_file, **exact)) == 0, capsys.readouterr().out
    text = capsys.readouterr().out
    assert text.endswith("no difference\n")
    number = {topic: sum(row[0] == topic for row in raw) for topic in {row[0] for row in raw}}
    assert counted(text, "/perception/points") == number["/perception/points"] > 50
    assert counted(text, "/perception/plan") == number["/perception/plan"] > 0
    assert counted(text, "/hand_controller/commands") == number["/grasp/palm"] > 80
    assert counted(text, "/scaled_joint_trajectory_controller/joint_trajectory") >= number["/grasp/palm"] - 1
    assert Bag(bag).topics == number


def test_frames_that_a_busy_node_skipped_are_told_by_its_marks(recorded, tmp_path, capsys):
    """After each frame of the first view came another one, upside down: only marks say that none was used."""
    raw, camera_file = recorded
    first_cloud = next(place for place, row in enumerate(raw) if row[0] == "/perception/points")
    raw = raw[: first_cloud + 40]
    skipped, marks = [], []
    for topic, kind, data in raw:
        skipped.append((topic, kind, data))
        if topic != DEPTH:
            continue
        image = deserialize_message(data, Image)
        marks.append(m.seconds(image.header.stamp))
        if len(skipped) < first_cloud:
            image.header.stamp = m.to_stamp(marks[-1] + 0.001)
            image.data = array.array("B", np.frombuffer(image.data, np.uint8)[::-1].tobytes())
            skipped.append((topic, kind, cdr(image)))
    told = [("/perception/marks", MARKS, cdr(Float64MultiArray(data=[stamp_s, 0.0, 0.0]))) for stamp_s in marks]
    for name, rows, status in (("guessed", skipped, 1), ("told", [*skipped, *told], 0)):
        bag = write(tmp_path / name, rows)
        assert main.main(words(bag, camera_file, compare_policy="false")) == status, capsys.readouterr().out


def test_a_first_view_older_than_the_bag_is_told_and_the_next_ones_compared(recorded, tmp_path, capsys):
    raw, camera_file = recorded
    third = [place for place, row in enumerate(raw) if row[0] == DEPTH][2]
    last = max(place for place, row in enumerate(raw) if row[0] == "/perception/plan")  # before the second attempt
    bag = write(tmp_path / "late", raw[third : last + 10])
    assert main.main(words(bag, camera_file, compare_policy="false")) == 0, capsys.readouterr().out
    text = capsys.readouterr().out
    assert "the first view began before the bag: compared from" in text and text.endswith("no difference\n")
    assert 0 < counted(text, "/perception/plan") < sum(row[0] == "/perception/plan" for row in raw)


def changed(recorded, topic, number, change):
    """The messages with one of a topic changed, and when that one came [s]."""
    raw = list(recorded[0])
    place = [place for place, row in enumerate(raw) if row[0] == topic][number]
    message = deserialize_message(raw[place][2], KINDS[raw[place][1]])
    change(message)
    raw[place] = (*raw[place][:2], cdr(message))
    return raw, place * 1e-3


def move_a_point(message):
    """To 5 cm above all others."""
    rows = np.frombuffer(message.data, np.float32).reshape(-1, 5).copy()
    rows[17, 2] = rows[:, 2].max() + 0.05
    message.data = array.array("B", rows.tobytes())


def turn_a_joint(message):
    message.data[3] += 0.1


@pytest.mark.parametrize(
    ("topic", "number", "change", "only", "text"),
    [
        ("/perception/points", 25, move_a_point, "policy", r"points [m] 0.0"),
        ("/hand_controller/commands", 60, turn_a_joint, "perception", "joints [rad] 0.1 (> 0.03)"),
    ],
)
def test_one_changed_value_is_found(recorded, tmp_path, capsys, topic, number, change, only, text):
    raw, time_s = changed(recorded, topic, number, change)
    bag = write(tmp_path / "changed", raw[: round(time_s * 1e3) + 50])
    assert main.main(words(bag, recorded[1], **{only: "false"})) == 1
    said = capsys.readouterr().out
    assert f"first difference at {time_s:.3f} s in {topic}: recorded and replayed differ by {text}" in said


def exact_words(bag, **others):
    return ["replay", str(bag), f"policy={BUNDLE}", *(f"{key}={value}" for key, value in others.items())]


def test_the_logs_are_repeated_bit_for_bit_with_the_settings_in_them(bag, recorded, capsys):
    """Neither the camera's file nor the number of attempts is given; home was the pose at activation."""
    raw = recorded[0]
    assert main.main(exact_words(bag)) == 0, capsys.readouterr().out
    text = capsys.readouterr().out
    assert text.endswith("no difference\n") and "tolerance" not in text
    number = {topic: sum(row[0] == topic for row in raw) for topic in {row[0] for row in raw}}
    assert counted(text, "/grasp/decisions") == number["/grasp/decisions"] > 250
    assert counted(text, "/perception/decisions") == number["/perception/decisions"] > 50
    assert counted(text, "/hand_controller/commands") > 80
    assert "goal 01234567: grasp attempts=0 hold_s=0.2: EMPTY the hand is empty after 2 grasps\n" in text


def test_a_goal_with_a_target_is_repeated_bit_for_bit_and_another_target_is_found(
    recorded, household, tmp_path, capsys
):
    grasp = RecordedGrasp(make_scene("plain", household, 3), recorded[1], target="nearest")
    raw = []
    grasp.tell = lambda topic, message: raw.append((topic, type_name(message), cdr(message)))
    grasp.run(TARGET_TICKS)
    assert grasp.machine.state == "pregrasp" and len(set(grasp.plan_ids)) > 1  # a plan of before, and one of the target
    status = main.main(exact_words(write(tmp_path / "target", raw)))
    text = capsys.readouterr().out
    assert status == 0 and text.endswith("no difference\n"), text
    assert f"goal 01234567: grasp attempts=0 hold_s={HOLD_S} target=nearest: not ended\n" in text
    changed, [place] = list(raw), [i for i, row in enumerate(raw) if b'"target", ' in row[2]]
    message = deserialize_message(raw[place][2], String)
    assert raw[place][0] == "/perception/decisions" and '"target": "nearest"' in message.data
    message.data = message.data.replace('"target": "nearest"', '"target": "0.9,0.9,0.05"')
    changed[place] = (*raw[place][:2], cdr(message))
    assert main.main(exact_words(write(tmp_path / "other", changed), compare_policy="false")) == 1
    assert "first difference at " in capsys.readouterr().out


def test_a_result_of_a_goal_that_does_not_follow_from_the_ticks_is_found(recorded, tmp_path, capsys):
    raw = list(recorded[0])
    [place] = [i for i, row in enumerate(raw) if row[0] == "/grasp/decisions" and b"goal_ended" in row[2]]
    message = deserialize_message(raw[place][2], String)
    message.data = message.data.replace('"attempts": 2', '"attempts": 1')
    raw[place] = (*raw[place][:2], cdr(message))
    assert main.main(exact_words(write(tmp_path / "changed", raw), perception="false")) == 1
    assert "goal_ended: result of grasp attempts=0 hold_s=0.2: recorded {" in capsys.readouterr().out


def next_double(values, index):
    values[index] = np.nextafter(values[index], np.inf)


def shift_joint(message):
    next_double(message.position, 4)


def shift_command(message):
    next_double(message.data, 3)


def shift_arm(message):
    next_double(message.points[0].positions, 2)


def shift_point(message):
    rows = np.frombuffer(message.data, np.float32).copy()
    rows[7] = np.nextafter(rows[7], np.float32(9))
    message.data = array.array("B", rows.tobytes())


def shift_depth(message):
    """By one millimetre, in one pixel of those that are used."""
    rows = np.frombuffer(message.data, np.uint16).reshape(message.height, message.width).copy()
    rows[200, 320] += 1
    message.data = array.array("B", rows.tobytes())


def shift_decision(message):
    values = json.loads(message.data)
    next_double(values["output"]["command"], 5)
    message.data = json.dumps(values)


@pytest.mark.parametrize(
    ("topic", "number", "change", "said"),
    [
        ("/joint_states", 60, shift_joint, "not one that the log of decisions names"),
        (DEPTH, 40, shift_depth, "was changed, or depth_stride"),
        ("/perception/points", 30, shift_point, "not one that the log of decisions names"),
        ("/perception/plan", 1, shift_command, "not one that the log"),
        ("/hand_controller/commands", 60, shift_command, "not one that the log of decisions names"),
        ("/scaled_joint_trajectory_controller/joint_trajectory", 60, shift_arm, "not one that the log"),
        ("/grasp/decisions", 121, shift_decision, "command: recorded"),
    ],
)
def test_one_changed_bit_is_found(recorded, tmp_path, capsys, topic, number, change, said):
    raw, _ = changed(recorded, topic, number, change)
    only = "policy" if topic == DEPTH or topic.startswith("/perception") else "perception"
    bag = write(tmp_path / "changed", begun(raw, TICKS_OF_CHANGED))
    assert main.main(exact_words(bag, **{{"policy": "compare_policy"}.get(only, only): "false"})) == 1
    text = capsys.readouterr().out
    assert "first difference at " in text and said in text


def without(raw, topic, chosen):
    """The messages without some of a topic, by their number in it."""
    count, kept = 0, []
    for row in raw:
        count += row[0] == topic
        if row[0] != topic or not chosen(count - 1):
            kept.append(row)
    return kept


def test_points_that_the_policy_was_given_must_be_in_the_bag(recorded, tmp_path, capsys):
    bag = write(tmp_path / "lost", without(recorded[0], "/perception/points", lambda number: number == 50))
    assert main.main(exact_words(bag, perception="false")) == 1
    assert re.search("the points with stamp .* are not in the bag, or were changed", capsys.readouterr().out)


def test_a_missing_event_is_a_difference(recorded, tmp_path, capsys):
    bag = write(tmp_path / "gap", without(recorded[0], "/grasp/decisions", lambda number: number == 100))
    assert main.main(exact_words(bag, perception="false")) == 1
    assert "events 100 to 100 are missing in the bag" in capsys.readouterr().out


def test_logs_that_begin_after_activation_are_compared_with_tolerances(recorded, tmp_path, capsys):
    raw = without(begun(recorded[0], TICKS_OF_CHANGED), "/grasp/decisions", lambda number: number < 20)
    raw = without(raw, "/perception/decisions", lambda number: number < 3)
    bag = write(tmp_path / "late", raw)
    whole = {"camera_file": recorded[1], "check_reachability": "false", "grasp.attempts": 2}
    assert main.main(exact_words(bag, **whole)) == 0
    text = capsys.readouterr().out
    assert "/grasp/decisions: begins with event 20, after 'activate'" in text and "nothing" not in text
    assert counted(text, "/hand_controller/commands") > 80
    only = write(tmp_path / "only", [row for row in raw if row[0] == "/grasp/decisions"])
    assert main.main(exact_words(only)) == 1
    assert "nothing in it could be compared" in capsys.readouterr().out


def test_ros_is_not_needed(recorded, tmp_path):
    """With the packages of ROS hidden the same is compared."""
    bag = write(tmp_path / "begun", begun(recorded[0], 60))
    hidden = ("rclpy", "builtin_interfaces", "diagnostic_msgs", "geometry_msgs", "rcl_interfaces", "rosgraph_msgs",
              "rosidl_parser", "sensor_msgs", "std_msgs", "std_srvs", "trajectory_msgs")  # fmt: skip
    code = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"hidden: {{name}}", name=name)
sys.meta_path.insert(0, Hidden())
from dexgrasp.policies.cli import main
raise SystemExit(main.main({words(bag, recorded[1], compare_policy="false")}))
"""
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'ros2_ws/src/dexgrasp_ros'}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | path)
    assert done.returncode == 0, done.stderr
    assert "no difference" in done.stdout


def test_what_is_no_bag_is_said(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for name, text in (("none", "no bag"), ("empty", "is not a bag: it holds neither metadata.yaml nor")):
        assert main.main(["replay", str(tmp_path / name), f"policy={BUNDLE}"]) == 2
        assert text in capsys.readouterr().err


def test_an_empty_course_of_events_compares_nothing(recorded, tmp_path, capsys):
    bag = write(tmp_path / "clock", [row for row in recorded[0] if row[0] == "/clock"])
    assert main.main(words(bag, recorded[1])) == 1
    said = capsys.readouterr().out
    assert "nothing was compared: expected a bag of the recorder node" in said
    assert "not in the bag: /grasp/state, /perception/points" in said

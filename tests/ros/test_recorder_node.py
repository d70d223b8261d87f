"""Recordings, read back without ROS: nothing changed, nothing lost, latched messages in them, unfit ones refused."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")
pytest.importorskip("rosbags", reason="needs the extra `ros`")

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from dexgrasp_ros import message_conversions
from dexgrasp_ros.message_conversions import image_from_depth
from dexgrasp_ros.nodes.recorder_node import RecorderCfg, RecorderNode
from dexgrasp_ros.recording.bag_writer import BagWriter
from dexgrasp_ros.replay.bag import Bag
from tests.helpers.ros import LATCHED, PACKAGE, RELIABLE, ROOT, SENSOR, Process

pytestmark = pytest.mark.ros


@pytest.fixture
def recorder(ros, tmp_path):
    """Starts a recorder in this process."""
    made = []

    def make(**parameters):
        given = {"folder": str(tmp_path / "bag")} | parameters
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        made.append(ros.add(RecorderNode(context=ros.context, parameter_overrides=overrides)))
        return made[-1]

    yield make
    for node in made:
        node.close()


def read(folder):
    """Messages of a bag by topic: (raw bytes, message)."""
    found = {}
    with AnyReader([folder]) as bag:
        for connection, _, data in bag.messages():
            row = bytes(data), bag.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append(row)
    return found


def counted(reports):
    """What the recorder last said of the number of joint states."""
    rows = [row for item in reports for status in item.status for row in status.values if row.key == "/joint_states"]
    return rows[-1].value if rows else ""


def test_what_is_read_back_is_what_was_sent(ros, recorder, tmp_path):
    state = ros.node.create_publisher(String, "/grasp/state", LATCHED)
    state.publish(String(data="idle"))  # before anybody records
    node = recorder()
    joints = ros.publisher(JointState, "/joint_states", RELIABLE)
    depth = ros.publisher(Image, "/camera/depth", SENSOR)
    sent = [message_conversions.joint_message(["a", "b"], [i, 10.0 * i], stamp_s=i / 10) for i in range(50)]
    depth_m = np.linspace(0, 2, 640 * 480).reshape(480, 640)
    for message in sent:
        joints.publish(message)
        ros.spin(0.002)
    depth.publish(image_from_depth(depth_m, 1.0, "camera"))
    wanted = {"/grasp/state": 1, "/joint_states": 50, "/camera/depth": 1}
    ros.until(lambda: wanted.items() <= node.counts.items(), "all messages")
    node.close()
    node.close()
    found = read(tmp_path / "bag")
    assert found["/grasp/state"][0][1].data == "idle"
    assert [deserialize_message(raw, JointState) for raw, _ in found["/joint_states"]] == sent
    assert [row.position[1] for _, row in found["/joint_states"]] == [10.0 * i for i in range(50)]
    image = found["/camera/depth"][0][1]
    values = image.data.view("<u2").reshape(480, 640)
    np.testing.assert_allclose(values[::2, ::2] / 1000, depth_m[::2, ::2], atol=5.1e-4)
    assert not values[1::2].any() and not values[:, 1::2].any()  # pixels that perception does not use are holes


def test_topics_are_chosen_by_name(ros, recorder):
    node = recorder(topics=["/joint_.*", "/extra"], exclude=["/extra"])
    publishers = [ros.node.create_publisher(String, name, RELIABLE) for name in ("/extra", "/joint_x", "/my/joint_x")]
    ros.until(lambda: node.counts, "a topic")
    ros.spin(1.0)
    assert list(node.counts) == ["/joint_x"]
    assert len(publishers) == 3


def test_a_stopped_process_leaves_a_complete_bag(ros, tmp_path):
    reports = ros.listen(DiagnosticArray, "/diagnostics")
    with Process("dexgrasp_ros.nodes.recorder_node", tmp_path, folder=tmp_path / "bag") as process:
        joints = ros.publisher(JointState, "/joint_states")
        joints.publish(message_conversions.joint_message(["a"], [1.0], 0.0))
        ros.until(lambda: counted(reports) == "1", "the report")
        assert process.stop(signal.SIGTERM) == 0, process.text()
    assert read(tmp_path / "bag")["/joint_states"][0][1].position.tolist() == [1.0]


def test_the_file_of_a_running_recorder_can_be_read_at_any_time(ros, recorder, tmp_path):
    node = recorder()
    joints, depth = (
        ros.publisher(JointState, "/joint_states", RELIABLE),
        ros.publisher(Image, "/camera/depth", RELIABLE),
    )
    for i in range(12):
        joints.publish(message_conversions.joint_message(["a"], [float(i)], stamp_s=i / 10))
        depth.publish(image_from_depth(np.zeros((480, 640)), i / 10, "camera"))  # 0.6 MB, more than a chunk in two
        ros.until(lambda i=i: node.counts.get("/camera/depth") == node.counts.get("/joint_states") == i + 1, "both")
        if i == 8:
            node._save_and_report()
        copy = tmp_path / f"{i}.mcap"
        copy.write_bytes((tmp_path / "bag" / "bag.mcap").read_bytes())
        if i:
            found = read(copy)  # what a kill would leave now
            assert [row.position[0] for _, row in found["/joint_states"]] == list(range(len(found["/joint_states"])))
            assert len(found["/joint_states"]) >= (i + 1 if i == 8 else i - 1)
    folder = tmp_path / "bag"
    assert Bag(folder).topics["/joint_states"] >= 10  # its only .mcap file: metadata.yaml comes with the end
    node.close()
    assert Bag(folder).topics["/joint_states"] == 12


def test_a_bag_cut_off_at_any_byte_holds_all_messages_before_the_cut(tmp_path):
    """Whenever a recorder is killed, of ours or `ros2 bag record`, the file is a beginning of this one."""
    types = get_typestore(Stores.ROS2_JAZZY)
    rng, text = np.random.default_rng(0), types.types["std_msgs/msg/String"]
    with BagWriter(tmp_path / "whole") as bag:
        topic = bag.add_connection("/text", text.__msgtype__, typestore=types)
        for number in range(40):
            message = text(data=f"{number} {rng.bytes(4000).hex()}")
            bag.write(topic, number + 1, types.serialize_cdr(message, text.__msgtype__))
            if number % 8 == 7:
                bag.save()
    whole = (tmp_path / "whole" / "whole.mcap").read_bytes()
    chunk = len(whole) // 5
    counts = []
    for size in [*range(chunk // 2, len(whole), len(whole) // 25), *range(len(whole) - 40, len(whole), 7)]:
        folder = tmp_path / f"cut_{size}"
        folder.mkdir()
        (folder / "cut.mcap").write_bytes(whole[:size])
        try:
            found = [int(row.message.data.split()[0]) for row in Bag(folder).messages({"/text"})]
        except ValueError as error:
            assert "cut off before its first messages" in str(error) and not counts
            continue
        assert found == list(range(len(found)))
        counts.append(len(found))
    assert counts == sorted(counts) and counts[-1] == 40
    assert set(counts) == {8, 16, 24, 32, 40}


ENDLESS = """
import sys, time
from pathlib import Path
from rosbags.typesys import Stores, get_typestore
from dexgrasp_ros.recording.bag_writer import BagWriter
types = get_typestore(Stores.ROS2_JAZZY)
with BagWriter(Path(sys.argv[1])) as bag:
    topic = bag.add_connection("/state", "std_msgs/msg/String", typestore=types)
    text, number = types.types["std_msgs/msg/String"], 0
    while True:
        bag.write(topic, number + 1, types.serialize_cdr(text(data=f"{number} " + "x" * 5000), "std_msgs/msg/String"))
        number += 1
        if number % 20 == 0:
            bag.save()
"""


@pytest.mark.parametrize("after_s", [0.02, 0.05, 0.11, 0.17, 0.3])
def test_a_process_killed_while_it_writes_leaves_a_bag_that_can_be_read(tmp_path, after_s):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{PACKAGE}"}
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path / "bag")], env=environment)
    try:
        file, end_s = tmp_path / "bag" / "bag.mcap", time.monotonic() + 20.0
        while not (file.exists() and file.stat().st_size > 100):
            assert process.poll() is None and time.monotonic() < end_s
            time.sleep(0.005)
        time.sleep(after_s)
    finally:
        process.kill()
        process.wait()
    found = [int(row.message.data.split()[0]) for row in Bag(tmp_path / "bag").messages({"/state"})]
    assert found == list(range(len(found))) and len(found) >= 20


@pytest.mark.slow
def test_a_recorder_that_is_killed_leaves_a_file_that_can_be_read(ros, tmp_path):
    with Process("dexgrasp_ros.nodes.recorder_node", tmp_path, folder=tmp_path / "bag") as process:
        reports = ros.listen(DiagnosticArray, "/diagnostics")
        joints = ros.publisher(JointState, "/joint_states")
        joints.publish(message_conversions.joint_message(["a"], [1.0], 0.0))
        ros.until(lambda: counted(reports) == "1", "the report, and with it the file")
        process.send(signal.SIGKILL)
        process.wait()
    assert read(tmp_path / "bag" / "bag.mcap")["/joint_states"][0][1].position.tolist() == [1.0]


def test_a_bag_that_is_none_and_one_without_an_end_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"holds neither metadata\.yaml nor a \.mcap or \.db3 file"):
        Bag(tmp_path)
    (tmp_path / "other.mcap").write_bytes(b"no bag" * 9)
    with pytest.raises(ValueError, match="is not an MCAP file: its first bytes are others"):
        Bag(tmp_path)
    (tmp_path / "other.mcap").unlink()
    (tmp_path / "old.db3").write_bytes(b"")
    with pytest.raises(ValueError, match=r"old\.db3 itself, .*reindex -s sqlite3"):
        Bag(tmp_path)
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(b"\x89MCAP0\r\n" + bytes(100))
    with pytest.raises(ValueError, match="was cut off before its first messages were complete"):
        Bag(cut)


def test_a_folder_that_exists_is_refused(ros_domain, tmp_path):
    with Process("dexgrasp_ros.nodes.recorder_node", tmp_path, folder=tmp_path) as process:
        assert process.wait() == 2
        assert "exists: give a folder that does not exist" in process.text()


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"'\(' is invalid"):
        RecorderCfg(topics=("(",))

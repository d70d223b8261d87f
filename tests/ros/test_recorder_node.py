"""Recordings, read back without ROS: nothing changed, nothing lost, latched messages in them, unfit ones refused."""

import signal

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")
pytest.importorskip("rosbags", reason="needs the extra `ros`")

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from dexgrasp_ros import message_conversions
from dexgrasp_ros.message_conversions import image_from_depth
from dexgrasp_ros.nodes.recorder_node import RecorderCfg, RecorderNode
from dexgrasp_ros.replay.bag import Bag
from tests.helpers.ros import LATCHED, RELIABLE, SENSOR, Process

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
    np.testing.assert_allclose(image.data.view("<u2").reshape(480, 640) / 1000, depth_m, atol=5.1e-4)


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
    for advice in ("bag/bag.mcap itself", f"ros2 bag reindex -s mcap {folder}"):
        with pytest.raises(ValueError, match=advice):
            Bag(folder)
    assert Bag(folder / "bag.mcap").topics["/joint_states"] >= 10
    node.close()
    assert Bag(folder).topics["/joint_states"] == 12


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
    (tmp_path / "old.db3").write_bytes(b"")
    with pytest.raises(ValueError, match=r"old\.db3 itself, .*reindex -s sqlite3"):
        Bag(tmp_path)
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(b"\x89MCAP0\r\n" + bytes(100))
    with pytest.raises(ValueError, match=r"was not closed, .*`mcap recover .*cut\.mcap -o recovered\.mcap`"):
        Bag(cut)


def test_a_folder_that_exists_is_refused(ros_domain, tmp_path):
    with Process("dexgrasp_ros.nodes.recorder_node", tmp_path, folder=tmp_path) as process:
        assert process.wait() == 2
        assert "exists: give a folder that does not exist" in process.text()


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"'\(' is invalid"):
        RecorderCfg(topics=("(",))

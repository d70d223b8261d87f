"""Plugins of drivers: the example of the documentation, entry points, errors that become faults and spare the arm."""

import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from rclpy.exceptions import InvalidTopicNameException
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import Int16MultiArray

from dexgrasp_ros import config, message_conversions
from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.config import AdapterError, load
from dexgrasp_ros.drivers.plugins import READERS, WRITERS, load_plugin
from dexgrasp_ros.drivers.publishers import JointDriver, subscribe_joint_states
from tests.helpers.grasp_bench import ARM, HAND, Bench
from tests.helpers.ros import ROOT

pytestmark = pytest.mark.ros
PAGE = (ROOT / "docs/reference/ros.md").read_text(encoding="utf-8")
FLAKY = """
import numpy as np
from rclpy.duration import Duration
from std_msgs.msg import Float64MultiArray

from dexgrasp_ros.drivers.plugins import CommandWriter


class Writer(CommandWriter):
    broken, cleared, sent = "", 0, 0

    def __init__(self, host, command):
        self.publisher = host.publisher(Float64MultiArray, command.topic)
        host.timer(1.0, self.failure)
        if command.options.get("refuse"):
            raise KeyError("no such port")

    def send(self, values, period_s):
        if Writer.broken == "send":
            raise RuntimeError("the cable is out")
        self.publisher.publish(Float64MultiArray(data=values.tolist()))

    def failure(self):
        return "the hand is hot" if Writer.broken == "failure" else ""

    def not_ready(self):
        if Writer.broken == "not_ready":
            raise OSError("no device")
        return ""

    def clear(self):
        Writer.cleared += 1

    def acknowledged(self, timeout_s):
        Writer.acknowledged_s = timeout_s
        return self.publisher.wait_for_all_acked(Duration(seconds=timeout_s))
"""


@pytest.fixture
def flaky(tmp_path, monkeypatch):
    """A module with a plugin that fails on demand."""
    (tmp_path / "flaky_driver.py").write_text(FLAKY)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("flaky_driver", None)
    import flaky_driver

    yield flaky_driver.Writer
    sys.modules.pop("flaky_driver", None)


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """The example of the documentation as a module, and its driver description."""
    code = re.search(r"```python\n(# counts_driver\.py\n.*?)```", PAGE, re.S)[1]
    (tmp_path / "counts_driver.py").write_text(code)
    driver = re.search(r"```yaml\n(command: \{type: plugin.*?)```", PAGE, re.S)[1]
    path = tmp_path / "counts.yaml"
    path.write_text(f"hand: counts\nsource: a test\n{driver}")
    monkeypatch.syspath_prepend(tmp_path)
    yield load("hands", str(path))
    sys.modules.pop("counts_driver", None)


def test_the_example_of_the_documentation_drives_and_reads(ros, documented):
    adapter = JointAdapter(documented, ("a", "b"))
    driver, read = JointDriver(ros.node, adapter, 0.05, preview=False), []
    inputs = subscribe_joint_states(ros.node, {documented.state.topic: adapter}, lambda *item: read.append(item))
    sent = ros.listen(Int16MultiArray, "/hand/counts")
    ros.until(lambda: ros.node.count_subscribers("/hand/counts") and ros.node.count_publishers("/hand/counts"), "ears")
    ros.spin(0.2)
    driver.send(np.array([0.5, -1.0]))
    ros.until(lambda: sent, "the command")
    assert list(sent[0].data) == [250, -500]
    assert driver.writer.acknowledged(1.0)
    ros.publisher(Int16MultiArray, "/hand/positions").publish(Int16MultiArray(data=[250, -500]))
    ros.until(lambda: read, "the state")
    topic, message = read[0]
    assert topic == "/hand/positions"
    np.testing.assert_allclose(adapter.read(message_conversions.joints_from_message(message)), [0.5, -1.0])
    assert message_conversions.seconds(message.header.stamp) == pytest.approx(time.time(), abs=30)
    driver.destroy()
    inputs[0].destroy()
    assert not ros.node.count_publishers("/hand/counts")


def test_an_error_of_a_reader_is_kept_with_its_name(ros, documented):
    adapter, errors = JointAdapter(documented, ("a", "b")), []

    def refuse(*_):
        errors.append(1)
        raise ValueError("not now")

    item = subscribe_joint_states(ros.node, {documented.state.topic: adapter}, refuse)[0]
    ros.publisher(Int16MultiArray, "/hand/positions").publish(Int16MultiArray(data=[250, -500]))
    ros.until(lambda: errors, "the state")
    assert item.failure == "state plugin counts_driver:CountsReader: ValueError: not now"
    item.clear()
    assert item.failure == ""
    item.destroy()


def test_entry_points_are_found_by_name(flaky, tmp_path):
    folder = tmp_path / "someones_hand-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: someones_hand\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[{WRITERS}]\nsomeones = flaky_driver:Writer\n")
    assert load_plugin("someones", WRITERS) is flaky
    with pytest.raises(AdapterError, match=r"state.plugin: no entry point 'someones' in the group .*installed: none"):
        load_plugin("someones", READERS)
    with pytest.raises(AdapterError, match=r"command.plugin: no entry point 'other' .*installed: someones; or"):
        load_plugin("other", WRITERS)
    for name in ("no_module:Writer", "flaky_driver:Nobody"):
        with pytest.raises(AdapterError, match=f"command.plugin: {name} cannot be loaded"):
            load_plugin(name, WRITERS)


@pytest.fixture
def bench(ros, robot, tmp_path):
    return Bench(ros, robot, tmp_path)


def hand_file(folder, **command):
    """The hand of the simulated robot, moved by the plugin."""
    text = yaml.safe_load(Path(config("hands/sim_allegro.yaml")).read_text())
    text["command"] |= {"type": "plugin", "plugin": "flaky_driver:Writer", **command}
    path = folder / "plugin_hand.yaml"
    path.write_text(yaml.safe_dump(text))
    return str(path)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("send", "command plugin flaky_driver:Writer: RuntimeError: the cable is out"),
        ("failure", "command plugin flaky_driver:Writer: the hand is hot"),
        ("not_ready", "command plugin flaky_driver:Writer: OSError: no device"),
    ],
)
def test_an_error_of_the_hand_is_a_fault_in_which_the_arm_holds(bench, flaky, broken, reason):
    node = bench.start(hand=hand_file(bench.folder))
    bench.perceive()
    assert bench.ask("grasp").success
    bench.ros.until(lambda: bench.state == "pregrasp" and len(bench.arm) > 10, "a motion")
    flaky.broken = broken
    bench.ros.until(lambda: bench.state == "fault", "the fault")
    assert node._output.fault == reason
    before = len(bench.arm)

    def at_rest():
        last = [message_conversions.trajectory_point(message)[0] for message in bench.arm[-5:]]
        return len(bench.arm) >= before + 10 and max(abs(last[0][n] - last[-1][n]) for n in last[0]) < 1e-3

    bench.ros.until(at_rest, "that the hold goes on, at rest once the arm has braked")
    refused = bench.ask("reset_fault")
    if broken != "send":  # that shows only when something is sent
        assert not refused.success and reason in refused.message
    flaky.broken, cleared = "", flaky.cleared
    bench.ros.spin(0.3)
    answer = bench.ask("reset_fault") if bench.state == "fault" else refused
    assert answer.success, answer.message
    bench.ros.until(lambda: bench.state == "idle", "idle")
    assert flaky.cleared > cleared or answer is refused


def test_a_hand_that_raises_in_the_last_hold_does_not_keep_the_arm_from_it(bench, flaky):
    node = bench.start(hand=hand_file(bench.folder))
    flaky.broken = "send"
    before = len(bench.arm)
    node.close()
    bench.ros.until(lambda: len(bench.arm) > before, "the hold of the arm")
    assert flaky.acknowledged_s == 0.5
    measured = message_conversions.joints_from_message(bench.joints[-1])
    held = message_conversions.trajectory_point(bench.arm[-1])[0]
    assert max(abs(measured[name] - held[name]) for name in held) < 5e-3


@pytest.mark.parametrize("refused", ["hand", "arm"])
def test_a_refused_configuration_leaves_no_publisher(bench, flaky, refused):
    """The hand's plugin raises, or that of the arm, whose driver is made after the hand's."""
    arm = yaml.safe_load(Path(config("arms/sim_ur5e.yaml")).read_text())
    arm["command"] |= {
        "type": "plugin",
        "plugin": "flaky_driver:Writer",
        "topic": "arm_port",
        "options": {"refuse": True},
    }
    path = bench.folder / "plugin_arm.yaml"
    path.write_text(yaml.safe_dump(arm))
    given = {"hand": hand_file(bench.folder, options={"refuse": True})} if refused == "hand" else {"arm": str(path)}
    node = bench.start(active=False, autostart=False, **given)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "command.plugin: flaky_driver:Writer: KeyError: 'no such port'" in node._refusal
    names = [info.node_name for topic in (HAND, ARM, "/arm_port") for info in node.get_publishers_info_by_topic(topic)]
    assert "grasp" not in names
    assert not [it for it in node.get_subscriptions_info_by_topic("/joint_states") if it.node_name == "grasp"]


def test_an_error_after_the_drivers_leaves_no_publisher(bench):
    node = bench.start(active=False, autostart=False, points_topic="no topic")
    with pytest.raises(InvalidTopicNameException):
        node._configure()
    assert "grasp" not in [info.node_name for topic in (HAND, ARM) for info in node.get_publishers_info_by_topic(topic)]

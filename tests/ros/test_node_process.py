"""Parameters of nodes from dataclasses; nodes as processes that end safely; the package's own files."""

import ast
import importlib
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import String

import dexgrasp_ros
from dexgrasp_ros.parameters import ParameterError, declare, names, read
from tests.helpers.ros import LATCHED, PACKAGE, Process

pytestmark = pytest.mark.ros

PROBE = """
from std_msgs.msg import String
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from dexgrasp_ros.node_process import acknowledged, run

class Probe(Node):
    def __init__(self):
        super().__init__("probe")
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.state = self.create_publisher(String, "state", latched)
        if self.declare_parameter("refuse", False).value:
            raise ValueError("the bundle is not there")
        self.state.publish(String(data="running"))
        if self.declare_parameter("fail", False).value:
            self.create_timer(0.1, self.fail)

    def fail(self):
        if self.state.get_subscription_count():
            raise RuntimeError("a callback that fails")

    def close(self):
        self.state.publish(String(data="holding"))
        assert acknowledged([self.state], 10.0)

def main():
    return run(Probe)

if __name__ == "__main__":
    raise SystemExit(main())
"""


@dataclass(frozen=True)
class Limits:
    speed: float = 0.5
    """Share of the servos' speed."""
    box_m: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """Where the palm may be."""

    def __post_init__(self):
        if self.speed > 1:
            raise ValueError(f"speed is a share, got {self.speed}")


@dataclass(frozen=True)
class Cfg:
    bundle: str
    """Folder of the exported policy."""
    source: Literal["topic", "arm"] = "arm"
    """Where the palm's pose
    comes from."""
    steps: int = 3
    enabled: bool = True
    folder: Path | None = None
    joints: tuple[str, ...] = ()
    limits: Limits = field(default_factory=lambda: Limits(speed=0.25))


def node(ros, **values):
    overrides = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
    return ros.add(Node("configured", context=ros.context, parameter_overrides=overrides))


def test_every_field_is_a_parameter_with_its_meaning(ros):
    made = node(ros, bundle="b")
    assert declare(made, Cfg) == Cfg("b")
    assert names(Cfg) == ["bundle", "source", "steps", "enabled", "folder", "joints", "limits.speed", "limits.box_m"]
    assert {made.has_parameter(name) for name in names(Cfg)} == {True}
    assert made.describe_parameter("bundle").description == "Folder of the exported policy. (str, required)"
    assert made.describe_parameter("source").description == "Where the palm's pose comes from. (one of topic, arm)"
    assert made.describe_parameter("limits.speed").description == "Share of the servos' speed. (float)"
    assert made.get_parameter("limits.speed").value == 0.25


def test_values_come_as_the_types_of_their_fields(ros):
    given = {
        "bundle": "b",
        "steps": 4,
        "folder": "here",
        "joints": ["a", "b"],
        "limits__speed": 1,
        "limits__box_m": [1, 2, 3],
    }
    found = declare(node(ros, **given), Cfg)
    assert (found.steps, found.folder, found.joints) == (4, Path("here"), ("a", "b"))
    assert found.limits == Limits(1.0, (1.0, 2.0, 3.0))
    assert type(found.limits.speed) is float


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "'bundle' has no value; give --ros-args -p bundle:=<str>"),
        ({"source": "tf"}, "'source' expects one of topic, arm, got 'tf'"),
        ({"steps": 1.5}, "'steps' expects int, got 1.5"),
        ({"enabled": 1}, "'enabled' expects true or false, got 1"),
        ({"limits__speed": float("nan")}, "'limits.speed' expects float, got nan"),
        ({"limits__box_m": [1.0]}, "'limits.box_m' expects 3 values (float, float, float), got 1 values: [1.0]"),
        ({"limits__speed": 2.0}, "limits: speed is a share, got 2.0"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(ros, given, text):
    with pytest.raises(ParameterError, match=re.escape(text)):
        declare(node(ros, **({"bundle": "b"} if given else {}), **given), Cfg)


def test_the_empty_text_is_nothing_and_a_number_serves_as_text(ros):
    found = declare(node(ros, bundle=5, folder="", joints=[1, 2]), Cfg)
    assert (found.bundle, found.folder, found.joints) == ("5", None, ("1", "2"))
    assert declare(node(ros, bundle="b", folder=7, joints=""), Cfg) == Cfg("b", folder=Path("7"))


@dataclass(frozen=True)
class Renamed:
    palm_pose_source: Literal["arm", "topic"] = "arm"
    held_object_rate_hz: float = 30.0


def test_a_parameter_of_the_last_release_counts_under_its_new_name(ros, capfd):
    made = node(ros, palm_source="topic", carry_hz=5, carry=1.0)
    assert declare(made, Renamed) == Renamed("topic", 5.0)
    assert not made.has_parameter("palm_source")
    told = capfd.readouterr().err
    assert "parameter 'palm_source' is now called 'palm_pose_source'" in told
    assert "unknown parameter 'carry' is ignored. Known: palm_pose_source, held_object_rate_hz" in told


def test_only_what_may_change_can_be_set(ros):
    made = node(ros, bundle="b")
    declare(made, Cfg, changeable=("steps",))
    fixed, changed = made.set_parameters([Parameter("source", value="topic"), Parameter("steps", value=9)])
    assert (fixed.successful, changed.successful) == (False, True)
    assert read(made, Cfg) == Cfg("b", steps=9)


@pytest.fixture
def probe(tmp_path):
    (tmp_path / "probe.py").write_text(PROBE)

    def start(**parameters):
        return Process("probe", tmp_path, **parameters)

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_a_node_publishes_after_a_signal_arrives(ros, probe, number):
    heard = ros.listen(String, "state", LATCHED)
    with probe() as process:
        ros.until(lambda: heard, "the node")
        process.send(number)
        process.send(number)  # a launch and a terminal may both send it
        ros.until(lambda: len(heard) > 1, "its last message")
        assert process.wait() == 0, process.text()
    assert [message.data for message in heard] == ["running", "holding"]


def test_a_callback_that_fails_still_leaves_the_robot_safe(ros, probe):
    heard = ros.listen(String, "state", LATCHED)
    with probe(fail=True) as process:
        ros.until(lambda: not process.alive(), "its end")
        assert process.wait() == 1
        assert "a callback that fails" in process.text()
    assert heard[-1].data == "holding"


def test_a_node_that_cannot_be_made_says_why(ros, probe):
    with probe(refuse=True) as process:
        assert process.wait() == 2
        assert "cannot start: the bundle is not there" in process.text()
        assert "Traceback" not in process.text()


def test_no_node_overwrites_what_rclpy_keeps_in_it(ros):
    taken = set(dir(ros.add(LifecycleNode("taken", context=ros.context))))
    for path in (PACKAGE / "dexgrasp_ros").glob("*.py"):
        for kind in ast.walk(ast.parse(path.read_text())):
            if isinstance(kind, ast.ClassDef) and {"Node", "LifecycleNode"} & {
                ast.unparse(base) for base in kind.bases
            }:
                set_here = {
                    node.attr
                    for node in ast.walk(kind)
                    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
                    if ast.unparse(node.value) == "self"
                }
                assert not set_here & taken, f"{path.name}: {kind.name}"


def test_the_manifest_is_valid_and_agrees_with_the_package():
    from catkin_pkg.package import parse_package

    package = parse_package(str(PACKAGE / "package.xml"))
    package.validate()
    assert package.name == dexgrasp_ros.__name__ == (PACKAGE / "resource" / "dexgrasp_ros").name
    assert package.get_build_type() == "ament_python"
    imported = {
        word
        for path in (PACKAGE / "dexgrasp_ros").glob("*.py")
        for word in re.findall(r"^(?:from|import) (\w+_msgs|rclpy|std_srvs|builtin_interfaces)", path.read_text(), re.M)
    }
    assert imported <= {dependency.name for dependency in package.exec_depends}


def test_every_executable_is_a_module_with_a_main():
    text = (PACKAGE / "setup.py").read_text()
    nodes = eval(re.search(r"^NODES = (\(.*?\))$", text, re.M | re.S)[1])
    for executable in nodes:
        assert executable.endswith("_node")
        assert callable(importlib.import_module(f"dexgrasp_ros.nodes.{executable}").main)


def test_a_configuration_that_is_not_there_is_named_with_those_that_are(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("")
    assert dexgrasp_ros.config(str(own)) == own
    assert dexgrasp_ros.config("fastdds.xml") == Path(dexgrasp_ros.__file__).parent / "config" / "fastdds.xml"
    with pytest.raises(FileNotFoundError, match=r"no file 'fastdd.xml'.*fastdds.xml"):
        dexgrasp_ros.config("fastdd.xml")

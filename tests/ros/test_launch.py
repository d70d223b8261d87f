"""The launch file, evaluated against a stand-in for `launch`: what it starts exists, what it sets is declared."""

import dataclasses
import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from rosbags.highlevel import AnyReader
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

import dexgrasp_ros
from dexgrasp import assets
from dexgrasp.policies.deploy.bundle import read_contract
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp_ros import config, launch_arguments, message_conversions
from dexgrasp_ros.drivers.config import load as load_driver
from dexgrasp_ros.drivers.config import shipped as driver_names
from tests.helpers import arms
from tests.helpers.ros import LATCHED, PACKAGE, ROOT, Process

pytestmark = pytest.mark.ros

CFGS = {
    "sim_robot_node": ("simulation.sim_robot", "SimRobotCfg"),
    "perception_node": ("perception.config", "PerceptionCfg"),
    "grasp_node": ("grasping.config", "GraspNodeCfg"),
    "description_node": ("description.config", "DescriptionCfg"),
    "recorder_node": ("nodes.recorder_node", "RecorderCfg"),
}
"""The dataclass that each executable declares as its parameters."""
NODES = eval(re.search(r"^NODES = (\(.*?\))$", (PACKAGE / "setup.py").read_text(), re.M | re.S)[1])
"""Executables, as installed."""
DEFAULTS = {item.name: item.default for item in launch_arguments.ARGUMENTS}
REAL = {"robot": "real", "camera": "topic", "camera_file": "camera.yaml", "bundle": "here"}


@dataclasses.dataclass
class DeclareLaunchArgument:
    name: str
    default_value: str | None = None
    description: str | None = None
    choices: list | None = None


@dataclasses.dataclass
class LaunchConfiguration:
    variable_name: str

    def perform(self, context):
        return context[self.variable_name]


@dataclasses.dataclass
class OpaqueFunction:
    function: object


@dataclasses.dataclass
class SetEnvironmentVariable:
    name: str
    value: str


@dataclasses.dataclass
class LaunchDescription:
    entities: list


@dataclasses.dataclass
class Node:
    package: str
    executable: str
    name: str
    parameters: list
    output: str
    emulate_tty: bool
    namespace: str = ""
    remappings: list = dataclasses.field(default_factory=list)
    respawn: bool = False
    respawn_delay: float = 0.0
    on_exit: object = None


@dataclasses.dataclass
class Shutdown:
    reason: str


@pytest.fixture
def description(monkeypatch):
    """What the launch file describes."""
    parts = {
        "launch": {"LaunchDescription": LaunchDescription, "LaunchContext": dict, "LaunchDescriptionEntity": object},
        "launch.actions": {
            kind.__name__: kind for kind in (DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown)
        },
        "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {"Node": Node},
    }
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(PACKAGE / "launch" / "grasp.launch.py"))["generate_launch_description"]()


def evaluate(description, **given):
    """The entities that a launch with these arguments starts."""
    declared = [item for item in description.entities if isinstance(item, DeclareLaunchArgument)]
    values = {item.name: item.default_value for item in declared} | given
    later = [item for item in description.entities if isinstance(item, OpaqueFunction)]
    return [entity for item in later for entity in item.function(values)]


def started(description, **given):
    return {item.executable: item for item in evaluate(description, **given) if isinstance(item, Node)}


def cfg_of(executable):
    module, name = CFGS[executable]
    return getattr(importlib.import_module(f"dexgrasp_ros.{module}"), name)


def test_every_argument_says_what_it_means_and_its_default_is_one_of_the_choices(description):
    declared = [item for item in description.entities if isinstance(item, DeclareLaunchArgument)]
    assert {"hand", "arm", "robot", "camera", "bundle", "dry_run", "shadow", "record"} <= {d.name for d in declared}
    for item in declared:
        assert item.description.endswith(".")
        assert item.choices is None or item.default_value in item.choices
    assert next(item for item in declared if item.name == "robot").default_value == "sim"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"hand": "leap", "bundle": "here", "record": "true", "bag": "there"},
        {"dry_run": "true", "shadow": "true", "object": "mug", "seed": "3"},
        {**REAL},
        {**REAL, "hand": "allegro_v5", "arm": "ur5e_forward", "camera": "realsense", "record": "true"},
    ],
    ids=lambda given: "-".join(given.values()) or "default",
)
def test_what_is_started_exists_and_what_is_set_is_declared(description, given):
    for executable, node in started(description, **given).items():
        assert node.package == dexgrasp_ros.__name__
        assert executable in NODES
        parameters = dict(node.parameters[0])
        assert isinstance(parameters.pop("use_sim_time", False), bool)
        cfg = cfg_of(executable)(**parameters)  # an undeclared one is a TypeError, an impossible one a ValueError
        for field in dataclasses.fields(cfg):
            if field.name in parameters and field.type in (bool, int, float, str):
                assert type(parameters[field.name]) is field.type


@pytest.mark.parametrize("robot", ["sim", "real"])
def test_a_real_robot_starts_no_simulation_and_takes_the_real_clock(description, robot):
    nodes = started(description, **(REAL if robot == "real" else {}))
    assert ("sim_robot_node" in nodes) == (robot == "sim")
    assert "recorder_node" not in nodes
    assert nodes["grasp_node"].parameters[0]["use_sim_time"] == (robot == "sim")
    assert nodes["perception_node"].parameters[0]["hand"] == ("sim_allegro" if robot == "sim" else "allegro_v4")


def test_a_cartesian_arm_takes_the_palm_pose_from_its_topic_everywhere(description):
    nodes = {
        name: node.parameters[0] for name, node in started(description, **REAL, arm_driver="cartesian_pose").items()
    }
    assert (nodes["perception_node"]["arm"], nodes["grasp_node"]["palm_pose_source"]) == ("", "topic")
    assert nodes["grasp_node"]["arm"] == nodes["description_node"]["arm"] == "cartesian_pose"
    known = started(description, **REAL, arm_driver="ur5e_servo_twist")
    assert known["perception_node"].parameters[0]["arm"] == "ur5e_servo_twist"


def test_two_robots_in_one_graph_share_nothing_but_tf_and_the_emergency_stop(description):
    left, right = (started(description, namespace=name, record="true", bag="b") for name in ("left", "/cell/right"))
    assert {node.namespace for node in left.values()} == {"left"}
    assert {node.namespace for node in right.values()} == {"cell/right"}
    for node in (*left.values(), *right.values()):
        assert node.remappings == [("/clock", "clock")]
    frames = [node.parameters[0].get("base_frame") for robot in (left, right) for node in robot.values()]
    assert frames == [None, *["left_world"] * 3, None, None, *["cell_right_world"] * 3, None]
    assert right["sim_robot_node"].parameters[0]["tf_prefix"] == "cell_right_"
    assert left["recorder_node"].parameters[0]["topics"] == ["/left/.*", "/tf", "/tf_static", "/estop"]
    for module, name in CFGS.values():
        cfg = getattr(importlib.import_module(f"dexgrasp_ros.{module}"), name)
        topics = {f.name: f.default for f in dataclasses.fields(cfg) if f.name.endswith("_topic")}
        assert [f"{k}={v}" for k, v in topics.items() if v.startswith("/") and k != "estop_topic"] == []
    for kind in ("hands", "arms"):
        for name in driver_names(kind):
            driver = load_driver(kind, name, "/left")
            topics = [driver.command.topic, *([driver.state.topic] if driver.state else [])]
            assert all(topic.startswith("/left/") for topic in topics)


def test_the_end_of_a_node_ends_the_launch_unless_it_may_start_again(description):
    assert {node.on_exit.reason for node in started(description).values()} == {
        f"{name} has ended" for name in ("sim_robot", "perception", "grasp", "description")
    }
    again = started(description, respawn="true", record="true")
    assert {name for name, node in again.items() if node.respawn and node.on_exit is None} == {
        *("perception_node", "description_node", "recorder_node")
    }
    assert not again["grasp_node"].respawn  # it would command again unasked


def test_single_nodes_can_be_started(description):
    assert list(started(description, nodes="perception,record", bag="b")) == ["perception_node", "recorder_node"]
    assert "sim_robot_node" not in started(description, **REAL, nodes="sim_robot,grasp")
    without = launch_arguments.nodes(DEFAULTS | {"description": "false"})
    assert [node.name for node in without] == ["sim_robot", "perception", "grasp"]


def test_all_nodes_get_one_transport_that_holds_depth_images(description):
    for given, profile in (({}, "fastdds.xml"), (REAL, "fastdds_network.xml")):
        variables = [item for item in evaluate(description, **given) if isinstance(item, SetEnvironmentVariable)]
        assert [(item.name, item.value) for item in variables] == [
            ("FASTRTPS_DEFAULT_PROFILES_FILE", str(config(profile)))
        ]
        assert "<segment_size>4194304<" in config(profile).read_text()
    assert not [e for e in evaluate(description, dds="off") if isinstance(e, SetEnvironmentVariable)]


def test_further_parameters_come_last_and_win(description):
    for node in started(description, params="mine.yaml").values():
        assert node.parameters[-1] == "mine.yaml"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"robot": "real"}, "a real one needs camera:=realsense or camera:=topic"),
        ({"camera": "topic"}, "a simulated robot has its own camera"),
        ({**REAL, "camera_file": ""}, "the camera pose is missing"),
        ({"hand": "shadw"}, "hand:=shadw: choose one of allegro, allegro_v5, leap"),
        ({"hand": "shadow"}, "no policy is shipped for hand:=shadow: give bundle:=..."),
        ({"seed": "x"}, "seed:=x is not a whole number"),
        ({"namespace": "a b"}, "namespace:=a b: expected letters, digits and _"),
        ({"nodes": "grasp,pose"}, "nodes:=grasp,pose: unknown ['pose']; choose all, or names of sim_robot"),
        ({**REAL, "arm_driver": "none.yaml"}, "arm_driver:=none.yaml: "),
    ],
    ids=lambda item: "-".join(item.values()) if isinstance(item, dict) else "",
)
def test_arguments_that_do_not_fit_together_are_refused_with_what_to_do(given, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        launch_arguments.nodes(DEFAULTS | given)


def test_hand_and_arm_may_be_folders_and_files(description, tmp_path):
    hand, arm = assets.path("hands/allegro"), tmp_path / "own.urdf"
    arm.write_text(arms.urdf())
    given = {"hand": str(hand), "arm": f"{arm}:tip=tool0", "bundle": "here"}
    parameters = {name: node.parameters[0] for name, node in started(description, **given).items()}
    assert parameters["sim_robot_node"]["arm"] == f"{arm}:tip=tool0"
    assert parameters["perception_node"]["hand_body"] == str(hand.resolve())
    assert parameters["grasp_node"]["hand_file"] == str(hand.resolve() / "hand.yaml")
    driver = load_driver("hands", parameters["grasp_node"]["hand"])
    assert (driver.hand, driver.command.joints) == ("allegro", HandSpec.load("allegro").joint_names)
    assert load_driver("arms", parameters["grasp_node"]["arm"]).command.joints == tuple(arms.JOINTS)
    with pytest.raises(ValueError, match=r"give hand_driver:=\.\.\., the \.yaml of its driver on the robot"):
        launch_arguments.nodes(DEFAULTS | REAL | given)
    named = {node.name: node.parameters for node in launch_arguments.nodes(DEFAULTS | {"hand": "orca", "bundle": "b"})}
    assert (named["grasp"]["hand"], named["sim_robot"]["hand"]) == ("sim:orca", "orca")
    assert "hand_file" not in named["grasp"]
    with pytest.raises(ValueError, match="no policy is shipped for hand:="):
        launch_arguments.nodes(DEFAULTS | given | {"bundle": ""})


@pytest.mark.parametrize("hand", ["allegro", "allegro_v5", "leap"])
def test_without_a_bundle_the_shipped_student_of_the_hand_runs(hand, monkeypatch, tmp_path):
    joints = read_contract(launch_arguments.shipped_bundle(hand)).hand.joint_names
    assert joints == tuple(HandSpec.load(hand.removesuffix("_v5")).joint_names)
    monkeypatch.setattr(assets, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=f"no policy is shipped for hand:={hand}: give bundle:="):
        launch_arguments.nodes(DEFAULTS | {"hand": hand})


def test_the_drivers_that_are_named_are_shipped():
    for kind, known in (("hands", launch_arguments.HANDS), ("arms", launch_arguments.ARMS)):
        for model, *drivers in known.values():
            assert (ROOT / "assets" / kind / model).is_dir()
            assert all(config(f"{kind}/{name}.yaml").is_file() for name in drivers)


@pytest.mark.slow
def test_what_a_launch_starts_sees_the_object_and_stops_with_a_complete_bag(ros, tmp_path):
    states, plans = ros.listen(String, "/grasp/state", LATCHED), ros.listen(Float64MultiArray, "/perception/plan")
    given = DEFAULTS | {"record": "true", "bag": str(tmp_path / "bag")}
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                Process(f"dexgrasp_ros.nodes.{item.executable}", tmp_path, node=item.name, **item.parameters)
            )
            for item in launch_arguments.nodes(given)
        ]

        def text():
            return "\n".join(f"{process.command}\n{process.text()}" for process in running)

        def ready():
            if states and states[-1].data == "fault":  # a busy machine misses a tick, and a fault stays
                states.clear()
                ros.call(Trigger, "/grasp/reset_fault")
            return (states and plans) or not all(process.alive() for process in running)

        ros.until(ready, "a plan", 300.0)
        assert all(process.alive() for process in running), text()
        plan, _ = message_conversions.plan_from_message(plans[-1])
        assert 0.0 < plan.palm_pos_w[2] < 0.5
        ros.spin(1.0)
        assert [process.stop() for process in running] == [0] * 5, text()
    with AnyReader([tmp_path / "bag"]) as bag:
        counts = {connection.topic: connection.msgcount for connection in bag.connections}
    depth = "/camera/camera/depth/image_rect_raw"
    wanted = {
        "/joint_states",
        depth,
        "/clock",
        "/grasp/state",
        "/perception/points",
        "/perception/plan",
        "/diagnostics",
    }
    assert {topic for topic in wanted if not counts.get(topic)} == set()


@pytest.mark.slow
def test_colcon_builds_what_a_robot_runs(tmp_path):
    packages = ("dexgrasp_bringup", "dexgrasp_description", "dexgrasp_ros")  # `make build-ros` builds all
    for name in packages:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE.parent / name, tmp_path / "src" / name, ignore=ignore)
    prefix = Path(sys.prefix)
    paths = {"PATH": f"{prefix / 'bin'}:{os.environ['PATH']}", "CMAKE_PREFIX_PATH": str(prefix)}
    build = [sys.executable, "-m", "colcon", "build", "--cmake-args", f"-DPython3_EXECUTABLE={sys.executable}"]
    built = subprocess.run(
        build, cwd=tmp_path, capture_output=True, text=True, timeout=300, env={**os.environ, **paths}
    )
    assert built.returncode == 0, built.stdout + built.stderr
    shared = {name: tmp_path / "install" / name / "share" / name for name in packages}
    assert (shared["dexgrasp_bringup"] / "launch" / "real.launch.py").is_file()
    assert (shared["dexgrasp_description"] / "urdf" / "leap.xacro").is_file()
    assert (shared["dexgrasp_description"] / "rviz" / "grasp.rviz").is_file()
    place = tmp_path / "install" / "dexgrasp_ros"
    assert (place / "share" / "dexgrasp_ros" / "launch" / "grasp.launch.py").is_file()
    assert (place / "share" / "dexgrasp_ros" / "config" / "hands" / "allegro_v4.yaml").is_file()
    assert {path.name for path in (place / "lib" / "dexgrasp_ros").iterdir()} == set(NODES)
    node = place / "lib" / "dexgrasp_ros" / "sim_robot_node"
    where = "import dexgrasp_ros; print(dexgrasp_ros.__file__)"
    refused = installed(tmp_path, node, "--ros-args", "-p", "drop:=1.5")
    assert (refused.returncode, "'drop' must lie in 0..0.99" in refused.stderr) == (2, True), refused.stderr
    assert Path(installed(tmp_path, sys.executable, "-c", where).stdout.strip()).is_relative_to(place)


def installed(space, *command):
    """Runs a command with the built workspace `space`."""
    script = ["bash", "-c", 'source install/setup.bash && exec "$@"', "bash", *map(str, command)]
    return subprocess.run(script, cwd=space, capture_output=True, text=True, timeout=120)

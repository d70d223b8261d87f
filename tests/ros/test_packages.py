"""The four packages: manifests, READMEs, launch files and layouts agree with each other and with the nodes."""

import ast
import json
import os
import re
import runpy
import subprocess
import sys
from types import ModuleType

import pytest
import yaml
from catkin_pkg.package import parse_package

from dexgrasp import configs
from tests.docs.test_shown_commands import node_schemas
from tests.helpers.shown_commands import ROOT

SOURCES = ROOT / "ros2_ws" / "src"
PACKAGES = ("dexgrasp_bringup", "dexgrasp_description", "dexgrasp_msgs", "dexgrasp_ros")
PAGE = (ROOT / "docs/reference/ros.md").read_text(encoding="utf-8")
OF_ROS = re.compile(r"(rclpy|launch|launch_ros|\w+_msgs|\w+_interfaces|std_srvs)")


def cells(package, title):
    """Return the rows of the README's table whose first column has a title, as lists of cells without backticks."""
    lines = (SOURCES / package / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {title} |"))
    table = lines[start + 2 : next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in table]


def imported(path):
    """Return the ROS packages that a file imports by statement or by name."""
    text = path.read_text(encoding="utf-8")
    found = {word.split(".")[0] for word in re.findall(r'"(\w+_msgs\.\w+)"', text)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return {name for name in found if OF_ROS.fullmatch(name)}


@pytest.mark.parametrize("name", PACKAGES)
def test_the_manifest_is_valid_and_names_what_the_files_need(name):
    package = parse_package(str(SOURCES / name / "package.xml"))
    package.validate()
    assert (package.name, package.licenses[0]) == (name, "Apache-2.0")
    needed = {word for path in (SOURCES / name).rglob("*.py") if path.name != "setup.py" for word in imported(path)}
    known = {item.name for item in [*package.exec_depends, *package.build_depends]}
    assert needed <= known
    interfaces = [p for kind in ("msg", "action") for p in (SOURCES / name).glob(f"{kind}/*.{kind}")]
    used = {word for p in interfaces for word in re.findall(r"^(\w+)/\w+", p.read_text(), re.M)}
    assert used <= known


def test_dexgrasp_msgs_builds_and_lists_all_its_interfaces():
    folder = SOURCES / "dexgrasp_msgs"
    files = {p.relative_to(folder).as_posix() for k in ("msg", "action") for p in folder.glob(f"{k}/*")}
    assert set(re.findall(r"^  ((?:msg|action)/\S+)$", (folder / "CMakeLists.txt").read_text(), re.M)) == files
    kinds = {"message": "msg", "action": "action"}
    assert {f"{kinds[kind]}/{name}.{kinds[kind]}" for name, kind, _ in cells(folder.name, "interface")} == files
    states = re.findall(r"^string [A-Z]+=(\w+)$", (folder / "msg/GraspState.msg").read_text(), re.M)
    from dexgrasp_ros.grasping.types import STATES

    assert tuple(states) == STATES
    for _, _, use in cells(folder.name, "interface"):
        assert f"| `{re.match(r'`?(/[a-z_/]+)', use)[1]}` |" in PAGE


def test_readme_of_dexgrasp_ros_names_its_nodes_and_topics():
    executables = {row[0]: row[1] for row in cells("dexgrasp_ros", "executable")}
    assert set(executables) == set(node_schemas())
    for executable, name in executables.items():
        assert f"Node name `{name}`" in PAGE.split(f"\n## {executable}\n")[1].split("\n## ")[0]
    for topic, kind, direction in cells("dexgrasp_ros", "topic"):
        assert f"| {direction} | `{topic}` | `{kind}` |" in PAGE


@pytest.mark.parametrize("package", ["dexgrasp_bringup", "dexgrasp_description"])
def test_readme_names_every_file_that_is_installed(package):
    folder = SOURCES / package
    installed = re.search(r"install\(DIRECTORY (.*?) DESTINATION", (folder / "CMakeLists.txt").read_text())[1].split()
    files = {p.relative_to(folder).as_posix() for name in installed for p in (folder / name).rglob("*") if p.is_file()}
    files = {file for file in files if "__pycache__" not in file}
    named = {row[0] for row in cells(package, "file")}
    if package == "dexgrasp_bringup":
        named |= {f"launch/{row[0]}" for row in cells(package, "launch file")}
    assert named == files


def test_launch_files_of_bringup_set_arguments_that_the_launch_file_has(monkeypatch):
    from dexgrasp_ros import launch_arguments

    def module(name, **content):
        made = ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)

    stub = {name: lambda *args, **kwargs: (args, kwargs) for name in ("IncludeLaunchDescription", "LaunchDescription")}
    module("launch", LaunchDescription=stub["LaunchDescription"])
    module("launch.actions", IncludeLaunchDescription=stub["IncludeLaunchDescription"])
    module("launch.launch_description_sources", PythonLaunchDescriptionSource=lambda place: place)
    module("launch.substitutions", PathJoinSubstitution=lambda parts: parts)
    module("launch_ros")
    module("launch_ros.substitutions", FindPackageShare=lambda name: name)
    defaults = {argument.name: argument.default for argument in launch_arguments.ARGUMENTS}
    real = {"camera": "topic", "camera_file": "camera.yaml", "bundle": "here"}
    for name, sets, _ in cells("dexgrasp_bringup", "launch file"):
        found = runpy.run_path(str(SOURCES / "dexgrasp_bringup" / "launch" / name))
        [(parts,), given] = found["generate_launch_description"]()[0][0][0]
        assert parts == ["dexgrasp_ros", "launch", "grasp.launch.py"]
        values = dict(given["launch_arguments"])
        assert dict(word.split(":=") for word in sets.split()) == values
        assert launch_arguments.nodes(defaults | (real if values.get("robot") == "real" else {}) | values)


def test_configuration_and_layouts_name_what_exists():
    from dexgrasp_ros.grasping.config import GraspNodeCfg

    slow = yaml.safe_load((SOURCES / "dexgrasp_bringup/config/first_motions.yaml").read_text())
    given, full = slow["/**/grasp"]["ros__parameters"], GraspNodeCfg(bundle="")
    cfg = configs.from_dict(GraspNodeCfg, {"bundle": "", **given}, "grasp")
    assert cfg.grasp.motion.palm_speed_m_s < full.grasp.motion.palm_speed_m_s and cfg.arm_speed < full.arm_speed
    topics = set(re.findall(r"^\| \w+ \| `/([\w/]+)` \|", PAGE, re.M))
    layout = yaml.safe_load((SOURCES / "dexgrasp_description/rviz/grasp.rviz").read_text())
    displays = layout["Visualization Manager"]["Displays"]
    shown = {item[key]["Value"] for item in displays for key in ("Topic", "Description Topic") if key in item}
    assert shown and shown <= topics
    frames = set(re.findall(r"^\| `(\w+)` \| ", PAGE.split("\n### Frames\n")[1].split("\n#")[0], re.M))
    assert set(next(item for item in displays if "Frames" in item)["Frames"]) - {"All Enabled"} <= frames
    text = (SOURCES / "dexgrasp_description/foxglove/grasp.json").read_text()
    assert json.loads(text)["layout"]
    assert {name.split(".")[0] for name in re.findall(r'"/([\w/.]+)(?:\[:\])?"', text)} <= topics


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.parametrize(
    ("node", "parameters", "loaded"),
    [
        ("grasp", {}, {"torch", "mujoco", "mink"}),
        ("grasp", {"arm": "cartesian_pose", "palm_pose_source": "topic"}, set()),
        ("perception", {"arm": "sim_ur5e", "check_reachability": False}, {"torch"}),
        ("perception", {"arm": "sim_ur5e", "check_reachability": True}, {"torch", "mujoco", "mink"}),
    ],
)
def test_nodes_load_what_the_manifest_says(ros_domain, node, parameters, loaded):
    given = {"bundle": str(ROOT / "assets/policies/allegro/student/bundle"), **parameters}
    if node == "perception":
        given["camera_file"] = str(SOURCES / "dexgrasp_ros/dexgrasp_ros/config/cameras/sim.yaml")
    code = f"""
import sys, rclpy
from rclpy.parameter import Parameter
from dexgrasp_ros.nodes.{node}_node import {node.title()}Node
rclpy.init()
made = {node.title()}Node(parameter_overrides=[Parameter(n, value=v) for n, v in {given!r}.items()])
print("loaded", *(name for name in ("torch", "mujoco", "mink") if name in sys.modules))
made.destroy_node()
rclpy.shutdown()
"""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{SOURCES / 'dexgrasp_ros'}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()[-1].split()[1:]) == loaded


def test_the_profile_of_rosbag2_names_topics_with_a_quality_of_service_that_their_publishers_offer():
    folder = SOURCES / "dexgrasp_bringup" / "config"
    storage = yaml.safe_load((folder / "rosbag2_storage.yaml").read_text())
    assert (storage["compression"], storage["chunkSize"]) == ("Zstd", 2**20)
    for topic, profile in yaml.safe_load((folder / "rosbag2_qos.yaml").read_text()).items():
        assert profile["history"] == "keep_last" and profile["depth"] >= 10
        rows = [row for row in PAGE.splitlines() if row.startswith(f"| out | `{topic}` |")]
        assert rows, topic
        offered = rows[0].split(" | ")[3]
        assert profile["durability"] == "volatile" or offered == "reliable, transient local", topic
        assert profile["reliability"] == "best_effort" or offered.startswith("reliable"), topic

"""The tables of docs/reference/ros.md against the running nodes and the launch file."""

import importlib.util
import re
import time

import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from rclpy.parameter import Parameter

from dexgrasp import assets
from dexgrasp_ros import config, launch_arguments
from dexgrasp_ros.nodes.description_node import DescriptionNode
from dexgrasp_ros.nodes.grasp_node import GraspNode
from dexgrasp_ros.nodes.perception_node import PerceptionNode
from dexgrasp_ros.nodes.sim_robot_node import SimRobotNode
from tests.docs.test_shown_commands import node_schemas
from tests.helpers.ros import PACKAGE
from tests.helpers.shown_commands import ROOT

pytestmark = [pytest.mark.ros, pytest.mark.slow]

PAGE = (ROOT / "docs/reference/ros.md").read_text(encoding="utf-8")
BUNDLE = str(assets.path("policies/allegro/student/bundle"))
NODES = {
    "perception_node": (PerceptionNode, {"bundle": BUNDLE, "arm": "sim_ur5e"}),
    "grasp_node": (GraspNode, {"bundle": BUNDLE}),
    "sim_robot_node": (SimRobotNode, {}),
    "description_node": (DescriptionNode, {}),
}
"""Executable -> class and parameters of the launch file's defaults."""
OF_ROS = re.compile(r"/(rosout|parameter_events)|.*/transition_event|.*/_action/.*|/clock")


def rows(title):
    """Return the rows of the table under a heading, as lists of cells without backticks."""
    text = PAGE.split(f"\n### {title}\n")[1].split("\n#")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture(scope="module")
def graph(ros_domain):
    """The nodes of the launch file's default, in this process."""
    from tests.helpers.ros import Peer

    peer, pose = Peer(ros_domain), str(config("cameras/sim.yaml"))
    camera = {PerceptionNode: {"camera_file": pose}, SimRobotNode: {"camera": pose}, GraspNode: {}, DescriptionNode: {}}
    for node, given in NODES.values():
        overrides = [Parameter(name, value=value) for name, value in (given | camera[node]).items()]
        peer.add(node(context=peer.context, parameter_overrides=overrides))
    peer.spin(3.0)
    yield peer
    for node in peer._nodes[1:]:
        close = getattr(node, "close", None)
        if close is not None:
            close()
    peer.close()


def endpoints(peer, name):
    """Return the rows (direction, topic, type, QoS) of a node, from the graph of ROS."""
    found = set()
    for topic, _ in peer.node.get_topic_names_and_types():
        for direction, infos in (
            ("out", peer.node.get_publishers_info_by_topic(topic)),
            ("in", peer.node.get_subscriptions_info_by_topic(topic)),
        ):
            for info in infos:
                if info.node_name == name and not (OF_ROS.fullmatch(topic) and (topic, direction) != ("/clock", "out")):
                    qos = info.qos_profile
                    words = f"{qos.reliability.name}, {qos.durability.name}".lower().replace("_", " ")
                    found.add((direction, topic, info.topic_type, words))
    return found


@pytest.mark.parametrize("executable", NODES)
def test_the_topics_of_a_node_are_those_of_its_table(graph, executable):
    name = executable.removesuffix("_node")
    typed = rows(f"Typed topics of {executable}") if f"### Typed topics of {executable}\n" in PAGE else []
    typed = [row for row in typed if importlib.util.find_spec(row[2].split("/")[0])]
    wanted = {tuple(row[:4]) for row in [*rows(f"Topics of {executable}"), *typed]}
    end = time.monotonic() + 20
    while endpoints(graph, name) != wanted and time.monotonic() < end:  # discovery takes its time
        graph.spin(0.5)
    assert endpoints(graph, name) == wanted


@pytest.mark.parametrize("executable", NODES)
def test_the_services_of_a_node_are_those_of_its_table(graph, executable):
    name = executable.removesuffix("_node")
    offered = dict(graph.node.get_service_names_and_types_by_node(name, ""))
    triggers = {(service, kinds[0]) for service, kinds in offered.items() if kinds == ["std_srvs/srv/Trigger"]}
    told = rows(f"Services of {executable}") if f"### Services of {executable}\n" in PAGE else []
    assert triggers == {tuple(row[:2]) for row in told}


def test_the_actions_of_the_grasp_node_are_those_of_its_table(graph):
    pytest.importorskip("dexgrasp_msgs", reason="needs a sourced build of ros2_ws (make test-ros)")
    from rclpy.action import get_action_server_names_and_types_by_node

    offered = get_action_server_names_and_types_by_node(graph.node, "grasp", "/")
    assert {(name, kinds[0]) for name, kinds in offered} == {tuple(row[:2]) for row in rows("Actions of grasp_node")}


@pytest.mark.parametrize("executable", NODES)
def test_the_parameters_of_a_node_are_the_generated_ones(graph, executable):
    from dexgrasp.policies.cli.option_docs import keys

    declared = set(next(n for n in graph._nodes if n.get_name() == executable.removesuffix("_node"))._parameters)
    declared = {name for name in declared if name.split(".")[0] not in ("use_sim_time", "qos_overrides")}
    declared -= {"start_type_description_service"}
    assert declared == {key.name for key in keys(node_schemas()[executable], "")}


def test_every_executable_has_a_section_and_the_launch_table_is_that_of_the_launch_file():
    executables = re.findall(r'"(\w+_node)"', (PACKAGE / "setup.py").read_text())
    assert set(executables) == set(node_schemas()) == set(re.findall(r"^## (\w+_node)$", PAGE, re.M))
    text = PAGE.split("\n## Launch file\n")[1].split("\n## ")[0]
    table = {m[1]: m[2].strip().strip("`") for m in re.finditer(r"^\| `(\w+)` \| ([^|]*)\|", text, re.M)}
    assert table == {argument.name: argument.default for argument in launch_arguments.ARGUMENTS}

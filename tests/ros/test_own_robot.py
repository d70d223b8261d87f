"""A hand and an arm of one's own, by folder: what the launch arguments give is configured by the real nodes."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from dexgrasp import assets
from dexgrasp.policies.deploy.bundle import contract_sha256
from dexgrasp_ros import launch_arguments
from dexgrasp_ros.drivers.config import load
from dexgrasp_ros.joint_test.record import write_record
from dexgrasp_ros.nodes.grasp_node import GraspNode
from dexgrasp_ros.nodes.perception_node import PerceptionNode
from tests.helpers.grasp_bench import BUNDLE, CONTRACT

pytestmark = pytest.mark.ros
DEFAULTS = {item.name: item.default for item in launch_arguments.ARGUMENTS}
NODES = {"grasp": GraspNode, "perception": PerceptionNode}


@pytest.fixture
def own(tmp_path):
    """Launch arguments of a hand, an arm and a bundle that are in no table; each folder holds its driver."""
    hand, arm, bundle = tmp_path / "my_hand", tmp_path / "my_arm", tmp_path / "bundle"
    shutil.copytree(assets.path("hands/allegro"), hand)
    shutil.copytree(assets.path("arms/ur5e"), arm)
    rename(hand / "hand.yaml", "my_hand")
    rename(arm / "arm.yaml", "my_arm")
    shutil.copytree(BUNDLE, bundle)
    contract = json.loads((bundle / "contract.json").read_text())
    contract["hand"]["name"] = "my_hand"
    contract["sha256"] = contract_sha256(contract)
    (bundle / "contract.json").write_text(json.dumps(contract))
    for folder, cfg in ((hand, load("hands", "sim:allegro")), (arm, load("arms", "sim:ur5e"))):
        kind = {"hand": "my_hand"} if folder == hand else {"arm": "arm.yaml"}
        command = {"type": "joint_trajectory", "topic": f"{folder.name}/commands", "joints": list(cfg.command.joints)}
        text = {**kind, "source": "a test", "command": command}
        text["state"] = {"topic": "joint_states", "names": dict(cfg.state.names)}
        (folder / "driver.yaml").write_text(yaml.safe_dump(text))
    camera = {"camera": "topic", "camera_file": str(launch_arguments.config("cameras/sim.yaml"))}
    record = tmp_path / "wave.json"
    write_record(record, load("hands", str(hand / "driver.yaml")), CONTRACT.hand.joint_names)
    return {"hand": str(hand), "arm": str(arm), "bundle": str(bundle)}, camera, record


def rename(file, name):
    text = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(text | {"name": name}))


@pytest.mark.parametrize("robot", ["sim", "real"])
def test_what_the_launch_gives_is_configured(ros, own, robot):
    places, camera, record = own
    given = DEFAULTS | places | {"robot": robot, "autostart": "false"} | (camera if robot == "real" else {})
    nodes = {item.name: item.parameters for item in launch_arguments.nodes(given)}
    for name, kind in NODES.items():
        parameters = nodes[name] | ({"wave_test": str(record)} if name == "grasp" else {})
        overrides = [Parameter(key, value=value) for key, value in parameters.items()]
        node = ros.add(kind(context=ros.context, parameter_overrides=overrides))
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, name
    grasp = ros._nodes[-2]
    command = "/my_arm/commands" if robot == "real" else "/scaled_joint_trajectory_controller/joint_trajectory"
    assert command in [name for name, _ in grasp.get_topic_names_and_types()]


def test_the_limits_of_the_folder_count(ros, own):
    """A bundle that exceeds the hand.yaml of the folder is refused, as one of a hand in assets/hands is."""
    places, camera, record = own
    file = Path(places["hand"]) / "hand.yaml"
    text = yaml.safe_load(file.read_text())
    text["joints"]["ffj1"]["effort_limit"] = 0.01
    file.write_text(yaml.safe_dump(text))
    nodes = {n.name: n.parameters for n in launch_arguments.nodes(DEFAULTS | places | camera | {"robot": "real"})}
    parameters = nodes["grasp"] | {"autostart": False, "wave_test": str(record)}
    node = ros.add(
        GraspNode(context=ros.context, parameter_overrides=[Parameter(k, value=v) for k, v in parameters.items()])
    )
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert str(file) in node._refusal and "ffj1" in node._refusal


def test_a_cartesian_arm_starts(ros, own):
    """`arm_driver:=cartesian_pose`: perception and grasp node configure with the palm pose of a topic."""
    _, camera, _ = own
    given = (
        DEFAULTS | camera | {"robot": "real", "arm_driver": "cartesian_pose", "dry_run": "true", "autostart": "false"}
    )
    nodes = {item.name: item.parameters for item in launch_arguments.nodes(given)}
    for name, kind in NODES.items():
        overrides = [Parameter(key, value=value) for key, value in nodes[name].items()]
        node = ros.add(kind(context=ros.context, parameter_overrides=overrides))
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, name

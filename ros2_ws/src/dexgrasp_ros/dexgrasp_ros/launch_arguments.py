"""Turns launch arguments into nodes with parameters; launch/grasp.launch.py wraps it.

It does not import `launch`, so that it is tested without a ROS distribution.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dexgrasp_ros import SIMULATED, config

YES_NO = ("true", "false")
HANDS = {
    "allegro": ("allegro", "sim_allegro", "allegro_v4"),
    "allegro_v5": ("allegro", "sim_allegro", "allegro_v5"),
    "leap": ("leap", "sim_leap", "leap"),
}
"""Hand argument -> hand, simulated driver, real driver; a folder or file takes the place of a name."""
ARMS = {
    "ur5e": ("ur5e", "sim_ur5e", "ur5e_scaled_trajectory"),
    "ur5e_forward": ("ur5e", "sim_ur5e", "ur5e_forward_position"),
}
"""Arm argument -> arm, simulated driver, real driver; a folder or file takes the place of a name."""
PROFILES = {"local": "fastdds.xml", "network": "fastdds_network.xml"}
PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"


@dataclass(frozen=True)
class LaunchArgument:
    """Argument of the launch file: name, default, description, allowed values."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()


ARGUMENTS = (
    LaunchArgument("hand", "allegro", f"Hand: {', '.join(HANDS)}, or a folder with hand.yaml."),
    LaunchArgument(
        "arm",
        "ur5e",
        f"Arm and its controller: {', '.join(ARMS)}, or a folder with arm.yaml, an arm.yaml, an MJCF or a URDF.",
    ),
    LaunchArgument(
        name="robot",
        default="sim",
        description="sim: a simulated robot is started. real: the drivers must be running.",
        choices=("sim", "real"),
    ),
    LaunchArgument(
        name="camera",
        default="sim",
        description="sim: camera of the simulated robot. realsense: read by the perception node. topic: read from its "
        "topics.",
        choices=("sim", "realsense", "topic"),
    ),
    LaunchArgument("camera_file", "", "Camera pose file from `dexgrasp calibrate camera`; required for a real camera."),
    LaunchArgument("bundle", "", "Folder of the exported policy; empty: the shipped student of the hand."),
    LaunchArgument(
        name="dry_run", default="false", description="Publish commands below /preview only.", choices=YES_NO
    ),
    LaunchArgument(
        name="shadow",
        default="false",
        description="Run the policy beside another controller and report the differences.",
        choices=YES_NO,
    ),
    LaunchArgument(name="record", default="false", description="Record all topics into a bag.", choices=YES_NO),
    LaunchArgument("bag", "", "Folder of the bag; empty: bags/grasp_DATE_TIME."),
    LaunchArgument("object", "0", "Object on the simulated table, by number or name."),
    LaunchArgument("seed", "0", "Seed of the pose of the simulated object."),
    LaunchArgument(
        "hand_driver", "", "Driver of the hand: a name in config/hands or a .yaml; empty: the one of `hand`."
    ),
    LaunchArgument("arm_driver", "", "Driver of the arm: a name in config/arms or a .yaml; empty: the one of `arm`."),
    LaunchArgument("params", "", "YAML file of node parameters, which override all others."),
    LaunchArgument(
        name="dds",
        default="auto",
        description="Fast DDS profile. local: this machine only. network: drivers on other machines. off: from the "
        "environment. auto: local for a simulated robot, network for a real one.",
        choices=("auto", "local", "network", "off"),
    ),
)


@dataclass(frozen=True)
class NodeSpec:
    """A node to start: executable, node name, parameters."""

    executable: str
    name: str
    parameters: dict[str, Any] = field(default_factory=dict)


def nodes(given: Mapping[str, str]) -> list[NodeSpec]:
    """Return the nodes to start for launch arguments. Raises ValueError for contradictory ones."""
    check(given)
    simulated = given["robot"] == "sim"
    clock = {"use_sim_time": simulated}
    parts = {"hand": part(given, "hand", HANDS), "arm": part(given, "arm", ARMS)}
    drivers = {name: driver for name, (_, driver) in parts.items()}
    both = {"bundle": given["bundle"] or shipped_bundle(given["hand"]), **drivers, **clock}
    place = Path(given["hand"])
    body = {} if given["hand"] in HANDS else {"hand_body": str(place.parent if place.is_file() else place)}
    camera = {"camera_file": given["camera_file"] or str(config("cameras/sim.yaml"))}
    source = {"source": "realsense" if given["camera"] == "realsense" else "topic"}
    modes = {name: given[name] == "true" for name in ("dry_run", "shadow")}
    found = [
        NodeSpec("perception_node", "perception", {**both, **body, **camera, **source}),
        NodeSpec("grasp_node", "grasp", {**both, "robot": given["robot"], **modes}),
    ]
    if simulated:
        names = {name: model for name, (model, _) in parts.items()}
        thing = {"object": given["object"], "seed": int(given["seed"])}
        found.insert(0, NodeSpec("sim_robot_node", "sim_robot", {**names, **thing, "camera": camera["camera_file"]}))
    if given["record"] == "true":
        found.append(NodeSpec("recorder_node", "record", {"folder": given["bag"], **clock}))
    return found


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of all nodes; they select one transport."""
    profile = given["dds"]
    if profile == "auto":
        profile = "local" if given["robot"] == "sim" else "network"
    return {} if profile == "off" else {PROFILE_VARIABLE: str(config(PROFILES[profile]))}


def check(given: Mapping[str, str]) -> None:
    """Raise ValueError with advice for unknown values and for arguments that contradict each other."""
    for argument in ARGUMENTS:
        value = given[argument.name]
        if argument.choices and value not in argument.choices:
            raise ValueError(f"{argument.name}:={value}: choose one of {', '.join(argument.choices)}")
    if (given["robot"] == "sim") != (given["camera"] == "sim"):
        raise ValueError(
            f"robot:={given['robot']} camera:={given['camera']}: a simulated robot has its own "
            "camera (camera:=sim), a real one needs camera:=realsense or camera:=topic"
        )
    if given["camera"] != "sim" and not given["camera_file"]:
        raise ValueError("the camera pose is missing: give camera_file:=..., written by `dexgrasp calibrate camera`")
    if not given["seed"].lstrip("-").isdigit():
        raise ValueError(f"seed:={given['seed']} is not a whole number")


def part(given: Mapping[str, str], name: str, known: Mapping[str, tuple[str, str, str]]) -> tuple[str, str]:
    """Return the model and the driver of "hand" or "arm". Raises ValueError for a robot that is not found."""
    value, stated, simulated = given[name], given[f"{name}_driver"], given["robot"] == "sim"
    if value in known:
        model, in_simulation, real = known[value]
        return model, stated or (in_simulation if simulated else real)
    if not Path(value.partition(":")[0]).exists():
        raise ValueError(f"{name}:={value}: choose one of {', '.join(known)}, or give the path of a folder or file")
    if not (stated or simulated):
        raise ValueError(f"{name}:={value}: give {name}_driver:=..., the .yaml of its driver on the robot")
    return value, stated or f"{SIMULATED}{value}"


def shipped_bundle(hand: str) -> str:
    """Return the bundle of the shipped student for a hand. Raises ValueError where none is shipped."""
    try:
        from dexgrasp import assets

        return str(assets.path(f"policies/{HANDS[hand][0]}/student/bundle"))
    except (ImportError, FileNotFoundError, KeyError) as error:
        raise ValueError(f"no policy is shipped for hand:={hand}: give bundle:=... ({error})") from error

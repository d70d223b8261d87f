"""Turns launch arguments into nodes with parameters; launch/grasp.launch.py wraps it.

It does not import `launch`, so that it is tested without a ROS distribution.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dexgrasp import configs
from dexgrasp_ros import SIMULATED, config, hand_file

YES_NO = ("true", "false")
HANDS = {
    "allegro": ("allegro", "sim_allegro", "allegro_v4"),
    "allegro_v5": ("allegro", "sim_allegro", "allegro_v5"),
    "leap": ("leap", "sim_leap", "leap"),
}
"""Short names -> hand, simulated driver, real driver; other names of assets/hands, folders and files need no row."""
ARMS = {
    "ur5e": ("ur5e", "sim_ur5e", "ur5e_scaled_trajectory"),
    "ur5e_forward": ("ur5e", "sim_ur5e", "ur5e_forward_position"),
}
"""Short names -> arm, simulated driver, real driver; other names of assets/arms, folders and files need no row."""
DRIVER_FILE = "driver.yaml"
"""Driver of the real hand or arm, in its folder."""
PROFILES = {"local": "fastdds.xml", "network": "fastdds_network.xml"}
SIM_CAMERA_FRAME = "camera_depth_optical_frame"
"""Frame of the simulated camera, without prefix."""
PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"


@dataclass(frozen=True)
class LaunchArgument:
    """Argument of the launch file: name, default, description, allowed values."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()


ARGUMENTS = (
    LaunchArgument("hand", "allegro", f"Hand: {', '.join(HANDS)}, a name in assets/hands, or a folder with hand.yaml."),
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
    LaunchArgument(
        name="approach",
        default="scripted",
        description="Way to the pre-grasp: scripted, or moveit: a path of a running move_group.",
        choices=("scripted", "moveit"),
    ),
    LaunchArgument(name="record", default="false", description="Record all topics into a bag.", choices=YES_NO),
    LaunchArgument("bag", "", "Folder of the bag; empty: bags/grasp_DATE_TIME."),
    LaunchArgument("object", "0", "Object on the simulated table, by number or name."),
    LaunchArgument("seed", "0", "Seed of the pose of the simulated object."),
    LaunchArgument(
        "hand_driver",
        "",
        f"Driver of the hand: a name in config/hands or a .yaml; empty: that of `hand` or {DRIVER_FILE} in its folder.",
    ),
    LaunchArgument(
        "arm_driver",
        "",
        f"Driver of the arm: a name in config/arms or a .yaml; empty: that of `arm` or {DRIVER_FILE} in its folder.",
    ),
    LaunchArgument("namespace", "", "Namespace of all nodes and topics but /tf and /estop; a second robot needs one."),
    LaunchArgument(
        "tf_prefix", "", "Begins the names of all frames, of the world as well; empty: NAMESPACE_ in a namespace."
    ),
    LaunchArgument(
        name="description",
        default="true",
        description="Publish robot_description, frames and markers for RViz and Foxglove.",
        choices=YES_NO,
    ),
    LaunchArgument(
        "nodes",
        "all",
        "Nodes to start: all, or names of sim_robot, perception, grasp, description, record with commas.",
    ),
    LaunchArgument(
        name="autostart",
        default="true",
        description="false: a lifecycle manager configures and activates perception and grasp.",
        choices=YES_NO,
    ),
    LaunchArgument(
        name="respawn",
        default="false",
        description="true: perception, description and recorder start again after an error. false: the end of a node "
        "ends all.",
        choices=YES_NO,
    ),
    LaunchArgument("params", "", "YAML file of node parameters, which override all others."),
    LaunchArgument(
        name="dds",
        default="auto",
        description="Fast DDS profile. local: this machine only. network: drivers on other machines. off: from the "
        "environment. auto: local for a simulated robot, network for a real one.",
        choices=("auto", "local", "network", "off"),
    ),
)


RESPAWNED = ("perception", "description", "record")
"""Nodes that may start again by themselves: they command nothing."""
NODES = ("sim_robot", "perception", "grasp", "description", "record")
"""Names of the nodes, in the order in which they start."""


@dataclass(frozen=True)
class NodeSpec:
    """A node to start: executable, node name, parameters, namespace, remappings, whether it starts again."""

    executable: str
    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    namespace: str = ""
    remappings: tuple[tuple[str, str], ...] = ()
    respawn: bool = False


def nodes(given: Mapping[str, str]) -> list[NodeSpec]:
    """Return the nodes to start for launch arguments. Raises ValueError for contradictory ones."""
    check(given)
    simulated, namespace = given["robot"] == "sim", given["namespace"].strip("/")
    chosen = NODES if given["nodes"] == "all" else tuple(given["nodes"].split(","))
    off = {
        name for name, argument in (("record", "record"), ("description", "description")) if given[argument] != "true"
    }
    off = {name for name in off if given["nodes"] == "all"} | (set() if simulated else {"sim_robot"})
    remappings = (("/clock", "clock"),) if simulated and namespace else ()
    return [
        NodeSpec(
            executable=f"{'recorder' if name == 'record' else name}_node",
            name=name,
            parameters=parameters,
            namespace=namespace,
            remappings=remappings,
            respawn=given["respawn"] == "true" and name in RESPAWNED,
        )
        for name, parameters in _parameters(given).items()
        if name in chosen and name not in off
    ]


def _parameters(given: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the parameters of each node for checked launch arguments."""
    simulated, namespace = given["robot"] == "sim", given["namespace"].strip("/")
    prefix = given["tf_prefix"] or (f"{namespace.replace('/', '_')}_" if namespace else "")
    clock, frame = {"use_sim_time": simulated}, {"base_frame": f"{prefix}world"}
    (hand, hand_driver), (arm, arm_driver) = part(given, "hand", HANDS), part(given, "arm", ARMS)
    both = {"bundle": given["bundle"] or shipped_bundle(given["hand"]), "hand": hand_driver, **frame, **clock}
    both["autostart"] = given["autostart"] == "true"
    file = None if given["hand"] in HANDS else hand_file(given["hand"])
    body, limits = ({"hand_body": str(file.parent)}, {"hand_file": str(file)}) if file else ({}, {})
    camera_file = given["camera_file"] or str(config("cameras/sim.yaml"))
    source = {"source": "realsense" if given["camera"] == "realsense" else "topic"}
    if simulated and prefix:  # the simulated camera has a frame of each robot
        source["camera_frame"] = f"{prefix}{SIM_CAMERA_FRAME}"
    modes = {name: given[name] == "true" for name in ("dry_run", "shadow")} | {"approach": given["approach"]}
    known = has_kinematics(arm_driver)
    palm = {} if known else {"palm_pose_source": "topic"}
    views = {
        "hand": hand_driver,
        "arm": arm_driver,
        "hand_model": hand,
        "tf_prefix": prefix,
        "camera_file": camera_file,
    }
    topics = {"topics": [f"/{namespace}/.*", "/tf", "/tf_static", "/estop"]} if namespace else {}
    return {
        "sim_robot": {
            "hand": hand,
            "arm": arm,
            "object": given["object"],
            "seed": int(given["seed"]),
            "camera": camera_file,
            "tf_prefix": prefix,
        },
        "perception": {**both, "arm": arm_driver if known else "", **body, "camera_file": camera_file, **source},
        "grasp": {**both, "arm": arm_driver, "robot": given["robot"], **limits, **modes, **palm},
        "description": {**views, **frame, **clock},
        "record": {"folder": given["bag"], **topics, **clock},
    }


def has_kinematics(arm_driver: str) -> bool:
    """Return whether a driver names an arm and its joint states; else palm poses come from a topic."""
    if arm_driver.startswith(SIMULATED):
        return True
    is_file = arm_driver.endswith((".yaml", ".yml"))
    try:
        values = configs.read_plain(Path(arm_driver) if is_file else config(f"arms/{arm_driver}.yaml"))
    except OSError as error:
        raise ValueError(f"arm_driver:={arm_driver}: {error}") from error
    return isinstance(values, dict) and bool(values.get("arm") and values.get("state"))


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
    if not re.fullmatch(r"/?([A-Za-z_]\w*(/[A-Za-z_]\w*)*)?", given["namespace"]):
        raise ValueError(f"namespace:={given['namespace']}: expected letters, digits and _, parts separated by /")
    if unknown := [name for name in given["nodes"].split(",") if name not in ("all", *NODES)]:
        raise ValueError(f"nodes:={given['nodes']}: unknown {unknown}; choose all, or names of {', '.join(NODES)}")
    if not given["seed"].lstrip("-").isdigit():
        raise ValueError(f"seed:={given['seed']} is not a whole number")


def part(given: Mapping[str, str], name: str, known: Mapping[str, tuple[str, str, str]]) -> tuple[str, str]:
    """Return the model and the driver of "hand" or "arm". Raises ValueError for a robot that is not found."""
    value, stated, simulated = given[name], given[f"{name}_driver"], given["robot"] == "sim"
    if value in known:
        model, in_simulation, real = known[value]
        return model, stated or (in_simulation if simulated else real)
    place = Path(value.partition(":")[0])
    if not place.exists() and value not in _names(f"{name}s"):
        raise ValueError(f"{name}:={value}: choose one of {', '.join(known)}, or give the path of a folder or file")
    own = (place if place.is_dir() else place.parent) / DRIVER_FILE
    if not (stated or simulated or own.is_file()):
        raise ValueError(
            f"{name}:={value}: give {name}_driver:=..., the .yaml of its driver on the robot, or put it there as "
            f"{DRIVER_FILE}"
        )
    return value, stated or (f"{SIMULATED}{value}" if simulated else str(own.resolve()))


def _names(kind: str) -> Sequence[str]:
    """Return the names of the hands or arms in assets; none where dexgrasp.assets is not installed."""
    try:
        from dexgrasp import assets

        return assets.names(kind)
    except ImportError:
        return ()


def shipped_bundle(hand: str) -> str:
    """Return the bundle of the shipped student for a hand. Raises ValueError where none is shipped."""
    try:
        from dexgrasp import assets

        return str(assets.path(f"policies/{HANDS[hand][0]}/student/bundle"))
    except (ImportError, FileNotFoundError, KeyError) as error:
        raise ValueError(f"no policy is shipped for hand:={hand}: give bundle:=... ({error})") from error

"""What a launch starts: from the words hand, arm, robot and camera to nodes with their parameters.

Plain Python, so that it can be tested without a distribution of ROS; launch/grasp.launch.py only wraps it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dexgrasp_ros import config

YES_NO = ("true", "false")
HANDS = {
    "allegro": ("allegro", "sim_allegro", "allegro_v4"),
    "allegro_v5": ("allegro", "sim_allegro", "allegro_v5"),
    "leap": ("leap", "sim_leap", "leap"),
}
"""Hand: its name in assets/hands, its simulated driver, its real one."""
ARMS = {
    "ur5e": ("ur5e", "sim_ur5e", "ur5e_scaled_trajectory"),
    "ur5e_forward": ("ur5e", "sim_ur5e", "ur5e_forward_position"),
}
"""The same of arms."""
PROFILES = {"local": "fastdds.xml", "network": "fastdds_network.xml"}
PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"


@dataclass(frozen=True)
class LaunchArgument:
    """One argument of the launch file."""

    name: str
    default: str
    meaning: str
    choices: tuple[str, ...] = ()


ARGUMENTS = (
    LaunchArgument("hand", "allegro", "The hand.", tuple(HANDS)),
    LaunchArgument("arm", "ur5e", "The arm, and the controller that drives it.", tuple(ARMS)),
    LaunchArgument("robot", "sim", "sim: it is started too. real: its drivers run already.", ("sim", "real")),
    LaunchArgument(
        "camera",
        "sim",
        "sim: the simulated robot's. realsense: read here. topic: a camera node publishes it.",
        ("sim", "realsense", "topic"),
    ),
    LaunchArgument(
        "camera_file", "", "Where the camera stands, from `dexgrasp calibrate camera`; needed for a real one."
    ),
    LaunchArgument("bundle", "", "Folder of the exported policy; empty: the shipped student of the hand."),
    LaunchArgument("dry_run", "false", "Commands go to topics below /preview alone.", YES_NO),
    LaunchArgument("shadow", "false", "Somebody else moves the robot; what the policy would do is compared.", YES_NO),
    LaunchArgument("record", "false", "Write every topic into a bag.", YES_NO),
    LaunchArgument("bag", "", "Folder of the bag; empty: bags/grasp_DATE_TIME."),
    LaunchArgument("object", "0", "Object on the simulated table: number or name."),
    LaunchArgument("seed", "0", "Decides where it lies."),
    LaunchArgument("hand_driver", "", "Another description of the hand's driver: a name in config/hands, or a .yaml."),
    LaunchArgument("arm_driver", "", "The same of the arm."),
    LaunchArgument("params", "", "A YAML of further parameters of the nodes; they win."),
    LaunchArgument(
        "dds",
        "auto",
        "Fast DDS profile. local: this machine alone. network: drivers elsewhere. off: as the environment says. "
        "auto: local for a simulated robot, network for a real one.",
        ("auto", "local", "network", "off"),
    ),
)


@dataclass(frozen=True)
class NodeSpec:
    """One node to start."""

    executable: str
    name: str
    parameters: dict[str, Any] = field(default_factory=dict)


def nodes(given: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes for arguments as they were typed. Raises ValueError where they do not fit together."""
    check(given)
    simulated = given["robot"] == "sim"
    clock = {"use_sim_time": simulated}
    drivers = {"hand": driver(given, "hand", HANDS), "arm": driver(given, "arm", ARMS)}
    both = {"bundle": given["bundle"] or shipped_bundle(given["hand"]), **drivers, **clock}
    camera = {"camera_file": given["camera_file"] or str(config("cameras/sim.yaml"))}
    source = {"source": "realsense" if given["camera"] == "realsense" else "topic"}
    modes = {name: given[name] == "true" for name in ("dry_run", "shadow")}
    found = [
        NodeSpec("perception_node", "perception", {**both, **camera, **source}),
        NodeSpec("grasp_node", "grasp", {**both, "robot": given["robot"], **modes}),
    ]
    if simulated:
        names = {"hand": HANDS[given["hand"]][0], "arm": ARMS[given["arm"]][0]}
        thing = {"object": given["object"], "seed": int(given["seed"])}
        found.insert(0, NodeSpec("sim_robot_node", "sim_robot", {**names, **thing, "camera": camera["camera_file"]}))
    if given["record"] == "true":
        found.append(NodeSpec("record", "record", {"folder": given["bag"], **clock}))
    return found


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Variables that every node needs: all of them must use one transport."""
    profile = given["dds"]
    if profile == "auto":
        profile = "local" if given["robot"] == "sim" else "network"
    return {} if profile == "off" else {PROFILE_VARIABLE: str(config(PROFILES[profile]))}


def check(given: Mapping[str, str]) -> None:
    """Raises ValueError with what to do where arguments are unknown or do not fit together."""
    for argument in ARGUMENTS:
        value = given[argument.name]
        if argument.choices and value not in argument.choices:
            raise ValueError(f"{argument.name}:={value}: choose one of {', '.join(argument.choices)}")
    if (given["robot"] == "sim") != (given["camera"] == "sim"):
        raise ValueError(
            f"robot:={given['robot']} camera:={given['camera']}: a simulated robot brings its own "
            "camera (camera:=sim), a real one needs camera:=realsense or camera:=topic"
        )
    if given["camera"] != "sim" and not given["camera_file"]:
        raise ValueError("where does the camera stand? Give camera_file:=..., made by `dexgrasp calibrate camera`")
    if not given["seed"].lstrip("-").isdigit():
        raise ValueError(f"seed:={given['seed']} is not a whole number")


def driver(given: Mapping[str, str], part: str, known: Mapping[str, tuple[str, str, str]]) -> str:
    """Name or path of a driver's description."""
    _, simulated, real = known[given[part]]
    return given[f"{part}_driver"] or (simulated if given["robot"] == "sim" else real)


def shipped_bundle(hand: str) -> str:
    """The bundle of the shipped student for a hand. Raises ValueError where none is shipped."""
    try:
        import assets

        return str(assets.path(f"policies/{HANDS[hand][0]}/student/bundle"))
    except (ImportError, FileNotFoundError) as error:
        raise ValueError(f"no policy is shipped for hand:={hand}: give bundle:=... ({error})") from error

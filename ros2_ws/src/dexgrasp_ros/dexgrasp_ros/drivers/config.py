"""Driver descriptions of hands and arms as YAML: topics, message types, joint order, signs, offsets.

    hand: allegro                                   name of the hand (`arm:` name, folder or model of the arm)
    source: origin of the values, for instance a manual
    command: {type: float64_array, topic: /c/commands, joints: [driver's names, driver's order], offset_rad: 0.0, ...}
    state:   {topic: /joint_states, names: {contract joint: driver joint}, ...}
    couplings: {driver motor: {contract joint: ratio, ...}}     a motor that moves several joints

Types of commands: topics, actions and plugins of joints (JOINT_TYPES); twist and pose of palm or flange (POSE_TYPES).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml

from dexgrasp import configs
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp_ros import CONFIG, SIMULATED
from dexgrasp_ros.drivers.joint_mapping import PerJoint

TOPIC_TYPES = ("float64_array", "joint_trajectory", "joint_state")
"""Types of joint commands that are topics."""
ACTION_TYPES = ("follow_joint_trajectory", "gripper_command", "parallel_gripper_command")
"""Types of joint commands that are goals of an action of control_msgs."""
JOINT_TYPES, POSE_TYPES = (*TOPIC_TYPES, *ACTION_TYPES, "plugin"), ("twist", "pose")
REACH_PERIODS = 2.0
"""Time to reach a streamed trajectory point, in control periods; the next point arrives earlier."""
SIMULATED_TOPICS = {
    "hands": "hand_controller/joint_trajectory",
    "arms": "scaled_joint_trajectory_controller/joint_trajectory",
}
"""Topics of the simulated robot's joint commands, by kind."""
PREVIEW = "/preview"
"""Prefix of the command topics of a dry run."""
MOST_OFFSET_RAD = 10.0
"""Largest position of a driver's joint at position 0 of the contract [rad]."""
LEAST_RATIO, MAX_RATIO = 1e-3, 1e3
"""Range of the magnitude of a ratio of a coupling."""
Kind = Literal["hands", "arms"]
Vector3 = tuple[float, float, float]
Vector4 = tuple[float, float, float, float]


class AdapterError(ValueError):
    """Invalid driver description; the text names file and key."""


@dataclass(frozen=True)
@bounded
class QosCfg:
    """Quality of service of a topic."""

    reliability: Literal["reliable", "best_effort"] = "reliable"
    """Commands are reliable; sensors are read with best effort, which takes both."""
    durability: Literal["volatile", "transient_local"] = "volatile"
    """transient_local: late subscribers receive the last message."""
    depth: Annotated[int, Bounds(1, 1000)] = 1
    """Messages kept."""


@dataclass(frozen=True)
@bounded
class FrameCfg:
    """Commanded body and reference frame of a Cartesian controller."""

    id: str
    """frame_id of the messages."""
    link: Literal["palm", "flange"] = "flange"
    """The body that is commanded: the palm, or the hand base frame at the arm's flange."""
    pos_w: Annotated[Vector3, Bounds(-10, 10)] = (0.0, 0.0, 0.0)
    """Position of the frame in the world [m]."""
    quat_w: Annotated[Vector4, Bounds(-1, 1)] = (1.0, 0.0, 0.0, 0.0)
    """Orientation of the frame in the world, wxyz."""


@dataclass(frozen=True)
@bounded
class CommandCfg:
    """Commands to the driver."""

    type: Literal[
        "float64_array",
        "joint_trajectory",
        "joint_state",
        "follow_joint_trajectory",
        "gripper_command",
        "parallel_gripper_command",
        "plugin",
        "twist",
        "pose",
    ]
    """Type of the command messages, or action of control_msgs, or plugin."""
    topic: str
    """Topic of the commands, or name of the action."""
    joints: tuple[str, ...] = ()
    """The driver's names of the joints that have motors, in the driver's order; for joint commands only."""
    sign: Annotated[PerJoint, Bounds(-1, 1)] = 1.0
    """1 or -1, for all or for each of `joints`."""
    offset_rad: Annotated[PerJoint, Bounds(-1e7, 1e7)] = 0.0
    """Driver's joint position at position 0 of the contract, in the driver's unit; at most 10 times `scale`."""
    scale: Annotated[PerJoint, Bounds(0.0001, 1e6)] = 1.0
    """Driver's units per radian."""
    rate_hz: Annotated[float | None, Bounds(1, 1000)] = None
    """Rate of joint commands, interpolated over each control period; None: once per control period. Not of actions."""
    frame: FrameCfg | None = None
    """Reference frame; for twist and pose commands."""
    gain_hz: Annotated[float, Bounds(0.01, 20)] = 4.0
    """Speed per remaining distance; for twist commands."""
    qos: QosCfg = field(default_factory=QosCfg)
    """Quality of service of the topic."""
    max_effort: Annotated[float, Bounds(0, 10_000)] = 0.0
    """Greatest effort of gripper commands [N or N m]; 0: that of the driver."""
    plugin: str = ""
    """For type plugin: entry point of the group dexgrasp_ros.command_writers, or module:Class."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values for the plugin."""

    def __post_init__(self) -> None:
        if (self.type == "plugin") != bool(self.plugin):
            raise ValueError("command.type plugin needs command.plugin, and no other type has one")
        if self.type in ACTION_TYPES and self.rate_hz:
            raise ValueError(f"command.type {self.type} takes one goal per control period: remove command.rate_hz")
        if self.type == "gripper_command" and len(self.joints) != 1:
            raise ValueError(f"command.type gripper_command has one motor: command.joints names {len(self.joints)}")
        _check_offset("command", self.offset_rad, self.scale)
        if twice := sorted({name for name in self.joints if self.joints.count(name) > 1}):
            raise ValueError(f"command.joints: {twice} are listed more than once")


@dataclass(frozen=True)
@bounded
class StateCfg:
    """Joint states from the driver: a JointState, or messages of a plugin; joints match by name."""

    topic: str
    """Topic of the joint states."""
    names: Mapping[str, str]
    """The driver's name of each joint of the contract; a coupled joint that is not reported is left out."""
    sign: Annotated[PerJoint | None, Bounds(-1, 1)] = None
    """1 or -1 in the order of those `command.joints` that are reported, then of other joints in `names`; None: as in
    `command`, and for joints of `couplings` that are reported by their names 1, with offset_rad 0 and scale 1."""
    offset_rad: Annotated[PerJoint | None, Bounds(-1e7, 1e7)] = None
    """None: as in `command`."""
    scale: Annotated[PerJoint | None, Bounds(0.0001, 1e6)] = None
    """None: as in `command`."""
    ignore: tuple[str, ...] = ()
    """Joints of others on the same topic, for instance a gripper. Any other unknown joint is an error."""
    stamp: Literal["header", "arrival"] = "header"
    """`arrival` for drivers that leave the stamp empty."""
    qos: QosCfg = field(default_factory=lambda: QosCfg(reliability="best_effort", depth=10))
    """Quality of service of the topic; several messages deep, because hand and arm may share it."""
    plugin: str = ""
    """Entry point of the group dexgrasp_ros.state_readers, or module:Class; empty: a JointState topic."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values for the plugin."""

    def __post_init__(self) -> None:
        if self.offset_rad is not None and self.scale is not None:
            _check_offset("state", self.offset_rad, self.scale)


@dataclass(frozen=True)
@bounded
class StatusCfg:
    """State of the robot that its driver publishes; while it is not ready, nothing is sent."""

    topic: str
    """Topic of the state."""
    type: str
    """Type of its messages, package/msg/Name; the package must be installed."""
    ready: tuple[Any, ...]
    """Values with which the robot executes commands."""
    field: str = "data"
    """Field of the messages that holds the value."""

    def __post_init__(self) -> None:
        known = self.ready and all(isinstance(value, (bool, int, str)) for value in self.ready)
        if self.type.count("/") != 2 or not known:
            raise ValueError(
                f"a status needs `type: package/msg/Name` and `ready`, a list of whole numbers, texts, true or false; "
                f"got type {self.type} and ready {list(self.ready)}"
            )


@dataclass(frozen=True)
@bounded
class BaseCfg:
    """Measured base pose of an arm, which replaces the pose in its description."""

    pos_w: Annotated[Vector3, Bounds(-10, 10)]
    """[m]."""
    yaw_rad: Annotated[float, Bounds(-7, 7)]
    """About the vertical."""


@dataclass(frozen=True)
@bounded
class AdapterCfg:
    """One driver."""

    command: CommandCfg
    """Commands to the driver."""
    source: str
    """Source of the values in this file."""
    hand: str | None = None
    """The hand it moves, as in assets/hands."""
    arm: str | None = None
    """The arm it moves: a name in assets/arms, a folder with arm.yaml, an arm.yaml, an MJCF or a URDF, relative to this
    file; None with a hand, or with a Cartesian arm whose kinematics are unknown."""
    state: StateCfg | None = None
    """Joint states from the driver; None for an arm with a palm pose topic."""
    couplings: Mapping[str, Mapping[str, Annotated[float, Bounds(-1e6, 1e6)]]] = field(default_factory=dict)
    """Motors of `command.joints` that move several joints: motion of the motor per motion of each joint, which add up.
    Such a motor is read under its own name where `state.names` does not hold all of its joints."""
    base: BaseCfg | None = None
    """Base pose of an arm."""
    status: Mapping[str, StatusCfg] = field(default_factory=dict)
    """States of the robot by name, for instance its safety mode; watched on a real robot."""
    note: str = ""
    """Note for the operator."""

    def __post_init__(self) -> None:
        command = self.command
        if command.type in JOINT_TYPES and not (command.joints and self.state):
            raise ValueError(f"command.type {command.type} needs command.joints and state")
        if command.type in POSE_TYPES and (command.frame is None or command.joints or command.rate_hz):
            raise ValueError(f"command.type {command.type} needs command.frame, and neither joints nor rate_hz")
        if self.hand and (self.arm or command.type not in JOINT_TYPES):
            raise ValueError("a hand takes joint commands (command.type: " + ", ".join(JOINT_TYPES) + "); remove `arm`")
        _check_couplings(self.couplings, command)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all values that a joint test depends on, as canonical JSON without names of classes.

        Values that came later count where they are stated: records of earlier versions stay valid.
        """
        values = configs.as_dict(self)
        tested = {key: values[key] for key in ("command", "state", "hand", "arm", "base")}
        for part in (values, *filter(None, (values["command"], values["state"]))):
            for key in _LATER.intersection(part):
                if part is values and part[key]:
                    tested[key] = part[key]
                elif not part[key]:
                    del part[key]
        return hashlib.sha256(json.dumps(tested, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


_LATER = {"couplings", "max_effort", "plugin", "options"}
"""Keys without an effect on a driver that does not state them."""


def command_topic(cfg: AdapterCfg, preview: bool) -> str:
    """Return the command topic of a driver; with `preview` the one of a dry run."""
    topic = cfg.command.topic
    return f"{PREVIEW}/{topic.lstrip('/')}" if preview else topic


def _check_offset(part: str, offset: PerJoint, scale: PerJoint) -> None:
    """Raise ValueError for an offset of more than MOST_OFFSET_RAD, which is one of another unit than the scale."""
    if np.ndim(offset) and np.ndim(scale) and len(np.ravel(offset)) != len(np.ravel(scale)):
        return  # the joint map tells how many are expected
    if (np.abs(offset) > MOST_OFFSET_RAD * np.asarray(scale)).any():
        raise ValueError(
            f"{part}.offset_rad: {offset} is more than {MOST_OFFSET_RAD:g} rad at {part}.scale {scale}; it is in the "
            "driver's unit, of which scale make one radian"
        )


def _check_couplings(couplings: Mapping[str, Mapping[str, float]], command: CommandCfg) -> None:
    """Raise ValueError for couplings that name no motor of the command, or from which no motion follows."""
    if couplings and command.type not in JOINT_TYPES:
        raise ValueError(f"couplings are of joint commands, not of command.type {command.type}: remove them")
    for motor, ratios in couplings.items():
        if motor not in command.joints:
            raise ValueError(f"couplings: '{motor}' is not in command.joints {list(command.joints)}")
        if not ratios:
            raise ValueError(f"couplings.{motor} names no joint: expected joint of the contract: ratio")
        for joint, ratio in ratios.items():
            if not np.isfinite(ratio) or not LEAST_RATIO <= abs(ratio) <= MAX_RATIO:
                raise ValueError(
                    f"couplings.{motor}.{joint}: the ratio must have a magnitude of {LEAST_RATIO:g} to {MAX_RATIO:g}, "
                    f"got {ratio}"
                )
    joints = sorted({joint for ratios in couplings.values() for joint in ratios})
    matrix = np.array([[ratios.get(joint, 0.0) for joint in joints] for ratios in couplings.values()])
    if couplings and np.linalg.matrix_rank(matrix) < len(couplings):
        raise ValueError(
            f"couplings: the motions of {list(couplings)} depend on each other, so that the joints do not follow from "
            "the motors: expected as many independent combinations as motors"
        )


def load(kind: Kind, name: str, namespace: str = "/") -> AdapterCfg:
    """Return a driver description: a shipped one by name, any by its path, or that of the simulated robot.

    `sim:` before a hand or an arm stands for its driver in the simulated robot. Relative topics are resolved in
    `namespace`, so that hand and arm of one topic agree. Raises AdapterError.
    """
    cfg = _read(kind, name)
    return replace(
        cfg,
        command=replace(cfg.command, topic=_absolute(cfg.command.topic, namespace)),
        state=cfg.state and replace(cfg.state, topic=_absolute(cfg.state.topic, namespace)),
        status={name: replace(item, topic=_absolute(item.topic, namespace)) for name, item in cfg.status.items()},
    )


def _absolute(topic: str, namespace: str) -> str:
    return topic if topic.startswith("/") else f"{namespace.rstrip('/')}/{topic}"


def _read(kind: Kind, name: str) -> AdapterCfg:
    if name.startswith(SIMULATED):
        return _simulated(kind, name.removeprefix(SIMULATED))
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIG / kind / f"{name}.yaml"
    if not path.is_file():
        raise AdapterError(f"no {kind[:-1]} '{name}'; shipped: {', '.join(shipped(kind))}; or give the path of a .yaml")
    try:
        values = configs.read_plain(path)
        if not isinstance(values, dict):
            raise AdapterError(f"{path.name}: expected keys and values, got {values!r}")
        cfg = configs.from_dict(AdapterCfg, values, path.name)
    except yaml.YAMLError as error:
        raise AdapterError(f"{path.name} is not YAML: {error}") from error
    except configs.ConfigError as error:
        raise AdapterError(str(error)) from error
    if (kind == "hands") != (cfg.hand is not None):
        raise AdapterError(f"{path.name}: {'`hand` is missing' if kind == 'hands' else 'it describes a hand'}")
    if cfg.arm and (path.parent / cfg.arm.partition(":")[0]).exists():
        return replace(cfg, arm=str(path.parent / cfg.arm))
    return cfg


def _simulated(kind: Kind, place: str) -> AdapterCfg:
    """Return the driver of a hand or an arm in the simulated robot, whose joints have the names of its model."""
    from dexgrasp.sim.robots.arm import ArmSpec
    from dexgrasp.sim.robots.hand import HandSpec

    try:
        spec = HandSpec.load(place) if kind == "hands" else ArmSpec.load(place)
    except (OSError, ValueError) as error:
        raise AdapterError(str(error)) from error
    topic = SIMULATED_TOPICS[kind]
    motors = tuple(spec.motors.names) if isinstance(spec, HandSpec) else spec.joint_names
    return AdapterCfg(
        command=CommandCfg(type="joint_trajectory", topic=topic, joints=motors),
        source="sim_robot_node.py",
        hand=spec.name if kind == "hands" else None,
        arm=place if kind == "arms" else None,
        state=StateCfg(topic="joint_states", names={name: name for name in spec.joint_names}),
    )


def shipped(kind: Literal["hands", "arms"]) -> list[str]:
    """Names of the descriptions in config/."""
    return sorted(path.stem for path in (CONFIG / kind).glob("*.yaml"))

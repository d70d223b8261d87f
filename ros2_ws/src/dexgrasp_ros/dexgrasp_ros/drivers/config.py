"""Driver descriptions of hands and arms as YAML: topics, message types, joint order, signs, offsets.

    hand: allegro                                   name of the hand (`arm:` name, folder or model of the arm)
    source: origin of the values, for instance a manual
    command: {type: float64_array, topic: /c/commands, joints: [driver's names, driver's order], offset_rad: 0.0, ...}
    state:   {topic: /joint_states, names: {contract joint: driver joint}, ...}

Types of commands: float64_array, joint_trajectory and joint_state of joints; twist and pose of palm or flange.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from dexgrasp import configs
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp_ros import CONFIG, SIMULATED
from dexgrasp_ros.drivers.joint_mapping import PerJoint

JOINT_TYPES, POSE_TYPES = ("float64_array", "joint_trajectory", "joint_state"), ("twist", "pose")
SIMULATED_TOPICS = {
    "hands": "hand_controller/joint_trajectory",
    "arms": "scaled_joint_trajectory_controller/joint_trajectory",
}
"""Topics of the simulated robot's joint commands, by kind."""
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

    type: Literal["float64_array", "joint_trajectory", "joint_state", "twist", "pose"]
    """Type of the command messages."""
    topic: str
    """Topic of the commands."""
    joints: tuple[str, ...] = ()
    """The driver's names of the joints that have motors, in the driver's order; for joint commands only."""
    sign: Annotated[PerJoint, Bounds(-1, 1)] = 1.0
    """1 or -1, for all or for each of `joints`."""
    offset_rad: Annotated[PerJoint, Bounds(-10, 10)] = 0.0
    """Driver's joint position at position 0 of the contract."""
    scale: Annotated[PerJoint, Bounds(0.0001, 1e6)] = 1.0
    """Driver's units per radian."""
    rate_hz: Annotated[float | None, Bounds(1, 1000)] = None
    """Rate of joint commands, interpolated over each control period; None: once per control period."""
    frame: FrameCfg | None = None
    """Reference frame; for twist and pose commands."""
    gain_hz: Annotated[float, Bounds(0.01, 20)] = 4.0
    """Speed per remaining distance; for twist commands."""
    qos: QosCfg = field(default_factory=QosCfg)
    """Quality of service of the topic."""


@dataclass(frozen=True)
@bounded
class StateCfg:
    """Joint states from the driver: a JointState with joints matched by name."""

    topic: str
    """Topic of the joint states."""
    names: Mapping[str, str]
    """The driver's name of each joint of the contract; a coupled joint that is not reported is left out."""
    sign: Annotated[PerJoint | None, Bounds(-1, 1)] = None
    """1 or -1 in the order of `command.joints`, then of coupled joints in `names`; None: as in `command`."""
    offset_rad: Annotated[PerJoint | None, Bounds(-10, 10)] = None
    """None: as in `command`."""
    scale: Annotated[PerJoint | None, Bounds(0.0001, 1e6)] = None
    """None: as in `command`."""
    ignore: tuple[str, ...] = ()
    """Joints of others on the same topic, for instance a gripper. Any other unknown joint is an error."""
    stamp: Literal["header", "arrival"] = "header"
    """`arrival` for drivers that leave the stamp empty."""
    qos: QosCfg = field(default_factory=lambda: QosCfg(reliability="best_effort", depth=10))
    """Quality of service of the topic; several messages deep, because hand and arm may share it."""


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

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all values that a joint test depends on, as canonical JSON without names of classes."""
        values = configs.as_dict(self)
        tested = {key: values[key] for key in ("command", "state", "hand", "arm", "base")}
        return hashlib.sha256(json.dumps(tested, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


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

"""Drivers of hands and arms as YAML: topics, message types, joint order, signs, offsets, rates. Nothing is assumed.

    hand: allegro                                   whose joints the names below speak of (`arm:` for an arm)
    source: where the facts come from
    command: {type: float64_array, topic: /c/commands, joints: [driver's names, driver's order], offset_rad: 0.0, ...}
    state:   {topic: /joint_states, names: {contract joint: driver joint}, ...}

Types of commands: float64_array, joint_trajectory and joint_state of joints; twist and pose of palm or flange.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import yaml

from dexgrasp import configs
from dexgrasp_ros.drivers.joint_mapping import PerJoint

CONFIG = Path(__file__).resolve().parent / "config"
JOINT_TYPES, POSE_TYPES = ("float64_array", "joint_trajectory", "joint_state"), ("twist", "pose")
Vector3 = tuple[float, float, float]
Vector4 = tuple[float, float, float, float]


class AdapterError(ValueError):
    """A description of a driver that cannot be right; the text names file and key."""


@dataclass(frozen=True)
class QosCfg:
    """Quality of service of a topic."""

    reliability: Literal["reliable", "best_effort"] = "reliable"
    """Commands are reliable; sensors are read with best effort, which takes both."""
    durability: Literal["volatile", "transient_local"] = "volatile"
    """transient_local: who comes late gets the last message."""
    depth: int = 1
    """Messages kept."""


@dataclass(frozen=True)
class FrameCfg:
    """What a Cartesian controller moves, and in which frame it wants to be told."""

    id: str
    """frame_id of the messages."""
    link: Literal["palm", "flange"] = "flange"
    """The body that is commanded: the palm, or the hand base frame at the arm's flange."""
    pos_w: Vector3 = (0.0, 0.0, 0.0)
    """Where the frame stands in the world [m]."""
    quat_w: Vector4 = (1.0, 0.0, 0.0, 0.0)
    """Its orientation, wxyz."""


@dataclass(frozen=True)
class CommandCfg:
    """What is sent."""

    type: Literal["float64_array", "joint_trajectory", "joint_state", "twist", "pose"]
    """Kind of message."""
    topic: str
    """Where to."""
    joints: tuple[str, ...] = ()
    """The driver's names in the driver's order; of joint commands alone."""
    sign: PerJoint = 1.0
    """1 or -1, for all or for each of `joints`."""
    offset_rad: PerJoint = 0.0
    """What the driver calls the contract's 0."""
    scale: PerJoint = 1.0
    """Driver's units per radian."""
    rate_hz: float | None = None
    """Joint commands go out that often, interpolated over each control period; None: once per control period."""
    frame: FrameCfg | None = None
    """Of twist and pose."""
    gain_hz: float = 4.0
    """Of twist: speed per distance that is left."""
    qos: QosCfg = field(default_factory=QosCfg)
    """Of the topic."""


@dataclass(frozen=True)
class StateCfg:
    """What is read: a JointState whose joints are matched by name."""

    topic: str
    """Where from."""
    names: Mapping[str, str]
    """The driver's name of each joint of the contract."""
    sign: PerJoint | None = None
    """In the order of `command.joints`, or of `names` where there are none; None: as in `command`."""
    offset_rad: PerJoint | None = None
    """None: as in `command`."""
    scale: PerJoint | None = None
    """None: as in `command`."""
    ignore: tuple[str, ...] = ()
    """Joints of others on the same topic, for instance a gripper. Any other unknown joint is an error."""
    stamp: Literal["header", "arrival"] = "header"
    """`arrival` for drivers that leave the stamp empty."""
    qos: QosCfg = field(default_factory=lambda: QosCfg(reliability="best_effort", depth=10))
    """Of the topic; several messages deep, because hand and arm may share it."""


@dataclass(frozen=True)
class BaseCfg:
    """Where an arm really stands, instead of where its description says."""

    pos_w: Vector3
    """[m]."""
    yaw_rad: float
    """About the vertical."""


@dataclass(frozen=True)
class AdapterCfg:
    """One driver."""

    command: CommandCfg
    """What it is sent."""
    source: str
    """Where the facts come from."""
    hand: str | None = None
    """The hand it moves, as in assets/hands."""
    arm: str | None = None
    """The arm it moves, as in assets/arms; None with a hand, or with a Cartesian arm whose kinematics are unknown."""
    state: StateCfg | None = None
    """What it reports; None for an arm whose palm pose comes on a topic."""
    base: BaseCfg | None = None
    """Of an arm."""
    note: str = ""
    """What the one who starts it must know."""

    def __post_init__(self) -> None:
        command = self.command
        if command.type in JOINT_TYPES and not (command.joints and self.state):
            raise ValueError(f"command.type {command.type} needs command.joints and state")
        if command.type in POSE_TYPES and (command.frame is None or command.joints or command.rate_hz):
            raise ValueError(f"command.type {command.type} needs command.frame, and neither joints nor rate_hz")
        if self.hand and (self.arm or command.type not in JOINT_TYPES):
            raise ValueError("a hand is told joint positions, and is no arm")
        if command.rate_hz is not None and not 1.0 <= command.rate_hz <= 1000.0:
            raise ValueError(f"command.rate_hz must lie within 1 and 1000, got {command.rate_hz}")
        if not 0 < command.gain_hz <= 20:
            raise ValueError(f"command.gain_hz must lie within 0 and 20, got {command.gain_hz}")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all values that a joint test depends on, as canonical JSON without names of classes."""
        values = configs.as_dict(self)
        tested = {key: values[key] for key in ("command", "state", "hand", "arm", "base")}
        return hashlib.sha256(json.dumps(tested, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load(kind: Literal["hands", "arms"], name: str) -> AdapterCfg:
    """Return a shipped driver description by name, or any by the path of its YAML. Raises AdapterError."""
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
    return cfg


def shipped(kind: Literal["hands", "arms"]) -> list[str]:
    """Names of the descriptions in config/."""
    return sorted(path.stem for path in (CONFIG / kind).glob("*.yaml"))

"""Content of arm.yaml as typed dataclasses, and the places where arms are found."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from dexgrasp import assets
from dexgrasp.configs.loader import read_plain
from dexgrasp.configs.schema import build
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.text import did_you_mean, safe_name, shown

MODEL_SUFFIXES = (".xml", ".mjcf", ".urdf")
STATED = ("base", "tip")
"""Keys that may stand behind a path."""
EXPECTED = "a folder with arm.yaml, an arm.yaml, or an MJCF or URDF file"


@dataclass(frozen=True)
@bounded
class PlaceRow:
    """Base of an arm in the world, whose origin is the middle of the workspace on the table."""

    pos_w: Annotated[tuple[float, float, float], Bounds(-10.0, 10.0)]
    """Position [m]."""
    yaw_rad: Annotated[float, Bounds(-7.0, 7.0)]
    """Rotation about the vertical."""


@dataclass(frozen=True)
@bounded
class ArmJointRow:
    """One joint; values that it does not state are those of the model, or derived from it."""

    range: Annotated[tuple[float, float] | None, Bounds(-20.0, 20.0)] = None
    """Limits [rad]."""
    effort_limit: Annotated[float | None, Bounds(1e-3, 1e4)] = None
    """Largest torque [N m]."""
    speed_limit: Annotated[float | None, Bounds(1e-3, 1e2)] = None
    """Largest speed [rad/s]."""
    kp: Annotated[float | None, Bounds(1e-3, 1e7)] = None
    """Position gain [N m/rad]."""
    kd: Annotated[float | None, Bounds(1e-4, 1e6)] = None
    """Velocity gain [N m s/rad]."""
    armature: Annotated[float | None, Bounds(1e-9, 1e2)] = None
    """Inertia of the rotor, seen from the joint [kg m^2]."""
    home: Annotated[float | None, Bounds(-20.0, 20.0)] = None
    """Position with the palm over the middle of the workspace, facing down [rad]."""

    def __post_init__(self) -> None:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range must satisfy lower < upper, got {list(self.range)}")


@dataclass(frozen=True)
@bounded
class ArmFile:
    """Content of arm.yaml; `name` and `model` alone are required."""

    name: str
    """Name of the arm."""
    model: str
    """Path of the MJCF or URDF, relative to arm.yaml."""
    base: str = ""
    """Body that stands in the world; empty: the first above the tip."""
    tip: str = ""
    """Site or body whose frame is the hand base frame; empty: found by its name or place."""
    source: str = ""
    """Origin of the numbers."""
    place: PlaceRow | None = None
    """Base in the world; None: beside the workspace, at half of the arm's reach."""
    joints: Mapping[str, ArmJointRow] = field(default_factory=dict)
    """Joints with stated values."""

    def __post_init__(self) -> None:
        safe_name(self.name, "name")
        without = [name for name, row in self.joints.items() if row.home is None]
        if without and len(without) < len(self.joints):
            raise ValueError(f"joints: state `home` of all joints or of none; joint '{without[0]}' has none")


@dataclass(frozen=True)
class FoundArm:
    """Description of an arm and the files that it was read from."""

    content: ArmFile
    file: Path
    """arm.yaml, or the model itself."""
    model: Path

    @property
    def folder(self) -> Path:
        """Return the folder of the description, where capsules.json may lie."""
        return self.file.parent


def find_arm(mount: str) -> FoundArm:
    """Return the description of an arm by the name of a shipped one, a folder, an arm.yaml or a model.

    Behind a path may stand `:tip=NAME`, `:base=NAME` or `:base=NAME,tip=NAME`. Raises FileNotFoundError, ValueError.
    """
    text, stated = _split(mount)
    path, known = Path(text), assets.names("arms")
    if path.suffix.lower() in MODEL_SUFFIXES and path.is_file():
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem).strip("_") or "arm"
        content = ArmFile(name=name, model=path.name, base=stated.get("base", ""), tip=stated.get("tip", ""))
        return FoundArm(content, path, path)
    if path.is_dir() and (path / "arm.yaml").is_file():
        file = path / "arm.yaml"
    elif path.suffix in (".yaml", ".yml") and path.is_file():
        file = path
    elif text in known:
        file = assets.path(f"arms/{text}/arm.yaml")
    else:
        names = ["floating", *known]
        raise FileNotFoundError(
            f"mount {shown(text)} is unknown; expected one of {names}, {EXPECTED}.{did_you_mean(text, names)}"
        )
    values = read_plain(file)
    content = build(ArmFile, {**values, **stated} if isinstance(values, dict) else values, str(file))
    model = file.parent / content.model
    if not model.is_file():
        raise FileNotFoundError(
            f"{file}: 'model' names {model}, which is no file; expected the MJCF or URDF of the arm"
        )
    return FoundArm(content, file, model)


def check_arm(mount: str) -> None:
    """Raise an error where `mount` is neither `floating` nor an arm that is found."""
    if mount != "floating":
        find_arm(mount)


def _split(mount: str) -> tuple[str, dict[str, str]]:
    """Return the path or name, and base and tip where they stand behind it."""
    text, colon, rest = mount.rpartition(":")
    if not colon or Path(mount).exists():
        return mount, {}
    pairs: dict[str, str] = {}
    for part in rest.split(","):
        key, _, pairs[key] = part.partition("=")
    if not all(key in STATED and value for key, value in pairs.items()):
        raise ValueError(f"mount {shown(mount)}: behind a path, expected :base=NAME, :tip=NAME or :base=NAME,tip=NAME")
    return text, pairs

"""Text of a hand.yaml with the comments that explain its sections."""

import os
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.hand_file import HandFile, read_hand_file

COMMENTS = {
    "model": "MJCF or URDF: a path relative to this file, or menagerie:NAME",
    "frozen": "joints of the model that the hand does not have, with their positions",
    "coupled": "joints that follow others, beside those that the model couples",
    "root": "body whose frame is the hand base frame",
    "palm": "palm frame in the hand base frame: +x normal_b, +z finger_b [m]",
    "actuation": "of every joint: N m, rad/s, N m/rad, N m s/rad, N m s/rad, kg m^2; a joint may override any of these",
    "joints": "radians; open: pose at the pre-grasp, closing: rad per unit; a pair is [power grasp, pinch grasp]",
    "keypoints": "site: weight in the distance features, or {weight, body, pos} to add the site",
    "contact_bodies": "body: weight in the rewards of contact; the palm first",
    "exclude": "pairs of bodies whose parts overlap in the model: they do not collide with each other",
    "thumb_bodies": "contact bodies of the thumb",
    "grasp": "object at the pre-grasp, palm frame [m]; a pair is [power grasp, pinch grasp]; finger_m: half a finger",
}
"""Comment of a key of hand.yaml."""


def hand_yaml_text(hand: HandFile) -> str:
    """Return the YAML text of a hand description; keys that are None or empty are left out."""
    lines = ["# Everything about the hand that is not geometry or inertia."]
    for item in fields(hand):
        value = _plain(getattr(hand, item.name))
        if value is None or value == {} or value == []:
            continue
        comment = f"  # {COMMENTS[item.name]}" if item.name in COMMENTS else ""
        if isinstance(value, dict):
            lines += ["", f"{item.name}:{comment}", *(f"  {_flow(key)}: {_flow(row)}" for key, row in value.items())]
        else:
            lines.append(f"{item.name}: {_flow(value)}{comment}")
    return "\n".join(lines) + "\n"


def with_styles(file: Path, hand: HandSpec, styles: Mapping[str, GraspStyle], folder: Path) -> HandFile:
    """Return the content of a hand.yaml with other grasp styles, for a hand.yaml in `folder`.

    `hand`: what the file describes.
    """
    stated = read_hand_file(file)
    power, pinch = styles["power"], styles["pinch"]

    def pair(name: str, index: int | None = None) -> tuple[float, float]:
        high, low = (getattr(style, name) if index is None else getattr(style, name)[index] for style in (power, pinch))
        return (round(float(high), 4), round(float(low), 4))

    joints = dict(stated.joints)
    for motor, name in enumerate(hand.motors.names):
        joint = hand.joint_names.index(name)
        joints[name] = replace(joints[name], open=pair("open_pose", joint), closing=pair("closing", motor))
    lengths = ("offset_y_m", "offset_z_m", "gap_m", "floor_m")
    grasp = replace(stated.grasp, **{name: pair(name) for name in lengths})
    path = file.parent / stated.model
    model = os.path.relpath(path, folder) if path.is_file() else stated.model
    return replace(stated, model=model, joints=joints, grasp=grasp)


def _plain(value: Any) -> Any:
    """Return a value of a hand description as YAML knows it, without fields that are None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: _plain(item) for key, item in asdict(value).items() if item is not None}
    if isinstance(value, Mapping):
        rows = {str(key): _plain(item) for key, item in value.items()}
        return {
            key: row["weight"] if isinstance(row, dict) and set(row) == {"weight"} else row for key, row in rows.items()
        }
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _flow(value: Any) -> str:
    """Return a value in YAML's flow style, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1_000_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")

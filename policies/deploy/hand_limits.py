"""Limits and kinematics of a known hand, which a bundle must keep to.

Read from hand.yaml and the contract of its shipped policy. Needs no simulator.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dexgrasp import assets
from dexgrasp.policies.deploy.contract import HandContract
from dexgrasp.utils.readers import read_json_object, read_yaml, reading

TOLERANCE = 1e-6
"""Difference of a limit that is rounding [rad, rad/s, N m]."""
KINEMATICS_TOLERANCE = 1e-4
"""Difference of a position [m] or a component of a unit vector that is rounding."""


def is_known_hand(name: str) -> bool:
    """Return whether this machine has a description of a hand, in assets/hands."""
    return name in assets.names("hands")


def exceeded_limit(hand: HandContract, hand_file: str | Path | None = None) -> str:
    """Return which limit of a bundle exceeds that of the hand, with both values; empty where none does.

    `hand_file`: hand.yaml of the hand, in place of the one in assets/hands. Without either there is no description to
    compare with: the result is empty. Raises DamagedFileError, OSError.
    """
    if reason := _mistaken_name(hand.name):
        return reason
    if hand_file is None and not is_known_hand(hand.name):
        return ""
    file = str(hand_file or f"assets/hands/{hand.name}/hand.yaml")
    name, known = _limits(Path(hand_file) if hand_file else assets.path(f"hands/{hand.name}/hand.yaml"))
    if name != hand.name:
        return f"hand.name is '{hand.name}', {file} describes '{name}'"
    if tuple(known) != hand.joint_names:
        return f"hand.joint_names are {list(hand.joint_names)}, {file} has {list(known)}"
    if (coupled := {joint for joint, limits in known.items() if "kp_nm_rad" not in limits}) != set(hand.coupled):
        return f"hand.coupled holds {sorted(hand.coupled)}, {file} has {sorted(coupled)}"
    for joint, limits in known.items():
        for key, (sign, limit) in limits.items():
            names = hand.joint_names if key.startswith("joint_") else hand.motors.names
            i = names.index(joint)
            stated = getattr(hand, key)[i]
            if sign * (stated - limit) > TOLERANCE:
                return f"hand.{key}[{i}] ({joint}) is {stated}, {file} allows {limit}"
    return ""


def differing_kinematics(hand: HandContract) -> str:
    """Return which part of the kinematics differs from the hand's shipped policy, or an empty text.

    That of the other side is the reflection (y -> -y). A hand without a shipped policy has nothing to compare with.
    """
    known = _kinematics(hand.name)
    if known is None:
        return ""
    mirrored = hand.side != known["side"]
    owner = f"the {hand.side} {hand.name}"
    for key, own in (("palm_pos_b", known["palm_pos_b"]), ("palm_quat_b", known["palm_quat_b"])):
        expected = _reflected(key, own) if mirrored else own
        if _differs(getattr(hand, key), expected, is_quat=key == "palm_quat_b"):
            return f"hand.{key} is {list(getattr(hand, key))}, that of {owner} is {expected}"
    for key in ("body_names", "parent", "joint_of_body"):
        if list(getattr(hand.kinematics, key)) != known["kinematics"][key]:
            return f"hand.kinematics.{key} differs from that of {owner}"
    for key in ("pos", "quat", "axis"):
        for i, (stated, own) in enumerate(zip(getattr(hand.kinematics, key), known["kinematics"][key], strict=True)):
            expected = _reflected(key, own) if mirrored else own
            if _differs(stated, expected, is_quat=key == "quat"):
                return f"hand.kinematics.{key}[{i}] is {list(stated)}, that of {owner} is {expected}"
    return ""


_REFLECTION = {"pos": (1.0, -1.0, 1.0), "quat": (1.0, -1.0, 1.0, -1.0), "axis": (-1.0, 1.0, -1.0)}
"""Factors under y -> -y; with its axis turned about, a mirrored hinge takes the same joint values."""


def _reflected(key: str, vector: Sequence[float]) -> list[float]:
    factors = _REFLECTION[key.removeprefix("palm_").removesuffix("_b")]
    return [factor * value + 0.0 for factor, value in zip(factors, vector, strict=True)]


def _differs(stated: Sequence[float], known: Sequence[float], is_quat: bool) -> bool:
    """Return whether two vectors differ; a quaternion and its negative are equal."""
    one, other = np.array(stated), np.array(known)
    off = np.abs(one - other).max()
    return bool(min(off, np.abs(one + other).max()) > KINEMATICS_TOLERANCE if is_quat else off > KINEMATICS_TOLERANCE)


def _mistaken_name(name: str) -> str:
    """Return that a name is a known hand's but for case, blanks and strokes, or holds foreign letters; or empty."""
    if not (name.isascii() and name.isprintable()):
        return f"hand.name must be of printable ASCII characters, got {name!a}"
    for known in assets.names("hands"):
        if name != known and _letters(name) == _letters(known):
            return f"hand.name is '{name}', the known hand is '{known}'"
    return ""


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


@cache
def _kinematics(name: str) -> dict[str, Any] | None:
    """Return the section `hand` of a contract that is shipped for a hand, or None."""
    if not is_known_hand(name):
        return None
    contracts = sorted(assets.ROOT.glob(f"policies/{name}/*/bundle/contract.json"))
    return read_json_object(contracts[0])["hand"] if contracts else None


@cache
def _limits(file: Path) -> tuple[str, dict[str, dict[str, tuple[int, float]]]]:
    """Return the name in a hand.yaml, and per joint the limits under the keys of the contract.

    Sign +1: upper limits, -1: lower limits.
    """
    with reading(file, "description of a hand"):
        text: dict[str, Any] = read_yaml(file)
        joints = {joint: _joint_limits(text["actuation"], row or {}) for joint, row in text["joints"].items()}
        return str(text["name"]), joints


def _joint_limits(actuation: dict[str, Any], row: dict[str, Any]) -> dict[str, tuple[int, float]]:
    """Return the limits of one joint; a coupled joint, whose row has no `closing`, has those of its range alone."""
    limits = {}
    if "range" in row:
        lower, upper = row["range"]
        limits = {"joint_lower_rad": (-1, float(lower)), "joint_upper_rad": (1, float(upper))}
    if "closing" not in row:
        return limits
    values = actuation | row
    return limits | {
        "effort_limit_nm": (1, float(values["effort_limit"])),
        "speed_limit_rad_s": (1, float(values["speed_limit"])),
        "kp_nm_rad": (-1, float(values["kp"]) / 10),  # weak servos make the safety gate's lead large
    }

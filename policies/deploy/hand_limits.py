"""Limits of a known hand, read from its hand.yaml; a bundle must not exceed them. Needs no simulator."""

from functools import cache
from typing import Any

from dexgrasp import assets
from dexgrasp.policies.deploy.contract import HandContract
from dexgrasp.utils.readers import read_yaml

TOLERANCE = 1e-6
"""Difference of a limit that is rounding [rad, rad/s, N m]."""


def exceeded_limit(hand: HandContract) -> str:
    """Return which limit of a bundle exceeds that of the hand, with both values; empty where none does.

    A hand that is not in assets/hands has no description to compare with: the result is empty.
    """
    if hand.name not in assets.names("hands"):
        return ""
    known, file = _limits(hand.name), f"assets/hands/{hand.name}/hand.yaml"
    if tuple(known) != hand.joint_names:
        return f"hand.joint_names are {list(hand.joint_names)}, {file} has {list(known)}"
    for i, (joint, limits) in enumerate(known.items()):
        for key, (sign, limit) in limits.items():
            stated = getattr(hand, key)[i]
            if sign * (stated - limit) > TOLERANCE:
                return f"hand.{key}[{i}] ({joint}) is {stated}, {file} allows {limit}"
    return ""


@cache
def _limits(name: str) -> dict[str, dict[str, tuple[int, float]]]:
    """Return per joint the limits under the keys of the contract; sign +1: upper limits, -1: lower limits."""
    text: dict[str, Any] = read_yaml(assets.path(f"hands/{name}/hand.yaml"))
    joints = {joint: text["actuation"] | values for joint, values in text["joints"].items()}
    return {
        joint: {
            "joint_lower_rad": (-1, float(values["range"][0])),
            "joint_upper_rad": (1, float(values["range"][1])),
            "effort_limit_nm": (1, float(values["effort_limit"])),
            "speed_limit_rad_s": (1, float(values["speed_limit"])),
        }
        for joint, values in joints.items()
    }

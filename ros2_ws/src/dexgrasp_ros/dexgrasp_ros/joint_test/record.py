"""Record of a passed joint test; without it no policy runs on a real robot."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dexgrasp.utils.readers import read_json
from dexgrasp_ros.drivers.config import AdapterCfg

VERSION = 2
_V1_FIELDS = {
    "QosCfg": ("reliability", "durability", "depth"),
    "FrameCfg": ("id", "link", "pos_w", "quat_w"),
    "CommandCfg": ("type", "topic", "joints", "sign", "offset_rad", "scale", "rate_hz", "frame", "gain_hz", "qos"),
    "StateCfg": ("topic", "names", "sign", "offset_rad", "scale", "ignore", "stamp", "qos"),
    "BaseCfg": ("pos_w", "yaw_rad"),
}
"""Classes and fields of a driver description when records of version 1 were written. Frozen: never rename these."""
_V1_NESTED = {"qos": "QosCfg", "frame": "FrameCfg"}


def record_path(hand: str) -> Path:
    """Return the default file of the record for a hand driver."""
    folder = Path(os.environ.get("ROS_HOME") or Path.home() / ".ros")
    return folder / "dexgrasp_ros" / f"wave_{Path(hand).stem}.json"


def write_record(path: Path, cfg: AdapterCfg, joints: Sequence[str]) -> None:
    """Write the record that these joints of the contract passed with this driver."""
    content = {
        "version": VERSION,
        "fingerprint": cfg.fingerprint,
        "joints": list(joints),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_record(path: Path, cfg: AdapterCfg, joints: Sequence[str]) -> str:
    """Return why the record does not allow a policy to run, or an empty text."""
    remedy = "run the joint test (ros2 run dexgrasp_ros joint_test_node) first"
    try:
        content = read_json(path)
        if content["version"] not in (1, VERSION):
            return f"the joint test recorded in {path} has version {content['version']!r}, not {VERSION}: {remedy}"
        missing = [name for name in joints if name not in content["joints"]]
        same = content["fingerprint"] == (fingerprint_v1(cfg) if content["version"] == 1 else cfg.fingerprint)
    except FileNotFoundError:
        return f"no joint test of this hand is recorded in {path}: {remedy}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"the joint test recorded in {path} cannot be read ({error}): {remedy}"
    if not same:
        return f"the driver description of the hand has changed since the joint test recorded in {path}: {remedy}"
    return f"the joint test recorded in {path} did not include {missing}: {remedy}" if missing else ""


def fingerprint_v1(cfg: AdapterCfg) -> str:
    """Return the fingerprint that records of version 1 hold: SHA-256 of the `repr` of that time's classes.

    Such a record stays valid, because it covers every value that the fingerprint of version 2 covers.
    """
    parts = (
        _repr_v1("CommandCfg", cfg.command),
        _repr_v1("StateCfg", cfg.state),
        repr(cfg.hand),
        repr(cfg.arm),
        _repr_v1("BaseCfg", cfg.base),
    )
    return hashlib.sha256(f"({', '.join(parts)})".encode()).hexdigest()


def _repr_v1(name: str, value: Any) -> str:
    if value is None:
        return "None"
    pairs = ((key, getattr(value, key)) for key in _V1_FIELDS[name])
    words = [f"{key}={_repr_v1(_V1_NESTED[key], item) if key in _V1_NESTED else repr(item)}" for key, item in pairs]
    return f"{name}({', '.join(words)})"

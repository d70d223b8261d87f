"""Record of a passed joint test; without it no policy runs on a real robot."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from dexgrasp_ros.adapter_cfg import AdapterCfg

VERSION = 1


def stamp_path(hand: str) -> Path:
    """Return the default file of the record for a hand driver."""
    folder = Path(os.environ.get("ROS_HOME") or Path.home() / ".ros")
    return folder / "dexgrasp_ros" / f"wave_{Path(hand).stem}.json"


def write_stamp(path: Path, cfg: AdapterCfg, joints: Sequence[str]) -> None:
    """Write the record that these joints of the contract passed with this driver."""
    content = {
        "version": VERSION,
        "fingerprint": cfg.fingerprint,
        "joints": list(joints),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_stamp(path: Path, cfg: AdapterCfg, joints: Sequence[str]) -> str:
    """Return why the record does not allow a policy to run, or an empty text."""
    remedy = "run the joint test (ros2 run dexgrasp_ros joint_test_node) first"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            return f"the joint test recorded in {path} is of another version: {remedy}"
        missing = [name for name in joints if name not in content["joints"]]
        same = content["fingerprint"] == cfg.fingerprint
    except FileNotFoundError:
        return f"no joint test of this hand is recorded in {path}: {remedy}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"the joint test recorded in {path} cannot be read ({error}): {remedy}"
    if not same:
        return f"the driver description of the hand has changed since the joint test recorded in {path}: {remedy}"
    return f"the joint test recorded in {path} did not include {missing}: {remedy}" if missing else ""

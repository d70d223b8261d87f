"""`python -m dexgrasp.sim.robots.capsule_files FOLDER ...`: writes capsules.json beside the hand.yaml or arm.yaml of each folder.

A robot reads it to know its own body in the camera's image without a simulator; see perception/robot_body.py.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from dexgrasp.perception.robot_body import FILE
from dexgrasp.sim.robots.capsules import body_sticks
from dexgrasp.sim.robots.hand import HandSpec, kinematics_of
from dexgrasp.sim.robots.hand_files import SIDES
from dexgrasp.sim.robots.mount import ArmSpec

DIGITS = 7
"""Of metres: a tenth of a micrometre."""


def hand_capsules(folder: Path) -> dict[str, Any]:
    """What capsules.json holds of a hand."""
    for side in SIDES:
        hand = HandSpec.load(folder, side)
        if not hand.mirrored:
            model = hand.to_mjspec().compile()
            return {"side": side, "solid": _capsules(model, 2), "outline": _capsules(model, 1)}
    raise ValueError(f"{folder}: neither the right nor the left hand is that of the file")


def arm_capsules(name: str) -> dict[str, Any]:
    """What capsules.json holds of an arm."""
    arm = ArmSpec.load(name)
    model = arm.to_mjspec().compile()
    kinematics, flange = kinematics_of(model, arm.joint_names, [arm.flange]), model.site(arm.flange)
    return {
        "joint_names": list(arm.joint_names),
        "kinematics": kinematics.to_dict(),
        "base": {"pos_w": model.body_pos[1].tolist(), "quat_w": model.body_quat[1].tolist()},
        "flange": {
            "body": model.body(flange.bodyid[0]).name,
            "pos": flange.pos.tolist(),
            "quat": flange.quat.tolist(),
        },
        "solid": _capsules(model, 2),
    }


def _capsules(model: mujoco.MjModel, layers: int) -> dict[str, list[Any]]:
    rows = [(model.body(model.geom_bodyid[i]).name, *stick) for i in range(model.ngeom)
            for stick in body_sticks(model, i, layers)]  # fmt: skip
    body, start, end, radius = (list(column) for column in zip(*rows, strict=True))
    ends = {name: np.round(np.stack(rows), DIGITS).tolist() for name, rows in (("start", start), ("end", end))}
    return {"body": body, **ends, "radius_m": np.round(radius, DIGITS).tolist()}


def write(folder: Path) -> Path:
    """Write the file of a hand or an arm; returns its path."""
    if (folder / "hand.yaml").is_file():
        values = hand_capsules(folder)
    elif (folder / "arm.yaml").is_file():
        values = arm_capsules(folder.name)
    else:
        raise FileNotFoundError(f"{folder} holds no hand.yaml and no arm.yaml")
    text = json.dumps(values, separators=(",", ":"))
    (folder / FILE).write_text(text.replace('],"', '],\n"').replace('},"', '},\n"') + "\n", encoding="utf-8")
    return folder / FILE


def main(folders: Sequence[str]) -> int:
    """Writes the files of these folders."""
    if not folders:
        print(__doc__, file=sys.stderr)
        return 2
    for folder in folders:
        print(write(Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

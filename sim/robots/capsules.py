"""Capsules around the geoms that cameras see: hand for the training camera, robot for self-filtering.

`python -m dexgrasp.sim.robots.capsules FOLDER ...` writes capsules.json beside the hand.yaml or arm.yaml of each
folder, for `perception/robot_mask.py`, which needs no simulator.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch

from dexgrasp.perception.occlusion import HandCapsules, HandOcclusion
from dexgrasp.perception.robot_mask import FILE, Capsules
from dexgrasp.perception.transforms import invert
from dexgrasp.sim.robots.arm import ArmSpec, CarriedHand
from dexgrasp.sim.robots.hand import SIDES, HandSpec, kinematics_of
from dexgrasp.sim.robots.sticks import body_sticks, geom_sticks

DIGITS = 7
"""Decimals of a metre: a tenth of a micrometre."""


def hand_shape(hand: HandSpec) -> HandCapsules:
    """Return capsules around the geoms of a hand that cameras see, in float32."""
    model = hand.to_mjspec().compile()
    kinematics = hand.kinematics()
    sticks = [(model.geom_bodyid[i] - 1, *stick) for i in visible_geoms(model) for stick in body_sticks(model, i)]
    body, start, end, radius = zip(*sticks, strict=True)
    return HandCapsules(
        kinematics=kinematics,
        body=tuple(int(number) for number in body),
        start=torch.from_numpy(np.stack(start)).float(),
        end=torch.from_numpy(np.stack(end)).float(),
        radius_m=torch.tensor(radius, dtype=torch.float32),
    )


def hand_occlusion(hand: HandSpec, margin_m: float) -> HandOcclusion:
    """Return the occlusion model of a hand enlarged by `margin_m` [m]."""
    base_in_palm = invert(torch.tensor(hand.palm_pos_b), torch.tensor(hand.palm_quat_b))
    return HandOcclusion(hand_shape(hand), base_in_palm, margin_m)


def visible_geoms(model: mujoco.MjModel) -> list[int]:
    """Return the geoms that cameras see: on bodies with visual geoms, the colliders are transparent."""
    return [i for i in range(model.ngeom) if model.geom_rgba[i, 3] > 0]


def robot_capsules(model: mujoco.MjModel, data: mujoco.MjData, geoms: Sequence[int]) -> Capsules:
    """Return capsules around the geoms `geoms` at the poses in `data`, world frame.

    Box corners stand out by 0.2 of a side.
    """
    sticks = [(i, *stick) for i in geoms for stick in geom_sticks(model, i, layers=2)]
    place = [(data.geom_xpos[i], data.geom_xmat[i].reshape(3, 3)) for i, *_ in sticks]
    ends = np.array([[p + R @ a, p + R @ b] for (p, R), (_, a, b, _) in zip(place, sticks, strict=True)])
    ends = ends.reshape(-1, 2, 3)
    return Capsules(ends[:, 0], ends[:, 1], np.array([radius for *_, radius in sticks]))


def hand_capsules(folder: Path) -> dict[str, Any]:
    """Return the contents of capsules.json for a hand."""
    for side in SIDES:
        hand = HandSpec.load(folder, side)
        if not hand.mirrored:
            model = hand.to_mjspec().compile()
            return {"side": side, "solid": _capsules(model, 2), "outline": _capsules(model, 1)}
    raise ValueError(f"{folder}: neither the right nor the left hand is that of the file")


def arm_capsules(mount: str, hand: CarriedHand | None = None) -> dict[str, Any]:
    """Return the contents of capsules.json for an arm, which carries `hand`."""
    arm = ArmSpec.load(mount, hand)
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
    rows = [(model.body(model.geom_bodyid[i]).name, *stick) for i in visible_geoms(model)
            for stick in body_sticks(model, i, layers)]  # fmt: skip
    body, start, end, radius = (list(column) for column in zip(*rows, strict=True))
    ends = {name: np.round(np.stack(rows), DIGITS).tolist() for name, rows in (("start", start), ("end", end))}
    return {"body": body, **ends, "radius_m": np.round(radius, DIGITS).tolist()}


def write(folder: Path) -> Path:
    """Write capsules.json of a hand or an arm; return its path."""
    if (folder / "hand.yaml").is_file():
        values = hand_capsules(folder)
    elif (folder / "arm.yaml").is_file():
        values = arm_capsules(str(folder))
    else:
        raise FileNotFoundError(f"{folder} holds no hand.yaml and no arm.yaml")
    text = json.dumps(values, separators=(",", ":"))
    (folder / FILE).write_text(text.replace('],"', '],\n"').replace('},"', '},\n"') + "\n", encoding="utf-8")
    return folder / FILE


def main(folders: Sequence[str]) -> int:
    """Write capsules.json of each folder."""
    if not folders:
        print(__doc__, file=sys.stderr)
        return 2
    for folder in folders:
        print(f"written: {write(Path(folder))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Removal of the robot's own body from the points of the camera.

Hands and arms are modelled by capsules, read from `capsules.json`:

hand   {"side": "right", "solid": CAPSULES, "outline": CAPSULES}
arm    {"joint_names": [...], "kinematics": {...}, "base": {"pos_w", "quat_w"}, "flange": {"body", "pos", "quat"},
        "solid": CAPSULES}
CAPSULES = {"body": [name, ...], "start": [[x, y, z], ...], "end": [[x, y, z], ...], "radius_m": [r, ...]}, each in the
frame of its body. `solid` contains the corners of the links, for removal; `outline` is rounder, for occlusion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexgrasp.perception.kinematics import Kinematics
from dexgrasp.perception.occlusion import HandCapsules, HandOcclusion
from dexgrasp.perception.transforms import compose, invert
from dexgrasp.utils.number_arrays import finite_vector, number_array
from dexgrasp.utils.readers import read_json_object, reading
from dexgrasp.utils.text import one_line

FILE = "capsules.json"
LARGEST_M = 10.0
"""Largest coordinate and radius of a capsule."""
MIRROR = (1.0, -1.0, 1.0)
"""Factors of a position that turn a right hand's into a left hand's."""


@dataclass(frozen=True)
class Capsules:
    """Capsules around the links of hand and arm, at their present poses."""

    start_w: NDArray[np.floating]
    """(capsule, 3) one end of the axis, world frame [m]."""
    end_w: NDArray[np.floating]
    """(capsule, 3) the other end."""
    radius_m: NDArray[np.floating]
    """(capsule,)"""

    def __post_init__(self) -> None:
        count = len(self.radius_m)
        if np.shape(self.start_w) != (count, 3) or np.shape(self.end_w) != (count, 3):
            shapes = f"{np.shape(self.start_w)}, {np.shape(self.end_w)}, {np.shape(self.radius_m)}"
            raise ValueError(f"capsules are start_w (c, 3), end_w (c, 3) and radius_m (c,), got {shapes}")
        if not all(np.isfinite(part).all() for part in (self.start_w, self.end_w, self.radius_m)):
            raise ValueError("capsules must be finite: is a joint reading missing?")

    def contain(self, points_w: NDArray[np.float32], margin_m: float) -> NDArray[np.bool_]:
        """Return the mask (n,) of the points (3, n) within the capsules enlarged by `margin_m`."""
        if not points_w.shape[1]:
            return np.zeros(0, bool)
        centre = points_w.mean(axis=1, keepdims=True)  # squares of small numbers lose little
        points = points_w - centre
        start, axis = (ends.astype(np.float32) for ends in (self.start_w - centre.T, self.end_w - self.start_w))
        along = axis @ points - (axis * start).sum(axis=1)[:, None]
        length = np.maximum((axis**2).sum(axis=1), 1e-12)[:, None]
        part = np.clip(along / length, 0.0, 1.0)
        square = (points**2).sum(axis=0) - 2 * (start @ points) + (start**2).sum(axis=1)[:, None]
        square += part * (part * length - 2 * along)
        return (square < ((self.radius_m + margin_m) ** 2).astype(np.float32)[:, None]).any(axis=0)


@dataclass(frozen=True, eq=False)
class HandBody:
    """Capsule model of a hand, posed by its palm and joints."""

    solid: HandCapsules
    base_in_palm: tuple[Tensor, Tensor]
    """Pose of the hand's base in the palm frame, (3,) [m] and (4,)."""
    outline: HandCapsules

    def capsules(self, palm_pos_w: Tensor, palm_quat_w: Tensor, joint_pos: Tensor) -> Capsules:
        """Return the capsules for a palm pose (3,) [m], (4,) and joint positions (joint,) [rad]."""
        base = compose(palm_pos_w, palm_quat_w, *self.base_in_palm)
        return _placed(self.solid, *base, joint_pos)

    def palm(self, base_pos_w: Tensor, base_quat_w: Tensor) -> tuple[Tensor, Tensor]:
        """Return the palm pose, (3,) [m] and (4,), for a pose of the hand's base."""
        return compose(base_pos_w, base_quat_w, *invert(*self.base_in_palm))

    def occlusion(self, margin_m: float) -> HandOcclusion:
        """Return the occlusion by the hand, enlarged by `margin_m`."""
        return HandOcclusion(self.outline, self.base_in_palm, margin_m)


@dataclass(frozen=True, eq=False)
class ArmBody:
    """Capsule model of an arm, posed by its joints."""

    joint_names: tuple[str, ...]
    solid: HandCapsules
    base: tuple[Tensor, Tensor]
    """Pose of the arm's base in the world, (3,) [m] and (4,)."""
    last: int
    """Index of the body that carries the flange."""
    flange: tuple[Tensor, Tensor]
    """Pose of the flange (= hand base frame) in the body `last`."""

    def capsules(self, joint_pos: Tensor) -> Capsules:
        """Return the capsules at joint positions (joint,) [rad]."""
        return _placed(self.solid, *self.base, joint_pos)

    def hand_base(self, joint_pos: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hand base pose, world frame, (3,) [m] and (4,), at joint positions (joint,) [rad]."""
        pos, quat = self.solid.kinematics.forward(*(value.float() for value in (*self.base, joint_pos)))
        return compose(pos[self.last].double(), quat[self.last].double(), *self.flange)


def join_capsules(parts: Sequence[Capsules]) -> Capsules:
    """Return the capsules of all parts."""
    return Capsules(
        start_w=np.concatenate([part.start_w for part in parts]),
        end_w=np.concatenate([part.end_w for part in parts]),
        radius_m=np.concatenate([part.radius_m for part in parts]),
    )


def read_hand_body(
    folder: str | Path,
    *,
    side: str,
    kinematics: Mapping[str, Any],
    palm_pos_b: Sequence[float],
    palm_quat_b: Sequence[float],
) -> HandBody:
    """Return the body of a bundle's hand from the hand's folder or a capsules.json.

    The keyword arguments come from the bundle's contract.
    """
    file, values = _read(folder, ("side", "solid", "outline"))
    tree = Kinematics.from_dict(kinematics)
    base_in_palm = invert(*_pose(palm_pos_b, palm_quat_b))
    with reading(file, "file of capsules"):
        mirror = torch.tensor(MIRROR if values["side"] != side else (1.0, 1.0, 1.0))
        solid, outline = (_shape(f"{file}: {name}", values[name], tree, mirror) for name in ("solid", "outline"))
    return HandBody(solid, base_in_palm, outline)


def read_arm_body(folder: str | Path, base: tuple[Tensor, Tensor] | None = None) -> ArmBody:
    """Return the body of an arm from its folder or a capsules.json.

    `base` replaces the pose of the arm's base in the world.
    """
    file, values = _read(folder, ("joint_names", "kinematics", "base", "flange", "solid"))
    return arm_body_of(values, file, base)


def arm_body_of(values: Mapping[str, Any], file: str | Path, base: tuple[Tensor, Tensor] | None = None) -> ArmBody:
    """Return the body of an arm from the content of its capsules.json; `file`: its origin, for errors.

    `base` replaces the pose of the arm's base in the world.
    """
    with reading(file, "file of capsules"):
        kinematics, flange, place = _arm_tree(file, values["kinematics"]), values["flange"], values["base"]
        if flange["body"] not in kinematics.body_names:
            raise ValueError(f"{file}: flange.body must be one of {list(kinematics.body_names)}")
        stated = _stated_pose(f"{file}: base", place["pos_w"], place["quat_w"])
        return ArmBody(
            joint_names=tuple(values["joint_names"]),
            solid=_shape(f"{file}: solid", values["solid"], kinematics, torch.ones(3)),
            base=base or stated,
            last=kinematics.body_names.index(flange["body"]),
            flange=_stated_pose(f"{file}: flange", flange["pos"], flange["quat"]),
        )


def _arm_tree(file: str | Path, values: Mapping[str, Any]) -> Kinematics:
    try:
        return Kinematics.from_dict(values)
    except (ValueError, RuntimeError) as error:  # lists of unequal length, text among numbers
        raise ValueError(f"{file}: kinematics: {one_line(error, 200)}") from error


def _stated_pose(name: str, pos: Any, quat: Any) -> tuple[Tensor, Tensor]:
    """Return position and quaternion of a file. Raises ValueError unless they are those of a pose."""
    sized = (finite_vector(pos, 3), finite_vector(quat, 4))
    if sized[0] is None or sized[1] is None or not 0.9 < np.linalg.norm(sized[1]) < 1.1:
        raise ValueError(f"{name}: expected a position of 3 numbers and a quaternion wxyz of unit length")
    return _pose(pos, quat)


def _pose(pos: Sequence[float], quat: Sequence[float]) -> tuple[Tensor, Tensor]:
    return torch.tensor(pos, dtype=torch.float64), torch.tensor(quat, dtype=torch.float64)


def _placed(shape: HandCapsules, base_pos_w: Tensor, base_quat_w: Tensor, joint_pos: Tensor) -> Capsules:
    placed = (value.float()[None] for value in (base_pos_w, base_quat_w, joint_pos))
    start_w, end_w = shape.pose(*placed)
    return Capsules(start_w[0].numpy(), end_w[0].numpy(), shape.radius_m.numpy())


def _read(place: str | Path, keys: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    file = Path(place) / FILE if Path(place).is_dir() else Path(place)
    try:
        values = read_json_object(file)
    except OSError as error:
        raise FileNotFoundError(
            f"{file} cannot be read ({error.strerror}): it must hold the capsules of a hand or an arm; "
            "write it with `python -m dexgrasp.sim.robots.capsules FOLDER`"
        ) from error
    if missing := [key for key in keys if key not in values]:
        raise ValueError(f"{file} lacks {missing}; write it with `python -m dexgrasp.sim.robots.capsules FOLDER`")
    return file, values


def _shape(part: str, values: Mapping[str, Any], kinematics: Kinematics, mirror: Tensor) -> HandCapsules:
    """Return the capsules of one part of a file; `part` names file and part in errors."""
    unknown = sorted(set(values["body"]) - set(kinematics.body_names))
    if unknown:
        raise ValueError(f"{part}: bodies {unknown} are not in the robot; it has {kinematics.body_names}")
    count = len(values["body"])
    for name, shape in (("start", (count, 3)), ("end", (count, 3)), ("radius_m", (count,))):
        try:
            array = number_array(values[name])
        except ValueError as error:
            raise ValueError(f"{part}.{name}: {error}") from error
        if array.shape != shape or not np.isfinite(array).all() or np.abs(array).max(initial=0.0) > LARGEST_M:
            raise ValueError(f"{part}.{name} must hold finite numbers of shape {shape}, at most {LARGEST_M} m")
        if name == "radius_m" and not (array > 0).all():
            raise ValueError(f"{part}.radius_m must hold positive numbers, got {array.min():g}")
    return HandCapsules(
        kinematics=kinematics,
        body=tuple(kinematics.body_names.index(name) for name in values["body"]),
        start=torch.tensor(values["start"]) * mirror,
        end=torch.tensor(values["end"]) * mirror,
        radius_m=torch.tensor(values["radius_m"]),
    )

"""hand.yaml read and checked: the description of a hand as the fields of HandSpec."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from dexgrasp import assets
from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle
from dexgrasp.perception.transforms import quat_from_matrix
from dexgrasp.utils.text import did_you_mean

KEYPOINT_WEIGHT_SUM = 16.0  # Zhang et al., RobustDexGrasp (2025): weights of the 16 finger keypoints
SIDES = ("right", "left")
STYLES = ("power", "pinch")
_ACTUATION = ("effort_limit", "speed_limit", "kp", "kd", "damping", "armature")
_KEYS = ("name", "side", "xml", "root", "source", "palm", "actuation", "joints", "keypoints", "contact_bodies")
_KEYS += ("thumb_bodies", "grasp")


def find_hand(name_or_path: str | Path) -> Path:
    """The hand.yaml of a hand by name in assets/hands, of a folder, or itself."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    if path.is_dir() and (path / "hand.yaml").is_file():
        return path / "hand.yaml"
    known = assets.names("hands")
    if str(name_or_path) in known:
        return assets.path(f"hands/{name_or_path}/hand.yaml")
    raise FileNotFoundError(
        f"no hand '{name_or_path}': expected one of {known}, a folder with hand.yaml and hand.xml, or a hand.yaml."
        + did_you_mean(str(name_or_path), known)
    )


def read_hand(file: Path) -> tuple[dict[str, Any], str]:
    """Fields of HandSpec that a hand.yaml states, and the side of the hand that it describes."""
    text = yaml.safe_load(file.read_text())
    if not isinstance(text, dict):
        raise ValueError(f"{file}: expected a mapping with the keys {list(_KEYS)}, got {type(text).__name__}")
    _demand_exactly(text, _KEYS, f"{file}:")
    if text["side"] not in SIDES:
        raise ValueError(f"{file}: side must be one of {SIDES}, got '{text['side']}'")
    return _parse(text, file), text["side"]


def _parse(text: dict[str, Any], file: Path) -> dict[str, Any]:
    """Fields of HandSpec from the text of hand.yaml, all but the side."""
    keypoints = {k: v if isinstance(v, dict) else {"weight": v} for k, v in text["keypoints"].items()}
    for site, keypoint in keypoints.items():
        demand_known(keypoint, ("weight", "body", "pos"), f"{file}: keypoints.{site}: key")
    weights = np.array([k["weight"] for k in keypoints.values()], dtype=float)
    contact = np.array(list(text["contact_bodies"].values()), dtype=float)
    return {
        "name": text["name"],
        "source": text["source"],
        "xml_path": file.parent / text["xml"],
        "root": text["root"],
        "palm_quat_b": _palm_quat(text["palm"], file),
        "palm_pos_b": np.array(text["palm"]["pos_b"], dtype=float),
        "keypoint_names": tuple(keypoints),
        "keypoint_weights": _scaled(weights, KEYPOINT_WEIGHT_SUM, f"{file}: keypoints"),
        "contact_bodies": tuple(text["contact_bodies"]),
        "contact_weights": _scaled(contact, len(contact), f"{file}: contact_bodies"),
        "thumb_bodies": tuple(text["thumb_bodies"]),
        "extra_sites": {site: (k["body"], tuple(k["pos"])) for site, k in keypoints.items() if "body" in k},
        **_parse_joints(text, file),
        **_parse_styles(text, file),
    }


def _scaled(weights: np.ndarray, total: float, where: str) -> np.ndarray:
    if not (weights >= 0).all() or weights.sum() == 0:
        raise ValueError(f"{where}: weights must not be negative, nor all zero, got {weights.tolist()}")
    return weights * total / weights.sum()


def _parse_joints(text: dict[str, Any], file: Path) -> dict[str, Any]:
    common = text["actuation"]
    _demand_exactly(common, _ACTUATION, f"{file}: actuation:")
    columns: dict[str, list[float]] = {key: [] for key in ("joint_lower", "joint_upper", *_ACTUATION)}
    for name, joint in text["joints"].items():
        _demand_exactly({**common, **joint}, ("range", "open", "closing", *_ACTUATION), f"{file}: joints.{name}:")
        lower, upper = joint["range"]
        if not all(lower <= pose <= upper for pose in _pair(joint["open"])):
            raise ValueError(f"{file}: joints.{name}: open must lie in range, got {joint['open']}, {joint['range']}")
        row = {"joint_lower": lower, "joint_upper": upper} | {key: joint.get(key, common[key]) for key in _ACTUATION}
        if not all(row[key] > 0 for key in _ACTUATION):
            raise ValueError(f"{file}: joints.{name}: {list(_ACTUATION)} must be positive, got {row}")
        for key, value in row.items():
            columns[key].append(value)
    return {"joint_names": tuple(text["joints"]), **{k: np.array(v, dtype=float) for k, v in columns.items()}}


def _parse_styles(text: dict[str, Any], file: Path) -> dict[str, GraspStyle]:
    """The two grasp styles; a pair in hand.yaml is [power, pinch], a single number serves both."""
    scalars = [item.name for item in fields(GraspStyle) if item.name not in ("open_pose", "closing")]
    _demand_exactly(text["grasp"], scalars, f"{file}: grasp:")
    joints = text["joints"].values()
    columns = {"open_pose": [_pair(j["open"]) for j in joints], "closing": [_pair(j["closing"]) for j in joints]}
    columns |= {key: _pair(text["grasp"][key]) for key in scalars}
    tables = {key: torch.tensor(value, dtype=torch.float64) for key, value in columns.items()}
    return {name: GraspStyle(**{k: t[..., i] for k, t in tables.items()}) for i, name in enumerate(STYLES)}


def _pair(value: float | list[float]) -> tuple[float, float]:
    power, pinch = value if isinstance(value, list) else (value, value)
    return float(power), float(pinch)


def _palm_quat(palm: dict[str, Any], file: Path) -> np.ndarray:
    _demand_exactly(palm, ("pos_b", "normal_b", "finger_b"), f"{file}: palm:")
    x, z = (np.array(palm[key], dtype=float) for key in ("normal_b", "finger_b"))
    if abs(x @ z) > 1e-6 * np.linalg.norm(x) * np.linalg.norm(z):
        raise ValueError(f"{file}: palm.normal_b and palm.finger_b must be at right angles, got {x} and {z}")
    x, z = x / np.linalg.norm(x), z / np.linalg.norm(z)
    return quat_from_matrix(torch.tensor(np.stack([x, np.cross(z, x), z], axis=1))).numpy()


def demand_known(wanted: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse a name that is not among the known ones and show the nearest; `what` tells where it was found."""
    known = list(known)
    for name in wanted:
        if name not in known:
            raise ValueError(f"{what} '{name}' is unknown; known: {known}.{did_you_mean(name, known)}")


def _demand_exactly(mapping: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    demand_known(mapping, keys, f"{where} key")
    if missing := [key for key in keys if key not in mapping]:
        raise ValueError(f"{where} lacks the keys {missing}; expected {list(keys)}")

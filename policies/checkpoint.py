"""A trained actor from a checkpoint, without executing anything that the file brings.

A checkpoint of Stable-Baselines3 is a zip with pickles in it. Only its tensors are read (`policy.pth`, with
`weights_only`); sizes follow from them, everything else from the run's config.yaml beside it.
"""

import hashlib
import io
import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import configs
from perception.observation import student_layout
from policies import manifest
from policies.networks import Actor
from policies.student import StudentActor
from sim.hands import HandSpec
from sim.task_cfg import TaskCfg

NAMES = ("best.zip", "last.zip", "policy.zip")
"""Checkpoints of a run directory, the first that exists is taken."""


@dataclass(frozen=True)
class Checkpoint:
    """An actor and what it was trained for."""

    path: Path
    stage: str
    """teacher or student."""
    hand: HandSpec
    task: TaskCfg
    actor: nn.Module
    """Observation (env, size) of its stage's group to the mean action."""
    training: dict[str, Any]
    """Plain facts: the run's configuration, versions, git state, of run.json or the manifest; SHA-256 of the file."""


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint at `path`, a zip file or a run directory."""
    path = Path(path)
    if path.is_file():
        return path
    found = [path / name for name in NAMES if (path / name).is_file()]
    if not found:
        raise FileNotFoundError(f"no checkpoint at '{path}': neither a zip file nor a folder with one of {list(NAMES)}")
    return found[0]


def load_checkpoint(path: str | Path) -> Checkpoint:
    """The actor of a run directory or zip file. Raises ValueError, which says what is wrong with the file."""
    path = find_checkpoint(path)
    config = read_config(path)
    hand = HandSpec.load(config["hand"], side=config["side"])
    task = configs.from_dict(TaskCfg, config["task"], f"{path.parent / 'config.yaml'}: task")
    content = path.read_bytes()
    weights = _weights(path, content)
    stage = "student" if any(name.startswith("encoder.") for name in weights) else "teacher"
    actor = _student(weights, config, hand, task) if stage == "student" else _teacher(weights)
    try:
        actor.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{path}: its tensors are not those of a {stage}: {' '.join(str(error).split())[:300]}"
        ) from error
    size, actions = actor.normaliser.mean.shape[0], 6 + len(hand.joint_names)
    if actor.net[-1].out_features != actions:
        raise ValueError(f"{path}: gives {actor.net[-1].out_features} actions, {hand.name} takes {actions}")
    if stage == "student" and size != actor.layout.size:
        raise ValueError(f"{path}: observes {size} values, a student of {hand.name} {actor.layout.size}")
    training = {"config": config, "run": _run_facts(path), "sha256": hashlib.sha256(content).hexdigest()}
    return Checkpoint(path, stage, hand, task, actor.eval(), training)


def read_config(path: Path) -> dict[str, Any]:
    """config.yaml beside a checkpoint."""
    file = path.parent / "config.yaml"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing: it says what the actions of {path.name} mean (hand, rate, scales, view)"
        )
    config = configs.read_plain(file)
    if missing := [name for name in ("hand", "side", "task") if name not in config]:
        raise ValueError(f"{file} lacks {missing}: not the configuration of a training run")
    return config


def _weights(path: Path, content: bytes) -> dict[str, Tensor]:
    """Tensors of the actor, by their names in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            stored = io.BytesIO(archive.read("policy.pth"))
        tensors = torch.load(stored, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not a whole checkpoint of Stable-Baselines3: {why}") from error
    if not isinstance(tensors, dict) or not any(str(name).startswith("actor.net.") for name in tensors):
        raise ValueError(f"{path} is a checkpoint of something else: it holds no tensors 'actor.net.*'")
    return {name.removeprefix("actor."): value for name, value in tensors.items() if name.startswith("actor.")}


def _hidden(weights: dict[str, Tensor]) -> list[int]:
    layers = sorted(
        (int(name.split(".")[1]), value)
        for name, value in weights.items()
        if name.endswith(".weight") and name.startswith("net.")
    )
    return [len(value) for _, value in layers][:-1]


def _actions(weights: dict[str, Tensor]) -> int:
    last = max(int(name.split(".")[1]) for name in weights if name.startswith("net."))
    return len(weights[f"net.{last}.weight"])


def _teacher(weights: dict[str, Tensor]) -> Actor:
    return Actor(len(weights["normaliser.mean"]), _actions(weights), _hidden(weights))


def _student(weights: dict[str, Tensor], config: dict[str, Any], hand: HandSpec, task: TaskCfg) -> StudentActor:
    joints = len(hand.joint_names)
    layout = student_layout(joints, len(hand.keypoint_names), 6 + joints, task.view.live)
    felt = len(weights["felt_normaliser.mean"])
    return StudentActor(layout, felt, _actions(weights), _hidden(weights), config.get("encoder", "conv"))


def _run_facts(path: Path) -> dict[str, Any]:
    """Of run.json beside the checkpoint, else of the manifest in it."""
    try:
        return json.loads((path.parent / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {name: fact for name, fact in manifest.read(path).items() if name != "config"}

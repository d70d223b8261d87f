"""Checkpoints of training as plain data: `policy.zip`, `last.zip`, `best.zip`.

Reading a checkpoint runs no code.

A checkpoint is an archive of JSON and tensors (dexgrasp/utils/tensor_archive.py), complete without files beside it:

architecture   options that decide the networks' shapes
state          counters, curriculum and open trials, from which training continues exactly
manifest       origin: configuration of the run, git state, versions, command, machine
tensors        policy/*, optimizer/PARAMETER/*, curriculum/*
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dexgrasp import configs
from dexgrasp.perception.observations import Layout, Term
from dexgrasp.policies.agents.location import find_checkpoint
from dexgrasp.policies.networks.actor_critic import Architecture, GraspPolicy
from dexgrasp.policies.networks.student import make_policy
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.sim.task.observations import observation_layouts
from dexgrasp.utils.tensor_archive import ArchiveError, entry_names, read_archive, write_archive
from dexgrasp.utils.text import one_line

FORMAT, VERSION = "dexgrasp checkpoint", 1
"""First entries of the header. The version grows whenever an older reader would misread the file."""
SB3_ENTRIES = {"data", "policy.pth"}
"""Entries of a zip file of Stable-Baselines3, which older versions wrote."""


class CheckpointError(ValueError):
    """Error of an unusable checkpoint; the message names the file and the reason, in one line."""


@dataclass(frozen=True)
class TrainingState:
    """Counters of a learner, and the data from which its running episodes are reopened."""

    iteration: int = 0
    """Finished iterations."""
    num_timesteps: int = 0
    """Control steps of all environments and ranks."""
    learning_rate: float = 0.0
    """Present learning rate."""
    best_validation: float = 0.0
    """Highest success rate of a validation."""
    validated_iteration: int = 0
    """Iteration of the last validation."""
    validations_since_best: int = 0
    """Validations since the best one."""
    schedule_iterations: int = 1
    """Iterations over which a student's schedule runs."""
    level: float = 0.0
    """Strength of the disturbances, 0 to 1."""
    open_level: float = 0.0
    """Strength of the disturbances when the running episodes were drawn."""
    trials: tuple[int, ...] = ()
    """Number of the running trial of each environment."""
    iteration_stats: dict[str, float] = field(default_factory=dict)
    """Statistics of the last iteration."""
    recent_successes: tuple[bool, ...] = ()
    """Outcomes of the most recent episodes."""


@dataclass(frozen=True)
class CheckpointData:
    """Content of a checkpoint file."""

    architecture: Architecture
    state: TrainingState
    manifest: dict[str, Any]
    """Plain facts; `config` is the configuration of the run."""
    tensors: dict[str, Tensor]

    def group(self, name: str) -> dict[str, Tensor]:
        """Return the tensors under `name/`, by the rest of their names."""
        return {
            key.removeprefix(f"{name}/"): value for key, value in self.tensors.items() if key.startswith(f"{name}/")
        }


@dataclass(frozen=True)
class Checkpoint:
    """Trained policy with its hand, task and training configuration."""

    path: Path
    hand: HandSpec
    task: TaskCfg
    policy: GraspPolicy
    state: TrainingState
    training: dict[str, Any]
    """Plain facts: `config` and `run` of the manifest, `sha256` of the file."""

    @property
    def stage(self) -> str:
        """teacher or student."""
        return self.policy.stage

    @property
    def actor(self) -> nn.Module:
        """Observation (env, size) of the stage's group to the mean action."""
        return self.policy.actor


def write_checkpoint(path: Path, data: CheckpointData) -> None:
    """Write a checkpoint; the file appears complete or not at all.

    Raises CheckpointError for tensors that are not finite.
    """
    _check_finite(path, data.tensors)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": configs.as_dict(data.architecture),
        "state": configs.as_dict(data.state),
        "manifest": data.manifest,
    }
    write_archive(path, header, data.tensors)


def read_checkpoint(path: str | Path) -> CheckpointData:
    """Return the content of a checkpoint file. Raises CheckpointError."""
    path = Path(path)
    try:
        header, tensors = read_archive(path)
    except ArchiveError as error:
        refuse_old_format(path)
        raise CheckpointError(f"{path} is not a whole checkpoint: {str(error).removeprefix(f'{path}: ')}") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint: its header says format {str(header.get('format'))[:40]!r}")
    version = header.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise CheckpointError(
            f"{path} has version {str(version)[:20]}, this dexgrasp reads 1 to {VERSION}: update dexgrasp"
        )
    parts: dict[str, Any] = {name: header.get(name) for name in ("architecture", "state", "manifest")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise CheckpointError(f"{path}: '{name}' of its header is a {type(part).__name__}, expected an object")
    try:
        architecture = configs.from_dict(Architecture, parts["architecture"], "architecture")
        state = configs.from_dict(TrainingState, parts["state"], "state")
    except configs.ConfigError as error:
        raise CheckpointError(f"{path}: {str(error)[:300]}") from error
    _check_finite(path, tensors)
    return CheckpointData(architecture=architecture, state=state, manifest=parts["manifest"], tensors=tensors)


def refuse_old_format(path: Path) -> None:
    """Raise CheckpointError if `path` is a zip of an older version.

    The message names the command that converts it.
    """
    if SB3_ENTRIES.issubset(entry_names(path)):
        raise CheckpointError(
            f"{path} was written by an older dexgrasp (a zip of Stable-Baselines3 with pickled classes, which are not "
            f"loaded): convert it once with `dexgrasp checkpoint upgrade {path}`"
        )


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Return the policy of a run directory or checkpoint file; raises ValueError with the reason."""
    path = find_checkpoint(path)
    data = read_checkpoint(path)
    config = config_of(path, data.manifest)
    hand = HandSpec.load(config["hand"], side=config["side"])
    task = configs.from_dict(TaskCfg, config["task"], f"{path}: task")
    facts = {name: fact for name, fact in data.manifest.items() if name != "config"}
    training = {"config": config, "run": facts, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return Checkpoint(
        path=path,
        hand=hand,
        task=task,
        policy=build_policy(path, data, hand, task),
        state=data.state,
        training=training,
    )


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the configuration of the run that wrote the checkpoint."""
    return config_of(Path(path), read_checkpoint(path).manifest)


def config_of(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration in a manifest, if it defines the meaning of the policy's actions."""
    config = manifest.get("config")
    kinds = {"hand": str, "side": str, "task": dict}
    if not isinstance(config, dict) or any(not isinstance(config.get(name), kind) for name, kind in kinds.items()):
        raise CheckpointError(f"{path}: its manifest lacks a configuration with {', '.join(kinds)} of the training")
    return config


def build_policy(path: Path, data: CheckpointData, hand: HandSpec, task: TaskCfg) -> GraspPolicy:
    """Build the policy of a checkpoint, if its networks are those of the hand and the task."""
    stored, weights = data.architecture, data.group("policy")
    layouts = observation_layouts(hand, task.camera.live)
    if task.class_name != TaskCfg().class_name:  # its own terms are compared with those of the task that it acts in
        layouts = _stored_layouts(path, stored, weights, layouts)
    known = {
        group: {term.name: term.size for term in layouts[group].terms}
        for group in stored.observations
        if group in layouts
    }
    groups = {"teacher"} if stored.stage == "teacher" else {"teacher", "student"}
    if set(stored.observations) != groups:
        raise CheckpointError(
            f"{path}: a {stored.stage} observes {sorted(groups)}, not {sorted(stored.observations)[:4]}"
        )
    wanted = replace(stored, observations=known, num_actions=hand.num_actions)
    if difference := stored.difference(wanted):
        raise CheckpointError(
            f"{path} is not a {stored.stage} of {hand.name} and its task: {difference}; {_remedy(data.manifest)}"
        )
    widths = _widths(weights)
    if widths != list(stored.hidden):  # before networks of these sizes are made
        raise CheckpointError(
            f"{path}: its tensors are those of hidden={widths[:8]}, it states {list(stored.hidden)[:8]}"
        )
    policy = make_policy(stored, layouts)
    try:
        policy.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: its tensors are not those of a {stored.stage}: {one_line(error, 300)}"
        ) from error
    return policy.eval()


def _stored_layouts(
    path: Path, stored: Architecture, weights: Mapping[str, Tensor], usual: Mapping[str, Layout]
) -> dict[str, Layout]:
    """Return the layouts that a checkpoint states; `usual`: those of GraspTask, whose terms keep unit and scale.

    Raises CheckpointError where they are not those of its tensors.
    """
    layouts = {}
    for group, sizes in stored.observations.items():
        known = {term.name: term for term in usual[group].terms} if group in usual else {}
        layouts[group] = Layout(
            tuple(
                known[name] if name in known and known[name].size == size else Term(name, size, "1")
                for name, size in sizes.items()
            )
        )
    parts = {"teacher": "critic.normaliser.mean", stored.stage: "actor.normaliser.mean"}
    for group, name in parts.items():  # before networks of these sizes are made
        if group in layouts and (name not in weights or weights[name].numel() != layouts[group].size):
            raise CheckpointError(f"{path}: its tensors are not those of its observation group '{group}'")
    return layouts


def _remedy(manifest: Mapping[str, Any]) -> str:
    """Return what to do where the observations or actions of a policy are not those of its hand and task."""
    config = manifest.get("config")
    plugins = config.get("plugins") if isinstance(config, dict) else None
    if isinstance(plugins, (list, tuple)) and plugins:
        return f"it was trained with plugins={','.join(map(str, plugins))}: if you trust that code, add it"
    return "the hand or the task has changed since its training: take the files of its training, or train it again"


def _widths(weights: Mapping[str, Tensor]) -> list[int]:
    """Return the widths of the actor's hidden layers, from its biases."""
    layers = {
        name: value for name, value in weights.items() if name.startswith("actor.net.") and name.endswith(".bias")
    }
    ordered = sorted(layers, key=lambda name: (len(name), name))  # layers of two digits last
    return [value.numel() for value in (layers[name] for name in ordered)][:-1]


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{path}: tensor '{name[:80]}' holds values that are not finite: learning diverged")

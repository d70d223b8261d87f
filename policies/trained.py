"""Trained policies by name: a bundle, a run, a checkpoint, or one that is shipped; and the task that each was made for.

policy=runs/student             its best checkpoint (config.yaml beside it says what its actions mean)
policy=runs/student/last.zip    that checkpoint
policy=runs/bundle              a bundle, through the runtime of a robot
policy=allegro/student          shipped under assets/policies: the bundle, or the checkpoint of a teacher
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import assets
import configs
from policies.actor_policy import ActorPolicy
from policies.bundle import CONTRACT, read_contract
from policies.checkpoint import NAMES, Checkpoint, find_checkpoint, load_checkpoint, read_config
from sim.task import GraspTask
from sim.task_cfg import TaskCfg
from sim.view_cfg import ViewCfg

BELONGS_TO_POLICY = (
    "rate_hz",
    "grasp_s",
    "lift_s",
    "lift_m",
    "vectors",
    "prior",
    "palm_action_m_s",
    "palm_action_rad_s",
    "finger_action_rad",
    "action_clip",
    "scripted",
    "wrist",
)
"""What of the task decides the meaning of an action or of an observation."""
BELONGS_TO_VIEW = ("mode", "carried", "period_steps", "held_period_steps", "latency_steps", "min_points")
"""The same of a student's view; errors of the camera belong to the evaluation."""

log = logging.getLogger("dexgrasp")

Cfg = TypeVar("Cfg")


@dataclass(frozen=True)
class Source:
    """Where a trained policy lies."""

    path: Path
    """Folder of a bundle, or a checkpoint."""
    bundle: bool

    def config(self) -> dict[str, Any]:
        """The configuration of the training: `hand`, `side`, `task`, ..."""
        return dict(read_contract(self.path).training.config) if self.bundle else read_config(self.path)


def find(name: str) -> Source:
    """The trained policy of that name. Raises FileNotFoundError, which says what was looked for."""
    path = place(name)
    for folder in (path, path / "bundle"):
        if (folder / CONTRACT).is_file():
            return Source(folder, bundle=True)
    if path.exists():
        return Source(find_checkpoint(path), bundle=False)
    raise FileNotFoundError(
        f"'{name}' is no bundle ({CONTRACT}), no run or checkpoint ({', '.join(NAMES)}) and not shipped as HAND/STAGE"
    )


def place(name: str) -> Path:
    """The file or folder of that name, or that of HAND/STAGE among the shipped ones."""
    shipped = assets.ROOT / "policies" / name
    return shipped if not Path(name).exists() and shipped.is_dir() else Path(name)


class CheckpointPolicy(ActorPolicy):
    """The mean actions of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, task: GraspTask) -> None:
        if checkpoint.hand.joint_names != task.hand.joint_names:
            raise ValueError(
                f"{checkpoint.path} was trained with {checkpoint.hand.name}, the task has {task.hand.name}"
            )
        size, given = len(checkpoint.actor.normaliser.mean), task.layouts[checkpoint.stage].size  # pyright: ignore
        if size != given:
            raise ValueError(
                f"{checkpoint.path} observes {size} values, the task gives {given}: another task.view.mode?"
            )
        super().__init__(checkpoint.actor.to(task.device), task)


def load(name: str, task: GraspTask) -> Any:
    """The trained policy of that name for `task`: something with `reset(trials)` and `act(obs)`."""
    source = find(name)
    if source.bundle:
        from policies.exported import ExportedPolicy  # onnxruntime: only here

        return ExportedPolicy(source.path, task)
    return CheckpointPolicy(load_checkpoint(source.path), task)


def adopt(cfg: Cfg, name: str) -> Cfg:
    """`cfg`, a command's configuration with `hand`, `side` and `task`, with what belongs to the policy `name`.

    What stands at its default is taken over and logged; what was set otherwise is refused.
    """
    config = find(name).config()
    trained = configs.from_dict(TaskCfg, config["task"], f"{name}: task")
    keep = ("class_name", *BELONGS_TO_POLICY)
    task = _merge(cfg.task, trained, TaskCfg(), keep, "task.", name)  # pyright: ignore[reportAttributeAccessIssue]
    if config.get("stage") != "teacher":
        view = _merge(task.view, trained.view, ViewCfg(), BELONGS_TO_VIEW, "task.view.", name)
        task = replace(task, view=view)
    whose = {key: config[key] for key in ("hand", "side")}
    defaults = {item.name: item.default for item in fields(cfg) if item.name in whose}  # pyright: ignore[reportArgumentType]
    for key, value in whose.items():
        _check(key, getattr(cfg, key), value, defaults[key], name)
    return replace(cfg, task=task, **whose)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _merge(given: Any, trained: Any, default: Any, keys: Sequence[str], prefix: str, name: str) -> Any:
    taken = {}
    for key in keys:
        pairs = _leaves(key, getattr(given, key), getattr(trained, key), getattr(default, key))
        for leaf, value, wanted, usual in pairs:
            _check(prefix + leaf, value, wanted, usual, name)
        taken[key] = getattr(trained, key)
    return replace(given, **taken)


def _leaves(key: str, *values: Any) -> Iterator[tuple[Any, ...]]:
    if not is_dataclass(values[0]):
        yield key, *values
        return
    for item in fields(values[0]):
        yield from _leaves(f"{key}.{item.name}", *(getattr(value, item.name) for value in values))


def _check(key: str, given: Any, wanted: Any, default: Any, name: str) -> None:
    if given == wanted:
        return
    if given != default:
        raise ValueError(f"{key}={given}, but '{name}' was trained with {wanted}: leave {key} out")
    log.info("%s=%s, as '%s' was trained with", key, wanted, name)

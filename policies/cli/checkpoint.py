"""`dexgrasp checkpoint upgrade` and `checkpoint sb3`: conversion of checkpoints.

`upgrade` reads checkpoints of older versions; `sb3` writes a zip for the PPO of Stable-Baselines3.

Older versions wrote zips of Stable-Baselines3. Torch reads their tensors with `weights_only`. The objects in their JSON
are pickles; an unpickler that knows nothing else reads numbers, lists and arrays from them.
"""

import base64
import io
import json
import pickle
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dexgrasp import configs
from dexgrasp.policies.agents.checkpoint import (
    SB3_ENTRIES,
    CheckpointData,
    CheckpointError,
    TrainingState,
    build_policy,
    config_of,
    load_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from dexgrasp.policies.agents.location import NAMES
from dexgrasp.policies.deploy.shipped import place
from dexgrasp.policies.networks.actor_critic import Architecture
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.sim.task.observations import observation_layouts
from dexgrasp.utils.bounds import bounded
from dexgrasp.utils.files import atomic_path, folder_lock, write_bytes
from dexgrasp.utils.output import FILE_MARK, claim_file
from dexgrasp.utils.readers import DamagedFileError, parse_yaml
from dexgrasp.utils.tensor_archive import entry_names, write_archive
from dexgrasp.utils.text import one_line

LARGEST_ENTRY = 2**30
"""Largest size of an entry of an old zip [bytes]."""
LARGEST_MANIFEST = 10_000
"""Largest number of values of a manifest; YAML aliases can expand a short text to a huge tree."""


@dataclass(frozen=True)
class UpgradeCfg:
    """Convert checkpoints of older versions of dexgrasp into the present format, bit by bit."""

    source: str
    """Run directory, or a checkpoint (zip file)."""
    keep: bool = True
    """Keep every old file, as NAME.old."""


@dataclass(frozen=True)
@bounded
class Sb3Cfg:
    """Write a trained policy as a zip file for `stable_baselines3.PPO.load`.

    Loading needs dexgrasp installed.
    """

    policy: str
    """Run directory, checkpoint, or a shipped policy (HAND/STAGE)."""
    out: str
    """Zip file to write."""
    obs: Literal["both", "teacher", "student"] = "both"
    """Observation mode, as in `dexgrasp.make_sb3(obs=...)`. both: a dictionary; needed to train it further."""


def upgrade(cfg: UpgradeCfg) -> None:
    """Convert every old file of a run directory, or one checkpoint."""
    source = Path(cfg.source)
    with folder_lock(source, wait=False) if source.is_dir() else nullcontext():
        _upgrade_files(source, cfg.keep)


def _upgrade_files(source: Path, keep: bool) -> None:
    files = [source / name for name in (*NAMES, "last.window")] if source.is_dir() else [source]
    files = [file for file in files if file.is_file()]
    if not files:
        raise FileNotFoundError(
            f"no checkpoint at '{source}': neither a zip file nor a folder with one of {list(NAMES)}"
        )
    for file in files:
        if not _is_old(file):
            print(f"up to date  {file}")
            continue
        write = _upgrade_window if file.suffix == ".window" else _upgrade_checkpoint
        if keep:
            _keep(file)
        write(file)
        print(f"converted   {file}" + (f" (before: {file.name}.old)" if keep else ""))


def _keep(file: Path) -> None:
    """Copy a file to NAME.old. Raises ValueError where another file has that name."""
    old = file.with_name(f"{file.name}.old")
    if old.exists() and old.read_bytes() != file.read_bytes():
        raise ValueError(f"{old} exists and is another file: rename it, or give keep=false")
    write_bytes(old, file.read_bytes())


def export_sb3(cfg: Sb3Cfg) -> None:
    """Write the zip file."""
    from dexgrasp.policies.agents.sb3_policy import write_sb3

    out = claim_file(cfg.out if Path(cfg.out).suffix else f"{cfg.out}.zip")
    checkpoint = load_checkpoint(place(cfg.policy))
    buffer = io.BytesIO()
    write_sb3(checkpoint, buffer, cfg.obs)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = FILE_MARK
    write_bytes(out, buffer.getvalue())
    print(
        f"written: {out} (load it with stable_baselines3.PPO.load; the environment: dexgrasp.make_sb3(obs={cfg.obs!r}))"
    )


def _is_old(file: Path) -> bool:
    names = entry_names(file)
    if file.suffix == ".window":
        return any(name.endswith("data.pkl") for name in names)
    if not SB3_ENTRIES.issubset(names):
        read_checkpoint(file)  # raises the error of a file that is neither old nor new
        return False
    return True


def _upgrade_checkpoint(file: Path) -> None:
    """Convert a checkpoint in place, once it is known to read as it was written."""
    data = read_sb3_checkpoint(file)
    with atomic_path(file) as converted:
        write_checkpoint(converted, data)
        written = read_checkpoint(converted)
        if written.state != data.state or any(
            not torch.equal(written.tensors[key], data.tensors[key]) for key in data.tensors
        ):
            raise CheckpointError(f"{converted} does not hold the content of {file}: please report this")


def _upgrade_window(file: Path) -> None:
    kept = _load_tensors(file, file.read_bytes())
    if not isinstance(kept, list) or not all(isinstance(rollout, dict) for rollout in kept):
        raise CheckpointError(f"{file} holds no rollouts of a student")
    write_archive(file, {}, {f"{i}/{name}": value for i, rollout in enumerate(kept) for name, value in rollout.items()})


def read_sb3_checkpoint(file: Path) -> CheckpointData:
    """Return the content of a checkpoint of an older version; no code of the file runs.

    Raises CheckpointError.
    """
    entries = _read_old_entries(file)
    try:
        plain = json.loads(entries["data"])
        weights, optimizer = (_load_tensors(file, entries[name]) for name in ("policy.pth", "policy.optimizer.pth"))
        if "iteration" not in plain or not any(name.startswith("actor.net.") for name in weights):
            raise CheckpointError(f"{file} is a zip of Stable-Baselines3, but no checkpoint of dexgrasp")
        manifest = _manifest(file, entries)
        config = config_of(file, manifest)
        hand = HandSpec.load(config["hand"], side=config["side"])
        task = configs.from_dict(TaskCfg, config["task"], f"{file}: task")
        architecture = _architecture(plain, weights, config, hand, task)
        tensors = {f"policy/{name}": value for name, value in weights.items()}
        data = CheckpointData(architecture=architecture, state=_state(plain), manifest=manifest, tensors=tensors)
        names = [name for name, _ in build_policy(file, data, hand, task).named_parameters()]
        tensors |= {
            f"optimizer/{names[number]}/{key}": value
            for number, moments in optimizer["state"].items()
            for key, value in moments.items()
        }
        tensors |= {f"curriculum/{name}": value for name, value in _curriculum(plain).items()}
    except CheckpointError:
        raise
    except (configs.ConfigError, pickle.UnpicklingError, KeyError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error, 300)
        raise CheckpointError(f"{file} is not a whole checkpoint of an older version: {why}") from error
    except Exception as error:  # a damaged or hostile file can raise any error in the readers
        raise CheckpointError(
            f"{file} is not a whole checkpoint of an older version: its parts do not fit each other; it was changed or "
            "damaged: take another copy of it"
        ) from error
    return data


def _read_old_entries(file: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(file) as archive:
            if any(info.file_size > LARGEST_ENTRY for info in archive.infolist()):
                raise CheckpointError(f"{file}: an entry claims more than {LARGEST_ENTRY} bytes")
            return {info.filename: archive.read(info) for info in archive.infolist()}
    except CheckpointError:
        raise
    except Exception as error:  # a damaged zip raises errors of zipfile and of each compression
        raise CheckpointError(
            f"{file} is not a whole zip file: it was cut off, changed or encrypted; take another copy of it"
        ) from error


def _load_tensors(file: Path, content: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise CheckpointError(
            f"{file}: its tensors cannot be read: they are damaged, or no plain tensors, and code in a file is never "
            "run; take another copy of it"
        ) from error


def _manifest(file: Path, entries: dict[str, bytes]) -> dict[str, Any]:
    """Return the manifest in the zip, or one of the run's config.yaml beside it."""
    beside = file.parent / "config.yaml"
    try:
        found = parse_yaml(entries["manifest.yaml"], file) if "manifest.yaml" in entries else {}
    except DamagedFileError as error:
        raise CheckpointError(str(error)) from error
    if "config" not in found:
        if not beside.is_file():
            raise CheckpointError(
                f"{file} holds no configuration and {beside} is missing: put the run's config.yaml there"
            )
        found = found | {"config": configs.read_plain(beside)}
    if _values(found, LARGEST_MANIFEST) <= 0:
        raise CheckpointError(f"{file}: its manifest holds more than {LARGEST_MANIFEST} values")
    return found


def _values(tree: Any, budget: int) -> int:
    """Return `budget` minus the number of values in nested dictionaries and lists."""
    budget -= 1
    for item in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        if budget <= 0:
            break
        budget = _values(item, budget)
    return budget


def _architecture(
    plain: dict[str, Any], weights: dict[str, Tensor], config: dict[str, Any], hand: HandSpec, task: TaskCfg
) -> Architecture:
    layouts, shape = observation_layouts(hand, task.camera.live), plain.get("policy_kwargs") or {}
    student = any(name.startswith("actor.encoder.") for name in weights)
    layers = sorted(
        int(name.split(".")[2]) for name in weights if name.startswith("actor.net.") and name.endswith(".bias")
    )
    widths = [len(weights[f"actor.net.{layer}.bias"]) for layer in layers]
    groups = ("student", "teacher") if student else ("teacher",)
    return Architecture(
        stage="student" if student else "teacher",
        observations={group: {term.name: term.size for term in layouts[group].terms} for group in groups},
        num_actions=widths[-1],
        hidden=tuple(widths[:-1]),
        init_std=float(shape.get("init_std", config.get("init_std", 0.3))),
        encoder=shape.get("encoder", config.get("encoder", "conv")) if student else None,
    )


def _state(plain: dict[str, Any]) -> TrainingState:
    opened = _object(plain.get("opened_with")) or (None, 0.0)
    state = {
        "iteration": plain["iteration"],
        "num_timesteps": plain["num_timesteps"],
        "learning_rate": plain["lr"],
        "best_validation": plain.get("best", 0.0),
        "schedule_iterations": plain.get("iterations", 1),
        "level": plain.get("level", 0.0),
        "open_level": opened[1],
        "trials": (_object(plain.get("resume")) or {}).get("trials", []),
        "iteration_stats": plain.get("iteration_stats", {}),
        "recent_successes": _object(plain.get("ep_success_buffer")) or [],
    }
    return configs.from_dict(TrainingState, state, "state")


def _curriculum(plain: dict[str, Any]) -> dict[str, Tensor]:
    """Return the arrays of the curriculum, as CurriculumState names them."""
    arrays = {
        "counts": _object(plain.get("mastery")),
        "weights": (_object(plain.get("resume")) or {}).get("weights"),
        "open_weights": (_object(plain.get("opened_with")) or (None,))[0],
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}


def _object(value: Any) -> Any:
    """Return a value of the JSON in an old zip: plain, or a pickle of plain values."""
    if not isinstance(value, dict) or ":serialized:" not in value:
        return value
    return _PlainUnpickler(io.BytesIO(base64.b64decode(value[":serialized:"]))).load()


class _Dtype:
    """Stand-in of numpy.dtype while a pickle is read."""

    def __init__(self, name: str) -> None:
        if name not in ("f8", "f4", "i8", "b1"):
            raise pickle.UnpicklingError(f"an array of type {name!r}")
        self.name = name

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "|"):
            raise pickle.UnpicklingError(f"an array of byte order {state[1]!r}")


def _dtype(name: str, *_: Any) -> _Dtype:
    return _Dtype(name)


def _array(content: bytes, dtype: _Dtype, shape: Sequence[int], order: str) -> np.ndarray:
    return np.frombuffer(content, dtype.name).reshape(shape, order="F" if order == "F" else "C").copy()


def _list(items: Sequence[Any] = (), *_: Any) -> list[Any]:
    return list(items)


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler of numbers, strings, lists, dictionaries and arrays; it refuses all other objects."""

    KNOWN = {  # noqa: RUF012
        ("numpy", "dtype"): _dtype,
        ("numpy._core.numeric", "_frombuffer"): _array,
        ("numpy.core.numeric", "_frombuffer"): _array,
        ("collections", "deque"): _list,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a known name."""
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f"a pickle in it names {module}.{name}, which is no plain data")
        return self.KNOWN[module, name]

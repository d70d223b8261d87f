"""Identify the inputs of a run by their content: policies, objects, hand, plugins."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dexgrasp.utils.plugins import plugin_files
from dexgrasp.utils.readers import regular_bytes


@dataclass(frozen=True)
class InputFile:
    """An input of a run, named by an option."""

    value: str
    """Value of the option."""
    sha256: str
    """SHA-256 of the content: files of a policy or hand, objects of a library; of the name where it has no files."""


def identify_inputs(cfg: Any) -> dict[str, InputFile]:
    """Return the inputs that a command's dataclass names, by option; empty options are left out."""
    values = {key: getattr(cfg, key, "") for key in READERS}
    texts = {key: ",".join(value) if isinstance(value, tuple) else str(value) for key, value in values.items()}
    return {key: InputFile(text, READERS[key](text)) for key, text in texts.items() if text}


def current_sha256(values: dict[str, str]) -> dict[str, str]:
    """Return the SHA-256 of the inputs as they are now; `values`: value by option, as run.json holds them."""
    return {key: READERS[key](value) for key, value in values.items() if key in READERS}


def policy_sha256(name: str) -> str:
    """Return the SHA-256 of a policy: its checkpoint, all files of its bundle, or an untrained one's name."""
    from dexgrasp.policies.agents.registry import POLICIES, find_policy

    if name in POLICIES:
        return content_sha256([name.encode()])
    found = find_policy(name)
    return _bundle_sha256(found.path) if found.bundle else _file_sha256(found.path)


def checkpoint_sha256(name: str) -> str:
    """Return the SHA-256 of the checkpoint of a policy."""
    from dexgrasp.policies.agents.registry import find_policy

    return _file_sha256(find_policy(name, kind="checkpoint").path)


def library_sha256(spec: str) -> str:
    """Return the SHA-256 of the objects of a library, in order.

    Generated objects depend on the library's name and the version of the generator alone.
    """
    from dexgrasp.sim.objects import open_library
    from dexgrasp.sim.objects.generator import VERSION
    from dexgrasp.sim.objects.registry import GENERATED

    if made := GENERATED.fullmatch(spec):
        return content_sha256([f"generated {VERSION} {made[1]} {made[2] or 'train'}".encode()])
    return content_sha256(json.dumps(asdict(entry), sort_keys=True).encode() for entry in open_library(spec).entries)


def hand_sha256(name: str) -> str:
    """Return the SHA-256 of hand.yaml and of all files that the model of a hand reads."""
    from dexgrasp.sim.robots.model_files import hand_files
    from dexgrasp.sim.robots.models.model_sources import find_hand

    files = sorted(hand_files(find_hand(name)).items())
    return content_sha256(part for path, content in files for part in (path.encode(), content))


def plugins_sha256(names: str) -> str:
    """Return the SHA-256 of the source files of comma-separated plugins and their own modules."""
    contents = []
    for name in names.split(","):
        files = plugin_files(name)
        contents += [path.read_bytes() for path in files] or [name.encode()]
    return content_sha256(contents)


def model_sha256(file: Path) -> str:
    """Return the SHA-256 of an MJCF or URDF and of the files that it reads."""
    from dexgrasp.sim.robots.model_files import files_read_by

    files = sorted(files_read_by(file).items())
    return content_sha256(part for path, content in files for part in (path.name.encode(), content))


def content_sha256(parts: Iterable[bytes]) -> str:
    """Return the SHA-256 of parts and their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)} ".encode() + part)
    return digest.hexdigest()


READERS: dict[str, Callable[[str], str]] = {
    "policy": policy_sha256,
    "teacher": checkpoint_sha256,
    "init_checkpoint": checkpoint_sha256,
    "objects": library_sha256,
    "validation_objects": library_sha256,
    "hand": hand_sha256,
    "plugins": plugins_sha256,
}
"""Functions that return the SHA-256 of an input, by option."""


def _bundle_sha256(folder: Path) -> str:
    from dexgrasp.policies.deploy.bundle import CONTRACT, GOLDEN, GRAPH

    return content_sha256(regular_bytes(folder / name) for name in (CONTRACT, GRAPH, GOLDEN))


def _file_sha256(path: Path) -> str:
    return hashlib.sha256(regular_bytes(path)).hexdigest()

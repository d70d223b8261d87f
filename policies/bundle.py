"""A bundle on disk: policy.onnx, golden.npz, and the contract that says what they mean. No code in it is executed.

contract.json   names, limits, rate, scales, frames, inputs and outputs, where it all comes from; SHA-256 of the others
policy.onnx     sensor values and state in, targets and next state out
golden.npz      recorded inputs (`in/NAME`) and outputs (`out/NAME`) that the runtime repeats before it starts
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCHEMA = 3
"""Version of the contract; a runtime reads its own alone."""
CONTRACT, GRAPH, GOLDEN = "contract.json", "policy.onnx", "golden.npz"
TOGETHER = 16
"""Rows come to a network in multiples of this: matrix products of other numbers of rows add up in another order."""
SECTIONS = ("hand", "control", "view", "grasp", "graph", "training", "files")


class BundleError(ValueError):
    """A bundle that must not be run; the message names the file and the field."""


@dataclass(frozen=True)
class Bundle:
    """What a bundle holds, after its hashes were checked."""

    contract: dict[str, Any]
    graph: bytes
    """policy.onnx."""
    golden: dict[str, NDArray[Any]]


def read_bundle(folder: str | Path, joint_names: Sequence[str] | None = None) -> Bundle:
    """The bundle in `folder`; with `joint_names`, only if they are those of the hand, in this order."""
    folder = Path(folder)
    contract = read_contract(folder)
    files = {name: _bytes(folder, name) for name in (GRAPH, GOLDEN)}
    for name, content in files.items():
        stated, found = contract["files"].get(name), sha256(content)
        if stated != found:
            raise BundleError(
                f"{folder / name}: its SHA-256 is {found[:12]}..., the contract states {str(stated)[:12]}..."
            )
    if joint_names is not None:
        check_joints(contract, joint_names, folder)
    return Bundle(contract, files[GRAPH], _arrays(folder, files[GOLDEN]))


def read_contract(folder: str | Path) -> dict[str, Any]:
    """contract.json of a bundle, if it is whole and of this version."""
    path = Path(folder) / CONTRACT
    try:
        contract = json.loads(_bytes(Path(folder), CONTRACT))
    except ValueError as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(contract, dict) or "schema" not in contract:
        raise BundleError(f"{path} has no field 'schema': not a contract")
    if contract["schema"] != SCHEMA:
        raise BundleError(
            f"{path}: schema {contract['schema']!r}, this version reads {SCHEMA}: export the policy again"
        )
    if missing := [name for name in (*SECTIONS, "sha256") if name not in contract]:
        raise BundleError(f"{path} lacks {missing}")
    if contract["sha256"] != contract_sha256(contract):
        raise BundleError(f"{path}: field 'sha256' is not that of its content: it was changed or is incomplete")
    return contract


def check_joints(contract: Mapping[str, Any], joint_names: Sequence[str], folder: Path) -> None:
    """Raises BundleError at the first joint that differs."""
    wanted, given = contract["hand"]["joint_names"], list(joint_names)
    if len(wanted) != len(given):
        raise BundleError(
            f"{folder}: made for {len(wanted)} joints ({contract['hand']['name']}), the hand has {len(given)}"
        )
    for i, (ours, theirs) in enumerate(zip(wanted, given, strict=True)):
        if ours != theirs:
            raise BundleError(f"{folder}: hand.joint_names[{i}] is '{ours}', the hand has '{theirs}' there")


def write_bundle(folder: Path, contract: dict[str, Any], golden: Mapping[str, NDArray[Any]]) -> None:
    """Write golden.npz and, last of all, contract.json beside policy.onnx."""
    np.savez_compressed(folder / GOLDEN, **golden)  # pyright: ignore[reportArgumentType]
    files = {name: sha256((folder / name).read_bytes()) for name in (GRAPH, GOLDEN)}
    contract = {"schema": SCHEMA} | contract | {"files": files}
    contract["sha256"] = contract_sha256(contract)
    (folder / CONTRACT).write_text(json.dumps(contract, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def sha256(content: bytes) -> str:
    """Hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def contract_sha256(contract: Mapping[str, Any]) -> str:
    """Of everything but the field `sha256` itself, in canonical JSON."""
    rest = {name: value for name, value in contract.items() if name != "sha256"}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())


def _bytes(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder} is not a bundle: {name} cannot be read ({error.strerror})") from error


def _arrays(folder: Path, content: bytes) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{folder / GOLDEN} cannot be read: {error}") from error

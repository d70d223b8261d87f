"""Bundle on disk: policy.onnx, golden.npz and the typed contract.

Reading a bundle executes no code of it.

contract.json   names, limits, rate, scales, frames, inputs and outputs, origin; SHA-256 of the other files
contract.sig    signature of contract.json, of a signed bundle
policy.onnx     sensor values and state in, targets and next state out
golden.npz      recorded inputs (`in/NAME`) and outputs (`out/NAME`) that the runtime repeats before it starts
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.configs.schema import ConfigError, as_dict, build
from dexgrasp.policies.deploy import signature
from dexgrasp.policies.deploy.contract import SCHEMA, Contract, GraspContract, upgrade_schema_3
from dexgrasp.policies.deploy.hand_limits import differing_kinematics, exceeded_limit, is_known_hand
from dexgrasp.utils.number_arrays import parse_npz
from dexgrasp.utils.readers import HEAD_BYTES, DamagedFileError, foreign_kind, parse_json
from dexgrasp.utils.text import one_line, shown

CONTRACT, GRAPH, GOLDEN = "contract.json", "policy.onnx", "golden.npz"
MAX_BYTES = 256 * 2**20
"""Largest size of a file of a bundle, and of all arrays in golden.npz."""
BATCH_MULTIPLE = 16
"""Batches are padded to a multiple of this: rounding of matrix products depends on the batch size."""

log = logging.getLogger("dexgrasp")


class BundleError(ValueError):
    """Error of a bundle that must not be run; the message names the file and the field."""


@dataclass(frozen=True)
class Bundle:
    """Content of a bundle whose hashes were checked."""

    contract: Contract
    graph: bytes
    """policy.onnx."""
    golden: dict[str, NDArray[Any]]


def read_bundle(
    folder: str | Path,
    joint_names: Sequence[str] | None = None,
    public_key: str | Path | None = None,
    hand_file: str | Path | None = None,
) -> Bundle:
    """Return the bundle in `folder`; see `read_contract`.

    Raises BundleError, also if its joints are not `joint_names` in this order.
    """
    folder = Path(folder)
    contract = read_contract(folder, public_key, hand_file)
    files = {name: _bytes(folder, name) for name in (GRAPH, GOLDEN)}
    for name, content in files.items():
        stated, found = contract.files.get(name), sha256(content)
        if stated != found:
            raise BundleError(
                f"{folder / name}: its SHA-256 is {found[:12]}..., the contract states {str(stated)[:12]}..."
            )
    if joint_names is not None:
        check_joints(contract, joint_names, folder)
    return Bundle(contract, files[GRAPH], _arrays(folder, files[GOLDEN]))


def read_contract(
    folder: str | Path, public_key: str | Path | None = None, hand_file: str | Path | None = None
) -> Contract:
    """Return the contract of the bundle in `folder`.

    `hand_file`: hand.yaml of a hand that is not in assets/hands; without one its bundle sets its own limits, and a
    warning says so. Raises BundleError if it is incomplete, its schema is neither SCHEMA nor 3, or it exceeds the
    limits of its hand; and if `public_key` (PEM file) is given and its owner has not signed it.
    """
    path, content = Path(folder) / CONTRACT, _bytes(Path(folder), CONTRACT)
    if public_key:
        try:
            signature.verify(content, path.with_name(signature.SIGNATURE), public_key)
        except signature.SignatureError as error:
            raise BundleError(f"{folder}: {error}") from error
    try:
        values = parse_json(content, path)
    except DamagedFileError as error:
        raise BundleError(str(error)) from error
    if not isinstance(values, dict) or "schema" not in values:
        raise BundleError(f"{path} has no field 'schema': not a contract")
    if place := _unprintable(values):
        raise BundleError(f"{path}: a text with control characters at '{place}'; expected printable characters")
    if values["schema"] not in (3, SCHEMA):
        raise BundleError(
            f"{path}: schema {values['schema']!r}, this version reads 3 and {SCHEMA}: export the policy again"
        )
    if values.get("sha256") != contract_sha256(values):
        raise BundleError(
            f"{path}: field 'sha256' is not that of its content: the file was changed or is incomplete; "
            "export the policy again"
        )
    if values["schema"] == 3:
        log.info("%s: schema 3 is read as schema %d; `dexgrasp export` writes it anew", path, SCHEMA)
        values = upgrade_schema_3(values)
    sections = [item.name for item in fields(Contract) if item.default is item.default_factory is MISSING]
    if missing := [name for name in sections if name not in values]:
        raise BundleError(f"{path} lacks {missing}")
    try:
        contract = build(Contract, values, str(path))
    except ConfigError as error:
        raise BundleError(str(error)) from error
    _check_known(contract, path, hand_file)
    return contract


def refuse_unknown_hand(contract: Contract, folder: str | Path) -> None:
    """Raise BundleError for a hand without a description on this machine.

    Nothing bounds the limits that such a bundle states.
    """
    if not is_known_hand(contract.hand.name):
        raise BundleError(
            f"{folder}: hand '{contract.hand.name}' is not known on this machine, so that the bundle sets its own "
            "limits; give the hand.yaml of the hand as hand_file"
        )


@cache
def _warn_of_own_limits(path: Path, hand: str) -> None:
    """Log once that nothing bounds the limits of a bundle."""
    log.warning(
        "%s: hand '%s' is not known on this machine: joint ranges, speeds and torques are those that the bundle states "
        "itself; compare them with the maker's before a robot moves",
        path,
        hand,
    )


def _check_known(contract: Contract, path: Path, hand_file: str | Path | None) -> None:
    """Raise BundleError for a contract that contradicts its files, the hand of its name or its own training."""
    if set(contract.files) != {GRAPH, GOLDEN}:
        raise BundleError(f"{path}: 'files' must hold the hashes of {GRAPH} and {GOLDEN}, got {sorted(contract.files)}")
    try:
        reason = exceeded_limit(contract.hand, hand_file) or differing_kinematics(contract.hand)
    except (ValueError, TypeError, OSError) as error:
        raise BundleError(f"hand_file={hand_file}: {one_line(error, 300)}") from error
    if hand_file is None and not reason and not is_known_hand(contract.hand.name):
        _warn_of_own_limits(path, contract.hand.name)
    if reason:
        raise BundleError(f"{path}: {reason}; a hand with other values needs a name of its own")
    for place, value, trained in _trained_values(contract):
        if trained != value:
            raise BundleError(
                f"{path}: {place} is {shown(value)}, the policy was trained with {shown(trained)} (training.config): "
                "export the policy again"
            )


_OF_TASK = (
    "rate_hz",
    "lift_m",
    "vector_frame",
    "palm_action_m_s",
    "palm_action_rad_s",
    "finger_action_rad",
    "action_clip",
)
"""Keys of `control` that repeat the task of the training."""


def _trained_values(contract: Contract) -> Iterator[tuple[str, Any, Any]]:
    """Yield place, value, and value of the training for all that a contract states twice."""
    config = contract.training.config
    yield "hand.side", contract.hand.side, config["side"]
    task = config["task"] if isinstance(config["task"], Mapping) else {}
    for key in _OF_TASK:
        value = getattr(contract.control, key)
        yield f"control.{key}", value, task.get(key, value)


def _unprintable(value: Any, place: str = "") -> str:
    """Return the dotted key of a text, or of a key, with characters that are not printable; empty without one."""
    if isinstance(value, str):
        return "" if value.isprintable() else place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        below = f"{place}.{key}".strip(".")
        if not str(key).isprintable():
            return ascii(below)[1:-1]
        if found := _unprintable(item, below):
            return found
    return ""


def check_joints(contract: Contract, joint_names: Sequence[str], folder: Path) -> None:
    """Raise BundleError at the first joint name that differs from the contract's."""
    wanted, given = contract.hand.joint_names, list(joint_names)
    if len(wanted) != len(given):
        raise BundleError(f"{folder}: made for {len(wanted)} joints ({contract.hand.name}), the hand has {len(given)}")
    for i, (ours, theirs) in enumerate(zip(wanted, given, strict=True)):
        if ours != theirs:
            raise BundleError(f"{folder}: hand.joint_names[{i}] is '{ours}', the hand has '{theirs}' there")


def write_bundle(folder: Path, contract: Contract, golden: Mapping[str, NDArray[Any]]) -> None:
    """Write golden.npz and, last of all, contract.json beside policy.onnx; files and hashes are filled in."""
    np.savez_compressed(folder / GOLDEN, **golden)  # pyright: ignore[reportArgumentType]
    hashes = {name: sha256((folder / name).read_bytes()) for name in (GRAPH, GOLDEN)}
    write_contract(folder, replace(contract, files=hashes))


def write_contract(folder: Path, contract: Contract) -> None:
    """Write contract.json with its own hash."""
    values: dict[str, Any] = {"schema": contract.schema} | as_dict(contract)
    if not contract.hand.coupled:  # as before there were coupled hands
        del values["hand"]["coupled"]
    if contract.grasp.finger_m == GraspContract.finger_m:  # as before hands stated it
        del values["grasp"]["finger_m"]
    values["sha256"] = contract_sha256(values)
    (folder / CONTRACT).write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (folder / signature.SIGNATURE).unlink(missing_ok=True)


def sign_bundle(folder: Path, key_file: str | Path) -> None:
    """Sign a bundle with the private key in a PEM file; it then loads where the public key is configured."""
    signed = signature.sign(_bytes(folder, CONTRACT), key_file)
    (folder / signature.SIGNATURE).write_bytes(signed)


def sha256(content: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def contract_sha256(contract: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything but the field `sha256`, in canonical JSON."""
    rest = {name: value for name, value in contract.items() if name != "sha256"}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())


def _bytes(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        if path.exists() and not path.is_file():
            raise BundleError(f"{path} is not a regular file")
        if path.stat().st_size > MAX_BYTES:
            raise BundleError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} is missing: a bundle holds {GRAPH}, {GOLDEN} and {CONTRACT}; write one with "
            "`dexgrasp export policy=POLICY out=FOLDER`, or give the folder of one"
        ) from error
    except OSError as error:
        raise BundleError(f"{folder} is not a bundle: {name} cannot be read ({error.strerror})") from error
    if kind := foreign_kind(content[:HEAD_BYTES], is_zip=name == GOLDEN):
        raise BundleError(f"{path} cannot be read: {kind}")
    return content


def _arrays(folder: Path, content: bytes) -> dict[str, NDArray[Any]]:
    try:
        return parse_npz(content, MAX_BYTES)
    except ValueError as error:
        raise BundleError(f"{folder / GOLDEN} cannot be read: {error}") from error

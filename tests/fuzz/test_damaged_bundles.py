"""Damaged bundles: one error that names file and key, or a bundle that keeps every limit; never anything else."""

import copy
import json
import math
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dexgrasp import assets
from dexgrasp.policies.deploy.bundle import BundleError, contract_sha256, read_contract, sha256
from dexgrasp.policies.deploy.policy import Policy
from dexgrasp.policies.deploy.safety_gate import SafetyGate

BUNDLE = assets.path("policies/allegro/student/bundle")
VALID = json.loads((BUNDLE / "contract.json").read_text())
FREE = {("training", "config"), ("training", "run"), ("export",), ("parity", "error")}
"""Parts with any keys: facts of a training and of an export."""
OPTIONAL = {"export", "parity"}
NULLABLE = {("parity",), ("control", "scripted_grasp")}
DEEP = json.loads("[" * 60 + "]" * 60)
JUNK = [
    None,
    True,
    -1,
    0,
    10**9,
    10**17,
    0.5,
    -1e300,
    1e300,
    math.nan,
    math.inf,
    "",
    "text",
    "../..",
    [],
    {},
    [[]],
    DEEP,
]


def places(value, path=()):
    """The path of every key and, of long lists, of some items."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for i in sorted({0, len(value) // 2, len(value) - 1} & set(range(len(value)))):
            yield from places(value[i], (*path, i))


PLACES = [path for path in places(VALID) if path != ("sha256",)]
KEYS = [path for path in PLACES if isinstance(path[-1], str)]


def is_free(path):
    return any(path[: len(part)] == part for part in FREE)


def kind(value):
    """The kind of a JSON value; whole numbers may stand for numbers."""
    return "number" if type(value) in (int, float) else type(value).__name__


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def damaged(path, change):
    """The contract with a change at a path: a function of the mapping or list there and the last key."""
    tree = copy.deepcopy(VALID)
    change(at(tree, path[:-1]), path[-1])
    return tree


def write(folder, tree, name="contract.json"):
    """Write the contract with its own hash: what is wrong is the damage alone."""
    tree["sha256"] = contract_sha256(tree)
    (folder / name).write_text(json.dumps(tree))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shutil.copytree(BUNDLE, tmp_path_factory.mktemp("damaged") / "bundle")


def refused(folder, path):
    """Read the contract; it must be refused in one line that names the file and the key."""
    with pytest.raises(BundleError) as caught:
        read_contract(folder)
    text = str(caught.value)
    assert "\n" not in text and str(folder / "contract.json") in text and len(text) < 2000
    names = [key for key in path if isinstance(key, str)]
    assert not names or names[-1] in text or names[0] in text, text


def keeps_limits(contract):
    """What a robot relies on, whatever the contract says."""
    hand, control = contract.hand, contract.control
    rows = (hand.joint_lower_rad, hand.joint_upper_rad, hand.effort_limit_nm, hand.speed_limit_rad_s, hand.kp_nm_rad)
    table = np.array(rows)
    assert table.shape == (5, len(hand.joint_names)) and np.isfinite(table).all()
    assert (table[0] < table[1]).all() and (np.abs(table[:2]) <= 7.0).all() and (table[2:] > 0).all()
    assert 1 <= control.rate_hz <= 1000
    if hand.name == "allegro":
        known = read_contract(BUNDLE).hand
        assert (table[0] >= np.array(known.joint_lower_rad) - 1e-6).all()
        assert (table[1] <= np.array(known.joint_upper_rad) + 1e-6).all()
        assert (table[3] <= np.array(known.speed_limit_rad_s) + 1e-6).all()
    SafetyGate(hand, control.rate_hz)


def check_replaced(folder, path, value):
    before = at(VALID, path)
    write(folder, damaged(path, lambda level, key: level.__setitem__(key, value)))
    wrong_kind = kind(value) != kind(before) or (kind(value) == "number" and not abs(value) < 1e200)
    allowed = is_free(path) and not (isinstance(value, float) and not math.isfinite(value)) and value is not DEEP
    if wrong_kind and not allowed and not (path in NULLABLE and value is None):
        refused(folder, path)
        return
    try:
        contract = read_contract(folder)
    except BundleError as error:
        assert "\n" not in str(error) and "contract.json" in str(error)
    else:
        keeps_limits(contract)


def check_removed(folder, path):
    write(folder, damaged(path, lambda level, key: level.pop(key)))
    if is_free(path[:-1]) or path[-1] in OPTIONAL:
        return
    refused(folder, path)


def check_added(folder, path, name):
    if is_free(path) or not isinstance(at(VALID, path), dict):
        return
    tree = copy.deepcopy(VALID)
    at(tree, path)[name] = 1
    write(folder, tree)
    refused(folder, (*path, name))


FEW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FEW, max_examples=4000)
REPLACED = given(st.sampled_from(PLACES), st.sampled_from(JUNK))
REMOVED = given(st.sampled_from(KEYS))
ADDED = given(st.sampled_from(PLACES), st.sampled_from(["evil", "rate", "", "__class__", "schema", "a.b"]))


@FEW
@REPLACED
@example(("hand", "speed_limit_rad_s", 0), 1e300)
@example(("hand", "speed_limit_rad_s", 0), -1)
@example(("hand", "joint_names"), None)
@example(("graph", "inputs"), [])
@example(("camera", "mode"), [])
@example(("files",), [])
@example(("schema",), {})
def test_a_replaced_value_is_refused_or_harmless(folder, path, value):
    check_replaced(folder, path, value)


@FEW
@REMOVED
def test_a_removed_key_is_refused_by_its_name(folder, path):
    check_removed(folder, path)


@settings(FEW, max_examples=20)
@ADDED
def test_an_unknown_key_is_refused_by_its_name(folder, path, name):
    check_added(folder, path, name)


@pytest.mark.slow
def test_every_value_is_replaced_by_every_other_kind(folder):
    for path in PLACES:
        for value in JUNK:
            check_replaced(folder, path, value)


@pytest.mark.slow
def test_every_key_is_removed(folder):
    for path in KEYS:
        check_removed(folder, path)


@pytest.mark.slow
@MANY
@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_bytes_of_a_contract_are_changed(folder, place, byte, cut):
    content = bytearray(json.dumps(VALID).encode())
    place %= len(content)
    content[place] = byte
    (folder / "contract.json").write_bytes(content[:place] if cut else content)
    try:
        assert read_contract(folder) == read_contract(BUNDLE)
    except BundleError as error:
        assert "contract.json" in str(error) and "\n" not in str(error)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["policy.onnx", "golden.npz"])
def test_bytes_of_the_other_files_are_changed_and_all_hashes_made_anew(folder, name):
    """In processes of their own: a damaged graph is read by native code."""
    rng, content = np.random.default_rng(0), (BUNDLE / name).read_bytes()
    for _ in range(60):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            changed[place] = rng.integers(256)
        if rng.random() < 0.2:
            changed = changed[: rng.integers(len(content))]
        (folder / name).write_bytes(changed)
        tree = copy.deepcopy(VALID)
        tree["files"][name] = sha256(bytes(changed))
        write(folder, tree)
        child = os.fork()
        if child == 0:
            code = 3
            try:
                Policy.load(folder)
                code = 0
            except BundleError as error:
                code = 0 if name in str(error) or "replayed" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (folder / name).write_bytes(content)

"""The runtime of a robot: what it imports, what it refuses, what it answers."""

import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dexgrasp import assets, configs
from dexgrasp.deploy import refuse_unknown_hand
from dexgrasp.policies.benchmarks.deploy import BenchDeployCfg, measure, recorded
from dexgrasp.policies.cli.main import main
from dexgrasp.policies.deploy import hand_limits
from dexgrasp.policies.deploy.bundle import BundleError, contract_sha256, read_contract, sha256, write_contract
from dexgrasp.policies.deploy.contract import KinematicsContract
from dexgrasp.policies.deploy.hand_limits import differing_kinematics
from dexgrasp.policies.deploy.policy import Policy
from dexgrasp.sim.robots.hand import HandSpec

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle():
    """A shipped bundle."""
    return assets.path("policies/allegro/student/bundle")


@pytest.fixture
def copied(bundle, tmp_path):
    """A copy of the bundle that a test may damage."""
    return shutil.copytree(bundle, tmp_path / "bundle")


def rewrite(folder, change):
    """Change the contract and sign it again: what remains is the change itself."""
    contract = json.loads((folder / "contract.json").read_text())
    change(contract)
    contract["files"] = {name: sha256((folder / name).read_bytes()) for name in contract["files"]}
    contract["sha256"] = contract_sha256(contract)
    (folder / "contract.json").write_text(json.dumps(contract))


def test_the_runtime_imports_neither_torch_nor_mujoco(bundle):
    code = (
        "import sys; from dexgrasp.policies.deploy.policy import Policy;"
        "from dexgrasp.policies.deploy.safety_gate import SafetyGate;"
        f"Policy.load({str(bundle)!r});"
        "heavy = ('torch', 'mujoco', 'sim', 'scipy', 'perception', 'hydra', 'omegaconf');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_row_gives_what_a_batch_gives(bundle):
    plan, readings = recorded(bundle)
    alone, many = Policy.load(bundle), Policy.load(bundle)
    alone.reset(plan)
    many.reset(type(plan)(*(np.stack([value] * 3) for value in vars(plan).values())))
    for sensed in readings[:10]:
        one = alone.act(sensed)
        three = many.act(type(sensed)(*(np.stack([value] * 3) for value in vars(sensed).values())))
        assert one.joint_target.shape == (16,)
        np.testing.assert_allclose(three.joint_target[2], one.joint_target, atol=1e-6)
        np.testing.assert_allclose(three.palm_pos_w[2], one.palm_pos_w, atol=1e-6)


def test_a_row_does_not_depend_on_how_many_there_are(bundle):
    plan, readings = recorded(bundle)
    plans = type(plan)(*(np.stack([value] * 21) for value in vars(plan).values()))
    found = {}
    for rows in (21, 1, 3, 7):
        policy = Policy.load(bundle)
        policy.reset(type(plan)(*(value[:rows] for value in vars(plans).values())))
        for step in range(5):
            seen = [vars(sensed).values() for sensed in readings[step : step + rows]]
            found[rows] = policy.act(type(readings[0])(*(np.stack(values) for values in zip(*seen, strict=True))))
        for name, value in vars(found[rows]).items():
            np.testing.assert_array_equal(value, vars(found[21])[name][:rows], err_msg=f"{name}, {rows} rows")


def test_the_phases_follow_the_contract_and_the_lift_is_the_contracts(bundle):
    policy = Policy.load(bundle)
    plan, readings = recorded(bundle)
    policy.reset(plan)
    seen, heights = [], []
    for _ in range(60):
        seen.append(policy.phase)
        heights.append(policy.act(readings[0]).palm_pos_w[2])
    control = policy.contract.control
    grasp, lift = control.grasp_steps, control.lift_steps
    assert (seen.count("grasp"), seen.count("lift"), seen.count("hold")) == (grasp, lift, 60 - grasp - lift)
    assert heights[grasp + lift - 1] - heights[grasp - 1] == pytest.approx(control.lift_m, abs=1e-7)
    assert heights[-1] == heights[grasp + lift - 1]


def test_begin_forgets_the_last_episode(bundle):
    policy = Policy.load(bundle)
    plan, readings = recorded(bundle)
    policy.reset(plan)
    first = policy.act(readings[0])
    policy.act(readings[40])
    policy.reset(plan)
    np.testing.assert_array_equal(policy.act(readings[0]).action, first.action)


def test_readings_that_are_wrong_are_refused_and_change_nothing(bundle):
    policy = Policy.load(bundle)
    plan, readings = recorded(bundle)
    good = readings[0]
    with pytest.raises(RuntimeError, match="reset"):
        policy.act(good)
    policy.reset(plan)
    for name, value, error in (
        ("joint_pos", np.full(16, np.nan), "joint_pos is not finite"),
        ("joint_pos", np.zeros(15), r"joint_pos: expected shape \(1, 16\).*got \(1, 15\)"),
        ("points_w", np.zeros((10, 3)), "points_w: expected shape"),
        ("joint_pos", np.ma.masked_equal(np.arange(16.0), 3.0), "joint_pos: it has masked values"),
        ("palm_pos_w", ["0", "0", "0.3"], "palm_pos_w: expected numbers, got list of type <U3"),
        ("palm_pos_w", np.array([0, 0, 0.3], dtype=object), "palm_pos_w: expected numbers, got ndarray of type object"),
        ("palm_quat_w", None, "palm_quat_w: expected numbers, got NoneType"),
    ):
        with pytest.raises(ValueError, match=error):
            policy.act(type(good)(**(vars(good) | {name: value})))
    assert policy.step == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("palm_quat_w", [0.0] * 4, "palm_quat_w: the quaternion wxyz has length 0, expected 1"),
        ("palm_quat_w", [5.0, 0.0, 0.0, 0.0], "palm_quat_w: the quaternion wxyz has length 5, expected 1"),
        ("palm_pos_w", [5000.0, 0.0, 0.3], "palm_pos_w: 5000 m is outside -10 to 10 m; is it in millimetres?"),
        ("points_w", np.full((128, 3), -300.0), "points_w: -300 m is outside -10 to 10 m; is it in millimetres?"),
        ("joint_pos", [99.0] * 16, "99 rad is outside -7 to 7 rad"),
        ("visible_fraction", -5.0, "visible_fraction: -5 is outside 0 to 1"),
        ("visible_fraction", 100.0, "visible_fraction: 100 is outside 0 to 1"),
        ("depth_m", -9.0, "depth_m: -9 m is outside 0 to 2 m"),
        ("floor_m", 90.0, "floor_m: 90 m is outside 0 to 2 m; is it in millimetres?"),
        ("closing", [1e4] * 16, "closing: 1e+04 is outside -100 to 100"),
        ("joint_pos", [0.0] * 15, "expected shape"),
        ("palm_pos_w", "zero", "expected numbers"),
        ("palm_pos_w", 0.0, "shape"),
    ],
)
def test_values_that_no_robot_has_are_refused_and_the_episode_goes_on(bundle, name, value, message):
    plan, readings = recorded(bundle)
    policy, twin = Policy.load(bundle), Policy.load(bundle)
    for one in (policy, twin):
        one.reset(plan)
        one.act(readings[0])
    message = message if "|" in message else re.escape(message)
    if name in vars(plan):
        with pytest.raises(ValueError, match=message):
            policy.reset(replace(plan, **{name: value}))
    if name in vars(readings[0]):
        if name == "points_w":
            value = np.full_like(readings[0].points_w, -300.0)
        with pytest.raises(ValueError, match=message):
            policy.act(replace(readings[0], **{name: value}))
    assert policy.step == 1
    found, expected = policy.act(readings[1]), twin.act(readings[1])
    for key in vars(expected):
        np.testing.assert_array_equal(getattr(found, key), getattr(expected, key))


def test_a_batch_that_is_refused_leaves_the_episode_of_one_robot(bundle):
    plan, readings = recorded(bundle)
    policy, twin = Policy.load(bundle), Policy.load(bundle)
    for one in (policy, twin):
        one.reset(plan)
    batch = {key: np.stack([value] * 3) for key, value in vars(plan).items()}
    for wrong in ({"depth_m": [0.1] * 2}, {"palm_quat_w": np.zeros((3, 4))}):
        with pytest.raises(ValueError, match=r"depth_m|palm_quat_w"):
            policy.reset(type(plan)(**(batch | wrong)))
    with pytest.raises(IndexError):
        policy.reset(plan, rows=[4])
    np.testing.assert_array_equal(policy.act(readings[0]).joint_target, twin.act(readings[0]).joint_target)


def test_the_hands_joints_must_be_those_of_the_contract(bundle, allegro):
    names = list(allegro.joint_names)
    Policy.load(bundle, names)
    with pytest.raises(BundleError, match=r"hand\.joint_names\[0\] is 'ffj0', the hand has 'ffj1' there"):
        Policy.load(bundle, [names[1], names[0], *names[2:]])
    with pytest.raises(BundleError, match=r"made for 16 joints \(allegro\), the hand has 12"):
        Policy.load(bundle, names[:12])


@pytest.mark.parametrize("name", ["contract.json", "policy.onnx", "golden.npz"])
def test_a_missing_a_truncated_and_a_changed_file_are_clear_errors(copied, name):
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=name):
        Policy.load(copied)
    middle = content.index(b"0.2", len(content) // 8) if name == "contract.json" else len(content) // 2
    (copied / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(BundleError, match=rf"{name}.*(SHA-256|sha256)"):
        Policy.load(copied)
    (copied / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing: a bundle holds"):
        Policy.load(copied)


def test_a_contract_of_another_version_is_refused(copied):
    rewrite(copied, lambda contract: contract.update(schema=2))
    with pytest.raises(BundleError, match="schema 2, this version reads 3 and 4"):
        Policy.load(copied)


def as_schema_3(contract):
    """The plain contract as the last release wrote it."""
    contract["schema"] = 3
    control, graph, camera = contract["control"], contract["graph"], contract.pop("camera")
    control["left_share"] = control.pop("min_rise_fraction")
    control["unseen_share"] = control.pop("min_visible_fraction")
    control["sure_grip"] = control.pop("grip_threshold_unseen")
    control["lost_grip"] = control.pop("grip_threshold_hold")
    control["vectors"] = control.pop("vector_frame")
    control["prior"] = control.pop("scripted_grasp")
    control["wrist"]["behind_m"] = control["wrist"].pop("offset_m")
    control["wrist"]["turn_rad"] = control["wrist"].pop("max_turn_rad")
    graph["carried"] = graph.pop("state")
    assert camera["mode"] == "tracked_updated"
    assert camera["model"] == "points"
    contract["view"] = {
        "mode": "corrected",
        "carried": camera["move_with_palm"],
        "camera": "model",
        "period_steps": camera["frame_interval_steps"],
        "held_period_steps": camera["hold_frame_interval_steps"],
        "latency_steps": camera["latency_steps"],
        "disparity_sd_px": camera["disparity_sd_px"],
        "depth_unit_m": camera["depth_unit_m"],
        "edge_loss": camera["edge_dropout"],
        "flying": camera["flying_pixel_rate"],
        "steep": camera["include_grazing_angles"],
        "hand_margin_m": camera["hand_margin_m"],
        "min_points": camera["min_points"],
        "points": camera["points"],
    }


def test_a_bundle_of_schema_3_runs_as_one_of_schema_4(bundle, copied, caplog):
    caplog.set_level(logging.INFO, "dexgrasp")
    rewrite(copied, as_schema_3)
    before, now = read_contract(copied), read_contract(bundle)
    assert replace(before, sha256=now.sha256) == now
    (record,) = caplog.records
    assert "schema 3 is read as schema 4" in record.getMessage()
    plan, readings = recorded(copied)
    policies = [Policy.load(folder) for folder in (copied, bundle)]
    for policy in policies:
        policy.reset(plan)
    old, new = (policy.act(readings[0]) for policy in policies)
    np.testing.assert_array_equal(old.joint_target, new.joint_target)


def test_a_contract_that_is_written_is_read_back_equal(bundle, copied):
    contract = read_contract(bundle)
    write_contract(copied, contract)
    assert read_contract(copied) == contract
    assert (copied / "contract.json").read_bytes() == (bundle / "contract.json").read_bytes()


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("control", {"rate": 20.0}, "unknown key 'control.rate'. Did you mean 'control.rate_hz'?"),
        ("control", {"rate_hz": None}, "'control.rate_hz' expects float, got None"),
        (
            "camera",
            {"mode": "corrected"},
            "'camera.mode' expects one of first_frame, latest, tracked, tracked_updated",
        ),
        ("hand", {"kp_nm_rad": [1.0]}, "['kp_nm_rad'] must hold 16 values, one per motor"),
        ("hand", {"joint_lower_rad": [5.0] * 16}, "hand.joint_lower_rad must be below hand.joint_upper_rad"),
        ("hand", {"joint_names": ["a"] * 16}, "hand.joint_names must be different names"),
        ("hand", {"palm_quat_b": [1.0, 1.0, 0.0, 0.0]}, "hand.palm_quat_b must have the length 1"),
        ("graph", {"plan": []}, "must be in graph.inputs and in one of graph.readings, plan and state"),
        ("graph", {"outputs": ["grip"]}, "graph.outputs must begin with next_NAME"),
        ("graph", {"outputs": None}, "'graph.outputs' expects list of str, got None"),
        ("training", {"config": {"hand": "allegro"}}, "training.config lacks ['side', 'task']"),
    ],
)
def test_a_contract_that_cannot_be_right_is_refused_with_the_field(copied, section, change, message):
    rewrite(copied, lambda contract: contract[section].update(change))
    with pytest.raises(BundleError, match=re.escape(message)):
        read_contract(copied)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("control", "rate_hz", 0.0),
        ("control", "rate_hz", 1000.5),
        ("control", "grasp_steps", 0),
        ("control", "lift_m", -0.1),
        ("control", "grip_threshold_hold", 1.5),
        ("camera", "points", 10**9),
        ("camera", "edge_dropout", -0.1),
        ("hand", "kp_nm_rad", [0.0] * 16),
        ("hand", "speed_limit_rad_s", [-1.0] * 16),
        ("hand", "speed_limit_rad_s", [7.0] * 15 + [1e9]),
        ("graph", "opset", -1),
    ],
)
def test_a_number_outside_its_range_is_refused_with_file_key_and_value(copied, section, key, value):
    rewrite(copied, lambda contract: contract[section].update({key: value}))
    with pytest.raises(BundleError, match=rf"contract\.json: .*{section}.*{key}.* must lie in .*, got"):
        read_contract(copied)


@pytest.mark.parametrize(
    ("key", "factor", "message"),
    [
        ("speed_limit_rad_s", 1.01, r"hand\.speed_limit_rad_s\[0\] \(ffj0\) is 7\.07, .*hand\.yaml allows 7\.0"),
        ("effort_limit_nm", 2.0, r"hand\.effort_limit_nm\[0\] \(ffj0\) is 1\.4, .* allows 0\.7"),
        ("joint_upper_rad", 1.1, r"hand\.joint_upper_rad\[0\] \(ffj0\) is 0\.517, .* allows 0\.47"),
        ("joint_lower_rad", 1.1, r"hand\.joint_lower_rad\[0\] \(ffj0\) is -0\.517, .* allows -0\.47"),
    ],
)
def test_limits_beyond_those_of_the_hand_itself_are_refused_with_both_values(copied, key, factor, message):
    def change(contract):
        contract["hand"][key] = [round(factor * value, 6) for value in contract["hand"][key]]

    rewrite(copied, change)
    with pytest.raises(BundleError, match=message):
        read_contract(copied)


def test_a_bundle_of_an_unknown_hand_says_that_it_sets_its_own_limits(copied, capsys):
    rewrite(copied, lambda contract: contract["hand"].update(name="my_hand"))
    said = (
        "hand 'my_hand' is not known on this machine: joint ranges, speeds and torques are those that the bundle states"
    )
    for times in (1, 0):  # once per process
        assert main(["bench", "deploy", f"policy={copied}", "steps=1", f"out={copied.parent / 'run'}"]) == 0
        assert capsys.readouterr().err.count(said) == times
    with pytest.raises(BundleError, match=r"hand 'my_hand' is not known on this machine, .* give the hand\.yaml"):
        refuse_unknown_hand(read_contract(copied), copied)


def test_a_bundle_of_an_unknown_hand_is_compared_with_a_given_description(copied, tmp_path, caplog):
    text = assets.path("hands/allegro/hand.yaml").read_text()
    (tmp_path / "hand.yaml").write_text(text.replace("name: allegro", "name: my_hand"))
    rewrite(copied, lambda contract: contract["hand"].update(name="my_hand"))
    assert read_contract(copied, hand_file=tmp_path / "hand.yaml").hand.name == "my_hand"
    assert "not known" not in caplog.text
    for old, new, said in (
        (
            "speed_limit: 7.0",
            "speed_limit: 1.0",
            r"hand\.speed_limit_rad_s\[0\] \(ffj0\) is 7\.0, .*hand\.yaml allows 1\.0",
        ),
        ("name: my_hand", "name: other", "hand.name is 'my_hand', .*hand.yaml describes 'other'"),
        ("ffj0:", "first:", "hand.joint_names are .*ffj0.*, .*hand.yaml has .*first"),
        ("actuation:", "actuators:", "is damaged or no description of a hand: it lacks 'actuation'"),
        ("range: [-0.47, 0.47]", "range: -0.47", "hand_file=.*other.yaml: .*no description of a hand"),
    ):
        (tmp_path / "other.yaml").write_text((tmp_path / "hand.yaml").read_text().replace(old, new))
        hand_limits._limits.cache_clear()
        with pytest.raises(
            BundleError, match=said.replace("hand\\.yaml", "other\\.yaml").replace("hand.yaml", "other.yaml")
        ):
            read_contract(copied, hand_file=tmp_path / "other.yaml")
    with pytest.raises(BundleError, match=r"hand_file=.*none\.yaml: "):
        read_contract(copied, hand_file=tmp_path / "none.yaml")


BAD_HASHES = ["", "0" * 63, "0" * 65, "g" * 64, " " * 64, "0x" + "0" * 62, None, 0, [], ["0" * 64]]


@pytest.mark.parametrize(
    "stated", [*BAD_HASHES, str.upper, "{} ".format], ids=lambda stated: getattr(stated, "__name__", str(stated))
)
def test_a_hash_that_is_none_is_refused_wherever_a_bundle_states_one(copied, stated):
    contract = json.loads((copied / "contract.json").read_text())
    for name in ("golden.npz", "policy.onnx", "contract.json"):
        changed = json.loads(json.dumps(contract))
        right = contract["sha256"] if name == "contract.json" else contract["files"][name]
        value = stated(right) if callable(stated) else stated
        if name == "contract.json":
            changed["sha256"] = value
        else:
            changed["files"][name] = value
            changed["sha256"] = contract_sha256(changed)
        (copied / "contract.json").write_text(json.dumps(changed))
        with pytest.raises(BundleError, match=r"SHA-256|sha256|files"):
            Policy.load(copied)


@pytest.mark.parametrize(
    ("section", "key", "change", "message"),
    [
        ("hand", "name", lambda old: "Allegro", "the known hand is 'allegro'"),
        ("hand", "name", lambda old: " allegro ", "the known hand is 'allegro'"),
        ("hand", "name", lambda old: "\u0430llegro", "printable ASCII"),
        ("hand", "name", lambda old: "allegro\x1b[31m", r"control characters at 'hand\.name'"),
        ("hand", "conventions", lambda old: old + "\n", r"control characters at 'hand\.conventions'"),
        ("hand", "kp_nm_rad", lambda old: [0.29] * 16, r"kp_nm_rad\[0\] \(ffj0\) is 0\.29, .* allows 0\.3"),
        ("hand", "palm_pos_b", lambda old: [0.0] * 3, r"hand\.palm_pos_b is"),
        ("hand", "kinematics", lambda old: old | {"pos": [[2 * x for x in p] for p in old["pos"]]}, r"pos\[1\] is"),
        ("hand", "side", lambda old: "left", r"hand\.kinematics\.pos\[1\] is .*, that of the left allegro is \["),
        ("control", "rate_hz", lambda old: 1000.0, r"control\.rate_hz is 1000\.0, the policy was trained with 20\.0"),
        ("control", "lift_m", lambda old: 0.3, r"control\.lift_m is 0\.3, the policy was trained with 0\.15"),
        ("control", "vector_frame", lambda old: "world", r"control\.vector_frame is 'world', .* with 'palm'"),
        ("control", "palm_action_m_s", lambda old: 2 * old, r"control\.palm_action_m_s is 0\.2, .* with 0\.1 "),
        ("control", "palm_action_rad_s", lambda old: 2 * old, r"control\.palm_action_rad_s is 1\.2"),
        ("control", "finger_action_rad", lambda old: 2 * old, r"control\.finger_action_rad is 0\.6"),
        ("control", "action_clip", lambda old: 2 * old, r"control\.action_clip is 6\.0"),
    ],
)
def test_a_contract_that_contradicts_its_hand_or_training_is_refused(copied, section, key, change, message):
    rewrite(copied, lambda contract: contract[section].update({key: change(contract[section][key])}))
    with pytest.raises(BundleError, match=message):
        read_contract(copied)


@pytest.mark.parametrize("name", ["ability", "allegro", "leap", "orca", "shadow"])
def test_the_reflected_hand_is_the_left_one_and_nothing_else_is(name):
    """Oracle: the reflection of the model in the simulator."""
    contract = read_contract(assets.path(f"policies/{name}/student/bundle"))
    hand = HandSpec.load(name, side="left")
    tree = configs.from_dict(KinematicsContract, hand.kinematics().to_dict(), "hand.kinematics")
    left = replace(
        contract.hand,
        side="left",
        palm_pos_b=tuple(hand.palm_pos_b.tolist()),
        palm_quat_b=tuple(hand.palm_quat_b.tolist()),
        kinematics=tree,
    )
    assert differing_kinematics(left) == differing_kinematics(contract.hand) == ""
    assert f"that of the right {name} is" in differing_kinematics(replace(left, side="right"))
    turned = {"ability": [], "orca": [], "shadow": []}.get(
        name, ["quat"]
    )  # bodies turned about y, or none, reflect alike
    for key in ("pos", "axis", *turned):
        half = replace(left, kinematics=replace(tree, **{key: getattr(contract.hand.kinematics, key)}))
        assert f"that of the left {name} is" in differing_kinematics(half), key


def npy_entry(header, values=b"1234"):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + values


@pytest.mark.parametrize(
    "entry",
    [
        npy_entry("{'descr':'<f4','fortran_order':False,'shape':(1125899906842624,)}\n"),
        npy_entry("{'descr':'<f4','fortran_order':False,'shape':(-1,)}\n"),
        npy_entry("{'descr':'<U100000000','fortran_order':False,'shape':(10000000,)}\n"),
        npy_entry("(" * 900),
        npy_entry("(" * 5000),
        b"hello",
        b"",
        b"\x93NUMPY\x09\x00xxxx",
    ],
)
def test_a_golden_file_with_a_broken_entry_is_refused(copied, entry):
    with zipfile.ZipFile(copied / "golden.npz", "w") as archive:
        archive.writestr("in/step.npy", entry)
    rewrite(copied, lambda contract: None)
    with pytest.raises(BundleError, match=r"golden\.npz cannot be read: entry 'in/step\.npy'"):
        Policy.load(copied)


def test_smaller_limits_than_those_of_the_hand_are_accepted(copied):
    rewrite(copied, lambda contract: contract["hand"].update(speed_limit_rad_s=[3.0] * 16))
    assert read_contract(copied).hand.speed_limit_rad_s == (3.0,) * 16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nested too deep"),
        (b'{"schema": 4, "schema": 4}', "key 'schema' occurs twice"),
        (b'{"schema": NaN}', "'schema' is no finite number, or too large"),
        (b'{"a": {"b": [1e999]}}', "'a.b[0]' is no finite number, or too large"),
        (b'{"schema": 1' + b"0" * 400 + b"}", "'schema' is no finite number, or too large"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "damaged or no JSON file: Exceeds the limit"),
        (b"\xff\xfe", "UTF-16"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"", "it is empty"),
        (b"[]", "no field 'schema'"),
        (b'{"schema": {}}', "schema {}"),
    ],
)
def test_text_that_is_no_contract_is_refused(copied, text, message):
    (copied / "contract.json").write_bytes(text)
    with pytest.raises(BundleError, match=rf"contract\.json.*{re.escape(message)}"):
        read_contract(copied)


def test_a_file_that_would_block_is_refused(copied):
    for name in ("contract.json", "policy.onnx"):
        (copied / name).rename(copied / "kept")
        os.mkfifo(copied / name)
        with pytest.raises(BundleError, match=f"{name} is not a regular file"):
            Policy.load(copied)
        (copied / name).unlink()
        (copied / "kept").rename(copied / name)


def test_a_contract_without_a_key_is_refused_by_its_name(copied):
    rewrite(copied, lambda contract: contract["camera"].pop("min_points"))
    with pytest.raises(BundleError, match=r"'camera\.min_points' has no value"):
        read_contract(copied)


def test_a_contract_without_a_section_is_refused(copied):
    rewrite(copied, lambda contract: contract.pop("control"))
    with pytest.raises(BundleError, match=r"lacks \['control'\]"):
        Policy.load(copied)


def drop_input(contract):
    del contract["graph"]["inputs"]["depth_m"]
    contract["graph"]["plan"].remove("depth_m")


def test_inputs_that_differ_from_the_graphs_are_refused(copied):
    rewrite(copied, drop_input)
    with pytest.raises(BundleError, match=r"inputs are .* the contract states"):
        Policy.load(copied)


def test_a_graph_that_computes_something_else_is_refused_by_the_field_that_differs(copied):
    golden = dict(np.load(copied / "golden.npz"))
    golden["out/next_target_pos_w"] = golden["out/next_target_pos_w"] + 1e-4
    np.savez(copied / "golden.npz", **golden)
    rewrite(copied, lambda contract: None)
    with pytest.raises(BundleError, match=r"replayed 'next_target_pos_w' differs from the recorded one by 0\.0001"):
        Policy.load(copied)


def endless(folder, from_step=0):
    """Give the graph a loop without an end, that begins at a step of the episode."""
    model = onnx.load(folder / "policy.onnx")
    graph, value = model.graph, helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Sin", ["x"], ["next_x"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("x", TensorProto.DOUBLE, [1])],
        [value("go_on", TensorProto.BOOL, []), value("next_x", TensorProto.DOUBLE, [1])],
    )
    constants = {
        "from_step": np.array(from_step),
        "trips": np.array(2**62),
        "start": np.zeros(1),
        "axis": np.array([0]),
    }
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    last = graph.output[-1].name
    for node in graph.node:
        node.output[:] = [f"{last}_before" if name == last else name for name in node.output]
        node.input[:] = [f"{last}_before" if name == last else name for name in node.input]
    graph.node.extend(
        [
            helper.make_node("ReduceMax", ["step", "axis"], ["newest"], keepdims=0),
            helper.make_node("GreaterOrEqual", ["newest", "from_step"], ["loops"]),
            helper.make_node("Loop", ["trips", "loops", "start"], ["looped"], body=body),
            helper.make_node("CastLike", ["looped", f"{last}_before"], ["zero"]),
            helper.make_node("Add", [f"{last}_before", "zero"], [last]),
        ]
    )
    (folder / "policy.onnx").write_bytes(model.SerializeToString())
    rewrite(folder, lambda contract: None)


def test_a_graph_with_an_endless_loop_is_refused_within_the_time_limit(copied, monkeypatch):
    monkeypatch.setattr("dexgrasp.policies.deploy.policy.BATCH_LIMIT_S", 2.0)  # loading keeps it on a busy machine, too
    endless(copied)
    start_s = time.monotonic()
    with pytest.raises(
        BundleError,
        match=r"policy\.onnx: .*a step of the policy's graph took longer than 2 s; the machine may be busy",
    ):
        Policy.load(copied)
    assert time.monotonic() - start_s < 10.0


def test_a_loop_that_begins_later_ends_its_step_and_leaves_the_state(copied, bundle):
    endless(copied, from_step=1000)  # beyond every recorded step
    policy, (plan, readings) = Policy.load(copied), recorded(bundle)
    policy.reset(plan)
    policy.act(readings[0])
    policy._state["step"][:] = 1000
    start_s = time.monotonic()
    with pytest.raises(ValueError, match="took longer than 1 s; the machine may be busy, run it again when it is idle"):
        policy.act(readings[0])
    assert time.monotonic() - start_s < 5.0
    assert policy.step == 1000
    policy.reset(plan)
    policy.act(readings[0])  # the next step has its own time
    assert policy.step == 1


def extend(folder, nodes, constants):
    """Add operators to the graph; the last of them gives "zero", which is added to the last output."""
    model = onnx.load(folder / "policy.onnx")
    graph, last = model.graph, model.graph.output[-1].name
    for node in graph.node:
        node.output[:] = [f"{last}_before" if name == last else name for name in node.output]
        node.input[:] = [f"{last}_before" if name == last else name for name in node.input]
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    cast = helper.make_node("CastLike", ["zero", f"{last}_before"], ["zero_like"])
    graph.node.extend([*nodes, cast, helper.make_node("Add", [f"{last}_before", "zero_like"], [last])])
    (folder / "policy.onnx").write_bytes(model.SerializeToString())
    rewrite(folder, lambda contract: None)


def test_a_graph_that_takes_too_long_to_load_is_refused_within_the_time_limit(copied, monkeypatch):
    """20,000 operators in a row take about 2 s to load."""
    monkeypatch.setattr("dexgrasp.policies.deploy.policy.BATCH_LIMIT_S", 0.3)
    chain = [helper.make_node("Sin", [f"x{i}"], [f"x{i + 1}" if i < 19_999 else "zero"]) for i in range(20_000)]
    extend(copied, chain, {"x0": np.zeros(1, np.float32)})
    start_s = time.monotonic()
    with pytest.raises(
        BundleError,
        match=r"policy\.onnx is not a graph .*: loading it took longer than 0\.3 s; the machine may be busy",
    ):
        Policy.load(copied)
    assert time.monotonic() - start_s < 5.0


EXPLODING = {
    "a tensor of 4 TB": (
        [
            helper.make_node("ConstantOfShape", ["shape"], ["big"]),
            helper.make_node("ReduceMax", ["big"], ["zero"], keepdims=0),
        ],
        {"shape": np.array([2**40])},
    ),
    "a tensor of 8 GB": (
        [
            helper.make_node("Expand", ["one", "shape"], ["big"]),
            helper.make_node("ReduceMin", ["big"], ["zero"], keepdims=0),
        ],
        {"one": np.zeros(1, np.float64), "shape": np.array([2**15, 2**15])},
    ),
}
"""Operators of constants: folded when a graph is loaded, they would take all memory before any limit holds."""


def test_a_graph_that_explodes_is_refused_and_takes_no_memory(bundle, tmp_path):
    folders = [shutil.copytree(bundle, tmp_path / name) for name in EXPLODING]
    for name, folder in zip(EXPLODING, folders, strict=True):
        extend(folder, *EXPLODING[name])
    script = (
        "import sys; from dexgrasp.policies.deploy.policy import Policy\n"
        "for folder in sys.argv[1:]:\n"
        "  try: Policy.load(folder)\n"
        "  except ValueError as error: print(type(error).__name__, error)\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"  # of exec on
    )
    done = subprocess.run([sys.executable, "-c", script, *folders], capture_output=True, text=True, timeout=60)
    *said, peak_kib = done.stdout.splitlines()
    assert len(said) == len(folders) and int(peak_kib) < 1_000_000
    for line in said:
        assert line.startswith("BundleError") and "policy.onnx: the recorded inputs do not fit the graph" in line
        assert "a step of the policy's graph failed" in line


def change_golden(folder, **changes):
    """Rewrite golden.npz with some arrays replaced (None: left out), and sign it again."""
    golden = dict(np.load(folder / "golden.npz")) | {name.replace("__", "/"): value for name, value in changes.items()}
    np.savez(folder / "golden.npz", **{name: value for name, value in golden.items() if value is not None})
    rewrite(folder, lambda contract: None)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("in__points_w", lambda old: None, r"lacks \['in/points_w'\]"),
        ("in__joint_pos", lambda old: old[:, :15], r"in/joint_pos must be float64 of shape \(64, 16\)"),
        ("in__joint_pos", lambda old: old.astype(np.float32), "it is float32"),
        ("in__joint_pos", lambda old: old[:0], "1 to 4096 rows"),
        ("in__joint_pos", lambda old: np.array(1.0), "1 to 4096 rows"),
        ("in__joint_pos", lambda old: np.full(old.shape, "x"), "expected numbers or truth values, got <U1"),
        ("in__joint_pos", lambda old: old * np.nan, "differs from the recorded one by nan"),
        ("out__next_step", lambda old: old[:, None], "out/next_step must be int64"),
        ("out__grip", lambda old: old * np.nan, "'grip' differs from the recorded one by nan"),
        ("out__grip", lambda old: old[:3], "'grip' differs"),
    ],
)
def test_recorded_values_that_do_not_fit_are_refused(copied, name, change, message):
    change_golden(copied, **{name: change(np.load(copied / "golden.npz")[name.replace("__", "/")])})
    with pytest.raises(BundleError, match=message):
        Policy.load(copied)


def test_a_golden_file_that_unpacks_to_far_more_is_refused_unread(copied, monkeypatch):
    monkeypatch.setattr("dexgrasp.policies.deploy.bundle.MAX_BYTES", 2**20)
    with zipfile.ZipFile(copied / "golden.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in/step.npy", bytes(3 * 2**20))
    rewrite(copied, lambda contract: None)
    with pytest.raises(BundleError, match="its arrays take 3145728 bytes, at most 1048576 are read"):
        Policy.load(copied)


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("history", {"size": [10, 39], "dtype": "float32"}, r"input history is tensor\(float\) \[10, 38\] per row"),
        ("history", {"size": [380], "dtype": "float32"}, "input history is"),
        ("depth_m", {"size": [], "dtype": "float32"}, r"input depth_m is tensor\(double\)"),
        ("joint_pos", {"size": [17], "dtype": "float64"}, r"graph\.inputs\.joint_pos\.size must be \[16\]"),
        ("points_w", {"size": [10**5, 10**5], "dtype": "float32"}, "product up to 1000000"),
    ],
)
def test_an_input_of_another_shape_than_the_graphs_is_refused(copied, name, entry, message):
    rewrite(copied, lambda contract: contract["graph"]["inputs"].update({name: entry}))
    with pytest.raises(BundleError, match=message):
        Policy.load(copied)


def test_a_graph_that_is_none_is_refused(copied):
    (copied / "policy.onnx").write_bytes(b"no graph")
    rewrite(copied, lambda contract: None)
    with pytest.raises(BundleError, match="not a graph that onnxruntime runs"):
        Policy.load(copied)


class Trap:
    """Executes on unpickling."""

    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return (os.mkdir, (self.flag,))


def test_a_bundle_executes_no_pickle(copied, tmp_path):
    flag = str(tmp_path / "executed")
    golden = dict(np.load(copied / "golden.npz"))
    np.savez(copied / "golden.npz", **(golden | {"in/step": np.array([Trap(flag)], dtype=object)}))
    rewrite(copied, lambda contract: None)
    with pytest.raises(
        BundleError, match=r"golden\.npz cannot be read: .*expected numbers or truth values, got object"
    ):
        Policy.load(copied)
    (copied / "golden.npz").write_bytes(pickle.dumps(Trap(flag)))
    rewrite(copied, lambda contract: None)
    with pytest.raises(BundleError, match=r"golden\.npz cannot be read"):
        Policy.load(copied)
    assert not os.path.exists(flag)


def test_act_and_gate_fit_into_a_control_period(bundle):
    timed = measure(bundle, BenchDeployCfg(steps=300))
    assert timed["act"]["cpu_ms"]["median"] < 3.0  # 0.3 ms are asked for; a loaded machine gets ten times that
    assert timed["safety_gate"]["cpu_ms"]["median"] < 3.0

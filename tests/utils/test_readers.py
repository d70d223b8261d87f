"""Files of perception, calibration and bundles have one reader: damaged content is one line with the file."""

import gzip
import json
import os
import re
import shutil
import sys
import time
import zipfile

import numpy as np
import pytest
import yaml

from dexgrasp import assets
from dexgrasp.perception.cameras.extrinsics import CameraPose
from dexgrasp.perception.cameras.open import read_intrinsics
from dexgrasp.perception.robot_mask import read_arm_body, read_hand_body
from dexgrasp.policies.deploy.bundle import BundleError, read_bundle, read_contract
from dexgrasp.utils.readers import (
    DamagedFileError,
    foreign_file,
    parse_json,
    parse_yaml,
    read_json,
    read_json_object,
    read_yaml,
    reading,
)

BUNDLE = assets.path("policies/allegro/student/bundle")
CAMERA = {"width": 640, "height": 480, "fx": 600.0, "fy": 600.0, "cx": 320.0, "cy": 240.0}
POSE = {"T_world_cam": {"pos_m": [0.6, 0.0, 0.5], "quat_wxyz": [0.0, 1.0, 0.0, 0.0]}}


def hand_of(path):
    hand = read_contract(BUNDLE).hand
    return read_hand_body(
        path,
        side=hand.side,
        kinematics=vars(hand.kinematics),
        palm_pos_b=hand.palm_pos_b,
        palm_quat_b=hand.palm_quat_b,
    )


READERS = {
    "camera.json": (read_intrinsics, json.dumps(CAMERA)),
    "camera.yaml": (CameraPose.load, yaml.safe_dump(POSE)),
    "hand/capsules.json": (hand_of, assets.path("hands/allegro/capsules.json").read_text()),
    "arm/capsules.json": (read_arm_body, assets.path("arms/ur5e/capsules.json").read_text()),
    "bundle/contract.json": (lambda path: read_contract(path.parent), (BUNDLE / "contract.json").read_text()),
    "any.json": (read_json, "{}"),
    "any.yaml": (read_yaml, "{}"),
}


@pytest.fixture(params=READERS)
def reader(request, tmp_path):
    """The function, the file it reads, and a content that it takes."""
    path = tmp_path / request.param
    path.parent.mkdir(exist_ok=True)
    read, good = READERS[request.param]
    path.write_text(good, encoding="utf-8")
    return read, path, good


def refusal(read, path):
    with pytest.raises((ValueError, OSError)) as caught:
        read(path)
    text = str(caught.value)
    assert path.name in text and "\n" not in text and len(text) < 1000, text
    return text


def test_good_files_are_read_with_and_without_a_byte_order_mark(reader):
    read, path, good = reader
    read(path)
    path.write_bytes(b"\xef\xbb\xbf" + good.encode())
    read(path)


def test_damaged_content_is_one_line_with_the_file_and_its_reason(reader):
    read, path, good = reader
    first = good.strip()[:1]
    twice = f'{{"a": 1, "a": 2, {good.strip()[1:]}' if first == "{" and good != "{}" else '{"a": 1, "a": 2}'
    contents = {
        gzip.compress(good.encode()): "compressed with gzip",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n": "git lfs pull",
        good.encode("utf-16"): "UTF-16",
        b'{"a": "\xe9"}': "no UTF-8 text: byte 7 is 0xe9",
        twice.encode(): "key 'a' occurs twice",
        b"[" * 100_000: "nested too deep",
        b'{"a":' * 60 + b"1" + b"}" * 60: "nested too deep",
    }
    for content, reason in contents.items():
        path.write_bytes(content)
        assert reason in refusal(read, path)


def test_what_is_no_file_is_refused_and_does_not_block(reader):
    read, path, _ = reader
    path.unlink()
    refusal(read, path)
    os.mkfifo(path)
    refusal(read, path)
    path.unlink()
    path.mkdir()
    if path.name != "capsules.json":  # a folder is looked into
        refusal(read, path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": NaN}', "'a' is no finite number"),
        ('{"a": {"b": [0, -Infinity]}}', "'a.b[1]' is no finite number"),
        ('[1, {"c": 1e999}]', "'[1].c' is no finite number"),
        ("36893488147419103232", "'' is no finite number, or too large"),  # 2^65
        ("[-36893488147419103232]", "'[0]' is no finite number, or too large"),
        ('{"a": {"b": 1, "b": 2}}', "key 'b' occurs twice"),
        ("", "damaged or no JSON file"),
    ],
)
def test_json_holds_finite_numbers_and_each_key_once(text, reason):
    for given in (text, text.encode()):
        with pytest.raises(DamagedFileError) as caught:
            parse_json(given, "FILE")
        assert str(caught.value).startswith("FILE ") and reason in str(caught.value)
    assert parse_json(f"[{2**64}, {-(2**63)}, 1e300]", "FILE") == [2**64, -(2**63), 1e300]


def test_a_file_beyond_the_largest_is_refused_unread(tmp_path, monkeypatch):
    for limit in ("LARGEST_TEXT", "LARGEST_YAML_TEXT"):
        monkeypatch.setattr(f"dexgrasp.utils.readers.{limit}", 2**20)
    for name, read in (("a.json", read_json), ("a.yaml", read_yaml)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**20 + 1)
        kind = name[2:].upper()
        with pytest.raises(
            DamagedFileError, match=rf"a\.{name[2:]} is damaged or no {kind} file: it is larger than 1 MiB"
        ):
            read(tmp_path / name)


def test_a_file_of_more_than_256_mebibytes_is_refused_unread(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(256 * 2**20 + 1)  # takes no space on the disk
    with pytest.raises(DamagedFileError, match="larger than 256 MiB"):
        read_json(tmp_path / "a.json")


def test_a_zip_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.json", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(DamagedFileError, match=r"a\.json .* ZIP archive: unpack it"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DamagedFileError, match="ZIP archive"):
        parse_yaml((tmp_path / "a.json").read_bytes(), "FILE")


SOLID = {"body": ["base_link_inertia"], "start": [[0, 0, 0]], "end": [[0, 0, 0.1]], "radius_m": [0.05]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"solid": None}, "damaged or no file of capsules"),
        ({"solid": {"body": []}}, "it lacks 'start'"),
        ({"flange": {"body": "nobody", "pos": [0, 0, 0], "quat": [1, 0, 0, 0]}}, "flange.body must be one of"),
        ({"flange": {"pos": [0, 0, 0], "quat": [1, 0, 0, 0]}}, "it lacks 'body'"),
        ({"base": {"pos_w": ["0", "0", "0"], "quat_w": [1, 0, 0, 0]}}, "base: expected a position of 3 numbers"),
        ({"base": {"pos_w": [0, 0, 0], "quat_w": [2, 0, 0, 0]}}, "base: expected a position of 3 numbers"),
        ({"kinematics": {}}, "missing 9 required"),
        ({"joint_names": 5}, "damaged or no file of capsules"),
    ],
)
def test_capsules_of_an_arm_that_cannot_be_used_are_refused(tmp_path, change, reason):
    values = json.loads(assets.path("arms/ur5e/capsules.json").read_text())
    (tmp_path / "capsules.json").write_text(json.dumps(values | change))
    assert reason in refusal(read_arm_body, tmp_path / "capsules.json")


@pytest.mark.parametrize(
    ("key", "spoil", "reason"),
    [
        ("start", lambda rows: rows[:-1], "solid.start must hold finite numbers of shape"),
        ("end", lambda rows: [row[:2] for row in rows], "solid.end must hold finite numbers of shape"),
        ("end", lambda rows: [["0", "0", "0"] for _ in rows], "solid.end: expected numbers"),
        ("end", lambda rows: [rows[0][:1], *rows[1:]], "solid.end: expected an array of numbers"),
        ("start", lambda rows: [[11.0, 0.0, 0.0], *rows[1:]], "at most 10.0 m"),
        ("radius_m", lambda rows: [0.0, *rows[1:]], "solid.radius_m must hold positive numbers, got 0"),
        ("radius_m", lambda rows: [-0.1, *rows[1:]], "solid.radius_m must hold positive numbers, got -0.1"),
        ("body", lambda rows: ["nobody", *rows[1:]], "bodies ['nobody'] are not in the robot"),
    ],
)
def test_capsules_that_are_no_capsules_are_refused(tmp_path, key, spoil, reason):
    values = json.loads(assets.path("hands/allegro/capsules.json").read_text())
    values["solid"][key] = spoil(values["solid"][key])
    (tmp_path / "capsules.json").write_text(json.dumps(values))
    assert reason in refusal(hand_of, tmp_path / "capsules.json")


@pytest.mark.parametrize("name", ["policy.onnx", "golden.npz", "contract.json"])
def test_a_bundle_without_a_file_names_it_and_says_how_to_make_one(tmp_path, name):
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    (tmp_path / "bundle" / name).unlink()
    with pytest.raises(BundleError) as caught:
        read_bundle(tmp_path / "bundle")
    assert str(caught.value).startswith(f"{tmp_path / 'bundle' / name} is missing: ")
    assert "`dexgrasp export policy=POLICY out=FOLDER`" in str(caught.value)


def test_intrinsics_of_camera_json_are_checked_with_file_and_key(tmp_path):
    path = tmp_path / "camera.json"
    for change, reason in (
        ({"fx": "600"}, "fx must be a number (finite), got the text '600': write it without quotes"),
        ({"fx": 1e-300}, "fx is 1e-300 px, expected 55.4256 to 27712.8 px"),  # sqrt(640 * 480) = 554.256
        ({"fy": 1200.1}, "fx is 600 px and fy 1200.1 px"),
        ({"cx": 640.0}, "cx is 640 px, outside the image of 640x480"),
    ):
        path.write_text(json.dumps(CAMERA | change))
        assert reason in refusal(read_intrinsics, path)
    path.write_text(json.dumps(CAMERA))
    assert np.isclose(read_intrinsics(path).fx, 600.0)


def test_yaml_numbers_sizes_and_texts_on_either_side_of_their_limits(tmp_path, monkeypatch):
    assert parse_yaml("a: 1e-5\nb: -2E3", "FILE") == {"a": 1e-5, "b": -2000.0}
    monkeypatch.setattr("dexgrasp.utils.readers.LARGEST_YAML", 100)
    assert len(parse_yaml("[" + "1," * 99 + "]", "FILE")) == 99  # and the list itself: 100 values
    with pytest.raises(DamagedFileError, match="more than 100 values"):
        parse_yaml("[" + "1," * 100 + "]", "FILE")
    monkeypatch.setattr("dexgrasp.utils.readers.LARGEST_TEXT", 4)
    (tmp_path / "a.json").write_text("[12]")
    assert read_json(tmp_path / "a.json") == [12]
    (tmp_path / "a.json").write_text("[123]")
    with pytest.raises(DamagedFileError, match="no JSON file: it is larger than 0 MiB; restore it, or give another"):
        read_json(tmp_path / "a.json")
    for content, reason in (
        (b"\xff\xfe[\x00", "it is UTF-16 text: save it as UTF-8"),
        (b"\xfe\xff\x00[", "it is UTF-16 text: save it as UTF-8"),
        (b" \n", "it is empty"),
    ):
        with pytest.raises(DamagedFileError, match=f"FILE is damaged or no JSON file: {reason}; restore"):
            parse_json(content, "FILE")


def test_a_yaml_text_of_many_keys_or_values_takes_no_longer_than_its_length(monkeypatch):
    """Comparing each key with all before takes six seconds; values take a kilobyte each, and are counted in time."""
    begin_s = time.process_time()
    many = [f"key{number}: 1" for number in range(20_000)]
    with pytest.raises(DamagedFileError, match="key 'key7' occurs twice"):
        parse_yaml("\n".join([*many, "key7: 2"]), "FILE")
    assert time.process_time() - begin_s < 4.5
    monkeypatch.setattr("dexgrasp.utils.readers.LARGEST_YAML", 1000)
    begin_s = time.process_time()
    with pytest.raises(DamagedFileError, match="more than 1000 values"):
        parse_yaml("[" + "1," * 2**20 + "]", "FILE")
    assert time.process_time() - begin_s < 2.0
    monkeypatch.setattr("dexgrasp.utils.readers.LARGEST_YAML_TEXT", 2**20)
    assert parse_yaml("# " + "-" * (2**20 - 7) + "\na: 1", "FILE") == {"a": 1}
    with pytest.raises(DamagedFileError, match="no YAML file: it is larger than 1 MiB; restore it"):
        parse_yaml("# " + "-" * (2**20 - 6) + "\na: 1", "FILE")


def test_the_key_of_a_wrong_number_is_named_as_it_stands():
    for text, key in (('{"XX": {".X": NaN}}', "XX..X"), ('{"X": [1e999]}', "X[0]"), ("[[1, Infinity]]", "[0][1]")):
        with pytest.raises(DamagedFileError, match=f"'{re.escape(key)}' is no finite number"):
            parse_json(text, "FILE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_that_cannot_be_read_is_of_no_known_kind():
    assert foreign_file("/proc/self/mem") == "" == foreign_file("/dev/zero")  # the first: a file, an error when read


def test_fifty_levels_are_read_and_one_more_is_refused():
    for parse in (parse_json, parse_yaml):
        assert parse("[" * 50 + "]" * 50, "FILE")
        with pytest.raises(DamagedFileError, match=r"FILE .* it is nested too deep"):
            parse("[" * 51 + "]" * 51, "FILE")
    assert parse_json('{"a":' * 50 + "1" + "}" * 50, "FILE")
    with pytest.raises(DamagedFileError, match=r"it is nested too deep, at 'a\.a\.a"):
        parse_json('{"a":' * 51 + "1" + "}" * 51, "FILE")
    many = parse_yaml("[" + "[[1]]," * 60 + "]", "FILE")  # levels beside each other are not added
    assert many == [[[1]]] * 60


def test_a_yaml_mapping_takes_two_others_in_and_no_key_twice():
    assert parse_yaml("{<<: {a: 1}, <<: {b: 2}, c: 3}", "FILE") == {"a": 1, "b": 2, "c": 3}
    with pytest.raises(DamagedFileError, match="key 'c' occurs twice"):
        parse_yaml("{c: 1, a: 2, c: 3}", "FILE")


def test_yaml_aliases_count_as_what_they_stand_for(monkeypatch):
    monkeypatch.setattr("dexgrasp.utils.readers.LARGEST_YAML", 15)
    # 1 list, 1 + 3 values, twice more 1 + 3: 13; with one number more 14, with three 16
    text = "[&a [1, 2, 3], *a, *a{}]"
    assert len(parse_yaml(text.format(", 1, 1"), "FILE")) == 5
    with pytest.raises(DamagedFileError, match="more than 15 values"):
        parse_yaml(text.format(", 1, 1, 1"), "FILE")
    assert len(parse_yaml("{a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, g: 7}", "FILE")) == 7  # keys count: 15
    with pytest.raises(DamagedFileError, match="more than 15 values"):
        parse_yaml("{a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, g: 7, h: 8}", "FILE")
    with pytest.raises(DamagedFileError, match="more than 15 values"):
        parse_yaml("&a [*a]", "FILE")


def test_reading_names_what_is_missing_or_of_a_wrong_type():
    for error, reason in (
        (KeyError("pos"), "it lacks 'pos'"),
        (FileNotFoundError(2, "No such file", "a.npz"), "the file a.npz is missing"),
        (TypeError("not a number"), "not a number"),
        (AttributeError("no such"), "no such"),
        (IndexError("  out of\n range "), "out of range"),
        (IndexError(), "IndexError"),
        (IndexError("x" * 300), "x" * 200),
    ):
        with pytest.raises(DamagedFileError) as caught, reading("FOLDER/file", "hand"):
            raise error
        assert str(caught.value) == f"FOLDER/file is damaged or no hand: {reason}; restore it, or give another"
    with pytest.raises(OSError, match="disk"), reading("FOLDER/file", "hand"):
        raise OSError("disk")


def test_a_json_file_that_must_hold_keys_is_no_list_and_no_number(tmp_path):
    path = tmp_path / "a.json"
    for text, shown in (("[1, 2]", "'[1, 2]'"), ("5", "'5'"), ("null", "'None'"), (f'"{"x" * 90}"', f"'{'x' * 60}'")):
        path.write_text(text)
        with pytest.raises(DamagedFileError) as caught:
            read_json_object(path)
        reason = f"expected an object with keys, got {shown}; restore it, or give another"
        assert str(caught.value) == f"{path} is damaged or no JSON file: {reason}"
    path.write_text('{"a": 1}')
    assert read_json_object(path) == {"a": 1}

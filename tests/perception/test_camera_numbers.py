"""Numbers at the boundary of the camera: other units, shapes and kinds of values are refused with their key."""

import json
import re

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from dexgrasp.perception.cameras import numbers
from dexgrasp.perception.cameras.depth import DepthFrame, Intrinsics
from dexgrasp.perception.cameras.extrinsics import CameraPose, pose_from_dict, pose_matrix, pose_to_dict
from dexgrasp.perception.cameras.numbers import check_depth, check_rigid, unit_quaternion
from dexgrasp.perception.cameras.open import FrameFolder, save_folder

UNIT = [1.0, 0.0, 0.0, 0.0]
CAMERA = Intrinsics(64, 48, 38.5, 38.0, 31.2, 24.1)
R = Rotation.from_rotvec([0.3, -0.7, 0.2]).as_matrix()

NO_POSITIONS = {
    "text": "0, 0, 0",
    "text_in_it": ["0.1", 0.2, 0.3],
    "boolean": [True, 0.0, 1.0],
    "short": [0.1, 0.2],
    "nested": [[0.1, 0.2, 0.3]],
    "nan": [float("nan"), 0.0, 0.0],
    "infinite": [0.0, float("inf"), 0.0],
    "null": None,
    "null_in_it": [None, 0.0, 0.0],
    "mapping": {"x": 1},
    "complex": [1j, 0.0, 0.0],
}


@pytest.mark.parametrize("value", NO_POSITIONS.values(), ids=NO_POSITIONS)
def test_what_is_no_position_or_quaternion_is_refused_by_its_key(value):
    with pytest.raises(ValueError, match=r"^camera: pos_m must be 3 numbers \(m\) from -10 to 10, got "):
        pose_matrix(value, UNIT, "camera")
    with pytest.raises(ValueError, match=r"^camera: quat_wxyz must be 4 numbers \(unit quaternion, w first\)"):
        pose_matrix([0.1, 0.2, 0.3], value, "camera")


@pytest.mark.parametrize(
    ("pos", "remedy"),
    [
        ([620.0, -110.0, 550.0], "in centimetres. divide by 100|in millimetres. divide by 1000"),
        ([6200.0, 0.0, 550.0], "in millimetres. divide by 1000"),
        ([62.0, -11.0, 55.0], "in centimetres. divide by 100"),
        ([1e7, 0.0, 0.0], "got"),
    ],
)
def test_positions_in_another_unit_are_told(pos, remedy):
    with pytest.raises(ValueError, match=remedy):
        pose_matrix(pos, UNIT)


def pose(rotation=R, pos=(0.1, 0.2, 0.5)):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation, pos
    return T


MATRICES = {
    "transposed": (pose().T, "it is transposed, its last row must be 0 0 0 1"),
    "scaled": (pose(1000 * R), "its axes have length 1000, expected 1"),
    "left_handed": (pose(R @ np.diag([1.0, 1.0, -1.0])), "its axes are left-handed"),
    "sheared": (pose(R + 0.1), "is not a rotation with a translation"),
    "nan": (pose(pos=(np.nan, 0, 0)), "must be a finite"),
    "flat": (np.zeros(16), r"must be a finite \(4, 4\) matrix, got shape \(16,\)"),
    "half": (pose()[:3], r"got shape \(3, 4\)"),
    "millimetres": (pose(pos=(6200.0, 0.0, 0.0)), "its position must be 3 numbers .* in millimetres. divide by 1000"),
    "text": (pose().astype(str), "must be a finite"),
    "boolean": (np.eye(4).astype(bool), "must be a finite"),
    "nothing": (None, "must be a finite"),
}


@pytest.mark.parametrize(("T", "reason"), MATRICES.values(), ids=MATRICES)
def test_matrices_that_are_no_pose_say_what_they_are(T, reason):
    for made in (lambda: check_rigid(T, "T_world_cam"), lambda: CameraPose(T)):
        with pytest.raises(ValueError, match=f"T_world_cam.*{reason}"):
            made()


def bent(last=(0.0, 0.0, 0.0), **words):
    """A matrix with three other numbers in its last row."""
    T = pose(**words)
    T[3, :3] = last
    return T


SHEARED = np.eye(3) + np.outer([0.5, 0, 0], [0, 1, 0])
UNEXPLAINED = {
    "last row": bent((1.0, 0.0, 0.0)),
    "last row, place behind": bent((1.0, 1.0, 1.0), pos=(-1.0, -1.0, -1.0)),
    "sheared at the origin": pose(R + 0.1, pos=(0.0, 0.0, 0.0)),
    "one axis sheared": pose(SHEARED),
    "sheared, last row at its tolerance": bent((1e-5, 0.0, 0.0), rotation=SHEARED, pos=(0.0, 0.0, 0.0)),
    "nothing": np.zeros((4, 4)),
}


@pytest.mark.parametrize("T", UNEXPLAINED.values(), ids=UNEXPLAINED)
def test_a_matrix_that_no_usual_mistake_explains_is_refused_without_a_guess(T):
    with pytest.raises(ValueError, match=r"^T is not a rotation with a translation \(off by \d[^()]*\): \[\["):
        check_rigid(T, "T")


def test_usual_mistakes_are_named_after_the_measure():
    for T, reason in (
        (bent((1.0, 0.0, 0.0), pos=(1e-5, 0.0, 0.0)), "it is transposed, its last row must be 0 0 0 1"),
        (pose(pos=(0.1, 0.0, 0.5)).T, "it is transposed, its last row must be 0 0 0 1"),
        (pose(R @ np.diag([1.0, -1.0, 1.0])), "its axes are left-handed"),
        (pose(0.5 * R), "its axes have length 0.5, expected 1"),
    ):
        with pytest.raises(ValueError, match=rf"^T is not .* \(off by [^()]*\): {reason}: \[\["):
            check_rigid(T, "T")


def test_what_was_given_is_said_and_only_a_text_is_called_one():
    for value, said in (
        ("0.5", "the text '0.5': write it without quotes"),
        (11.0, "11.0"),
        (None, "None"),
        (True, "True"),
    ):
        with pytest.raises(
            ValueError, match=rf"^x must be a number \(m\) from -10 to 10, got {re.escape(said)}(: in |$)"
        ):
            numbers.POSITION.read(value, "x")


def test_a_pose_at_its_tolerances_is_taken():
    check_rigid(bent((1e-5, 0.0, 0.0)), "T")
    check_rigid(pose(np.eye(3) + np.outer([1e-5, 0, 0], [0, 1, 0])), "T")
    for T in (bent((1.1e-5, 0.0, 0.0)), pose(np.eye(3) + np.outer([1.1e-5, 0, 0], [0, 1, 0]))):
        with pytest.raises(ValueError, match="is not a rotation with a translation"):
            check_rigid(T, "T")


def test_quaternions_near_unit_length_get_it_and_others_are_refused():
    quat = np.array([0.5, -0.5, 0.5, 0.5])
    for length in (0.9991, 1.0, 1.0009):
        np.testing.assert_allclose(unit_quaternion(list(length * quat), "q"), quat, atol=1e-15)
    for length in (0.9989, 1.0011, 0.0):
        with pytest.raises(ValueError, match=rf"^q: the quaternion wxyz \[.*\] has length {length:.4f}, expected 1$"):
            unit_quaternion(list(length * quat), "q")


class Hostile:
    def __array__(self, *_, **__):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("quantity", "words", "good", "bad"),
    [
        (numbers.POSITION, "(m) from -10 to 10", (-10.0, 10.0), (-10.1, 10.1)),
        (numbers.BASELINE, "(m) from -0.5 to 0.5", (-0.5, 0.5), (-0.51, 0.51)),
        (numbers.CARRIER, "(length) from -100000 to 100000", (-1e5, 1e5), (-1.1e5, 1.1e5)),
        (numbers.DEPTH_UNIT, "(m per unit of the image) from 1e-05 to 0.01", (1e-5, 0.01), (0.9e-5, 0.011)),
        (numbers.FRAME_RATE, "(Hz) from 0.001 to 10000", (0.001, 1e4), (0.0009, 10_001.0)),
        (numbers.QUATERNION, "(unit quaternion, w first) from -1.001 to 1.001", (-1.001, 1.001), (-1.002, 1.002)),
        (numbers.FINITE, "(finite)", (-1.7e308, 1.7e308), (float("inf"), float("-inf"))),
        (numbers.Quantity("a", 0.0, 1e300), "(a)", (0.0, 1e300), (-1.0, 1.1e300)),
        (numbers.Quantity("a", 0.0, 1e299), "(a) from 0 to 1e+299", (0.0, 1e299), (-1.0, 1.1e299)),
    ],
)
def test_a_number_is_taken_within_its_range_and_the_range_is_said(quantity, words, good, bad):
    for value in good:
        assert quantity.read(value, "x") == value and quantity.read_all([value], "x", 1).tolist() == [value]
    for value in (*bad, float("nan"), True, "1", None, Hostile(), [1.0]):
        with pytest.raises(ValueError, match=f"^x must be a number {re.escape(words)}, got "):
            quantity.read(value, "x")
    for value in ([*bad], [good[0]], good[0], Hostile(), [good[0], True]):
        with pytest.raises(ValueError, match=f"^x must be 2 numbers {re.escape(words)}, got "):
            quantity.read_all(value, "x", 2)


def test_the_two_cameras_of_a_device_lie_together(tmp_path):
    with pytest.raises(ValueError, match=r"T_color_depth: its position must be 3 numbers \(m\) from -0.5 to 0.5"):
        CameraPose(pose(), T_color_depth=pose(pos=(15.0, 0.0, 0.0)))
    file = tmp_path / "camera.yaml"
    values = {"T_world_cam": pose_to_dict(pose()), "T_color_depth": {"pos_m": [15.0, 0, 0], "quat_wxyz": UNIT}}
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=r"camera.yaml: T_color_depth: pos_m must be 3 numbers .* in centimetres"):
        CameraPose.load(file)


@pytest.mark.parametrize("key", ["serial", "residuals"])
@pytest.mark.parametrize("value", [[1], True, 1.5])
def test_the_other_entries_of_a_camera_file_have_their_types(tmp_path, key, value):
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump({"T_world_cam": pose_to_dict(pose()), key: value}))
    with pytest.raises(ValueError, match=r"camera.yaml: serial must be a text and residuals keys with values"):
        CameraPose.load(tmp_path / "camera.yaml")


def test_a_pose_comes_back_from_text_as_scipy_has_it():
    rng = np.random.default_rng(0)
    for rotvec, pos in zip(rng.uniform(-3, 3, (200, 3)), rng.uniform(-10, 10, (200, 3)), strict=True):
        expected = pose(Rotation.from_rotvec(rotvec).as_matrix(), pos)
        x, y, z, w = Rotation.from_matrix(expected[:3, :3]).as_quat()
        np.testing.assert_allclose(pose_matrix(pos, [w, x, y, z]), expected, atol=1e-12)
        np.testing.assert_allclose(pose_from_dict(pose_to_dict(expected), "pose"), expected, atol=1e-12)


@pytest.mark.parametrize("unit", [1e-9, 10, 1.0, -0.001, float("nan"), "0.001", True, None, [0.001]])
@pytest.mark.parametrize("key", ["depth_unit_m", "rate_hz"])
def test_units_and_rates_that_no_camera_has_are_refused(tmp_path, key, unit):
    if key == "rate_hz" and unit in (1e-9, 10, 1.0) and unit is not True:
        unit = {1e-9: 1e-9, 10: 1e6, 1.0: 0}[unit]
    save_folder(tmp_path, [DepthFrame(np.full((48, 64), 0.5, np.float32), CAMERA, 0.0)])
    values = json.loads((tmp_path / "camera.json").read_text()) | {key: unit}
    (tmp_path / "camera.json").write_text(json.dumps(values))
    with pytest.raises(OSError, match=f"camera.json.*{key if unit == unit else ''}"):  # JSON holds no NaN
        FrameFolder(tmp_path)


@pytest.mark.parametrize(("factor", "found"), [(1000.0, "0.001"), (1e-3, "1000")])
def test_depth_in_another_unit_is_refused_by_its_file(tmp_path, factor, found):
    save_folder(tmp_path, [DepthFrame(np.full((48, 64), 0.5, np.float32), CAMERA, 0.0)])
    (tmp_path / "000000.png").unlink()
    np.save(tmp_path / "0.npy", np.full((48, 64), 0.5 * factor))
    with pytest.raises(OSError, match=rf"0.npy: its median depth is .* is the depth unit {found} of the stated one"):
        FrameFolder(tmp_path).read()


def test_an_image_of_holes_or_with_few_far_pixels_is_in_metres():
    check_depth(np.zeros((8, 8), np.float32), "image")
    depth_m = np.full((8, 8), 0.5, np.float32)
    depth_m[0, 0] = 65.0
    check_depth(depth_m, "image")

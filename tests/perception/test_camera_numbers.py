"""Numbers at the boundary of the camera: other units, shapes and kinds of values are refused with their key."""

import json

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from dexgrasp.perception.cameras.depth import DepthFrame, Intrinsics
from dexgrasp.perception.cameras.extrinsics import CameraPose, pose_from_dict, pose_matrix, pose_to_dict
from dexgrasp.perception.cameras.numbers import check_depth, check_rigid
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

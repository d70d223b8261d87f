"""Hand-eye calibration piece by piece: exact corners, distances by hand, limits on either side."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.transform import Rotation

from dexgrasp.perception.calibration import hand_eye, linear_solution
from dexgrasp.perception.calibration.charuco import BoardCfg, BoardDetection
from dexgrasp.perception.calibration.hand_eye import (
    COVERED,
    BadCalibrationError,
    Calibration,
    LimitsCfg,
    calibrate,
    covered_distance,
)
from dexgrasp.perception.cameras.depth import Intrinsics

BOARD = BoardCfg()
CAMERA = Intrinsics(640, 480, 610.0, 612.0, 322.3, 236.8)
CORNERS = BOARD.corners_m()


def pose(rotvec, pos):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_rotvec(rotvec).as_matrix(), pos
    return T


T_WORLD_CAM = pose([2.0, 0.3, -0.5], [0.62, -0.11, 0.55])
T_FLANGE_BOARD = pose([0.3, -1.1, 0.2], [-0.1, 0.02, 0.09])


def board_poses(count, seed=0):
    """T_cam_board of tilted boards about 0.6 m before the camera."""
    rng = np.random.default_rng(seed)
    middle = CORNERS.mean(0)
    poses = np.stack(
        [pose(rng.uniform(-0.6, 0.6, 3), rng.uniform((-0.12, -0.08, 0.5), (0.12, 0.08, 0.7))) for _ in range(count)]
    )
    poses[:, :3, 3] -= poses[:, :3, :3] @ middle
    return poses


def detections(poses, noise_px=0.0, seed=1):
    rng, views = np.random.default_rng(seed), []
    for number, T in enumerate(poses):
        points = CORNERS @ T[:3, :3].T + T[:3, 3]
        rays = points[:, :2] / points[:, 2:] + rng.normal(0, noise_px / 610.0, (len(CORNERS), 2))
        views.append(BoardDetection(f"{number}.png", np.arange(len(CORNERS)), rays, T))
    return views


def on_flange(poses):
    return T_WORLD_CAM @ poses @ np.linalg.inv(T_FLANGE_BOARD)


@pytest.mark.parametrize("count", [6, 9])
def test_the_linear_solution_of_exact_poses_is_exact(count):
    poses = board_poses(count)
    cam, mount = linear_solution._hand_eye(on_flange(poses), poses)
    np.testing.assert_allclose(cam, T_WORLD_CAM, atol=1e-9)
    np.testing.assert_allclose(mount, T_FLANGE_BOARD, atol=1e-9)


def test_the_mean_of_poses_is_a_rotation_in_their_middle():
    turns = [[0.1, 0, 0], [-0.1, 0, 0], [0, 0.2, 0], [0, -0.2, 0], [0, 0, 0]]
    mean = linear_solution._mean_pose(
        np.stack([T_WORLD_CAM @ pose(turn, [0, 0, x]) for turn, x in zip(turns, range(5), strict=True)])
    )
    np.testing.assert_allclose(mean, T_WORLD_CAM @ pose([0, 0, 0], [0, 0, 2]), atol=1e-12)
    mirrored = linear_solution.nearest_rotation(np.diag([3.0, 2.0, -1.0]))
    np.testing.assert_allclose(mirrored, np.eye(3), atol=1e-12)  # a reflection is none


@pytest.mark.parametrize("degrees", [9.0, 11.0])
def test_the_flange_must_turn_about_a_second_axis(degrees):
    """Turns of a half and a whole about x and one about y: root mean square over the pairs, by the same sums here."""
    angle = np.radians(degrees)
    carriers = np.stack([pose([0.8 * k, 0, 0], [0, 0, 0]) for k in range(4)] + [pose([0, angle, 0], [0, 0, 0])] * 4)
    pairs = [(i, j) for i in range(8) for j in range(i + 1, 8)]
    turns = np.array(
        [
            (Rotation.from_matrix(carriers[j][:3, :3]) * Rotation.from_matrix(carriers[i][:3, :3]).inv()).as_rotvec()
            for i, j in pairs
        ]
    )
    second = np.degrees(np.sqrt(np.linalg.eigvalsh(turns.T @ turns / len(pairs))[1]))
    seen = np.linalg.inv(T_WORLD_CAM) @ carriers @ T_FLANGE_BOARD
    if second >= 10:
        linear_solution._hand_eye(carriers, seen)
    else:
        with pytest.raises(BadCalibrationError, match=f"about a second axis by {second:.1f} deg only"):
            linear_solution._hand_eye(carriers, seen)


@pytest.mark.parametrize("freedom", [5.0, 200.0])
def test_a_distance_that_is_covered_worked_by_hand(freedom):
    # equal directions and no offset: three degrees of freedom, exactly
    even = covered_distance(np.zeros(3), 0.01**2 * np.eye(3), freedom)
    assert even == pytest.approx(0.01 * np.sqrt(3 * stats.f.ppf(COVERED, 3, freedom)))
    # one direction and no offset: the normal error itself
    one = covered_distance(np.zeros(3), np.diag([0.0, 0.04, 0.0]), freedom)
    assert one == pytest.approx(0.2 * np.sqrt(stats.f.ppf(COVERED, 1, freedom)))
    # offset 3 along z with variances 1, 4, 2 and covariance 0.5 of x and z: mean 9 + 7, variance 2 * 21.5 + 4 * 18
    covariance = np.array([[1.0, 0, 0.5], [0, 4.0, 0], [0.5, 0, 2.0]])
    mean, variance = 16.0, 2 * 21.5 + 4 * 9 * 2.0
    expected = np.sqrt(mean * stats.f.ppf(COVERED, 2 * mean**2 / variance, freedom))
    assert covered_distance(np.array([0.0, 0.0, 3.0]), covariance, freedom) == pytest.approx(expected)
    assert covered_distance(np.zeros(3), covariance, 0.3) == covered_distance(np.zeros(3), covariance, 1.0)


@pytest.mark.parametrize("mounted", ["flange", "table"])
def test_exact_corners_leave_no_error(mounted):
    poses = board_poses(8)
    carriers = on_flange(poses) if mounted == "flange" else T_WORLD_CAM @ poses
    found = calibrate(detections(poses), carriers, BOARD, CAMERA, mounted)
    np.testing.assert_allclose(found.T_world_cam, T_WORLD_CAM, atol=1e-6)
    np.testing.assert_allclose(found.T_flange_board, T_FLANGE_BOARD if mounted == "flange" else np.eye(4), atol=1e-6)
    assert found.names == tuple(f"{number}.png" for number in range(8)) and found.notes == ()
    for errors in (found.reprojection_px, found.position_m, found.rotation_rad):
        assert errors.shape == (8,) and errors.max() < 1e-5


def test_residuals_are_in_pixels_of_each_image():
    """Noise of 0.2 px along each axis: root mean square 0.28 px, in pixels of the camera that is given."""
    poses = board_poses(10)
    found = calibrate(detections(poses, noise_px=0.2), on_flange(poses), BOARD, CAMERA, "flange")
    assert found.summary()["reprojection_px_rms"] == pytest.approx(0.2 * np.sqrt(2), rel=0.1)
    assert found.reprojection_px.max() == pytest.approx(found.summary()["reprojection_px_worst"], abs=1e-4)


RESULT = Calibration(
    T_world_cam=np.eye(4),
    T_flange_board=np.eye(4),
    names=("a", "b", "c"),
    reprojection_px=np.array([0.3, 0.4, 0.512345678]),
    position_m=np.array([0.001, 0.004123456, 0.002123456]),
    rotation_rad=np.radians([0.1, 0.312345678, 0.2]),
    uncertainty_m=0.001254321,
    uncertainty_rad=np.radians(0.123456789),
)


def test_a_summary_worked_by_hand():
    assert RESULT.summary() == {
        "views": 3,
        "reprojection_px_rms": 0.4133,  # sqrt(0.5125 / 3)
        "reprojection_px_worst": 0.5123,
        "position_mm_median": 2.1235,
        "position_mm_worst": 4.1235,
        "rotation_deg_worst": 0.3123,
        "uncertainty_mm": 1.2543,
        "uncertainty_deg": 0.1235,
    }


@pytest.mark.parametrize(
    ("key", "of_result", "limit"),
    [
        ("reprojection_px_rms", {"reprojection_px": np.array([0.5, 0.5])}, {"reprojection_px": 0.5}),
        ("position_mm_worst", {"position_m": np.array([0.002, 0.0])}, {"position_mm": 2.0}),
        ("uncertainty_mm", {"uncertainty_m": 0.003}, {"uncertainty_mm": 3.0}),
        ("uncertainty_deg", {"uncertainty_rad": np.radians(0.5)}, {"uncertainty_deg": 0.5}),
    ],
)
def test_limits_are_met_where_they_are_reached_and_not_beyond(key, of_result, limit):
    wide = LimitsCfg(reprojection_px=5.0, position_mm=50.0, uncertainty_mm=50.0, uncertainty_deg=5.0)
    hand_eye._check_limits(replace(RESULT, **of_result), replace(wide, **limit))
    ((name, value),) = limit.items()
    with pytest.raises(BadCalibrationError) as caught:
        hand_eye._check_limits(replace(RESULT, **of_result), replace(wide, **{name: 0.99 * value}))
    assert str(caught.value).startswith(
        f"calibration refused: {key} is {value:.3g}, at most {0.99 * value:g} is accepted; "
    )
    assert ("take more views" in str(caught.value)) == key.startswith("uncertainty")


def test_a_value_that_is_no_number_is_beyond_its_limit():
    with pytest.raises(BadCalibrationError, match="uncertainty_mm is nan"):
        hand_eye._check_limits(replace(RESULT, uncertainty_m=np.nan), LimitsCfg(uncertainty_deg=5.0))


@pytest.mark.parametrize(("mounted", "least"), [("flange", 6), ("table", 3)])
def test_numbers_of_views_and_poses_are_checked(mounted, least):
    poses = board_poses(least)
    text = f"^{least - 1} usable views of the board; {least} are needed with it on the {mounted}$"
    with pytest.raises(BadCalibrationError, match=text):
        calibrate(detections(poses[1:]), T_WORLD_CAM @ poses[1:], BOARD, CAMERA, mounted)
    with pytest.raises(ValueError, match=f"{least} views, but {least - 1} poses of the {mounted}"):
        calibrate(detections(poses), T_WORLD_CAM @ poses[1:], BOARD, CAMERA, mounted)
    crooked = T_WORLD_CAM @ poses
    crooked[1, :3, :3] *= 1.1
    with pytest.raises(ValueError, match=rf"1\.png: pose of the {mounted}"):
        calibrate(detections(poses), crooked, BOARD, CAMERA, mounted)


def test_odd_images_are_named_beyond_four_times_the_median_and_the_limit():
    names, limits = ("a", "b", "c", "d", "e"), LimitsCfg(position_mm=5.0)
    hand_eye._refuse_odd_views(np.array([0.001, 0.001, 0.001, 0.005, 0.001]), names, limits)  # within 5 mm
    hand_eye._refuse_odd_views(np.array([0.002, 0.002, 0.002, 0.008, 0.002]), names, limits)  # within 4 x 2 mm
    with pytest.raises(BadCalibrationError, match="the odd ones are e:"):
        hand_eye._refuse_odd_views(np.array([0.001, 0.001, 0.001, 0.001, 0.0051]), names, limits)
    with pytest.raises(BadCalibrationError) as caught:
        hand_eye._refuse_odd_views(np.array([0.002, 0.0081, 0.002, 0.009, 0.002]), names, limits)
    assert str(caught.value) == (
        "calibration refused: position_mm_worst is 9, at most 5 is accepted; the odd ones are b, d: take them again "
        "or leave them out"
    )


def test_a_wrong_flange_pose_is_refused_by_the_name_of_its_image():
    poses = board_poses(9)
    carriers = on_flange(poses)
    carriers[4, :3, 3] += (0.0, 0.02, 0.0)
    with pytest.raises(BadCalibrationError, match=r"the odd ones are 4\.png: take them again"):
        calibrate(detections(poses), carriers, BOARD, CAMERA, "flange")


@pytest.mark.parametrize("factor", [0.93, 1.07])
def test_a_wrong_focal_length_is_refused(factor):
    """The rays were computed with it; the poses of the flange are metric."""
    poses = board_poses(9)
    wrong = [replace(view, rays=view.rays / factor) for view in detections(poses, noise_px=0.1)]
    with pytest.raises(BadCalibrationError, match=r"calibration refused: .*focal"):
        calibrate(wrong, on_flange(poses), BOARD, CAMERA, "flange")


def test_a_shifted_pose_is_an_error_of_position_and_hardly_of_rotation():
    poses = board_poses(10)
    carriers = on_flange(poses)
    carriers[3, :3, 3] += (0.003, 0.0, 0.0)
    wide = LimitsCfg(reprojection_px=50.0, position_mm=50.0, uncertainty_mm=50.0, uncertainty_deg=5.0)
    found = calibrate(detections(poses), carriers, BOARD, CAMERA, "flange", wide)
    assert found.position_m.argmax() == 3 and 0.0015 < found.position_m[3] < 0.003
    assert found.rotation_rad.max() < 0.001


def test_errors_of_views_are_taken_in_the_middle_of_the_board():
    """0.01 rad about z move a middle at (1.5, 0.25, 2) by 0.01 * (-0.25, 1.5); then 0.02 along z."""
    data = hand_eye.BoardViews(
        view=np.zeros(2, int),
        corners_m=np.array([[0.0, 0.0, 0.0], [1.0, 0.5, 0.0]]),
        rays=np.zeros((2, 2)),
        carriers=np.eye(4)[None],
    )
    errors = np.array([[0.0, 0.0, 0.01, 0.0, 0.0, 0.02]])
    found = hand_eye._position_errors(data, errors, pose([0, 0, 0], [1.0, 0.0, 2.0]))
    assert found == pytest.approx([np.linalg.norm([0.0025, 0.015, 0.02])])


def test_flange_poses_of_a_board_said_to_lie_on_the_table_are_recognised():
    poses = board_poses(8)
    with pytest.raises(BadCalibrationError) as caught:
        calibrate(detections(poses), on_flange(poses), BOARD, CAMERA, "table")
    assert re.search(
        r"refused: the poses fit a board on the flange, .* \(median error \S+ mm\), not one on the table "
        r"\([\d.]+ mm\): set mounted=flange$",
        str(caught.value),
    )
    # poses that fit neither keep the reason of the stated place
    wild = on_flange(board_poses(8, seed=9))
    with pytest.raises(BadCalibrationError) as caught:
        calibrate(detections(poses), wild, BOARD, CAMERA, "table")
    assert "set mounted" not in str(caught.value)


def test_a_good_board_on_the_table_is_not_taken_for_one_on_the_flange():
    poses = board_poses(8)
    with pytest.raises(BadCalibrationError) as caught:  # refused for its uncertainty, not for its place
        calibrate(
            detections(poses, noise_px=0.3), T_WORLD_CAM @ poses, BOARD, CAMERA, "table", LimitsCfg(uncertainty_mm=1e-6)
        )
    assert "set mounted" not in str(caught.value)

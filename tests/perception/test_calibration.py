"""Calibration of the camera: synthetic images of the board with known truth, and sets that must be refused."""

import json
import re
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dexgrasp.perception.calibration.board_layout import BoardCfg, BoardLayoutError
from dexgrasp.perception.calibration.charuco import BoardDetection, board_pose, draw_board, find_board
from dexgrasp.perception.calibration.contradictions import LimitsCfg
from dexgrasp.perception.calibration.hand_eye import BadCalibrationError, calibrate
from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.cameras.extrinsics import CameraPose, pose_matrix, pose_to_dict
from dexgrasp.perception.transforms import quat_from_rotvec
from dexgrasp.policies.cli import main
from tests.helpers.synthetic_calibration import BOARD, CAMERA, T_FLANGE_BOARD, T_WORLD_CAM, synthetic_set

PRINT_PER_M = 4000
SMOOTH = 2
FINE = (np.mgrid[0 : 480 * SMOOTH, 0 : 640 * SMOOTH] + 0.5) / SMOOTH - 0.5


def moved(rotvec, pos):
    return pose_matrix(pos, quat_from_rotvec(torch.tensor(rotvec, dtype=torch.float64)).tolist())


def photograph(T_cam_board, printed, rays, rng):
    """The print through the lens: each fine pixel (rays: (3, ...)) is followed to the board; then blur and noise."""
    to_board = np.linalg.inv(T_cam_board[:, [0, 1, 3]][:3])  # ray to (x, y, 1) on the board, up to scale
    x, y, w = np.tensordot(to_board.astype(np.float32), rays, 1)
    u, v = ((part / w + BOARD.square_m) * PRINT_PER_M - 0.5 for part in (x, y))
    image = cv2.remap(printed, u, v, cv2.INTER_LINEAR, borderValue=150.0)
    image = cv2.resize(image, (640, 480), interpolation=cv2.INTER_AREA)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.7) * 0.8 + 20 + rng.normal(0, 3, image.shape), 0, 255).astype(
        np.uint8
    )


def poses_before_the_camera(count, rng):
    """T_cam_board of a board shown at 0.5 to 0.7 m, tilted up to 40 degrees."""
    turns = rng.uniform(-0.6, 0.6, (count, 3))
    places = rng.uniform((-0.12, -0.08, 0.5), (0.12, 0.08, 0.7), (count, 3))
    middle = np.array([BOARD.columns, BOARD.rows, 0]) * BOARD.square_m / 2
    poses = [moved(turn, place) for turn, place in zip(turns, places, strict=True)]
    for T in poses:
        T[:3, 3] -= T[:3, :3] @ middle
    return poses


@pytest.fixture(scope="module")
def photographs():
    """Eight photographs of the board, found again, and where the board really was."""
    rng = np.random.default_rng(3)
    poses = poses_before_the_camera(8, rng)
    rays = CAMERA.rays_at(FINE[::-1].transpose(1, 2, 0)).transpose(2, 0, 1)
    rays = np.stack([*rays, np.ones_like(rays[0])]).astype(np.float32)
    printed = draw_board(BOARD, PRINT_PER_M)
    images = [photograph(T, printed, rays, rng) for T in poses]
    views = [find_board(BOARD, image, CAMERA, f"{n}.png") for n, image in enumerate(images)]
    return views, np.stack(poses)


def on_flange(poses):
    """Where the flange was, for the board to be there."""
    return T_WORLD_CAM @ poses @ np.linalg.inv(T_FLANGE_BOARD)


def errors(T, truth):
    """(m, rad) between two poses."""
    cosine = (np.trace(T[:3, :3].T @ truth[:3, :3]) - 1) / 2
    return np.linalg.norm(T[:3, 3] - truth[:3, 3]), np.arccos(np.clip(cosine, -1, 1))


def refusal(views, carriers, mounted="flange", limits=None, board=BOARD):
    with pytest.raises(BadCalibrationError) as caught:
        calibrate(views, carriers, board, CAMERA, mounted, limits)
    return str(caught.value)


def test_the_camera_is_found_within_a_millimetre_and_a_tenth_of_a_degree_with_the_board_on_the_flange(photographs):
    views, poses = photographs
    result = calibrate(views, on_flange(poses), BOARD, CAMERA, "flange")
    metres, radians = errors(result.T_world_cam, T_WORLD_CAM)
    assert metres < 1e-3 and np.degrees(radians) < 0.1
    metres, radians = errors(result.T_flange_board, T_FLANGE_BOARD)
    assert metres < 1e-3 and np.degrees(radians) < 0.1
    assert result.summary()["reprojection_px_rms"] < 0.3


def test_the_camera_is_found_within_a_millimetre_and_a_tenth_of_a_degree_with_the_board_on_the_table(photographs):
    views, poses = photographs
    result = calibrate(views, T_WORLD_CAM @ poses, BOARD, CAMERA, "table")
    metres, radians = errors(result.T_world_cam, T_WORLD_CAM)
    assert metres < 1e-3 and np.degrees(radians) < 0.1
    assert np.array_equal(result.T_flange_board, np.eye(4))


def test_what_calibration_says_of_itself_covers_the_true_error(photographs):
    views, poses = photographs
    result = calibrate(views, on_flange(poses), BOARD, CAMERA, "flange")
    metres, radians = errors(result.T_world_cam, T_WORLD_CAM)
    assert metres < result.uncertainty_m < 2.5e-3
    assert radians < result.uncertainty_rad < np.radians(0.6)


def test_exact_corners_give_the_exact_pose():
    poses = np.stack(poses_before_the_camera(6, np.random.default_rng(0)))
    points = BOARD.corners_m() @ poses[:, :3, :3].transpose(0, 2, 1) + poses[:, None, :3, 3]
    ids = np.arange(len(BOARD.corners_m()))
    views = [BoardDetection("", ids, ray, board_pose(BOARD, ids, ray)) for ray in points[..., :2] / points[..., 2:]]
    result = calibrate(views, on_flange(poses), BOARD, CAMERA, "flange")
    np.testing.assert_allclose(result.T_world_cam, T_WORLD_CAM, atol=1e-7)


def test_a_flange_pose_that_is_wrong_is_refused_by_the_name_of_its_image(photographs):
    views, poses = photographs
    carriers = on_flange(poses)
    carriers[5, :3, 3] += (0.02, 0, 0)
    text = refusal(views, carriers)
    assert "position_mm_worst is" in text and "5.png" in text


def test_quaternions_in_the_wrong_order_are_refused(photographs):
    views, poses = photographs
    carriers = on_flange(poses)
    for T in carriers:
        w, x, y, z = pose_to_dict(T)["quat_wxyz"]
        T[:] = pose_matrix(T[:3, 3], (x, y, z, w))
    assert "look like quaternions that were written x, y, z, w: give w, x, y, z" in refusal(views, carriers)


def test_a_flange_that_turned_about_one_axis_only_is_refused(photographs):
    views, _ = photographs
    poses = np.stack([moved((0, 0, 0.2 * n), (0.01 * n, 0, 0.6)) for n in range(8)])
    still = [replace(view, T_cam_board=T) for view, T in zip(views, poses, strict=True)]
    assert "turns about a second axis by 0.0 deg only" in refusal(still, on_flange(poses))


def test_too_few_views_are_refused(photographs):
    views, poses = photographs
    assert refusal(views[:5], on_flange(poses[:5])) == (
        "5 usable views of the board; 6 are needed with it on the flange"
    )


def test_an_uncertainty_above_the_limit_is_refused_with_advice(photographs):
    views, poses = photographs
    text = refusal(views, on_flange(poses), limits=LimitsCfg(uncertainty_mm=0.001))
    assert (
        text.startswith("calibration refused: uncertainty_mm is")
        and "take more views with the board in other places" in text
    )


def wrong(made, **change):
    """A set whose views were found with other intrinsics, and these."""
    camera = replace(made.camera, **change)
    pixels = [made.camera.project(np.concatenate([v.rays, np.ones((len(v.ids), 1))], 1)) for v in made.views]
    rays = [camera.rays_at(pixel) for pixel in pixels]
    views = [replace(v, rays=r, T_cam_board=board_pose(BOARD, v.ids, r)) for v, r in zip(made.views, rays, strict=True)]
    return views, camera


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"fx": 610.0 * 1.05, "fy": 612.0 * 1.05},
            r"focal length in camera.json is [45]\.\d % too long: fx, fy 640.5, 642",
        ),
        (
            {"fx": 610.0 * 0.97, "fy": 612.0 * 0.97},
            r"focal length in camera.json is [23]\.\d % too short: fx, fy 591.7",
        ),
        (
            {"fx": 612.0 * 0.96},
            r"focal length in camera.json is (wrong in one direction|\d.\d % too short): fx, fy 587.5",
        ),
        ({"cx": 322.3 + 15}, r"image centre in camera.json is off by \(\+1[3-7]\.\d, [+-][0-2]\.\d\) px: cx, cy 337.3"),
        ({"cy": 236.8 - 12}, r"image centre in camera.json is off by \([+-][0-2]\.\d, -1[0-4]\.\d\) px"),
        (
            {"coeffs": (-0.1, -0.12, 0.001, -0.0015, 0.05)},
            "lens distortion .* lie more far from the centre than it says",
        ),
        (
            {"coeffs": (0.3, -0.12, 0.001, -0.0015, 0.05)},
            "lens distortion .* lie less far from the centre than it says",
        ),
    ],
)
@pytest.mark.parametrize("mounted", ["flange", "table"])
def test_wrong_intrinsics_are_refused_with_what_is_wrong_which_way_and_how_much(change, text, mounted):
    made = synthetic_set("good", 3, mounted)
    views, camera = wrong(made, **change)
    with pytest.raises(BadCalibrationError, match=f"calibration refused: .*{text}"):
        calibrate(views, made.carriers, BOARD, camera, mounted)


def test_a_slight_difference_of_intrinsics_is_noted_and_covered():
    made = synthetic_set("good", 3)
    views, camera = wrong(made, fx=610.0 * 1.006, fy=612.0 * 1.006)
    result = calibrate(views, made.carriers, BOARD, camera, "flange", LimitsCfg(uncertainty_mm=8.0, intrinsics_px=5.0))
    assert len(result.notes) == 1 and "% too long" in result.notes[0]
    metres, radians = errors(result.T_world_cam, T_WORLD_CAM)
    exact = calibrate(made.views, made.carriers, BOARD, made.camera, "flange")
    assert metres < result.uncertainty_m and radians < result.uncertainty_rad
    assert result.uncertainty_m > 1.2 * exact.uncertainty_m


def test_squares_of_another_size_than_printed_are_refused_with_their_size(photographs):
    views, poses = photographs
    larger = BoardCfg(square_m=0.04, marker_m=0.03)
    views = [replace(view, T_cam_board=board_pose(larger, view.ids, view.rays)) for view in views]
    assert re.search(
        r"squares measure 3[45].* by 3[45].* mm by the poses, not 40 mm", refusal(views, on_flange(poses), board=larger)
    )


def test_one_place_of_the_board_on_the_table_needs_a_statement_about_the_intrinsics(photographs):
    """Images of one place hardly show whether the focal length is right: only what is stated about it can."""
    views, poses = photographs
    same, carriers = [views[0]] * 20, np.stack([T_WORLD_CAM @ poses[0]] * 20)
    text = refusal(same, carriers, "table")
    assert "uncertainty_mm is" in text and "set stated_sd if focal length" in text
    result = calibrate(same, carriers, BOARD, CAMERA, "table", stated_sd=0.001)
    metres, radians = errors(result.T_world_cam, T_WORLD_CAM)
    assert metres < result.uncertainty_m < 4e-3 and radians < result.uncertainty_rad


def photograph_of(board, T_cam_board, camera):
    """A sharp image of a board, and its layout as OpenCV draws it."""
    scale = 4000
    printed = draw_board(board, scale)
    to_print = np.array([[scale, 0, board.square_m * scale], [0, scale, board.square_m * scale], [0, 0, 1]])
    K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    H = K @ T_cam_board[:3, [0, 1, 3]] @ np.linalg.inv(to_print)
    return cv2.warpPerspective(printed, H, (camera.width, camera.height), flags=cv2.INTER_AREA, borderValue=150)


PINHOLE = Intrinsics(640, 480, 610.0, 612.0, 322.3, 236.8)
PRINTED = {"columns": 8, "rows": 6, "square_m": 0.03, "marker_m": 0.022}


@pytest.mark.parametrize(
    ("printed", "described", "text"),
    [
        (
            {"legacy": True},
            {},
            "not in the places of a board with columns=8 rows=6 legacy=false; .* set board.legacy=true",
        ),
        ({}, {"legacy": True}, "columns=8 rows=6 legacy=false fits: set board.legacy=false"),
        ({}, {"columns": 6, "rows": 8}, "columns=8 rows=6 legacy=false fits: set board.columns=8 board.rows=6"),
        ({"legacy": True}, {"columns": 6, "rows": 8}, "set board.columns=8 board.rows=6 board.legacy=true"),
        ({}, {"columns": 7, "rows": 5}, "set board.columns=8 board.rows="),
        (
            {"marker_m": 0.018},
            {},
            r"markers are about 0.[56]\d times as wide as the squares, .* say 0.73: measure both on the print",
        ),
    ],
)
def test_a_board_of_another_layout_is_refused_with_the_layout_that_fits(printed, described, text):
    image = photograph_of(BoardCfg(**PRINTED | printed), moved((0.3, -0.2, 0.1), (-0.12, -0.09, 0.6)), PINHOLE)
    with pytest.raises(BoardLayoutError, match=text):
        find_board(BoardCfg(**PRINTED | described), image, PINHOLE, "a.png")
    assert len(find_board(BoardCfg(**PRINTED | printed), image, PINHOLE, "a.png").ids) > 30


def test_an_image_without_the_board_says_what_was_found():
    with pytest.raises(ValueError, match=r"dark.png: 0 corners and 0 markers of the board found, 8 corners are needed"):
        find_board(BOARD, np.zeros((480, 640), np.uint8), CAMERA, "dark.png")


def test_an_unknown_dictionary_lists_the_known():
    with pytest.raises(ValueError, match=r"no dictionary '9X9' of markers; known: .*5X5_100"):
        draw_board(BoardCfg(dictionary="9X9"), 1000)


def test_the_yaml_is_read_back_equal_and_refuses_what_is_not_a_pose(tmp_path):
    pose = CameraPose(T_WORLD_CAM, "color", "0042", {"views": 8})
    pose.save(tmp_path / "camera.yaml")
    read = CameraPose.load(tmp_path / "camera.yaml")
    np.testing.assert_allclose(read.T_world_cam, T_WORLD_CAM, atol=1e-12)
    assert (read.stream, read.serial, read.residuals) == ("color", "0042", {"views": 8})
    text = (tmp_path / "camera.yaml").read_text()
    for wrong, message in (
        (text.replace("pos_m", "position"), "T_world_cam must hold pos_m"),
        (
            text.replace("serial", "serail"),
            r"unknown keys \['serail'\]; known: T_world_cam, stream, serial, residuals, T_color",
        ),
        (text.replace("- 0.62", "- .nan"), "pos_m must be 3 numbers"),
        (text.replace("quat_wxyz:\n  - 0.27", "quat_wxyz:\n  - 1.27"), r"unit quaternion, w first"),
        ("{", "damaged or no YAML file"),
    ):
        (tmp_path / "wrong.yaml").write_text(wrong)
        with pytest.raises(ValueError, match=message):
            CameraPose.load(tmp_path / "wrong.yaml")


def images(poses, camera):
    """Yield an image of the printed board for each pose (4, 4) of it in the camera frame."""
    u, v = np.meshgrid(np.arange(640 * SMOOTH), np.arange(480 * SMOOTH))
    rays = camera.rays_at(((np.stack([u, v], -1) + 0.5) / SMOOTH) - 0.5).transpose(2, 0, 1)
    rays = np.stack([*rays, np.ones_like(rays[0])]).astype(np.float32)
    printed, rng = draw_board(BOARD, PRINT_PER_M), np.random.default_rng(0)
    for T in poses:
        yield photograph(T, printed, rays, rng)


def commanded(*words):
    return main.main(["calibrate", *words])


@pytest.mark.parametrize(
    ("board", "remedy"),
    [
        (BoardCfg(marker_m=0.0005), r"cannot draw .*: raise dpi or board\.marker_m, or take fewer squares"),
        (BoardCfg(columns=30, rows=30), "needs 450 markers, DICT_5X5_100 has 100: take fewer squares or a larger dict"),
    ],
)
def test_a_board_that_cannot_be_drawn_is_refused_with_the_remedy(board, remedy):
    with pytest.raises(ValueError, match=remedy):
        draw_board(board, 60 / 0.0254)


def test_the_commands_print_a_board_and_calibrate_from_a_folder(tmp_path, capsys):
    assert commanded("board", f"out={tmp_path / 'board'}") == 0
    print_ = np.asarray(Image.open(tmp_path / "board/board.png"))
    # 7 + 2 squares of 35 mm at 300 dots per inch
    assert print_.shape[1] == round(9 * 0.035 * 300 / 0.0254)
    poses = np.stack(poses_before_the_camera(3, np.random.default_rng(5)))
    folder = tmp_path / "views"
    folder.mkdir()
    camera = replace(CAMERA, distortion="none", coeffs=(0.0,) * 5)
    (folder / "camera.json").write_text(json.dumps(asdict(camera)))
    for number, image in enumerate(images(poses, camera)):
        Image.fromarray(image).save(folder / f"{number}.png")
    carriers = {f"{n}.png": pose_to_dict(T_WORLD_CAM @ T) for n, T in enumerate(poses)}
    (folder / "poses.yaml").write_text(yaml.safe_dump(carriers))
    assert commanded("camera", str(folder), f"out={tmp_path / 'run'}") == 0
    assert "uncertainty_mm" in capsys.readouterr().out
    pose = CameraPose.load(tmp_path / "run/camera.yaml")
    metres, radians = errors(pose.T_world_cam, T_WORLD_CAM)
    assert metres < 1e-3 and np.degrees(radians) < 0.1
    for name, content in (("broken.png", b"no image"), ("cut.png", (folder / "0.png").read_bytes()[:3000])):
        (folder / name).write_bytes(content)
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(folder / "small.jpg")
    Image.fromarray(np.full((480, 640), 150, np.uint8)).save(folder / "wall.png")
    assert commanded("camera", str(folder), f"out={tmp_path / 'some'}") == 0
    told = capsys.readouterr().err
    for reason in (
        "broken.png cannot be read as an image",
        "cut.png cannot be read as an image",
        "small.jpg: the image is (48, 64) pixels, the camera says (480, 640)",
        "wall.png: 0 corners and 0 markers",
    ):
        assert f"left out: {reason}" in told
    assert CameraPose.load(tmp_path / "some/camera.yaml").residuals["views"] == 3
    assert commanded("camera", str(folder), "board.dictionary=4X4_50", f"out={tmp_path / 'family'}") == 2
    assert "the board is in none of 5 images: " in (told := capsys.readouterr().err)
    assert "of dictionary 5X5_50 found, 0 of 4X4_50: set board.dictionary=5X5_50" in told
    (folder / "poses.yaml").write_text(yaml.safe_dump({"9.png": carriers["0.png"]}))
    assert commanded("camera", str(folder), f"out={tmp_path / 'again'}") == 2
    told = capsys.readouterr().err
    assert "poses.yaml has poses of images that are not in the folder: 9.png" in told
    assert "poses.yaml has no pose of 0.png, 1.png, 2.png" in told
    (folder / "poses.yaml").write_text("[1, 2]")
    assert commanded("camera", str(folder), f"out={tmp_path / 'again'}") == 2
    assert "poses.yaml must name each image with its pose (NAME: {pos_m, quat_wxyz}), got [1, 2]" in (
        capsys.readouterr().err
    )

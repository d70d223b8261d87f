"""The board in a drawn image: size of the drawing, rays and pose worked by hand, least number of corners."""

from dataclasses import replace

import numpy as np
import pytest

from dexgrasp.perception.calibration.board_layout import BoardLayoutError
from dexgrasp.perception.calibration.charuco import BoardCfg, board_pose, draw_board, find_board
from dexgrasp.perception.cameras.depth import Intrinsics

BOARD = BoardCfg(columns=8, rows=6, square_m=0.03, marker_m=0.022)
DRAWN = draw_board(BOARD, 2000.0)  # squares of 60 pixels
# Pixel (u, v) is x = (u + 0.5) / 2000 m of the print, z = 1000 / 2000 m away.
CAMERA = Intrinsics(600, 480, 1000.0, 1000.0, 269.5, 229.5)


def test_a_board_is_drawn_with_a_margin_of_one_square():
    assert DRAWN.shape == (8 * 60, 10 * 60)
    inner = DRAWN[60:-60, 60:-60]
    assert inner.shape == (360, 480)
    frame = DRAWN.copy()
    frame[60:-60, 60:-60] = 255
    assert (frame == 255).all() and (inner == 0).any()
    assert (inner[:60, :60] == 0).all()  # the first square is black
    tall = draw_board(BoardCfg(columns=4, rows=7, square_m=0.03, marker_m=0.022), 1000.3)
    assert tall.shape == (270, 180)  # 9 and 6 squares of 30.009 pixels


@pytest.mark.parametrize("colour", [False, True])
def test_corners_and_pose_of_a_drawn_board_are_where_they_were_drawn(colour):
    image = np.repeat(DRAWN[..., None], 3, -1) if colour else DRAWN
    found = find_board(BOARD, image, CAMERA, "a.png")
    assert found.name == "a.png" and found.ids.tolist() == list(range(35)) and found.ids.dtype == np.int64
    x, y = np.meshgrid(np.arange(1, 8), np.arange(1, 6))
    # corner (i, j) lies at pixels (60 (1 + i) - 0.5, 60 (1 + j) - 0.5): 210 and 170 from the centre are 0.21 and 0.17
    drawn = np.stack([60 * (1 + x) - 270, 60 * (1 + y) - 230], -1).reshape(-1, 2) / 1000
    np.testing.assert_allclose(found.rays, drawn, atol=3e-4)
    # the board's origin lies at pixels (59.5, 59.5): (-210, -170) / 1000 * 0.5 m
    np.testing.assert_allclose(found.T_cam_board[:3, 3], [-0.105, -0.085, 0.5], atol=2e-4)
    np.testing.assert_allclose(found.T_cam_board[:3, :3], np.eye(3), atol=5e-3)
    np.testing.assert_array_equal(found.T_cam_board[3], [0, 0, 0, 1])


def test_red_counts_as_red():
    # luminance of red is 0.299, of blue 0.114: with blue ink on a red ground the markers are dark, not inverted
    image = np.zeros((*DRAWN.shape, 3), np.uint8)
    image[..., 0], image[..., 2] = DRAWN, 255 - DRAWN
    assert len(find_board(BOARD, image, CAMERA, "a.png").ids) == 35
    with pytest.raises(ValueError, match=r"a\.png: 0 corners and"):
        find_board(BOARD, image[..., ::-1].copy(), CAMERA, "a.png")


def visible(columns, rows):
    """The drawn board with all but its first columns and rows of squares covered."""
    image = np.full_like(DRAWN, 255)
    image[: 60 * (rows + 1), : 60 * (columns + 1)] = DRAWN[: 60 * (rows + 1), : 60 * (columns + 1)]
    return image


def test_eight_corners_are_enough_and_fewer_are_said():
    assert find_board(BOARD, visible(5, 3), CAMERA, "a.png").ids.tolist() == [0, 1, 2, 3, 7, 8, 9, 10]
    with pytest.raises(
        ValueError, match=r"^b\.png: 6 corners and \d+ markers of the board found, 8 corners are needed"
    ):
        find_board(BOARD, visible(4, 3), CAMERA, "b.png")


def test_an_image_of_another_size_than_the_camera_says_is_refused():
    with pytest.raises(ValueError, match=r"^a\.png: the image is \(480, 599\) pixels, the camera says \(480, 600\)"):
        find_board(BOARD, DRAWN[:, 1:], CAMERA, "a.png")


def test_the_pose_of_exact_corners_is_exact_from_far_and_near():
    turn = np.array([[0.8, 0.0, 0.6], [0.0, 1.0, 0.0], [-0.6, 0.0, 0.8]])  # about y, by 36.87 degrees
    for pos, ids in (((-0.1, -0.05, 0.4), np.arange(35)), ((0.2, 0.1, 3.0), np.arange(2, 30, 3))):
        points = BOARD.corners_m()[ids] @ turn.T + pos
        T = board_pose(BOARD, ids, points[:, :2] / points[:, 2:])
        np.testing.assert_allclose(T[:3], np.c_[turn, pos], atol=1e-6)


def test_four_markers_are_checked_for_another_layout_and_three_are_not():
    described = replace(BOARD, legacy=True)
    with pytest.raises(BoardLayoutError, match=r"^a\.png: 4 markers found, but not in the places of a board"):
        find_board(described, visible(4, 2), CAMERA, "a.png")
    with pytest.raises(ValueError, match=r"^a\.png: \d corners and 3 markers of the board found") as caught:
        find_board(described, visible(3, 2), CAMERA, "a.png")
    assert not isinstance(caught.value, BoardLayoutError)


def test_markers_of_no_size_are_refused_with_what_opencv_says_in_one_line():
    with pytest.raises(ValueError, match=r"board: OpenCV cannot draw 8 by 6 squares") as caught:
        draw_board(replace(BOARD, marker_m=0.0005), 1000.0)
    text = str(caught.value)
    assert "markers of 0.5 dots of dictionary" in text and " error: (-" in text and "\n" not in text


@pytest.mark.parametrize("ids", [range(7), range(0, 35, 7), range(0, 33, 8), [3, 3, 3, 3]])
def test_corners_in_one_line_give_no_pose(ids):
    ids = np.array(ids)
    points = BOARD.corners_m()[ids] + (0.0, 0.0, 0.5)
    with pytest.raises(ValueError, match=r"^corners \[\d+, .*\] lie in one line, which gives no pose of the board"):
        board_pose(BOARD, ids, points[:, :2] / points[:, 2:])


def test_one_visible_line_of_corners_is_refused_by_the_name_of_its_image():
    strip = BoardCfg(columns=10, rows=3, square_m=0.03, marker_m=0.022)
    image = draw_board(strip, 2000.0)
    image[3 * 60 :] = 255  # the last row of squares is covered
    camera = Intrinsics(image.shape[1], image.shape[0], 1000.0, 1000.0, 360.0, 150.0)
    with pytest.raises(ValueError, match=r"^a\.png: corners \[0, 1, .* 8\] lie in one line, which gives no pose"):
        find_board(strip, image, camera, "a.png")


def test_a_narrow_border_of_markers_is_told_once_in_our_words(caplog, capfd):
    """30 mm squares, 26 mm markers of 4 + 2 dots: 2 mm of white, dots of 4.33 mm."""
    narrow = BoardCfg(square_m=0.03, marker_m=0.026, dictionary="4X4_50")
    for _ in range(3):
        draw_board(narrow, 2000)
    assert [record.getMessage() for record in caplog.records] == [
        "board: 2.0 mm of white lie round each marker, whose dots are 4.3 mm wide; expected at least 3.0 mm, or "
        "markers are overlooked: lower board.marker_m"
    ]
    draw_board(BoardCfg(), 2000)  # the default
    assert len(caplog.records) == 1 and capfd.readouterr().err == ""

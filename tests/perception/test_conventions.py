"""Robot poses in another convention: the calibration names the one that explains the images, and no other."""

from collections import Counter

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dexgrasp.perception.calibration.conventions import explain_misfit
from dexgrasp.perception.calibration.hand_eye import BadCalibrationError, calibrate
from tests.helpers.synthetic_calibration import BOARD, KINDS, synthetic_set


def turned(T, rotation):
    T = T.copy()
    T[:, :3, :3] = rotation.as_matrix()
    return T


def scaled(T, factor):
    T = T.copy()
    T[:, :3, 3] *= factor
    return T


def rotations(T):
    return Rotation.from_matrix(T[:, :3, :3])


def read_as_wxyz(T):
    """Written x, y, z, w (as scipy has it) and read as w, x, y, z."""
    return turned(T, Rotation.from_quat(rotations(T).as_quat()[:, [1, 2, 3, 0]]))


def read_as_xyzw(T):
    """Written w, x, y, z and read as x, y, z, w."""
    return turned(T, Rotation.from_quat(rotations(T).as_quat()[:, [3, 0, 1, 2]]))


MISTAKES = {
    "millimetres": (lambda T: scaled(T, 1e3), "look like millimetres (factor 1000)"),
    "centimetres": (lambda T: scaled(T, 1e2), "look like centimetres (factor 100)"),
    "inches": (lambda T: scaled(T, 1 / 0.0254), "look like inches (factor 39.37)"),
    "inverted": (np.linalg.inv, "look like poses of the world in the "),
    "xyzw": (read_as_wxyz, "look like quaternions that were written x, y, z, w"),
    "wxyz": (read_as_xyzw, "look like quaternions that were read as x, y, z, w"),
    "transposed": (lambda T: turned(T, rotations(T).inv()), "look like rotations of the world in the "),
    "radians": (
        lambda T: turned(T, Rotation.from_rotvec(np.radians(rotations(T).as_rotvec()))),
        "look like angles in radians that were taken for degrees",
    ),
    "degrees": (
        lambda T: turned(T, Rotation.from_rotvec(np.degrees(rotations(T).as_rotvec()))),
        "were angles in degrees taken for radians",
    ),
    "euler_degrees": (
        lambda T: turned(T, Rotation.from_euler("xyz", np.degrees(rotations(T).as_euler("xyz")))),
        "were angles in degrees taken for radians",
    ),
    "euler_order": (
        lambda T: turned(T, Rotation.from_euler("zyx", rotations(T).as_euler("xyz"))),
        "Euler angles in another order",
    ),
    "millimetres_inverted": (lambda T: scaled(np.linalg.inv(T), 1e3), "look like millimetres (factor 1000): give "),
    "millimetres_xyzw": (lambda T: scaled(read_as_wxyz(T), 1e3), "look like millimetres (factor 1000): give "),
}
"""How poses are spoilt, and what the refusal says."""


def explanation(kind, seed, mounted, spoil):
    made = synthetic_set(kind, seed, mounted)
    return explain_misfit(spoil(made.carriers), np.stack([view.T_cam_board for view in made.views]), mounted)


@pytest.mark.parametrize("mounted", ["flange", "table"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_convention_is_named(mistake, mounted):
    spoil, text = MISTAKES[mistake]
    assert text in explanation("good", 3, mounted, spoil)


def test_both_of_two_conventions_are_named():
    text = explanation("good", 1, "flange", MISTAKES["millimetres_xyzw"][0])
    assert "millimetres (factor 1000): give positions in metres and quaternions that were written x, y, z, w" in text


def test_the_other_place_of_the_board_is_named():
    """A board at one place of the table says nothing of a flange; flange poses are none of a board on the table."""
    made = synthetic_set("good", 2)
    seen = np.stack([view.T_cam_board for view in made.views])
    assert "the poses fit a board on the flange, whose poses they give" in explain_misfit(made.carriers, seen, "table")
    still = np.stack([made.carriers[0]] * len(seen))
    assert "set mounted=table" in explain_misfit(still, np.stack([seen[0]] * len(seen)), "flange")


def test_calibrate_refuses_with_the_convention():
    made = synthetic_set("good", 0)
    with pytest.raises(BadCalibrationError, match=r"refused: the poses look like millimetres \(factor 1000\)"):
        calibrate(made.views, scaled(made.carriers, 1e3), BOARD, made.camera, "flange")


@pytest.mark.parametrize("kind", KINDS)
def test_right_poses_are_not_blamed(kind):
    """Neither with a wrong camera or board nor with a noisy robot."""
    for mounted in ("flange", "table"):
        for seed in range(4):
            assert not explanation(kind, seed, mounted, lambda T: T)


def test_one_wrong_pose_of_many_is_no_convention():
    made = synthetic_set("good", 0)
    made.carriers[0, :3, 3] += 0.3
    assert not explain_misfit(made.carriers, np.stack([view.T_cam_board for view in made.views]), "flange")


@pytest.mark.slow
@pytest.mark.parametrize("mounted", ["flange", "table"])
def test_95_percent_of_the_sets_are_named_and_1_percent_of_right_ones_at_most(mounted):
    for mistake, (spoil, text) in MISTAKES.items():
        named = sum(text in explanation(kind, seed, mounted, spoil) for kind in ("good", "noise") for seed in range(50))
        assert named >= 95, (mistake, named)
    blamed = Counter(kind for kind in KINDS for seed in range(60) if explanation(kind, seed, mounted, lambda T: T))
    assert sum(blamed.values()) <= 4, blamed

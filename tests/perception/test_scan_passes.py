"""Passes of a thing that was turned over: registration against exact poses, and the underside of a rendered cup."""

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("open3d", reason="needs the extra `scan`")

from dexgrasp.perception.calibration.board_layout import BoardCfg
from dexgrasp.perception.cameras.open import open_camera
from dexgrasp.perception.scanning.board_poses import poses_from_board
from dexgrasp.perception.scanning.frames import ScanError, read_frames
from dexgrasp.perception.scanning.fusion import Surface, Volume, merged_surface, zero_crossing
from dexgrasp.perception.scanning.registration import SeenSurface, register
from dexgrasp.perception.scanning.scan import join_passes, scan_pass
from tests.helpers import synthetic_scan as synthetic

HALF_M = (0.03, 0.02, 0.025)
VOXEL_M, COUNT = 0.0015, 56
TOP = (0.012, 0.005, 0.025), (0.008, 0.008, 0.012)
"""Hollow of a box: middle and half of its sides; not in the middle of the face."""
BOTTOM = (0.012, 0.005, -0.025), (0.008, 0.008, 0.012)
T_TURNED = np.eye(4)
T_TURNED[:3, :3] = Rotation.from_rotvec((2.8, 0.3, 0.9)).as_matrix()
UP = np.array([0.0, 0.0, 1.0])


def distance_to_box(points, middle, half_m):
    """Return the signed distance (...) of points (..., 3) to an axis-aligned box."""
    away = np.abs(points - middle) - half_m
    return np.linalg.norm(away.clip(0), axis=-1) + np.minimum(away.max(-1), 0)


def voxel_points(count=COUNT):
    axis = (np.arange(count) + 0.5 - count / 2) * VOXEL_M
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


def box_pass(hollows, hidden, T=None, textured=True, half_m=HALF_M):
    """Return what a pass sees of a box with hollows; `hidden`: direction of the face that lies on the table."""
    R = np.eye(3) if T is None else T[:3, :3]
    points = voxel_points() @ R
    distance_m = distance_to_box(points, (0, 0, 0), half_m)
    for middle, half in hollows:
        distance_m = np.maximum(distance_m, -distance_to_box(points, middle, half))
    tsdf = np.clip(distance_m / (2 * VOXEL_M), -1, 1).astype(np.float32)
    lower_m = np.full(3, -COUNT * VOXEL_M / 2)
    surface = zero_crossing(Volume(lower_m, VOXEL_M, tsdf, np.zeros((*tsdf.shape, 3), np.float32)), tsdf)
    own = surface.vertices @ R
    color = np.full(own.shape, 0.5)
    if textured:
        color[:, 0] += 0.3 * np.sin(180 * own[:, 0] + 60 * own[:, 2])
    middles = own[surface.faces].mean(1)
    return SeenSurface(Surface(surface.vertices, surface.faces, color), middles @ hidden < half_m[2] - 0.002)


@pytest.mark.parametrize(
    ("above", "below", "textured"),
    [
        pytest.param([TOP], [], False, id="only one hollow: any turn gives one thing"),
        pytest.param([TOP], [BOTTOM], True, id="two hollows: colour decides"),
    ],
)
def test_a_pass_is_put_where_it_was(above, below, textured):
    found = register(box_pass(below, UP, T_TURNED, textured), box_pass(above, -UP, textured=textured))
    turn = found.T_fixed_moving @ T_TURNED
    if not below:  # a half turn about the vertical axis gives the same box
        turn[:2] *= np.sign(turn[0, 0])
    np.testing.assert_allclose(turn, np.eye(4), atol=0.003)
    assert np.linalg.norm(turn[:3, 3]) < 0.0002 and found.misfit_m < 0.0001 and 0.6 < found.overlap < 0.9


def test_two_ways_that_give_different_things_are_refused():
    with pytest.raises(ScanError, match="fit together in several ways, which give different things: stick something"):
        register(box_pass([BOTTOM], UP, T_TURNED, textured=False), box_pass([TOP], -UP, textured=False))


@pytest.mark.slow
def test_passes_of_two_things_are_refused():
    with pytest.raises(ScanError, match=r"do not fit together \(.* at best\): are they of one thing"):
        register(box_pass([], UP, T_TURNED, half_m=(0.022, 0.022, 0.034)), box_pass([], -UP))


def test_merged_passes_are_closed_where_neither_saw():
    """Hand-worked: two passes of one sphere of 20 mm that stands on the table, neither of which saw its inside."""
    count, radius_m = 40, 0.02
    points = voxel_points(count)
    distance_m = np.linalg.norm(points, axis=-1) - radius_m
    tsdf = np.clip(distance_m / (2 * VOXEL_M), -1, 1).astype(np.float32)
    lower_m = np.full(3, -count * VOXEL_M / 2)
    volume = Volume(lower_m, VOXEL_M, tsdf, np.zeros((*tsdf.shape, 3), np.float32))
    T = np.eye(4)
    T[2, 3] = radius_m
    surface = merged_surface([volume, volume], [T, T])
    radius = np.linalg.norm(surface.vertices, axis=1)
    above = surface.vertices[:, 2] > -radius_m + 0.004
    assert np.abs(radius[above] - radius_m).max() < 0.0003
    assert surface.vertices[:, 2].min() == pytest.approx(-radius_m, abs=0.0008)


CUP = (0.035, 0.03, 0.03)
"""Half sides of a box with a hollow underneath, which a camera sees only after the box is turned over [m]."""
HOLLOW = (0.0, 0.0, -0.02), (0.022, 0.017, 0.0101)


def cup_boxes():
    """Return middle and half sides of the boxes that make the cup: the block above the hollow, and four walls."""
    (x, y, z), (inner_x, inner_y, _) = CUP, HOLLOW[1]
    ceiling = HOLLOW[0][2] + HOLLOW[1][2]
    yield (0, 0, (z + ceiling) / 2), (x, y, (z - ceiling) / 2)
    for sign in (-1, 1):
        low, half = (ceiling - z) / 2, (ceiling + z) / 2
        yield (sign * (x + inner_x) / 2, 0, low), ((x - inner_x) / 2, y, half)
        yield (0, sign * (y + inner_y) / 2, low), (x, (y - inner_y) / 2, half)


def cup_pass(folder, upside_down):
    """Return the scanned mesh of the cup, hollow side down or up."""
    sign = -1 if upside_down else 1
    T = np.diag([1.0, sign, sign, 1.0])
    T[2, 3] = CUP[2]

    def add(spec):
        for number, (middle, half) in enumerate(cup_boxes(), start=1):
            place = T[:3, :3] @ middle + T[:3, 3]
            spec.worldbody.add_geom(name=f"object{number}", type=mujoco.mjtGeom.mjGEOM_BOX, size=half, pos=place)

    poses = [synthetic.ring(8, 30, 0.32), synthetic.ring(5, 60, 0.32, first_deg=10), synthetic.ring(3, 82, 0.32)]
    scan = synthetic.render(
        synthetic.table_scene(add),
        np.concatenate(poses),
        camera=synthetic.SMALL,
        T_texture_table=np.linalg.inv(T),
        seed=int(upside_down),
    )
    with open_camera(str(scan.save(folder))) as source:
        return scan_pass(poses_from_board(read_frames(source, 40), BoardCfg()))


def cup_distance_mm(vertices):
    """Return the unsigned distances [mm] of points from the cup's surface; its middle is the origin."""
    outer, inner = distance_to_box(vertices, (0, 0, 0), CUP), distance_to_box(vertices, *HOLLOW)
    return 1000 * np.abs(np.maximum(outer, -inner))


@pytest.mark.slow
def test_the_hollow_underneath_is_seen_by_a_second_pass(tmp_path):
    one, other = cup_pass(tmp_path / "a", False), cup_pass(tmp_path / "b", True)
    joined = join_passes([one, other])
    assert one.unseen > 0.1 and joined.unseen < 0.03
    hollow = HOLLOW[0][2] + HOLLOW[1][2] + CUP[2]  # height of its ceiling above the table
    inside = np.abs(joined.surface.vertices[:, :2]).max(1) < 0.012
    heights = joined.surface.vertices[inside, 2]
    assert np.median(heights[heights < 0.04]) == pytest.approx(hollow, abs=0.0015)
    away = cup_distance_mm(joined.surface.vertices - (0, 0, CUP[2]))
    assert np.median(away) < 0.8 and np.percentile(away, 95) < 2.5

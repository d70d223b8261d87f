"""What the camera sees of an object's surface samples, against geometry and against rays cast by MuJoCo."""

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp.sim.scene import fibonacci_sphere
from dexgrasp.sim.sensors.point_camera import CELL_RAD, HIDDEN_BEHIND_M, pick_points, visible, visible_and_edge

HEIGHT_M = 0.7
OVERHEAD = torch.tensor([[0.0, 0.0, HEIGHT_M]], dtype=torch.float64)


def seen(points, normals, camera=OVERHEAD):
    points, normals = (torch.as_tensor(np.asarray(v), dtype=torch.float64)[None] for v in (points, normals))
    return visible(points, normals, camera)[0].numpy()


def plate(height, half=0.04, count=25):
    """A horizontal square of samples that face up."""
    line = np.linspace(-half, half, count)
    x, y = (v.ravel() for v in np.meshgrid(line, line))
    return np.stack([x, y, np.full_like(x, height)], axis=1), np.tile([0.0, 0.0, 1.0], (len(x), 1))


def test_of_a_sphere_the_cap_towards_the_camera_is_seen():
    radius = 0.05
    normals = fibonacci_sphere(1024)
    mask = seen(radius * normals, normals)
    angle = np.arccos(normals[:, 2])
    horizon = np.arccos(radius / HEIGHT_M)  # where the line of sight touches the sphere
    assert not mask[angle > horizon].any()
    # within one image cell the surface must not fall by more than NEARER_M: its slope is tan(angle)
    steep = np.arctan(HIDDEN_BEHIND_M / (2**0.5 * CELL_RAD * HEIGHT_M))
    assert mask[angle < steep].all()
    assert steep > np.deg2rad(40)


def test_a_box_hides_its_far_side_and_its_bottom():
    face, up = plate(0.04)  # the top of a cube of 8 cm; the other faces are turned copies
    top, bottom = np.eye(3), np.diag([1.0, -1.0, -1.0])
    front, back = (np.array([[1.0, 0.0, 0.0], [0.0, 0.0, y], [0.0, -y, 0.0]]) for y in (-1.0, 1.0))
    turns = (top, front, back, bottom)
    points, normals = (np.concatenate([v @ m.T for m in turns]) for v in (face, up))
    mask = seen(points, normals, torch.tensor([[0.0, -0.5, 0.5]], dtype=torch.float64)).reshape(4, -1)
    assert mask[0].mean() > 0.95
    assert mask[1].mean() > 0.95
    assert not mask[2:].any()


def test_the_lower_of_two_stacked_plates_is_hidden():
    (upper, up), (lower, _) = plate(0.1), plate(0.05, half=0.03)
    mask = seen(np.concatenate([upper, lower]), np.concatenate([up, np.tile(up[:1], (len(lower), 1))]))
    assert mask[: len(upper)].all()
    assert not mask[len(upper) :].any()


def test_what_looks_out_beside_the_upper_plate_is_seen():
    (upper, up), (lower, _) = plate(0.1, half=0.02), plate(0.05, half=0.06)
    mask = seen(np.concatenate([upper, lower]), np.tile(up[:1], (2 * len(up), 1)))
    shadow = 0.02 * HEIGHT_M / (HEIGHT_M - 0.1) + 0.01  # central projection of the upper plate, and one cell
    assert mask[len(upper) :][np.abs(lower[:, :2]).max(axis=1) > shadow].all()


def test_an_object_that_shows_only_its_back_still_has_its_nearest_sample():
    points, up = plate(0.1)
    mask = seen(points, -up)
    assert mask.sum() == 1
    assert np.linalg.norm(points[mask] - OVERHEAD.numpy(), axis=1) == pytest.approx(HEIGHT_M - 0.1)


def test_environments_do_not_hide_each_other():
    points, up = (torch.from_numpy(v) for v in plate(0.1))
    stacked = torch.stack([points, points - torch.tensor([0.0, 0.0, 0.09])])
    assert visible(stacked, up.expand(2, -1, -1), OVERHEAD.expand(2, -1)).all()


@pytest.mark.parametrize("number", range(4))
def test_most_of_what_is_seen_is_where_a_ray_from_the_camera_ends(household, number):
    obj = household[household.names[number]]
    spec = mujoco.MjSpec()
    for i, piece in enumerate(obj.pieces):
        spec.add_mesh(name=f"piece_{i}", uservert=piece.astype(np.float64).ravel())
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=f"piece_{i}")
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = np.array([0.15, 0.1, 0.7])
    ray = obj.points.astype(np.float64) - camera
    length = np.linalg.norm(ray, axis=1)
    geom, reach = np.zeros(1, np.int32), np.empty(len(ray))
    for i, direction in enumerate(ray / length[:, None]):
        reach[i] = mujoco.mj_ray(model, data, camera, direction, None, 1, -1, geom)
    hit = reach > length - 0.003  # pieces are 0.6 mm larger than the surface, and convex where it need not be
    mask = seen(obj.points, obj.normals, torch.from_numpy(camera)[None])
    assert (mask & hit).sum() > 0.85 * mask.sum()
    assert (mask & hit).sum() > 0.35 * hit.sum()  # steep sides are given up: their cells hold nearer samples


def test_points_are_picked_in_the_order_of_the_samples():
    mask = torch.tensor([[False, True, True, False, True], [True, True, True, True, False]])
    assert pick_points(mask, 3).tolist() == [[1, 2, 4], [0, 1, 2]]


def test_too_few_points_are_repeated_in_turn():
    mask = torch.tensor([[False, True, False, True], [True, False, False, False]])
    assert pick_points(mask, 5).tolist() == [[1, 3, 1, 3, 1], [0, 0, 0, 0, 0]]


def test_steep_sides_are_seen_only_where_they_are_asked_for():
    radius = 0.05
    normals = fibonacci_sphere(1024)
    points, normals = (torch.from_numpy(v)[None] for v in (radius * normals, normals))
    plain, steep = (visible_and_edge(points, normals, OVERHEAD, steep=flag)[0][0] for flag in (False, True))
    angle = np.arccos(normals[0, :, 2].numpy())
    assert (steep | ~plain).all()
    assert steep[angle < np.deg2rad(75)].float().mean() > 0.98
    assert plain[angle < np.deg2rad(75)].float().mean() < 0.97
    assert not steep[angle > np.arccos(radius / HEIGHT_M)].any()

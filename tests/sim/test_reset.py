"""How episodes open: objects at rest where they were drawn, hands clear of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dexgrasp.perception.transforms import quat_rotate
from dexgrasp.sim.objects.generator import generate
from dexgrasp.sim.sensors import surface_table
from dexgrasp.sim.sensors.surface_table import SurfaceTable
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg
from dexgrasp.sim.task.reset import place_objects

TRIALS = 48


@pytest.fixture(scope="module")
def hollow(tmp_path_factory):
    """Bowls and mugs, into which open fingers could reach."""
    path = tmp_path_factory.mktemp("hollow")
    return generate(4, path, seed=3, families=["bowl", "mug"], workers=1, progress=False)


@pytest.fixture(scope="module")
def opened(allegro, hollow, reference):
    task = GraspTask(TaskCfg(), allegro, hollow, reference, TRIALS, num_threads=1, in_order=True, auto_reset=False)
    task.reset(range(TRIALS))
    return task


def test_no_hand_begins_inside_or_against_an_object(opened):
    assert not opened.engine.state.object_contact.any()
    assert opened.engine.state.penetration_m.max() <= 0


def test_objects_at_rest_stay_while_the_hand_waits(opened):
    state = opened.engine.state
    start, palm = state.object_pos_w.clone(), (state.palm_pos_w.clone(), state.palm_quat_w.clone())
    fingers = state.joint_pos.clone()
    for _ in range(10):
        opened.engine.step(fingers, *palm, 0.05)
    assert (state.object_pos_w - start).norm(dim=1).max() < 2e-3  # the pieces are 0.6 mm larger than the object


def draws(rest, yaw, xy, size=1.0):
    return SimpleNamespace(
        rest=torch.tensor([rest]).double(),
        yaw=torch.tensor([yaw]).double(),
        object_xy=torch.tensor([xy]).double(),
        size=torch.tensor([size]).double(),
    )


def test_the_resting_pose_is_drawn_by_its_probability(household):
    obj, surfaces = household[household.names[0]], SurfaceTable(household)
    edge = 0.0
    for pose, share in enumerate(obj.rest_prob):
        pos, quat = place_objects(surfaces, [obj.name], draws(edge + 0.5 * share, 0.0, [0.0, 0.0]))
        assert float(pos[0, 2]) == pytest.approx(obj.rest_height[pose])
        assert quat[0].tolist() == pytest.approx(obj.rest_quat[pose].tolist())
        edge += share
    pos, _ = place_objects(surfaces, [obj.name], draws(1.0, 0.0, [0.0, 0.0]))  # sums of probabilities may lie below 1
    assert float(pos[0, 2]) == pytest.approx(obj.rest_height[-1])


def test_yaw_turns_the_resting_object_about_the_vertical(household):
    surfaces = SurfaceTable(household)
    name, up = household.names[1], torch.tensor([0.0, 0.0, 1.0]).double()
    _, still = place_objects(surfaces, [name], draws(0.3, 0.0, [0.0, 0.0]))
    pos, turned = place_objects(surfaces, [name], draws(0.3, 1.2, [0.03, -0.04]))
    one, other = (Rotation.from_quat(q.numpy()[:, [1, 2, 3, 0]]) for q in (still, turned))
    assert (other * one.inv()).as_rotvec()[0].tolist() == pytest.approx([0.0, 0.0, 1.2])
    assert pos[0, :2].tolist() == pytest.approx([0.03, -0.04])
    inverse = torch.tensor([1.0, -1.0, -1.0, -1.0])
    torch.testing.assert_close(quat_rotate(turned * inverse, up), quat_rotate(still * inverse, up))


def test_objects_are_read_once_and_their_rows_are_theirs(household, monkeypatch):
    """Whatever comes in which order, also where a later object has more resting poses, or the table is full."""
    monkeypatch.setattr(surface_table, "MAX_OBJECTS", 3)
    surfaces, names = SurfaceTable(household), sorted(household.names, key=lambda name: len(household[name].rest_prob))
    assert len(household[names[0]].rest_prob) < len(household[names[-1]].rest_prob)
    for asked in ([names[0]], [names[2], names[0]], [names[3], names[0], names[3]], [names[1], names[2]], names):
        numbers = surfaces.find(asked)
        for number, name in zip(numbers.tolist(), asked, strict=True):
            obj, rests = household[name], len(household[name].rest_prob)
            assert np.array_equal(surfaces.points[number], obj.points)
            assert np.array_equal(surfaces.normals[number], obj.normals)
            assert np.array_equal(surfaces.rest_quat[number, :rests], obj.rest_quat)
            assert surfaces.rest_edge[number].isfinite().sum() == rests
    held = surfaces.points
    surfaces.find(names)
    assert surfaces.points is held

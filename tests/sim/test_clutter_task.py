"""The wanted object among others: scenes, bodies, what is seen of it, what happens to its neighbours."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dexgrasp.perception.transforms import quat_rotate
from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.evaluation.clutter import (
    Table,
    clear_tables,
    count_cleared,
    count_neighbours,
    neighbour_rows,
    table_outcome,
)
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.sim.clutter import PlacedObject, draw_around, let_fall
from dexgrasp.sim.engine.base import Neighbours
from dexgrasp.sim.rendering import offscreen
from dexgrasp.sim.scene import ModelPool, object_bodies
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.sensors.point_camera import visible_and_edge
from dexgrasp.sim.task import reset as starts
from dexgrasp.sim.task.clutter_scenes import VARIANTS, ClutterScenes, SceneCfg
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg
from dexgrasp.sim.task.neighbours import NeighbourTracker
from dexgrasp.sim.task.outcomes import Outcome

SHORT = TaskCfg(grasp_s=0.8, lift_s=0.4, hold_s=0.2)
SPREAD = replace(SHORT, scene=SceneCfg(name="clutter", objects=(2, 4), layout="spread"))
ROWS = torch.arange(4)


@pytest.fixture(scope="module")
def make(allegro, household, balanced):
    def build(cfg: TaskCfg = SPREAD, seed: int = 0) -> GraspTask:
        task = GraspTask(cfg, allegro, household, balanced, 4, 1, seed, in_order=True, auto_reset=False)
        task.reset(range(4))
        return task

    return build


@pytest.fixture(scope="module")
def cluttered(make):
    return make()


def test_every_environment_has_its_object_and_its_neighbours_where_they_rest(cluttered, household):
    task, counts = cluttered, []
    assert [name for name in task.engine.body_names if name.startswith("neighbour_")] == [
        "neighbour_0",
        "neighbour_1",
        "neighbour_2",
    ]
    assert task.engine.body_names[-1] == "object"
    for row in range(4):
        model = task.engine.get_model(row)
        names = task.object_camera._neighbours[row]
        pieces = [len(household[name].pieces) if name else 0 for name in (*names, task.objects[row])]
        collide = [int((model.geom_contype[model.geom_bodyid == body] > 0).sum()) for body in object_bodies(model)]
        assert collide == pieces
        assert task.objects[row] not in names
        counts.append(sum(bool(name) for name in names))
    assert all(1 <= count <= 3 for count in counts)
    assert len(set(counts)) > 1


def test_neighbours_rest_until_the_hand_comes_and_missing_ones_do_not_fall(make):
    task = make()
    state = task.engine.state
    task.engine.write(ROWS, {"palm_pos_w": state.palm_pos_w + torch.tensor([0.0, 0.0, 0.6])})
    start = state.neighbour_pos_w.clone(), state.object_pos_w.clone()
    task.engine.simulate(250)  # one second
    assert (state.neighbour_pos_w - start[0]).norm(dim=-1).max() < 0.003
    assert (state.object_pos_w - start[1]).norm(dim=-1).max() < 0.003
    absent = start[0][..., 2] < -0.5
    assert absent.any()
    torch.testing.assert_close(state.neighbour_pos_w[absent], start[0][absent], atol=1e-5, rtol=0)


def test_hands_start_clear_of_all_objects(make):
    packed = make(replace(SHORT, scene=SceneCfg(name="clutter", objects=(4, 4))))
    for row in range(4):
        model, data = packed.engine.get_model(row), packed.engine.get_data(row)
        objects = object_bodies(model)
        for contact in data.contact:
            bodies = model.geom_bodyid[contact.geom]
            assert 0 in bodies or np.isin(bodies, objects).all()  # with the table, or among objects


def test_seed_and_trial_decide_a_scene_and_a_reset_draws_another(make, cluttered):
    def scene(task):
        state = task.engine.state
        poses = [state.object_pos_w, state.object_quat_w, *(state.neighbour_pos_w.unbind(1))]
        return torch.cat(poses, dim=1).clone(), [task.object_camera._neighbours[row] for row in range(4)]

    task = make()
    first, names = scene(task)
    task.reset(range(4, 8))
    other, _ = scene(task)
    task.reset(range(4))
    again, same_names = scene(task)
    torch.testing.assert_close(again, first, atol=0, rtol=0)
    assert same_names == names
    assert ((other - first).abs().amax(dim=1) > 0.01).all()
    elsewhere, _ = scene(make(seed=1))
    assert ((elsewhere - first).abs().amax(dim=1) > 0.01).any()


def test_a_single_object_is_placed_and_modelled_as_without_scenes(make, household, allegro, balanced):
    task = make(SHORT)
    draws, names = task.draws, task.objects
    pos, quat = starts.place_objects(task._surfaces, names, draws)
    torch.testing.assert_close(task.engine.state.object_pos_w, pos, atol=0, rtol=0)
    torch.testing.assert_close(task.engine.state.object_quat_w, quat, atol=0, rtol=0)
    assert task.engine.state.neighbour_pos_w.shape == (4, 0, 3)
    plain = ModelPool(allegro, household, balanced)[names[0]]
    assert (plain.nbody, plain.nv, plain.nmesh) == (19, 28, household.most_pieces)
    [outcome, *_] = task.outcomes()
    assert (outcome.contact, outcome.neighbours) == ("", 0)


def at(*places, quat=(1.0, 0.0, 0.0, 0.0)):
    """A row of neighbours at places [m]; the last place is not used."""
    names = [(*("box" for _ in places[:-1]), "")]
    quat_w = torch.tensor(quat, dtype=torch.float64).expand(1, len(places), 4).clone()
    return Neighbours(names=names, pos_w=torch.tensor([places], dtype=torch.float64), quat_w=quat_w)


def judged(*steps):
    """Counts (neighbours, moved, toppled, fallen) after steps (motions, turns) of three; a fourth is absent."""
    start = at((0.0, 0.0, 0.05), (0.1, 0.0, 0.05), (0.2, 0.0, 0.05), (0.0, 0.0, -1.0))
    tracker = NeighbourTracker(1, 4)
    tracker.reset(torch.tensor([0]), start, ["touching"])
    for moves, turns in steps:
        pos_w, quat_w = start.pos_w.clone(), start.quat_w.clone()
        pos_w[0] += torch.tensor(moves, dtype=torch.float64)
        for number, (axis, degrees) in turns.items():
            half = np.radians(degrees) / 2
            quat_w[0, number, 0], quat_w[0, number, 1 + "xyz".index(axis)] = np.cos(half), np.sin(half)
        tracker.update(pos_w, quat_w)
    plain = Outcome(
        trial=0,
        object="mug",
        disturbance="none",
        success=True,
        failure="",
        lift_m=0.2,
        slip_m=0.0,
        penetration_m=0.0,
    )
    [found] = tracker.added_to([plain], [0])
    assert replace(found, contact="", neighbours=0, **dict.fromkeys(DISTURBED, 0)) == plain
    assert found.contact == "touching"
    return found.neighbours, *(getattr(found, name) for name in DISTURBED)


DISTURBED = ("neighbours_moved", "neighbours_toppled", "neighbours_fallen")
STILL = [[0.0, 0.0, 0.0]] * 4


@pytest.mark.parametrize(
    ("steps", "counts"),
    [
        ([(STILL, {})], (3, 0, 0, 0)),
        ([([[0.049, 0, 0], [0, 0.051, 0], [0, 0, 0], [0.3, 0, 0]], {})], (3, 1, 0, 0)),
        ([([[0.03, 0.03, 0.03], [0, 0, 0], [0, 0, 0], [0, 0, 0]], {})], (3, 1, 0, 0)),  # 5.2 cm
        ([([[0.06, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]], {}), (STILL, {})], (3, 1, 0, 0)),  # and back
        ([(STILL, {0: ("x", 44), 1: ("y", 46), 2: ("z", 180)})], (3, 0, 1, 0)),
        ([(STILL, {0: ("x", 90)}), (STILL, {0: ("x", 10)})], (3, 0, 0, 0)),  # stands again
        ([([[0, 0, 0], [0, 0, 0], [0.16, 0, 0], [0, 0, 0]], {})], (3, 1, 0, 1)),  # 0.36 m from the middle
        ([([[0, 0, -0.11], [0, 0, 0], [0.14, 0, 0], [0, 0, 0]], {1: ("x", 120), 3: ("x", 90)})], (3, 2, 1, 1)),
    ],
)
def test_moved_toppled_and_fallen_neighbours_worked_by_hand(steps, counts):
    assert judged(*steps) == counts


def test_a_neighbour_hides_what_lies_behind_it():
    """A plate of 20 x 20 samples, 4 cm wide, 0.5 m below the camera; a smaller one half way hides its right half."""
    axis = torch.linspace(-0.02, 0.02, 20)
    points = torch.stack([*torch.meshgrid(axis, axis, indexing="ij"), torch.zeros(20, 20)], dim=-1).reshape(1, -1, 3)
    up, camera_w = torch.tensor([0.0, 0.0, 1.0]).expand_as(points), torch.tensor([[0.0, 0.0, 0.5]])
    near = points / 2 + torch.tensor([0.011, 0.0, 0.25])  # its shadow on the plate: x from 0.2 to 4.2 cm
    free, _ = visible_and_edge(points, up, camera_w, edges=False)
    seen, _ = visible_and_edge(points, up, camera_w, edges=False, around_w=near)
    assert free.all()
    x = points[0, :, 0]
    assert not seen[0, x > 0.008].any()  # a cell of the image is 6 mm wide here
    assert seen[0, x < -0.004].all()
    below, _ = visible_and_edge(points, up, camera_w, edges=False, around_w=points - torch.tensor([0.0, 0.0, 0.1]))
    assert below.all()


@pytest.mark.slow
def test_drawn_depth_is_cut_to_the_object_that_is_pointed_at(make):
    try:
        offscreen.backend()
    except offscreen.RenderUnavailable as error:
        pytest.skip(str(error))
    task = make(replace(SPREAD, camera=CameraCfg(mode="latest", model="rendered")))
    state, samples = task.engine.state, torch.stack([torch.from_numpy(task.library[n].points) for n in task.objects])
    surface_w = quat_rotate(state.object_quat_w[:, None], samples.double()) + state.object_pos_w[:, None]
    assert torch.cdist(task.object_camera.points_w.double(), surface_w).amin(dim=2).quantile(0.95) < 0.012
    for _ in range(2):
        task.step(torch.zeros(4, task.num_actions))
    with_hand_w = task.object_camera.points_w.double()
    assert torch.cdist(with_hand_w, surface_w).amin(dim=2).quantile(0.95) < 0.012


def outcome(contact, success, attempts, *counts):
    moved, toppled, fallen = counts
    return Outcome(
        trial=0,
        object="mug",
        disturbance="none",
        success=success,
        failure="" if success else "missed",
        lift_m=0.2,
        slip_m=0.0,
        penetration_m=0.0,
        attempts=attempts,
        contact=contact,
        neighbours=4,
        neighbours_moved=moved,
        neighbours_toppled=toppled,
        neighbours_fallen=fallen,
    )


def test_counts_by_contact_worked_by_hand():
    trials = [
        outcome("free", True, 1, 0, 0, 0),
        outcome("free", True, 2, 1, 0, 0),
        outcome("stacked", False, 3, 3, 2, 1),
    ]
    counts = count_neighbours(trials)
    assert counts["all"] == {
        "trials": 3,
        "first_attempt": 1,
        "successes": 2,
        "neighbours": 12,
        "moved": 4,
        "toppled": 2,
        "fallen": 1,
        "undisturbed_trials": 1,
    }
    assert list(counts["by_contact"]) == ["free", "stacked"]
    rows = neighbour_rows(counts)
    assert [row[0] for row in rows] == ["free", "stacked", "all"]
    assert rows[1][4:] == ["4", "3 (75%)", "2 (50%)", "1 (25%)", "0 (0%)"]
    assert rows[2][3].startswith("66.7 %")
    assert count_neighbours([replace(trials[0], contact="", neighbours=0)]) == {}


def stack(household):
    """Scene of three objects: a box in the middle, a capsule high above it, a mug beside it."""
    box, mug, _, capsule = (household[name] for name in household.names)
    places = ((box, (0.0, 0.0, 0.08)), (capsule, (0.0, 0.0, 0.3)), (mug, (0.2, 0.0, 0.08)))
    return [
        PlacedObject(model=model, pos_w=np.array(pos_w), quat_w=np.array([1.0, 0.0, 0.0, 0.0]), contact="free")
        for model, pos_w in places
    ]


def grasp(name, success):
    return replace(outcome("free", success, 1, 0, 0, 0), object=name)


def poses_of(scene):
    return [one.model.name for one in scene], np.stack([[*one.pos_w, *one.quat_w] for one in scene])


def test_the_highest_object_is_taken_first_and_after_a_failure_another_one(household):
    table = Table(stack(household))
    box, capsule, mug = (one.model.name for one in stack(household))
    assert table.next_scene()[0].model.name == capsule
    table.record(grasp(capsule, False), *poses_of(table.scene))
    assert table.next_scene()[0].model.name != capsule
    assert (table.removed, table.grasps, len(table.scene)) == (0, 1, 3)
    table.record(grasp(box, True), *poses_of(table.scene))
    assert {one.model.name for one in table.scene} == {capsule, mug}
    names, poses = poses_of(table.scene)
    poses[names.index(mug), 0] = 0.45  # pushed out of the area
    table.record(grasp(capsule, False), names, poses)
    assert (table.removed, table.grasps, table.fallen) == (1, 3, 1)
    assert [one.model.name for one in table.scene] == [capsule]
    for _ in range(3):
        assert table.is_open
        table.record(grasp(capsule, False), *poses_of(table.scene))
    assert not table.is_open  # six grasps for three objects
    result = table_outcome(table, 7, mug, "stacked")
    assert (result.trial, result.object, result.attempts, result.success) == (7, mug, 6, False)
    assert (result.removed, result.neighbours, result.neighbours_fallen) == (1, 2, 1)
    assert count_cleared([result, replace(result, removed=3, success=True, failure="", attempts=4)]) == {
        "tables": 2,
        "cleared": 1,
        "objects": 6,
        "removed": 4,
        "grasps": 10,
        "fallen": 2,
    }
    assert count_neighbours([result]) == {}


def test_objects_that_are_let_go_fall_and_come_to_rest(household):
    names, poses = poses_of(stack(household)[1:])
    rest = let_fall([household[name] for name in names], poses)
    assert [one.model.name for one in rest] == names
    for one in rest:
        turn = Rotation.from_quat(one.quat_w, scalar_first=True)
        assert (turn.apply(one.model.pieces.reshape(-1, 3))[:, 2] + one.pos_w[2]).min() == pytest.approx(0.0, abs=0.002)


def test_a_table_is_cleared_by_one_episode_per_grasp(make):
    task = make(replace(SHORT, scene=SceneCfg(name="clutter", objects=(1, 2), layout="spread")))
    counts = [1 + sum(map(bool, task.neighbour_tracker.names[row])) for row in range(4)]
    assert set(counts) == {1, 2}
    outcomes = clear_tables(task, make_policy("synergy", task), range(4))
    assert [one.neighbours + 1 for one in outcomes] == counts
    assert [one.object for one in outcomes] == list(task.library.names)
    for one in outcomes:
        assert one.removed + one.neighbours_fallen <= one.neighbours + 1
        assert one.success == (one.removed == one.neighbours + 1)
        assert one.removed <= one.attempts <= 2 * (one.neighbours + 1)
    assert not task.scenes.given


def test_what_cannot_be_is_refused_in_one_line(household, allegro, balanced):
    with pytest.raises(ValueError, match="engine=warp does not hold clutter yet: use engine=cpu"):
        GraspTask(SPREAD, allegro, household, balanced, 1, engine="warp")
    with pytest.raises(ValueError, match="cluster runs single objects: leave cluster out"):
        EvaluateCfg(cluster="local", task=SPREAD)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"task": SHORT}, "clear_table=true needs several objects: give scene=clutter"),
        ({"task": SPREAD, "videos": 1}, "clear_table=true takes no videos"),
        ({"task": SPREAD, "disturbance": "shift5"}, "clear_table=true takes no videos, shifts or forces"),
    ]
    for options, text in wrong:
        with pytest.raises(ValueError, match=text):
            EvaluateCfg(clear_table=True, **options)
    few = SceneCfg(name="clutter", objects=(3, 8))
    with pytest.raises(ValueError, match=r"has 4 objects, .* set task.scene.objects=\[3,4\]"):
        ClutterScenes(few, household)
    for objects in ((0, 3), (3, 9), (5, 3)):
        with pytest.raises(ValueError, match="objects"):
            SceneCfg(objects=objects)
    with pytest.raises(ValueError, match=r"objects=\[1,1\] gives the wanted object no neighbour: .* or scene=single"):
        SceneCfg(name="clutter", objects=(1, 1))
    wide = household[household.names[1]].scaled(6.0)
    with pytest.raises(ValueError, match=r"found no rest within 0\.28 m .* task\.scene\.objects"):
        draw_around(wide, household, (2, 3), "spread", np.random.default_rng(0))


def test_a_scene_is_drawn_once_and_the_wanted_object_comes_first(household):
    scenes = ClutterScenes(SceneCfg(name="clutter", objects=(3, 3)), household)
    name = household.names[2]
    scene = scenes.scene(name, 1.0, VARIANTS - 1)
    assert scene[0].model.name == name
    assert len(scene) == 3
    assert scenes.scene(name, 1.0, VARIANTS - 1) is scene
    assert not np.array_equal(scenes.scene(name, 1.0, 0)[0].pos_w, scene[0].pos_w)

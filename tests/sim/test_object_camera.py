"""What the camera goes on seeing: hidden by the hand, late, noisy; three ways to use it."""

from dataclasses import replace
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp import configs
from dexgrasp.perception.occlusion import CameraOcclusion, hidden
from dexgrasp.perception.tracking.icp import (
    DEFAULT,
    FRAME_POINTS,
    IcpCfg,
    add_unexplained_points,
    least_axis,
    surface_normals,
)
from dexgrasp.perception.tracking.object_points import ObjectFrame, ObjectPoints, PalmMotion, move_rigidly
from dexgrasp.perception.transforms import quat_from_rotvec, quat_rotate, quat_rotate_inverse
from dexgrasp.sim.randomization.episode_draws import RandomizationCfg, ResetCfg, draw_episode
from dexgrasp.sim.randomization.trial_rng import TrialRandom
from dexgrasp.sim.robots.capsules import hand_shape, robot_capsules
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import fibonacci_sphere
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.sensors.object_camera import POINTS, ObjectCamera
from dexgrasp.sim.sensors.point_camera import visible_and_edge
from dexgrasp.sim.sensors.proprioception import ProprioceptiveState
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg

SHORT = TaskCfg(grasp_s=0.8, lift_s=0.4, hold_s=0.2)
ENVS = 4


@pytest.fixture(scope="module")
def make(household, balanced, allegro):
    def build(trials=range(ENVS), reset: ResetCfg | None = None, domain: RandomizationCfg | None = None, **view):
        cfg = replace(
            SHORT, camera=CameraCfg(**view), reset=reset or ResetCfg(), randomization=domain or RandomizationCfg()
        )
        task = GraspTask(cfg, allegro, household, balanced, len(trials), 1, in_order=True, auto_reset=False)
        task.reset(trials)
        return task

    return build


def run(task: GraspTask, steps: int) -> None:
    for _ in range(steps):
        task.step(torch.zeros(task.num_envs, 22))


@pytest.mark.parametrize("name", ["allegro", "leap"])
def test_points_hidden_by_the_capsules_are_those_whose_ray_meets_one_in_mujoco(name):
    shape = hand_shape(HandSpec.load(name))
    rng = np.random.default_rng(0)
    joints = torch.from_numpy(rng.uniform(0.0, 1.0, (1, 16))).float()
    starts, ends = shape.pose(torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), joints)
    spec = mujoco.MjSpec()
    for a, b, r in zip(starts[0].double().numpy(), ends[0].double().numpy(), shape.radius_m.tolist(), strict=True):
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[*a, *b], size=[r, 0, 0])
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = np.array([0.5, 0.2, 0.3])
    points = rng.uniform([-0.3, -0.1, -0.05], [-0.05, 0.1, 0.2], (400, 3))
    geom, expected = np.zeros(1, np.int32), []
    for point in points:
        ray = point - camera
        reach = mujoco.mj_ray(model, data, camera, ray, None, 1, -1, geom)
        expected.append(0 <= reach < 1)
    found = hidden(torch.from_numpy(points)[None].float(), torch.from_numpy(camera)[None].float(), starts, ends,
                   shape.radius_m)[0]  # fmt: skip
    assert 50 < sum(expected) < 350
    assert (found.numpy() != np.array(expected)).mean() < 0.01  # within rounding of the outline


def test_the_capsules_of_a_hand_cover_its_surface(allegro):
    model = allegro.to_mjspec().compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    capsules = robot_capsules(model, data, range(model.ngeom))
    aimed = fibonacci_sphere(2000) * 0.5
    geom, hits = np.zeros(1, np.int32), []
    for start in aimed:
        ray = np.array([0.0, 0.0, 0.1]) - start
        reach = mujoco.mj_ray(model, data, start, ray, None, 1, -1, geom)
        if reach >= 0:
            hits.append(start + reach * ray)
    held = capsules.contain(np.array(hits, np.float32).T, 0.008)  # corners of the palm's boxes stand out by this
    assert len(hits) > 1000
    assert held.mean() > 0.98


def test_the_cells_at_the_outline_of_a_plate_are_edges_and_those_inside_are_not():
    line = np.linspace(-0.08, 0.08, 41)
    x, y = (v.ravel() for v in np.meshgrid(line, line))
    points = torch.from_numpy(np.stack([x, y, np.zeros_like(x)], axis=1))[None]
    normals = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(points)
    _, edge = visible_and_edge(points, normals, torch.tensor([[0.0, 0.0, 0.7]], dtype=torch.float64))
    outside = np.maximum(abs(x), abs(y))
    assert edge[0, outside > 0.0799].all()
    assert not edge[0, outside < 0.06].any()


def test_depth_noise_grows_with_the_square_of_the_distance(make):
    spread = []
    for height in (0.5, 1.0):
        reset = ResetCfg(camera_m=0.0, object_xy_range_m=0.0, camera_height_m=height)
        clean, noisy = make(reset=reset), make(reset=reset, disparity_sd_px=0.08)
        error = (noisy.object_camera.points_w - clean.object_camera.points_w).norm(dim=-1)
        depth = (clean.object_camera.points_w - torch.tensor([0.0, 0.0, height])).norm(dim=-1)
        expected = 0.08 * depth.square() / (385.0 * 0.05)  # disparity error x z^2 / (focal length x baseline)
        spread.append(float((error / expected).square().mean().sqrt()))
    assert spread == pytest.approx([1.0, 1.0], abs=0.06)  # 1,024 numbers each


def test_depth_comes_in_steps_of_its_unit(make):
    task = make(depth_unit_m=0.004)
    camera = task.draws.object_xy
    camera = torch.cat([camera, torch.zeros(ENVS, 1)], dim=1) + task.draws.camera_offset
    distance = (task.object_camera.points_w - camera[:, None]).norm(dim=-1) / 0.004
    assert (distance - distance.round()).abs().max() < 1e-3


def test_lost_and_flying_points_are_at_edges_and_fly_away_from_the_camera(make):
    clean, spoiled = make(), make(edge_dropout=0.5, flying_pixel_rate=0.5)
    gap = torch.cdist(spoiled.object_camera.points_w, clean.object_camera.points_w).amin(dim=2)
    assert 0.01 < float((gap > 0.012).float().mean()) < 0.5
    assert gap.max() < 0.045  # 30 mm behind the object, and the spacing of points


def camera_of(points, count=POINTS):
    """A stub that shows `points` of step k shifted by k millimetres."""

    def frame(rows, state, camera_w, draws, step):
        moved = points[rows] + 0.001 * step[:, None, None]
        return moved, torch.full((len(rows),), count), torch.full((len(rows),), 0.5)

    return SimpleNamespace(observe=frame, observe_first=lambda *args: points, look_at=lambda *args: None)


STILL = torch.zeros(2, dtype=torch.bool)


def reading(pos, turn=(0.0, 0.0, 0.0)) -> ProprioceptiveState:
    """Two palms at `pos` [m], turned by the rotation vector `turn` [rad]; nothing else of the hand is known."""
    palm = torch.tensor([pos, pos], dtype=torch.float64), quat_from_rotvec(torch.tensor([turn, turn]).double())
    return ProprioceptiveState(torch.zeros(2, 16), *palm, torch.zeros(2, 17, 3))


def at_rest() -> tuple[ProprioceptiveState, torch.Tensor, torch.Tensor]:
    """A hand at rest, and that nothing is held."""
    return reading((0.0, 0.0, 0.0)), STILL, STILL


def opened(cfg: CameraCfg, count: int = POINTS) -> tuple[ObjectCamera, torch.Tensor]:
    points = torch.randn(2, POINTS, 3, generator=torch.manual_seed(0)) * 0.03
    view, zero = ObjectCamera(cfg, camera_of(points, count), 2), torch.zeros(2, 3, dtype=torch.float64)
    view.observe_first(
        torch.arange(2), ["a", "b"], zero, zero, SimpleNamespace(camera_offset=zero, approach_offset=zero)
    )
    return view, points


def test_a_frame_is_taken_every_period_and_arrives_after_the_latency():
    view, points = opened(CameraCfg(mode="latest", frame_interval_steps=3, latency_steps=2))
    shown = []
    for step in range(1, 10):
        view.step(None, None, torch.tensor([step, 0]), *at_rest())
        shown.append(round(float((view.points_w - points)[0].mean() * 1000)))
    assert shown == [0, 0, 0, 0, 3, 3, 3, 6, 6]
    assert torch.equal(view.points_w[1], points[1])  # its episode has not begun


@pytest.mark.parametrize("latency", [0, 2])
def test_latency_may_be_none_or_a_whole_period(latency):
    view, points = opened(CameraCfg(mode="latest", frame_interval_steps=2, latency_steps=latency))
    for step in range(1, 7):
        view.step(None, None, torch.full((2,), step), *at_rest())
    assert float((view.points_w - points).mean() * 1000) == pytest.approx(6 - latency)


def test_too_few_points_leave_the_view_as_it_was_and_it_is_said():
    view, points = opened(CameraCfg(mode="latest", frame_interval_steps=1, latency_steps=0, min_points=8), count=7)
    view.step(None, None, torch.tensor([1, 1]), *at_rest())
    assert torch.equal(view.points_w, points)
    assert view.terms()["view_fresh"].tolist() == [False, False]
    assert view.terms()["visible_fraction"].tolist() == [0.5, 0.5]


def test_what_is_held_goes_along_with_the_palm_and_what_is_not_stays():
    view, points = opened(CameraCfg())
    start, turned = reading((0.1, 0.0, 0.2)), reading((0.1, 0.0, 0.3), (0.0, 0.0, np.pi / 2))
    view.step(None, None, torch.tensor([1, 1]), start, STILL, STILL)
    view.step(None, None, torch.tensor([2, 2]), turned, torch.tensor([True, False]), STILL)
    x, y, z = (points[0] - torch.tensor([0.1, 0.0, 0.2])).unbind(-1)  # about the palm: a quarter turn, then up
    expected = torch.stack([-y, x, z], dim=-1) + torch.tensor([0.1, 0.0, 0.3])
    torch.testing.assert_close(view.points_w[0], expected, rtol=0, atol=1e-6)
    assert torch.equal(view.points_w[1], points[1])
    published, points = opened(configs.load_option(CameraCfg, "camera", "published"))
    for step, palm in enumerate((start, turned), 1):
        published.step(None, None, torch.tensor([step, step]), palm, ~STILL, STILL)
    assert torch.equal(published.points_w, points)


def test_a_frame_that_arrives_late_has_gone_along_with_the_palm():
    view, points = opened(CameraCfg(mode="latest", frame_interval_steps=2, latency_steps=1))
    for step, height in enumerate((0.0, 0.0, 0.05), 1):
        view.step(
            None, None, torch.tensor([step, step]), reading((0.0, 0.0, height)), torch.tensor([True, False]), STILL
        )
    lifted = (view.points_w - points - 0.002).mean(dim=1)  # the stub's shift: taken at step 2
    torch.testing.assert_close(lifted, torch.tensor([[0.0, 0, 0.05], [0.0, 0, 0.0]]), rtol=0, atol=1e-6)


def test_motions_between_noisy_readings_do_not_add_up():
    motion, rng, points = PalmMotion(1), np.random.default_rng(0), torch.randn(1, 5, 3)
    moved = points
    for step in range(200):
        pos, turn = rng.normal(0, 0.002, (1, 3)), rng.normal(0, 0.01, (1, 3))
        if step in (0, 199):
            pos[:], turn[:] = 0.0, 0.0
        shift_turn = motion.update(torch.from_numpy(pos), quat_from_rotvec(torch.from_numpy(turn)))
        moved = move_rigidly(moved, *shift_turn) if step else moved
    torch.testing.assert_close(moved, points, rtol=0, atol=1e-5)


def test_a_corrected_cloud_keeps_what_is_explained_and_takes_in_what_is_not():
    followed = bent_plate()[None]
    near, far = followed[:, :1] + 0.002, followed[:, :1] + torch.tensor([0.1, 0.0, 0.0])
    united = add_unexplained_points(followed, torch.cat([near, far, far + 0.05], dim=1).repeat(1, POINTS // 3, 1))
    assert (torch.cdist(united, far)[0, :, 0] < 1e-6).any()
    assert torch.cdist(united, near)[0, :, 0].min() > 1e-3  # 3.5 mm from a point that was known
    assert torch.equal(united[:, : POINTS - FRAME_POINTS], followed[:, : POINTS - FRAME_POINTS])


def test_a_view_of_the_first_frame_stays_and_tells_the_policy_nothing_more(make):
    task = make()
    before = task.object_camera.points_w.clone()
    run(task, 10)
    assert torch.equal(task.object_camera.points_w, before)
    assert "view_fresh" not in task.layouts["student"].slices()


def test_a_view_of_the_latest_frame_follows_an_object_that_is_moved(make):
    task = make(mode="latest", frame_interval_steps=2, latency_steps=0)
    run(task, 1)
    rows = torch.arange(ENVS)
    task.engine.move_object(rows, task.engine.state.object_pos_w + torch.tensor([0.05, 0.0, 0.0]))
    run(task, 1)
    true = quat_rotate_inverse(
        task.engine.state.object_quat_w[:, None],
        task.object_camera.points_w.double() - task.engine.state.object_pos_w[:, None],
    )
    surface = torch.stack([torch.from_numpy(task.library[name].points) for name in task.objects]).double()
    assert torch.cdist(true, surface).amin(dim=2).max() < 1e-5
    assert task.layouts["student"].size == make().layouts["student"].size + 2


def test_the_hand_hides_the_object_less_from_a_camera_that_stands_aside(make):
    trials = range(16)
    overhead = make(trials, mode="latest", frame_interval_steps=1, latency_steps=0)
    side = make(trials, reset=ResetCfg(camera_placement="side"), mode="latest", frame_interval_steps=1, latency_steps=0)
    assert torch.equal(overhead.draws.approach_offset, side.draws.approach_offset)  # the palm comes from there
    seen = {}
    for name, task in (("overhead", overhead), ("side", side)):
        steps = []
        for _ in range(9):  # the approach
            run(task, 1)
            steps.append(float(task.object_camera.visible_fraction.mean()))
        seen[name] = np.mean(steps)
    assert seen["overhead"] < 0.6
    assert seen["side"] > seen["overhead"] + 0.1, seen


def test_a_camera_aside_stands_within_its_ranges_and_leaves_the_other_draws_alone():
    cfg = ResetCfg(
        camera_placement="side", aside_azimuth_deg=(80, 100), aside_elevation_deg=(30, 40), aside_distance_m=(0.6, 0.7)
    )
    random = TrialRandom.of_trials(torch.zeros(20, dtype=torch.int64), torch.arange(20))
    drawn, plain = (draw_episode(random, reset, RandomizationCfg(), 16) for reset in (cfg, ResetCfg()))
    x, y, z = drawn.camera_offset.T
    distance = drawn.camera_offset.norm(dim=1)
    for value, (low, high) in ((distance, (0.6, 0.7)), ((z / distance).asin().rad2deg(), (30, 40))):
        assert ((low <= value) & (value <= high)).all()
    assert ((torch.atan2(y, x).rad2deg() >= 80) & (torch.atan2(y, x).rad2deg() <= 100)).all()
    assert torch.equal(plain.camera_offset, drawn.approach_offset)
    assert torch.equal(plain.force, drawn.force)


@pytest.mark.parametrize("mode", ["latest", "tracked", "tracked_updated"])
def test_a_trial_is_seen_alike_whatever_runs_beside_it(make, mode):
    flaws = {"mode": mode, "disparity_sd_px": 0.08, "edge_dropout": 0.3, "flying_pixel_rate": 0.02}
    together, alone = make([0, 1, 2, 3], **flaws), make([2], **flaws)
    together._new_episodes(torch.tensor([1]), [5])
    for task in (together, alone):
        run(task, 7)
    torch.testing.assert_close(together.object_camera.points_w[2], alone.object_camera.points_w[0], rtol=0, atol=1e-4)


def bent_plate(count: int = POINTS) -> torch.Tensor:
    """Points of an L-shaped corner of three faces: nothing about its pose is hidden."""
    rng = np.random.default_rng(3)
    flat = rng.uniform(-0.04, 0.04, (count, 2))
    face = np.arange(count) % 3
    points = np.zeros((count, 3))
    for axis in range(3):
        rest = [k for k in range(3) if k != axis]
        points[np.ix_(face == axis, rest)] = flat[face == axis]
        points[face == axis, axis] = 0.04
    return torch.from_numpy(points).float()


def behind(x_m, rows=1):
    """A camera 1 m above, and half way a bar along y that hides what lies between x_m - 0.2 m and x_m."""
    middle = 0.5 * x_m - 0.05
    places = torch.tensor([[0.0, 0.0, 1.0], [middle, -0.5, 0.5], [middle, 0.5, 0.5]])
    return CameraOcclusion(places.expand(rows, -1, -1), torch.tensor([0.05]))


def tracking(points_w: torch.Tensor, icp: IcpCfg = DEFAULT) -> ObjectPoints:
    """Objects whose first views are points_w (row, point, 3)."""
    known = ObjectPoints("tracked", 1, len(points_w), points_w.shape[1], icp=icp)
    known.reset(torch.arange(len(points_w)), points_w)
    return known


def show(
    known: ObjectPoints, points_w: torch.Tensor, count: torch.Tensor, sight: CameraOcclusion, times: int
) -> torch.Tensor:
    """One frame several times over; which objects (row,) are on track after it."""
    for _ in range(times):
        known.update(torch.arange(len(points_w)), ObjectFrame(points_w, count, torch.ones(len(points_w)), sight))
    return known.fresh


OPEN = -1.0
"""Nothing is behind a bar that far away."""


def test_a_bar_hides_what_lies_behind_it():
    x = torch.linspace(-0.3, 0.1, 41)
    points = torch.stack([x, torch.zeros(41), torch.zeros(41)], dim=1)[None]
    expected = (x < -0.2) | (x > 0.0)
    assert (behind(0.0).visible(points)[0] == expected).float().mean() > 0.95  # the bar is round
    assert behind(OPEN, rows=1).visible(points).all()


def test_the_tracker_finds_a_small_motion_from_noisy_points_of_which_half_are_hidden():
    points = bent_plate()
    turn, shift = quat_from_rotvec(torch.tensor([[0.06, -0.04, 0.08]])), torch.tensor([0.012, -0.008, 0.005])
    known = tracking(points[None])
    moved = quat_rotate(turn, points)[None] + shift
    shown = moved[:, moved[0, :, 0] > moved[0, :, 0].median()].repeat(1, 2, 1)
    shown = shown + 0.0015 * torch.randn(shown.shape, generator=torch.manual_seed(0))
    assert show(known, shown, torch.tensor([POINTS // 2]), behind(0.01), times=3).all()
    error = (known.points_w - moved).norm(dim=-1)
    assert error.mean() < 0.003


def test_the_tracker_finds_an_object_that_jumped_by_five_centimetres():
    known, moved = tracking(bent_plate()[None]), bent_plate()[None] + torch.tensor([0.03, 0.04, 0.0])
    assert show(known, moved, torch.tensor([POINTS]), behind(OPEN), times=2).all()
    assert (known.points_w - moved).norm(dim=-1).mean() < 0.002


def test_without_further_start_poses_the_tracker_loses_an_object_that_jumped():
    """So the options of the registration arrive where they act."""
    known = tracking(bent_plate()[None], IcpCfg(retry_below_fit=0.0))
    moved = bent_plate()[None] + torch.tensor([0.03, 0.04, 0.0])
    assert not show(known, moved, torch.tensor([POINTS]), behind(OPEN), times=1).any()


def test_candidate_shifts_are_a_hexagonal_grid_within_reach():
    shifts = IcpCfg(max_shift_m=0.026, shift_spacing_m=0.025).shifts
    angle = torch.arange(6) * (np.pi / 3)
    ring = 0.025 * torch.stack([angle.cos(), angle.sin(), torch.zeros(6)], dim=1)
    assert shifts.shape == (7, 3)
    assert torch.cdist(torch.cat([torch.zeros(1, 3), ring]), shifts).amin(dim=1).max() < 1e-6


def test_the_object_moves_with_what_holds_it_whatever_is_shown_of_it():
    """The tracked pose and the points take the same motion: a quarter turn about the vertical, then 10 cm up."""
    known, points = tracking(bent_plate()[None]), bent_plate()[None]
    shift, turn = torch.tensor([[0.0, 0.0, 0.1]]), quat_from_rotvec(torch.tensor([[0.0, 0.0, np.pi / 2]]))
    known.move_with_palm(torch.tensor([0]), shift.float(), turn.float())
    x, y, z = points.unbind(-1)
    expected = torch.stack([-y, x, z + 0.1], dim=-1)
    torch.testing.assert_close(known.points_w, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(known.tracked_w(), expected, rtol=0, atol=1e-6)


def test_what_tracks_must_be_told_what_hides_the_object_and_what_does_not_has_no_tracked_points():
    known, points = tracking(bent_plate()[None]), bent_plate()[None]
    one = torch.ones(1)
    with pytest.raises(ValueError, match=r"camera\.mode=tracked needs the occlusion by the hand"):
        known.update(torch.tensor([0]), ObjectFrame(points, POINTS * one, one))
    with pytest.raises(ValueError, match=r"camera\.mode=latest tracks nothing; tracked and tracked_updated do"):
        ObjectPoints("latest", 1, 1, POINTS).tracked_w()


def test_the_tracker_finds_an_object_that_jumped_half_behind_the_hand():
    """In any direction. The middle of what is still seen of it is up to 4 cm from its own."""
    angle = torch.arange(8) * (2 * np.pi / 8)
    points = bent_plate()
    known = tracking(points.expand(8, -1, -1))
    moved = points + 0.05 * torch.stack([angle.cos(), angle.sin(), torch.zeros(8)], dim=1)[:, None]
    sight = CameraOcclusion(
        torch.stack([behind(float(x)).places_w[0] for x in 0.05 * angle.cos()]), torch.tensor([0.05])
    )
    seen, noise = sight.visible(moved), 0.0015 * torch.randn(moved.shape, generator=torch.manual_seed(0))
    assert (seen.float().mean(dim=1) > 0.3).all()
    assert (seen.float().mean(dim=1) < 0.7).all()
    shown = torch.stack(
        [
            (place + jitter)[mask][np.arange(POINTS) % int(mask.sum())]
            for place, jitter, mask in zip(moved, noise, seen, strict=True)
        ]
    )
    assert show(known, shown, seen.sum(dim=1), sight, times=2).all()
    assert (known.points_w - moved).norm(dim=-1).mean(dim=1).max() < 0.005


def test_the_tracker_says_that_it_lost_the_object_and_holds_the_pose():
    points = bent_plate().expand(2, -1, -1)
    known = tracking(points)
    other = torch.rand(1, POINTS, 3, generator=torch.manual_seed(0)) * 0.5 + 0.2  # nothing like the object
    shown, count = torch.cat([points[:1], other]), torch.tensor([POINTS, POINTS])
    assert show(known, shown, count, behind(OPEN, rows=2), times=1).tolist() == [True, False]
    torch.testing.assert_close(known.points_w, points, rtol=0, atol=1e-3)


def test_a_lost_object_is_searched_in_two_frames_then_in_every_second_one():
    """Row i sees i frames of something else, then the object 5 cm aside, where only a restart finds it."""
    lost_frames, points = torch.arange(6), bent_plate().expand(6, -1, -1)
    other = (torch.rand(1, POINTS, 3, generator=torch.manual_seed(0)) * 0.5 + 0.2).expand(6, -1, -1)
    moved, count = points + torch.tensor([0.05, 0.0, 0.0]), torch.full((6,), POINTS)

    def found(icp: IcpCfg) -> list[bool]:
        known, first_view_of_it = tracking(points, icp), []
        for frame in range(6):
            shown = torch.where((lost_frames > frame)[:, None, None], other, moved)
            on_track = show(known, shown, count, behind(OPEN, rows=6), times=1)
            first_view_of_it.append(bool(on_track[frame]))
        return first_view_of_it

    assert found(DEFAULT) == [True, True, False, True, False, True]
    assert found(replace(DEFAULT, restarts=0)) == [False] * 6


def test_normals_of_a_sphere_are_its_radii():
    sphere = torch.from_numpy(fibonacci_sphere(512)).float()[None]
    normals = surface_normals(0.05 * sphere)
    assert ((normals * sphere).sum(-1).abs() > 0.98).all()


def test_the_least_axis_is_the_eigenvector_of_the_least_eigenvalue_at_any_size():
    patches = torch.randn(500, 12, 3, generator=torch.manual_seed(0)) * torch.tensor([1.0, 0.6, 0.3])
    spread = patches.transpose(1, 2) @ patches
    values, vectors = torch.linalg.eigh(spread.double())
    clear = values[:, 0] < 0.9 * values[:, 1]
    for size in (1e-3, 1.0, 1e3):
        along = (least_axis(size**2 * spread) * vectors[..., 0]).sum(-1).abs()
        assert (along[clear] > 0.9999).all()
    line = torch.diag(torch.tensor([1.0, 0.0, 0.0]))
    assert torch.equal(least_axis(line), torch.zeros(3))


def test_a_live_view_costs_the_first_frame_nothing_but_its_errors(make):
    torch.testing.assert_close(
        make(mode="tracked").object_camera.points_w, make().object_camera.points_w, rtol=0, atol=0
    )


def test_each_camera_preset_has_its_mode():
    modes = {name: configs.load_option(CameraCfg, "camera", name).mode for name in configs.options("camera")}
    assert modes == {
        "d435": "tracked_updated",
        "d435_frozen": "tracked_updated",
        "d435_latest": "latest",
        "d435_tracked": "tracked",
        "first_frame": "first_frame",
        "published": "first_frame",
    }
    assert configs.load_option(CameraCfg, "camera", "first_frame") == CameraCfg()


def test_what_cannot_be_is_refused():
    with pytest.raises(
        ValueError, match=r"camera\.latency_steps must lie in 0\.\.frame_interval_steps.*got 3, 2 and 2"
    ):
        CameraCfg(frame_interval_steps=2, latency_steps=3)
    with pytest.raises(ValueError, match="aside_elevation_deg"):
        ResetCfg(aside_elevation_deg=(0.0, 30.0))

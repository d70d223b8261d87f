"""The grasping task: what an episode is, who decides its outcome, and that it is reproducible."""

import math
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dexgrasp import configs
from dexgrasp.perception.observations import Layout, Term
from dexgrasp.sim.envs.trial_streams import make_task
from dexgrasp.sim.objects import ObjectLibrary, open_library
from dexgrasp.sim.randomization.episode_draws import SHIFT_TRIES, EpisodeDraws
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.task import grasp_task
from dexgrasp.sim.task.actions import Phases
from dexgrasp.sim.task.disturbances import DISTURBANCES, DisturbanceCfg, Disturber, free_shift
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg, register_task, task_class
from tests.helpers import trial_numbers

SHORT = TaskCfg(grasp_s=0.8, lift_s=0.4, hold_s=0.2)


@pytest.fixture(scope="module")
def hand() -> HandSpec:
    return HandSpec.load("allegro")


@pytest.fixture(scope="module")
def library() -> ObjectLibrary:
    return open_library("shipped")


@pytest.fixture(scope="module")
def make(hand, library, balanced):
    def build(cfg: TaskCfg = SHORT, num_envs: int = 4, physics: PhysicsCfg = balanced, **options) -> GraspTask:
        return GraspTask(cfg, hand, library, physics, num_envs, **({"num_threads": 1} | options))

    return build


def rollout(task: GraspTask, trials, steps: int, seed: int = 0) -> torch.Tensor:
    """Student observations (step, env, size) under noise that depends on the trial alone."""
    seen = [task.reset(trials)["student"]]
    noise = torch.stack([torch.randn(steps, task.num_actions, generator=torch.manual_seed(t + seed)) for t in trials])
    seen += [task.step(0.3 * noise[:, step]).obs["student"] for step in range(steps)]
    return torch.stack(seen)


def disturb(task: GraspTask) -> None:
    distance = task._object_vectors.norm(dim=-1).amin(dim=1)
    task.disturber.apply(task.engine, task.draws, task.phases, distance, task._points_o)


def test_one_and_two_threads_give_the_same_bits(make):
    one = rollout(make(num_threads=1), [0, 1, 2, 3], 20)
    two = rollout(make(num_threads=2), [0, 1, 2, 3], 20)
    assert torch.equal(one, two)


def test_a_trial_is_the_same_whatever_runs_beside_it(make):
    together = rollout(make(), [0, 1, 2, 3], 12)
    apart = rollout(make(num_envs=2), [2, 7], 12)
    torch.testing.assert_close(together[:, 2], apart[:, 0], rtol=0, atol=1e-6)


def test_another_seed_starts_elsewhere(make):
    assert not torch.equal(make(seed=0).reset([0, 1, 2, 3])["student"], make(seed=1).reset([0, 1, 2, 3])["student"])


def test_a_partial_reset_touches_only_its_rows(make):
    task = make(auto_reset=False)
    task.reset([0, 1, 2, 3])
    for _ in range(10):
        task.step(torch.full((4, 22), 0.2))
    before, draws = task.observe(), task.draws.rows(torch.arange(4))
    state = task.engine.batch.state.copy()
    task._new_episodes(torch.tensor([1]), [9])
    after = task.observe()
    others = [0, 2, 3]
    np.testing.assert_array_equal(task.engine.batch.state[others], state[others])
    for group in before:
        assert torch.equal(before[group][others], after[group][others])
        assert not torch.equal(before[group][1], after[group][1])
    assert torch.equal(task.draws.yaw[others], draws.yaw[others])
    assert task.steps_since_reset.tolist() == [10, 0, 10, 10]


def test_after_a_partial_reset_the_other_rows_go_on_bit_for_bit(make):
    alone, disturbed = make(auto_reset=False), make(auto_reset=False)
    alone.reset([0, 1, 2, 3])
    disturbed.reset([0, 1, 2, 3])
    action = torch.full((4, 22), 0.1)
    for step in range(15):
        if step == 7:
            disturbed._new_episodes(torch.tensor([1, 3]), [20, 21])
        alone.step(action)
        disturbed.step(action)
    np.testing.assert_array_equal(alone.engine.batch.state[[0, 2]], disturbed.engine.batch.state[[0, 2]])


def test_an_episode_has_its_three_phases_and_is_truncated_at_the_end(make):
    task = make(auto_reset=False)
    task.reset([0, 1, 2, 3])
    assert task.episode_steps == 16 + 8 + 4  # 0.8, 0.4 and 0.2 s at 20 Hz
    heights = []
    for step in range(task.episode_steps):
        result = task.step(torch.zeros(4, 22))
        heights.append(task.control.palm_pos_w[:, 2].clone())
        assert result.truncated.all() == (step == task.episode_steps - 1)
    rise = heights[23] - heights[15]
    torch.testing.assert_close(rise, torch.full_like(rise, 0.15))
    torch.testing.assert_close(heights[27], heights[23])


def test_finished_episodes_report_an_outcome_and_their_last_observation(make):
    task = make()
    task.reset([0, 1, 2, 3])
    for _ in range(task.episode_steps):
        result = task.step(torch.zeros(4, 22))
    assert [outcome.trial for outcome in result.info["outcomes"]] == [0, 1, 2, 3]
    assert not torch.equal(result.info["final_obs"]["student"], result.obs["student"])
    assert task.steps_since_reset.tolist() == [0, 0, 0, 0]
    assert task.trial.tolist() == [0, 1, 2, 3]  # the counter of drawn trials starts at zero


def test_zero_action_without_the_prior_keeps_the_palm_still(make):
    task = make(replace(SHORT, use_scripted_grasp=False))
    task.reset([0, 1, 2, 3])
    start = task.control.palm_pos_w.clone()
    for _ in range(10):
        task.step(torch.zeros(4, 22))
    assert torch.equal(task.control.palm_pos_w, start)


def test_a_palm_action_moves_the_target_in_the_palm_frame(make):
    task = make(replace(SHORT, use_scripted_grasp=False))
    task.reset([0, 1, 2, 3])
    start, quat = task.control.palm_pos_w.clone(), task.control.palm_quat_w.clone()
    action = torch.zeros(4, 22)
    action[:, 2] = 1.0
    task.step(action)
    # one step at 0.1 m/s and 20 Hz is 5 mm along the finger direction, the third column of the palm's matrix
    w, x, y, z = quat.unbind(1)
    third = torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], dim=1)
    torch.testing.assert_close(task.control.palm_pos_w - start, 0.005 * third, atol=1e-9, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [-3.0, 3.0])
def test_however_the_policy_turns_and_sinks_the_palm_an_arm_can_hold_it(make, axis, sign):
    task = make(replace(SHORT, use_scripted_grasp=False))
    task.reset([0, 1, 2, 3])
    start = Rotation.from_quat(task.control.palm_quat_w.numpy(), scalar_first=True)
    action = torch.zeros(4, 22)
    action[:, 3 + axis] = sign
    for _ in range(task.grasp_steps):
        action[:, :3] = to_palm_axes(task, [0.0, 0.0, -1.0])
        task.step(action)
        now = Rotation.from_quat(task.control.palm_quat_w.numpy(), scalar_first=True)
        wrist = task.control.palm_pos_w.numpy() + now.apply([0.0, 0.0, -0.195])
        assert wrist[:, 2].min() >= 0.055 - 1e-9
        assert (start.inv() * now).magnitude().max() <= 0.8 + 1e-9
    assert (start.inv() * now).magnitude().max() == pytest.approx(0.8)  # 16 steps of 0.09 rad would be more


def to_palm_axes(task: GraspTask, direction_w) -> torch.Tensor:
    turned = Rotation.from_quat(task.control.palm_quat_w.numpy(), scalar_first=True).inv().apply(direction_w)
    return torch.from_numpy(turned).float()


def test_actions_are_clipped(make):
    wild, limit = make(replace(SHORT, use_scripted_grasp=False)), make(replace(SHORT, use_scripted_grasp=False))
    wild.reset([0, 1, 2, 3])
    limit.reset([0, 1, 2, 3])
    wild.step(torch.full((4, 22), 100.0))
    limit.step(torch.full((4, 22), 3.0))
    np.testing.assert_array_equal(wild.engine.batch.state, limit.engine.batch.state)


def test_observations_are_finite_and_as_long_as_their_layout(make):
    task = make()
    obs = task.reset([0, 1, 2, 3])
    assert obs["student"].shape == (4, 16 + 16 + 6 + 6 + 51 + 17 + 3 + 1 + 3 + 22 + 10 * 38)
    for group, layout in task.layouts.items():
        assert obs[group].shape == (4, layout.size)
        assert torch.isfinite(obs[group]).all()


def test_the_student_sees_nothing_that_the_objects_true_state_moves(make):
    task = make(auto_reset=False)
    task.reset([0, 1, 2, 3])
    before = task.observe()
    task.engine.move_object(torch.arange(4), task.engine.state.object_pos_w + 0.02)
    task._read_sensors()
    task._update_vectors()
    after = task.observe()
    assert torch.equal(before["student"], after["student"])
    assert not torch.equal(before["teacher"], after["teacher"])


@pytest.mark.parametrize("name", ["shift3", "shift5"])
def test_the_object_is_moved_once_within_the_disc_when_the_hand_is_near(make, name):
    task = make(auto_reset=False, disturbance=name, in_order=True)
    task.reset([0, 1, 2, 3])
    limit = DISTURBANCES[name].shift_m
    jumps = torch.zeros(4)
    for _ in range(task.grasp_steps):
        before, moved = task.engine.state.object_pos_w.clone(), task.disturber.shifted.clone()
        disturb(task)
        jump = (task.engine.state.object_pos_w - before)[:, :2].norm(dim=1).float()
        assert (jump <= limit + 1e-9).all()
        assert not (jump[moved] > 0).any()
        jumps += jump
        task.step(torch.zeros(4, 22))
    assert (jumps[task.disturber.shifted] > 0).all()
    assert task.disturber.shifted.any()


def shifts_of_attempts(task: GraspTask, attempts: int) -> list[torch.Tensor]:
    """Play the grasp phases of attempts of all trials; return the shifts of each (env, 2) [m]."""
    task.reset([0, 1])
    rows, done, found = torch.arange(2), torch.zeros(2, 2, dtype=torch.float64), []
    for attempt in range(attempts):
        if attempt:
            task.start_regrasp(rows)
        while (task.steps_since_pregrasp < task.grasp_steps).any():
            task.step(torch.zeros(2, 22))
        found.append(task.disturber.shift_xy_w - done)
        done = task.disturber.shift_xy_w.clone()
    return found


def test_each_attempt_has_a_shift_of_its_own_where_it_is_asked_for(make):
    """Three attempts: the first shift is that of per=trial, each is one of its attempt's draws, by the definition."""
    live = replace(SHORT, camera=replace(SHORT.camera, mode="tracked"))
    once = shifts_of_attempts(make(live, 2, auto_reset=False, disturbance="shift5", in_order=True), 3)
    again = replace(live, disturbance=DisturbanceCfg(per="attempt"))
    each = shifts_of_attempts(make(again, 2, auto_reset=False, disturbance="shift5", in_order=True), 3)
    assert torch.equal(once[0], each[0]) and (once[0].norm(dim=1) > 0).all()
    assert all((shift == 0).all() for shift in once[1:])
    assert sum(int((shift.norm(dim=1) > 0).sum()) for shift in each[1:]) >= 3  # of 4: the hand may miss by far
    for attempt, shift in enumerate(each):
        for trial in range(2):
            key = trial_numbers.key(0, trial)
            radii, turns = (
                np.array(trial_numbers.uniform(key, f"shift, {part}", SHIFT_TRIES, at=attempt))
                for part in ("radius", "angle")
            )
            tries = 0.05 * np.sqrt(radii) * np.exp(2j * math.pi * turns)
            now = complex(*shift[trial].tolist())
            assert now == 0 or np.abs(tries - now).min() < 1e-9, (attempt, trial)


def test_a_frozen_camera_gives_the_first_view_of_each_attempt_alone(make):
    """Two attempts; the object is moved in each: only the view of the second one shows where it was by then."""
    camera = configs.load_option(CameraCfg, "camera", "d435_frozen")
    assert replace(camera, frozen=False) == configs.load_option(CameraCfg, "camera", "d435")
    task = make(replace(SHORT, camera=replace(camera, move_with_palm=False)), 2, auto_reset=False, in_order=True)
    task.reset([0, 1])
    views = []
    for attempt in range(2):
        if attempt:
            task.start_regrasp(torch.arange(2))
            while (task.steps_since_pregrasp < 0).any():
                task.step(torch.zeros(2, 22))
        views.append(task.object_camera.points_w.clone())
        task.engine.move_object(torch.arange(2), task.engine.state.object_pos_w + torch.tensor([0.04, 0.0, 0.0]))
        while (task.steps_since_pregrasp < task.grasp_steps).any():
            task.step(torch.zeros(2, 22))
        assert torch.equal(task.object_camera.points_w, views[-1])
    assert (views[1].mean(dim=1) - views[0].mean(dim=1)).norm(dim=1).min() > 0.01


def test_the_shift_of_a_trial_is_no_motion_by_the_hand(make):
    """The outcome's motion over the table is that of the object minus the shift."""
    task = make(auto_reset=False, disturbance="shift5", in_order=True)
    task.reset([0, 1, 2, 3])
    while (task.steps_since_pregrasp < task.grasp_steps).any():
        task.step(torch.zeros(4, 22))
    moved = (task.engine.state.object_pos_w - task.outcome_tracker.start_pos_w)[:, :2] - task.disturber.shift_xy_w
    torch.testing.assert_close(task.outcome_tracker._pushed_m, moved.norm(dim=1))


def test_every_object_has_the_mass_that_is_asked_for(make):
    task = make(replace(SHORT, object_mass_kg=0.25), in_order=True)
    task.reset([0, 1, 2, 3])
    torch.testing.assert_close(task.engine.state.object_mass, torch.full((4,), 0.25, dtype=torch.float64))
    heavy = make(replace(SHORT, object_mass_kg=0.25), in_order=True, disturbance="heavy")
    heavy.reset([0, 1, 2, 3])
    torch.testing.assert_close(heavy.engine.state.object_mass, torch.full((4,), 0.5, dtype=torch.float64))


def test_a_free_shift_avoids_the_hand():
    points = torch.tensor([[[0.0, 0.0, 0.02]]]).double()
    keypoints = torch.tensor([[[0.05, 0.0, 0.02]]]).double()
    tries = torch.tensor([[[0.9, 0.0], [-0.5, 0.0]]]).double()
    # 0.9 * 5 cm = 4.5 cm lands 5 mm from the keypoint; the second candidate is free
    assert free_shift(tries, torch.tensor([0.05], dtype=torch.float64), points, keypoints).tolist() == [[-0.025, 0.0]]


def test_a_heavy_object_weighs_twice_on_the_table_and_a_slippery_one_slides(make):
    plain, heavy = make(disturbance="none", in_order=True), make(disturbance="heavy", in_order=True)
    slippery = make(disturbance="slippery", in_order=True)
    for task in (plain, heavy, slippery):
        task.reset([0, 1, 2, 3])
    torch.testing.assert_close(heavy.engine.state.object_mass, 2 * plain.engine.state.object_mass)
    assert slippery.engine.state.object_friction.tolist() == [0.3] * 4
    model = slippery.engine.get_model(0)
    assert model.geom("object_0").friction[0] == pytest.approx(0.3)
    for row in range(4):
        light, weighty = (
            table_load_n(task.engine.get_model(row), task.engine.get_data(row)) for task in (plain, heavy)
        )
        assert weighty == pytest.approx(2 * light, rel=0.02)


def table_load_n(model: mujoco.MjModel, data: mujoco.MjData) -> float:
    """Force that the table feels from the object at rest [N]."""
    mujoco.mj_step(model, data, nstep=240)
    table, load, wrench = model.geom("table").id, 0.0, np.zeros(6)
    for i in range(data.ncon):
        if table in data.contact[i].geom:
            mujoco.mj_contactForce(model, data, i, wrench)
            load += abs(data.contact[i].frame[2] * wrench[0])
    return load


def test_the_force_pushes_only_once_the_object_is_gripped(make):
    task = make(auto_reset=False, disturbance="force")
    task.reset([0, 1, 2, 3])
    disturb(task)
    assert (task.engine.batch.xfrc_applied == 0).all()
    task.disturber.gripped[2] = True
    disturb(task)
    force = np.linalg.norm(task.engine.batch.xfrc_applied[:, task.engine.slots.object_body, :3], axis=1)
    np.testing.assert_allclose(force, [0, 0, 2.5, 0], atol=1e-12)


def test_the_force_may_be_a_multiple_of_the_weight(make):
    """Twice the weight of each object: 2 * 9.81 m/s^2 times its mass."""
    cfg = replace(SHORT, disturbance=DisturbanceCfg(force_n=0.0, force_weights=2.0))
    task = make(cfg, auto_reset=False, disturbance="force", in_order=True)
    task.reset([0, 1, 2, 3])
    task.disturber.gripped[:] = True
    disturb(task)
    force = np.linalg.norm(task.engine.batch.xfrc_applied[:, task.engine.slots.object_body, :3], axis=1)
    masses = [task.library[name].mass for name in task.objects]
    assert len(set(masses)) > 1
    np.testing.assert_allclose(force, [2 * 9.81 * mass for mass in masses], rtol=1e-6)


@pytest.mark.parametrize(("newtons", "weights"), [(2.5, 2.0), (0.0, 0.0)])
def test_the_force_is_given_in_one_unit(newtons, weights):
    with pytest.raises(ValueError, match=rf"exactly one of force_n and force_weights above 0, got {newtons:g} and"):
        DisturbanceCfg(force_n=newtons, force_weights=weights)


def test_an_object_is_gripped_when_thumb_and_finger_have_touched_it_for_a_quarter_of_a_second(allegro):
    """Steps of 50 ms: five in a row; a pause begins the count again."""
    disturber = Disturber("force", allegro, 2, 0.05)
    draws = EpisodeDraws.empty(2, 16)
    disturber.reset(torch.arange(2), draws)
    both = torch.tensor(allegro.thumb_mask | allegro.finger_mask).expand(2, -1)
    gripped = []
    for step in range(6):
        touching = both.clone()
        touching[1] &= step != 2
        engine = SimpleNamespace(state=SimpleNamespace(object_contact=touching), push=lambda force: None)
        disturber.apply(engine, draws, Phases(torch.full((2,), step), 36, 16, 112), torch.ones(2), torch.zeros(2, 1, 3))
        gripped.append(disturber.gripped.tolist())
    assert gripped == [[False, False]] * 4 + [[True, False]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate_hz": 5.0}, "rate_hz"),
        ({"hold_s": 0.0}, "hold_s"),
        ({"lift_m": 0.05}, "lift_m"),
    ],
)
def test_impossible_settings_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TaskCfg(), **change)


def test_the_scripted_grasp_is_on_or_off():
    with pytest.raises(configs.ConfigError, match="'use_scripted_grasp' expects true or false, got 'maybe'"):
        configs.from_dict(TaskCfg, {"use_scripted_grasp": "maybe"}, "task")


def test_a_timestep_that_does_not_divide_the_control_period_is_refused(make, balanced):
    with pytest.raises(ValueError, match="does not divide the control period"):
        make(replace(SHORT, rate_hz=30.0), physics=replace(balanced, timestep_s=0.007))


def test_an_unknown_disturbance_lists_the_known_ones(make):
    with pytest.raises(ValueError, match=r"shift3.*slippery.*'earthquake'"):
        make(disturbance="earthquake")


class Tall(GraspTask):
    """Rewards height alone, shows the object's height to the student, and starts every object 5 cm aside."""

    def make_layouts(self):
        layouts = super().make_layouts()
        student = Layout((*layouts["student"].terms, Term("object_height", 1, "m", 10.0)))
        return layouts | {"student": student}

    def observation_terms(self):
        terms = super().observation_terms()
        height_m = self.engine.state.object_pos_w[:, 2]
        return terms | {"student": terms["student"] | {"object_height": height_m}}

    def compute_reward(self):
        reward = self.engine.state.palm_pos_w[:, 2].float()
        return reward, {"palm_height": float(reward.mean())}

    def reset_scene(self, rows):
        self.draws.object_xy[rows] = torch.tensor([0.05, 0.0], dtype=torch.float64)
        super().reset_scene(rows)


def test_a_registered_task_has_its_own_observations_reward_and_reset(household, balanced):
    with registered("Tall", Tall):
        task = make_task(2, household, task=replace(SHORT, class_name="Tall"), physics=balanced, num_threads=1)
    assert type(task) is Tall
    obs = task.reset([0, 1])
    assert obs["student"].shape == (2, GraspTask.make_layouts(task)["student"].size + 1)
    torch.testing.assert_close(task.engine.state.object_pos_w[:, 0], torch.full((2,), 0.05, dtype=torch.float64))
    step = task.step(torch.zeros(2, task.num_actions))
    torch.testing.assert_close(step.obs["student"][:, -1], 10 * task.engine.state.object_pos_w[:, 2].float())
    torch.testing.assert_close(step.reward, task.engine.state.palm_pos_w[:, 2].float())
    assert step.info["terms"] == {"palm_height": pytest.approx(float(step.reward.mean()))}


def test_a_task_that_nobody_registered_is_named_with_the_remedy():
    message = (
        r"^task 'Tall' is not registered\. Registered: GraspTask.*\. Register it with dexgrasp\.register_task; .*"
        r"plugins=my_module$"
    )
    with pytest.raises(ValueError, match=message):
        task_class(replace(SHORT, class_name="Tall"))
    with pytest.raises(
        TypeError, match=r"task 'OutcomeTracker' must be a subclass of dexgrasp\.sim\.task\.grasp_task\.GraspTask, got"
    ):
        register_task("OutcomeTracker", object)
    with pytest.raises(
        ValueError, match=r"task 'GraspTask' is registered already, by dexgrasp\.sim\.task\.grasp_task\.GraspTask"
    ):
        register_task("GraspTask", Tall)


@contextmanager
def registered(name, task):
    """Within it, the task is registered."""
    register_task(name, task)
    yield
    del grasp_task._REGISTRY._entries[name]

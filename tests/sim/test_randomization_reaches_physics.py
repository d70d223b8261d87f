"""Each randomised quantity reaches the physics or the readings; off is exactly off."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp import configs
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws, RandomizationCfg
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.sensors.proprioception import DelayLine
from dexgrasp.sim.task.disturbances import Disturber
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg

SHORT = TaskCfg(grasp_s=0.8, lift_s=0.4, hold_s=0.2)
ENVS = 4


@pytest.fixture(scope="module")
def make(household, balanced):
    hand = HandSpec.load("allegro")

    def build(num_threads: int = 1, cfg: TaskCfg = SHORT, **domain) -> GraspTask:
        cfg = replace(cfg, randomization=RandomizationCfg(**domain))
        task = GraspTask(cfg, hand, household, balanced, ENVS, num_threads, in_order=True, auto_reset=False)
        task.reset(range(ENVS))
        return task

    return build


@pytest.fixture(scope="module")
def plain(make):
    return make()


def fingers(model: mujoco.MjModel) -> list[int]:
    return [model.actuator(name).id for name in HandSpec.load("allegro").joint_names]


def test_off_is_the_default_and_the_models_are_the_compiled_ones(make, plain):
    assert configs.load_option(RandomizationCfg, "randomization", "off") == RandomizationCfg()
    for row in range(ENVS):
        own, nominal = plain.engine.get_model(row), plain.engine.pool[plain.objects[row]]
        for field in ("body_mass", "body_inertia", "body_ipos", "actuator_gainprm", "actuator_biasprm", "dof_damping"):
            np.testing.assert_array_equal(getattr(own, field), getattr(nominal, field))
        np.testing.assert_array_equal(own.actuator_forcerange, nominal.actuator_forcerange)
        np.testing.assert_array_equal(own.opt.gravity, [0, 0, -9.81])


def test_with_off_readings_are_the_state_itself(plain):
    assert plain.sensed.joint_pos is plain.engine.state.joint_pos
    assert plain.sensed.keypoints_w is plain.engine.state.keypoints_w


def test_a_trial_starts_alike_whatever_is_randomised(make, plain):
    wild = make(friction=(0.4, 1.1), mass_scale=(0.5, 2.0), kp_scale=(0.8, 1.2), joint_noise_rad=0.02, max_push_n=2.0)
    for name in ("object_xy", "yaw", "camera_offset", "finger_offset", "shift"):
        assert torch.equal(getattr(wild.draws, name), getattr(plain.draws, name))


@pytest.mark.parametrize(
    ("name", "field", "column"),
    [
        ("kp_scale", "actuator_gainprm", 0),
        ("kd_scale", "actuator_biasprm", 2),
        ("effort_scale", "actuator_forcerange", 1),
    ],
)
def test_servo_parameters_reach_the_model_per_joint(make, plain, name, field, column):
    task = make(**{name: (0.5, 1.5)})
    model, nominal = task.engine.get_model(1), plain.engine.get_model(1)
    ids = fingers(model)
    ratio = getattr(model, field)[ids, column] / getattr(nominal, field)[ids, column]
    np.testing.assert_allclose(ratio, getattr(task.draws, name)[1].numpy(), rtol=1e-12)
    assert ratio.std() > 0.1


def test_a_position_gain_stays_balanced_by_its_bias(make):
    model = make(kp_scale=(0.5, 1.5)).engine.get_model(0)
    ids = fingers(model)
    np.testing.assert_array_equal(model.actuator_gainprm[ids, 0], -model.actuator_biasprm[ids, 1])


def test_a_stiff_palm_gives_way_in_proportion_and_is_damped_by_the_root(make, plain):
    task = make(palm_stiffness=(2.0, 6.0))
    own, nominal = task.engine.get_model(1), plain.engine.get_model(1)
    factor = float(task.draws.palm_stiffness[1])
    assert 2.0 < factor < 6.0
    servos = [own.actuator(name).id for name in ("palm_x", "palm_y", "palm_z", "palm_ball")]
    for column, power in ((1, 1.0), (2, 0.5)):
        ratio = own.actuator_biasprm[servos, column] / nominal.actuator_biasprm[servos, column]
        np.testing.assert_allclose(ratio, factor**power, rtol=1e-12)
    np.testing.assert_array_equal(own.actuator_gainprm[servos, 0], -own.actuator_biasprm[servos, 1])
    np.testing.assert_array_equal(own.actuator_forcerange[servos], nominal.actuator_forcerange[servos])
    assert nominal.actuator_gainprm[servos[0], 0] == 2000.0  # N/m


def test_half_the_effort_is_what_a_blocked_finger_gives(make):
    task = make(effort_scale=(0.5, 0.5))
    push = torch.full((ENVS, 22), 3.0)
    for _ in range(task.grasp_steps):
        task.step(push)
    torque = task.engine.state.joint_torque.abs().max()
    assert float(torque) == pytest.approx(0.35)  # half of the 0.7 N m of the servos


def test_damping_reaches_the_joints(make, plain):
    task = make(damping_scale=(2.0, 2.0))
    model, nominal = task.engine.get_model(0), plain.engine.get_model(0)
    dof = model.joint("ffj1").dofadr[0]
    assert model.dof_damping[dof] == 2 * nominal.dof_damping[dof]


def test_a_moved_centre_of_mass_is_in_the_model(make, plain):
    task = make(com_range_m=0.005)
    body = plain.engine.get_model(2).body("object").id
    moved = task.engine.get_model(2).body_ipos[body] - plain.engine.get_model(2).body_ipos[body]
    np.testing.assert_allclose(moved, task.draws.com_offset[2].numpy(), atol=1e-15)
    assert np.abs(moved).max() > 1e-4


def test_the_table_has_its_friction_and_gravity_its_direction_and_length(make):
    task = make(table_friction=(0.5, 0.5), gravity_rad=0.1)
    model = task.engine.get_model(0)
    assert model.geom("table").friction[0] == pytest.approx(0.5)
    assert np.linalg.norm(model.opt.gravity) == pytest.approx(9.81)
    assert 0 < np.arccos(-model.opt.gravity[2] / 9.81) < 0.15  # two axes of at most 0.1 rad


def test_a_larger_object_is_larger_everywhere_and_weighs_the_same(make, plain):
    task = make(size_scales=(1.1,))
    for row in range(ENVS):
        own, nominal = task.engine.get_model(row), plain.engine.get_model(row)
        assert own.body("object").mass == nominal.body("object").mass
        geom = own.geom("object_0").id
        assert own.geom_rbound[geom] == pytest.approx(1.1 * nominal.geom_rbound[geom], rel=1e-4)
    torch.testing.assert_close(task._points_o, 1.1 * plain._points_o)
    torch.testing.assert_close(task.outcome_tracker.start_pos_w[:, 2], 1.1 * plain.outcome_tracker.start_pos_w[:, 2])


def test_a_delay_line_gives_back_what_was_put_in_so_many_steps_ago():
    line = DelayLine(num_envs=3, longest=2, sizes=(1,))
    line.fill(torch.arange(3), [torch.zeros(3, 1)])
    delay = torch.tensor([0.0, 1.0, 2.0])
    seen = []
    for step in range(1, 4):
        line.push([torch.full((3, 1), float(step))])
        seen.append(line.delayed(delay)[0][:, 0].tolist())
    assert seen == [[1, 0, 0], [2, 1, 0], [3, 2, 1]]


def test_commands_arrive_as_many_steps_late_as_drawn(make):
    task = make(action_delay=3)
    task.draws.action_delay[:] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    first = task.engine.state.joint_target.clone()
    changed = []
    for _ in range(5):
        task.step(torch.ones(ENVS, 22))
        changed.append((task.engine.state.joint_target - first).abs().amax(dim=1) > 1e-6)
    assert torch.stack(changed).int().argmax(dim=0).tolist() == [0, 1, 2, 3]


def test_late_finger_targets_change_the_motion_but_not_the_target(make):
    late, prompt = make(late_action_probability=1.0), make()
    for task in (late, prompt):
        task.step(torch.ones(ENVS, 22))
    assert torch.equal(late.engine.state.joint_target, prompt.engine.state.joint_target)
    moved = [(task.engine.state.joint_pos - task.draws.finger_offset).abs().sum() for task in (late, prompt)]
    assert moved[0] != moved[1]


def test_readings_are_as_old_as_drawn(make):
    task = make(observation_delay=2)
    task.draws.observation_delay[:] = torch.tensor([0.0, 1.0, 2.0, 2.0])
    true = [task.engine.state.joint_pos.clone()]
    for _ in range(4):
        task.step(torch.ones(ENVS, 22))
        true.append(task.engine.state.joint_pos.clone())
    for row, delay in enumerate([0, 1, 2, 2]):
        assert torch.equal(task.sensed.joint_pos[row], true[-1 - delay][row])


def test_a_partial_reset_does_not_age_the_readings_of_the_others(make):
    task = make(observation_delay=2)
    for _ in range(3):
        task.step(torch.ones(ENVS, 22))
    before = task.sensed.joint_pos[[0, 2, 3]].clone()
    task._new_episodes(torch.tensor([1]), [9])
    assert torch.equal(task.sensed.joint_pos[[0, 2, 3]], before)


def test_joint_noise_and_bias_fill_their_range_and_move_the_keypoints(make):
    task = make(joint_noise_rad=0.01, joint_bias_rad=0.03)
    errors = []
    for _ in range(task.episode_steps):
        task.step(torch.zeros(ENVS, 22))
        errors.append(task.sensed.joint_pos - task.engine.state.joint_pos)
    errors = torch.stack(errors)
    bias, noise = errors.mean(dim=0), errors - task.draws.joint_bias
    assert 0.02 < bias.abs().max() <= 0.034
    assert 0.0095 < noise.abs().max() <= 0.0101
    assert (task.sensed.keypoints_w - task.engine.state.keypoints_w).norm(dim=-1).max() > 1e-4


def test_palm_noise_is_as_large_as_asked(make):
    """The published release lost its centimetre of palm noise to a parsing slip."""
    task = make(palm_noise_m=0.01)
    errors = []
    for _ in range(task.episode_steps):
        task.step(torch.zeros(ENVS, 22))
        errors.append((task.sensed.palm_pos_w - task.engine.state.palm_pos_w).abs())
    assert 0.0095 < torch.stack(errors).max() <= 0.01 + 1e-9


def test_the_teacher_is_not_fooled_by_noise(make, plain):
    noisy = make(joint_noise_rad=0.02, palm_noise_m=0.01)
    clean, fooled = plain.reset(range(ENVS)), noisy.reset(range(ENVS))
    assert torch.equal(clean["teacher"], fooled["teacher"])
    assert not torch.equal(clean["student"], fooled["student"])


def test_points_are_shifted_by_the_cameras_error_noisy_and_fewer(make, plain):
    biased = make(camera_bias_m=0.01)
    shift = (biased.object_camera.points_w - plain.object_camera.points_w).double()
    torch.testing.assert_close(shift, biased.draws.camera_bias[:, None].expand_as(shift), atol=1e-6, rtol=0)
    noisy = make(points_noise_m=0.002)
    assert float((noisy.object_camera.points_w - plain.object_camera.points_w).std()) == pytest.approx(
        0.002, rel=0.05
    )  # of 3,072 numbers
    fewer = make(points_dropout=0.9)
    assert len({tuple(p) for p in fewer.object_camera.points_w[0].tolist()}) < len(
        {tuple(p) for p in plain.object_camera.points_w[0].tolist()}
    )


def test_one_push_acts_on_the_lifted_object_for_a_fifth_of_a_second(make):
    task = make(max_push_n=2.0)
    task.draws.push[:] = torch.tensor([0.0, 0.0, 1.5])
    task.draws.push_at[:] = 0.25  # a quarter of the 12 steps after the 16 of the grasp: step 19
    pushed = []
    body = task.engine.slots.object_body
    for _ in range(24):
        task.step(torch.zeros(ENVS, 22))
        pushed.append(task.engine.batch.xfrc_applied[0, body, 2])
    assert pushed == [0.0] * 19 + [1.5] * 4 + [0.0]  # 0.2 s are four steps at 20 Hz


def test_fully_randomised_trials_are_reproducible_and_finite(household, balanced):
    hand = HandSpec.load("allegro")
    cfg = replace(SHORT, randomization=configs.load_option(RandomizationCfg, "randomization", "train"))
    runs = []
    for threads, trials in ((1, [3, 4]), (2, [4, 3])):
        task = GraspTask(cfg, hand, household, balanced, 2, threads, in_order=True, auto_reset=False)
        task.reset(trials)
        for _ in range(task.episode_steps):
            obs = task.step(torch.full((2, 22), 0.1)).obs
        assert all(torch.isfinite(group).all() for group in obs.values())
        runs.append(task.engine.batch.state.copy())
    np.testing.assert_array_equal(runs[0], runs[1][::-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"friction": (0.9, 0.5)}, "friction.*low <= high"),
        ({"mass_scale": (0.0, 1.0)}, "mass_scale"),
        ({"joint_noise_rad": -0.1}, "joint_noise_rad must lie in 0..1, got -0.1"),
        ({"points_dropout": 1.0}, "points_dropout"),
        ({"size_scales": ()}, "size_scales"),
    ],
)
def test_impossible_ranges_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        RandomizationCfg(**change)


def test_a_mixture_of_disturbances_draws_each_kind_as_often_as_it_should(allegro):
    """Shares 0.3, 0.35, 0.15, 0.1, 0.1 of the unit interval: none, shift5, force, heavy, slippery."""
    disturber = Disturber("mixed", allegro, 5, 0.05)
    draws = EpisodeDraws.empty(5, 16)
    draws.disturbance[:, 0] = torch.tensor([0.29, 0.31, 0.66, 0.81, 0.91])
    draws.disturbance[:, 1], draws.mass_scale[:], draws.friction[:] = 0.5, 1.0, 0.8
    disturber.reset(torch.arange(5), draws)
    assert disturber._shift_m.tolist() == [0, 0.05, 0, 0, 0]
    assert disturber._force.tolist() == [0, 0, 1, 0, 0]
    assert draws.mass_scale.tolist() == [1, 1, 1, 1.5, 1]  # half of the way to twice
    assert draws.friction.tolist() == pytest.approx([0.8, 0.8, 0.8, 0.8, 0.55])  # half of the way to 0.3


def test_a_mixture_at_level_zero_disturbs_nothing(allegro):
    disturber = Disturber("mixed", allegro, 3, 0.05)
    disturber.level = 0.0
    draws = EpisodeDraws.empty(3, 16)
    draws.disturbance[:, 0] = torch.tensor([0.5, 0.7, 0.95])
    draws.mass_scale[:], draws.friction[:] = 1.2, 0.7
    disturber.reset(torch.arange(3), draws)
    assert not disturber._shift_m.any() and not disturber._force.any()
    assert draws.mass_scale.tolist() == [1.2] * 3 and draws.friction.tolist() == [0.7] * 3

"""Readings of the hand and late commands, against plain Python, scipy and the kinematics of the hand."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dexgrasp.sim.engine.base import State
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws, RandomizationCfg, ResetCfg, draw_episode
from dexgrasp.sim.randomization.trial_rng import TrialRandom
from dexgrasp.sim.sensors.proprioception import CommandDelay, ProprioceptionModel
from tests.helpers import trial_numbers

ENVS = 3
PALM_QUAT = (0.5, 0.5, -0.5, 0.5)


def hand_state(joints, palm_pos):
    """A state with these joints and this place of the palm in every environment; all else is zero."""
    values = {item.name: torch.zeros(ENVS, 1, dtype=torch.float64) for item in fields(State)}
    return State(
        **values
        | {
            "joint_pos": torch.tensor(joints, dtype=torch.float64).expand(ENVS, -1).clone(),
            "joint_target": torch.tensor(joints, dtype=torch.float64).expand(ENVS, -1).clone(),
            "palm_pos_w": torch.tensor(palm_pos, dtype=torch.float64).expand(ENVS, 3).clone(),
            "palm_quat_w": torch.tensor(PALM_QUAT, dtype=torch.float64).expand(ENVS, 4).clone(),
        }
    )


def draws_of(cfg):
    """Draws of the trials 0, 1, 2 of seed 4, and their keys."""
    random = TrialRandom.of_trials(torch.full((ENVS,), 4), torch.arange(ENVS))
    return draw_episode(random, ResetCfg(), cfg, 16), [trial_numbers.key(4, trial) for trial in range(ENVS)]


@pytest.mark.parametrize(
    "given",
    [
        {"joint_noise_rad": 0.02},
        {"palm_noise_m": 0.01},
        {"palm_noise_rad": 0.1},
        {"joint_bias_rad": 0.03},
        {"joint_noise_rad": 0.02, "palm_noise_m": 0.01, "palm_noise_rad": 0.1, "joint_bias_rad": 0.03},
    ],
)
def test_readings_are_truth_and_the_drawn_errors(allegro, given):
    """Noise of joints, place and rotation vector (palm frame) are one row of numbers for each step."""
    cfg = RandomizationCfg(**given)
    model = ProprioceptionModel(cfg, allegro, ENVS)
    draws, keys = draws_of(cfg)
    joints, place = 0.01 * np.arange(16), np.array([0.1, 0.2, 0.3])
    state = hand_state(joints, place)
    model.reset(torch.arange(ENVS), state)
    for step in (0, 7):
        read = model.measure(state, draws, torch.full((ENVS,), step))
        for env, key in enumerate(keys):
            noise = 2 * np.array(trial_numbers.uniform(key, "readings", 22, at=step)) - 1
            bias = cfg.joint_bias_rad * (2 * np.array(trial_numbers.uniform(key, "joint_bias", 16)) - 1)
            np.testing.assert_allclose(
                read.joint_pos[env], joints + bias + cfg.joint_noise_rad * noise[:16], atol=1e-13
            )
            np.testing.assert_allclose(read.palm_pos_w[env], place + cfg.palm_noise_m * noise[16:19], atol=1e-13)
            turned = Rotation.from_quat(PALM_QUAT, scalar_first=True) * Rotation.from_rotvec(
                cfg.palm_noise_rad * noise[19:]
            )
            error = Rotation.from_quat(read.palm_quat_w[env].numpy(), scalar_first=True).inv() * turned
            assert error.magnitude() < 1e-12


def test_keypoints_are_those_of_the_read_joints_and_palm(allegro):
    cfg = RandomizationCfg(joint_noise_rad=0.1, palm_noise_m=0.05, palm_noise_rad=0.3)
    model = ProprioceptionModel(cfg, allegro, ENVS)
    state = hand_state([0.2] * 16, [0.0, 0.0, 0.3])
    model.reset(torch.arange(ENVS), state)
    read = model.measure(state, draws_of(cfg)[0], torch.zeros(ENVS, dtype=torch.int64))
    for env in range(ENVS):
        palm = Rotation.from_quat(read.palm_quat_w[env].numpy(), scalar_first=True)
        base = palm * Rotation.from_quat(np.array(allegro.palm_quat_b), scalar_first=True).inv()
        origin = read.palm_pos_w[env].numpy() - base.apply(np.array(allegro.palm_pos_b))
        still = (
            allegro.kinematics()
            .to(torch.float64)
            .keypoints(
                torch.zeros(1, 3, dtype=torch.float64),
                torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64),
                read.joint_pos[env : env + 1],
            )
        )
        np.testing.assert_allclose(read.keypoints_w[env], origin + base.apply(still[0].numpy()), atol=1e-6)


def test_readings_without_errors_are_the_state_itself(allegro):
    model = ProprioceptionModel(RandomizationCfg(), allegro, ENVS)
    state = hand_state([0.0] * 16, [0.0, 0.0, 0.3])
    model.reset(torch.arange(ENVS), state)
    model.push(state)
    read = model.measure(state, EpisodeDraws.empty(ENVS, 16), torch.zeros(ENVS, dtype=torch.int64))
    assert read.joint_pos is state.joint_pos and read.palm_pos_w is state.palm_pos_w
    assert read.palm_quat_w is state.palm_quat_w and read.keypoints_w is state.keypoints_w


def test_readings_are_so_many_steps_old_and_a_reset_fills_the_past_of_its_rows(allegro):
    cfg = RandomizationCfg(observation_delay=2)
    model = ProprioceptionModel(cfg, allegro, ENVS)
    draws = EpisodeDraws.empty(ENVS, 16)
    draws.observation_delay[:] = torch.tensor([0.0, 1.0, 2.0])
    model.reset(torch.arange(ENVS), hand_state([0.0] * 16, [0.0, 0.0, 0.0]))
    for step in (1, 2, 3):
        now = hand_state([0.1 * step] * 16, [0.0, 0.0, 0.01 * step])
        model.push(now)
    read = model.measure(now, draws, torch.full((ENVS,), 3))
    assert read.joint_pos[:, 5].tolist() == pytest.approx([0.3, 0.2, 0.1])
    assert read.palm_pos_w[:, 2].tolist() == pytest.approx([0.03, 0.02, 0.01])
    model.reset(torch.tensor([2]), hand_state([0.9] * 16, [0.0, 0.0, 0.09]))
    read = model.measure(now, draws, torch.full((ENVS,), 3))
    assert read.joint_pos[:, 5].tolist() == pytest.approx([0.3, 0.2, 0.9])
    assert read.palm_pos_w[:, 2].tolist() == pytest.approx([0.03, 0.02, 0.09])


def test_commands_are_so_many_steps_late():
    delay = CommandDelay(RandomizationCfg(action_delay=2), 16, ENVS)
    draws = EpisodeDraws.empty(ENVS, 16)
    draws.action_delay[:] = torch.tensor([0.0, 1.0, 2.0])
    delay.reset(torch.arange(ENVS), hand_state([0.5] * 16, [0.5, 0.0, 0.0]))
    seen = []
    for step in (1.0, 2.0, 3.0):
        targets = [torch.full((ENVS, size), step, dtype=torch.float64) for size in (16, 3, 4)]
        (joints, pos, quat), late = delay.apply(targets, draws, torch.zeros(ENVS, dtype=torch.int64))
        assert late is None and torch.equal(joints[:, 0], pos[:, 0])
        seen.append(joints[:, 0].tolist())
    assert seen == [[1, 0.5, 0.5], [2, 1, 0.5], [3, 2, 1]]  # before the first command the hand stays where it is
    assert quat[:, 0].tolist() == [3, 2, 1]


def test_late_commands_come_with_their_probability_drawn_for_each_step():
    cfg = RandomizationCfg(late_action_probability=0.4)
    delay = CommandDelay(cfg, 16, ENVS)
    draws, keys = draws_of(cfg)
    targets = [torch.zeros(ENVS, size, dtype=torch.float64) for size in (16, 3, 4)]
    for step in range(10):
        _, late = delay.apply(targets, draws, torch.full((ENVS,), step))
        assert late.tolist() == [trial_numbers.uniform(key, "late", at=step)[0] < 0.4 for key in keys]

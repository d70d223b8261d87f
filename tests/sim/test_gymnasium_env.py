"""The Gymnasium faces: Gymnasium's own checker, seeding, autoreset, rendering, and that the task shows through."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dexgrasp.sim.envs import gymnasium_env, window
from dexgrasp.sim.envs.gymnasium_env import ENV_ID, GraspEnv
from dexgrasp.sim.envs.trial_streams import TrialStreams, make_task
from dexgrasp.sim.envs.window import NoDisplay
from dexgrasp.sim.rendering.offscreen import RenderUnavailable, backend
from dexgrasp.sim.task.disturbances import DISTURBANCES
from dexgrasp.sim.task.grasp_task import TaskCfg

TINY = TaskCfg(grasp_s=0.2, lift_s=0.2, hold_s=0.1)
STEPS = 4 + 4 + 2  # at 20 Hz
STUDENT = 16 + 16 + 6 + 6 + 51 + 17 + 3 + 1 + 3 + 22 + 10 * 38  # and ten frames of history


@pytest.fixture(scope="module")
def options(household, allegro, balanced):
    return {"objects": household, "hand": allegro, "physics": balanced, "task": TINY}


@pytest.fixture(scope="module")
def batch(options):
    return gymnasium.make_vec(ENV_ID, num_envs=3, **options)


def actions(count, seed=0):
    return np.random.default_rng(seed).normal(0, 0.3, (count, 22)).astype(np.float32)


def play(env, seed, steps=STEPS):
    """Observations and rewards of one episode under fixed noise."""
    obs, _ = env.reset(seed=seed)
    seen, rewards = [obs], []
    for action in actions(steps):
        obs, reward, *_ = env.step(action)
        seen.append(obs)
        rewards.append(reward)
    return np.stack(seen), np.array(rewards)


@pytest.mark.parametrize("obs", gymnasium_env.OBS_MODES)
def test_gymnasiums_checker_accepts_the_environment(options, obs):
    env = gymnasium.make(ENV_ID, obs=obs, **options).unwrapped
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".*A Box observation space m.*imum value is -?infinity"
        )  # velocities have none
        warnings.filterwarnings(
            "ignore", ".*we recommend using a symmetric and normalized space"
        )  # ±3 of a natural unit
        check_env(env, skip_render_check=True)


def test_an_episode_is_as_long_as_its_phases_and_ends_truncated_with_an_outcome(options):
    env = gymnasium.make(ENV_ID, **options)
    obs, info = env.reset(seed=3)
    assert obs.shape == (STUDENT,)
    assert obs.dtype == np.float32
    assert info["trial"] == 0
    for step in range(STEPS):
        obs, reward, terminated, truncated, info = env.step(np.zeros(22, np.float32))
        assert isinstance(reward, float)
        assert (terminated, truncated) == (False, step == STEPS - 1)
        assert sum(info["terms"].values()) == pytest.approx(reward, abs=1e-5)
        assert ("outcome" in info) == truncated
    assert info["outcome"]["trial"] == 0
    assert info["is_success"] == (info["outcome"]["failure"] == "")


def test_a_seed_starts_the_sequence_of_trials_anew_and_no_seed_continues_it(options):
    env = GraspEnv(**options)
    first, second = env.reset(seed=5)[0], env.reset()[0]
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(env.reset(seed=5)[0], first)
    np.testing.assert_array_equal(env.reset()[0], second)
    assert not np.array_equal(env.reset(seed=6)[0], first)


def test_make_vec_is_one_batch_that_resets_in_the_same_step(batch):
    assert isinstance(batch, gymnasium_env.GraspVectorEnv)
    assert batch.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert batch.observation_space.shape == (3, STUDENT)
    assert batch.action_space.shape == (3, 22)
    obs, infos = batch.reset(seed=1)
    assert obs in batch.observation_space
    assert infos["trial"].tolist() == [0, 0, 0]
    for _ in range(STEPS):
        obs, reward, _, truncated, infos = batch.step(np.zeros((3, 22), np.float32))
        assert reward.dtype == np.float64
    assert truncated.all()
    assert infos["trial"].tolist() == [1, 1, 1]
    final = infos["final_info"]
    assert final["outcome"]["trial"].tolist() == [0, 0, 0]
    assert final["is_success"].tolist() == final["outcome"]["success"].tolist()
    assert infos["_final_obs"].all()
    closing = np.stack(infos["final_obs"])
    phase = slice(-405, -402)  # (grasp, lift, fingers only): complete at the end, zero at the start
    np.testing.assert_allclose(closing[:, phase], 1.0)
    np.testing.assert_allclose(obs[:, phase], 0.0)


def test_row_i_of_a_batch_does_what_a_single_environment_of_its_seed_does(options, batch):
    together, rewards = play_rows(batch, 7, STEPS + 3)  # on into the second episode
    for row in range(3):
        env = GraspEnv(**options)
        obs, _ = env.reset(seed=7 + row)
        np.testing.assert_allclose(obs, together[0][row], atol=1e-6)
        for step, action in enumerate(actions(STEPS + 3)):
            obs, reward, terminated, truncated, _ = env.step(action)
            np.testing.assert_allclose(reward, rewards[step][row], atol=1e-5)
            if terminated or truncated:
                obs, _ = env.reset()
            np.testing.assert_allclose(obs, together[step + 1][row], atol=1e-5)


def play_rows(batch, seed, steps):
    seen, rewards = [batch.reset(seed=seed)[0]], []
    for action in actions(steps):
        obs, reward, *_ = batch.step(np.tile(action, (batch.num_envs, 1)))
        seen.append(obs)
        rewards.append(reward)
    return seen, rewards


def test_single_environments_in_sync_mode_agree_with_the_batch_in_the_same_autoreset_mode(options, batch):
    vector_kwargs = {"autoreset_mode": AutoresetMode.SAME_STEP}
    sync = gymnasium.make_vec(ENV_ID, 3, vectorization_mode="sync", vector_kwargs=vector_kwargs, **options)
    assert isinstance(sync, SyncVectorEnv)
    obs, rewards = play_rows(sync, 2, STEPS + 1)
    want_obs, want_rewards = play_rows(batch, 2, STEPS + 1)
    np.testing.assert_allclose(obs, want_obs, atol=1e-5)
    np.testing.assert_allclose(rewards, want_rewards, atol=1e-5)


def test_a_reset_mask_restarts_only_its_rows(batch):
    before, _ = batch.reset(seed=4)
    for action in actions(3):
        before, *_ = batch.step(np.tile(action, (3, 1)))
    after, infos = batch.reset(options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    assert not np.array_equal(after[1], before[1])
    assert infos["_trial"].tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"reset_mask.*\(3,\) bool"):
        batch.reset(options={"reset_mask": np.array([1, 0, 0])})


def test_gymnasiums_episode_statistics_read_the_batch(options):
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(gymnasium.make_vec(ENV_ID, num_envs=2, **options))
    env.reset(seed=1)
    total = np.zeros(2)
    for _ in range(STEPS):
        *_, infos = _, reward, *_ = env.step(np.zeros((2, 22), np.float32))
        total += reward
    statistics = infos.get("episode") or infos["final_info"]["episode"]
    assert statistics["l"].tolist() == [STEPS, STEPS]
    np.testing.assert_allclose(statistics["r"], total, rtol=1e-5)


@pytest.mark.parametrize("name", DISTURBANCES)
def test_every_disturbance_of_the_evaluation_reaches_the_task(options, name):
    env = GraspEnv(disturbance=name, **options)
    env.reset(seed=0)
    plain = make_task(**options | {"seed": 0})
    TrialStreams(plain).reset()
    ratio = float(env.task.engine.state.object_mass[0] / plain.engine.state.object_mass[0])
    assert ratio == pytest.approx(DISTURBANCES[name].mass_scale)
    for _ in range(STEPS):
        *_, info = env.step(np.zeros(22, np.float32))
    assert info["outcome"]["disturbance"] == name


def test_impossible_options_are_refused_at_construction(options):
    with pytest.raises(ValueError, match=r"obs must be one of \['student', 'teacher', 'both', 'dict'\], got 'pupil'"):
        GraspEnv(obs="pupil", **options)
    with pytest.raises(ValueError, match=r"render_mode must be None or one of \['human', 'rgb_array'\], got 'ascii'"):
        GraspEnv(render_mode="ascii", **options)
    with pytest.raises(ValueError, match="disturbance must be one of"):
        GraspEnv(disturbance="earthquake", **options)
    with pytest.raises(ValueError, match="auto_reset=False"):
        task = make_task(**options)
        task.auto_reset = True
        TrialStreams(task)
    with pytest.raises(ValueError, match=r"one seed per environment is needed \(1\), got 2"):
        TrialStreams(make_task(**options)).seed([0, 1])


def test_a_window_without_a_display_is_refused_in_one_sentence(options, monkeypatch):
    monkeypatch.setattr(window, "_has_display", lambda: False)
    with pytest.raises(NoDisplay, match=r"no display.*render_mode='rgb_array'"):
        GraspEnv(render_mode="human", **options)


def test_a_window_follows_an_episode_into_the_next(options):
    try:
        env = GraspEnv(render_mode="human", **options)
    except NoDisplay as missing:
        pytest.skip(str(missing))
    env.reset(seed=0)
    for action in actions(STEPS):
        env.step(action)
    env.reset()
    assert env.render() is None
    env.close()


def test_a_picture_shows_the_scene_and_changes_with_it(options):
    try:
        backend()
    except RenderUnavailable as missing:
        pytest.skip(str(missing))
    env = GraspEnv(render_mode="rgb_array", **options)
    env.reset(seed=0)
    first = env.render()
    assert first.shape == (480, 640, 3)
    assert first.dtype == np.uint8
    assert first.std() > 10
    for action in actions(5):
        env.step(action)
    assert np.abs(env.render().astype(int) - first).mean() > 0.1
    env.reset()
    env.render()
    env.close()
    env.close()


def test_an_environment_without_a_render_mode_says_how_to_draw(options):
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert GraspEnv(**options).render() is None


def test_importing_gymnasium_and_the_face_is_enough_to_make_it():
    spec = gymnasium.spec(ENV_ID)
    assert (spec.entry_point, spec.vector_entry_point) == ("dexgrasp.api:make_gym", "dexgrasp.api:make_gym_vec")

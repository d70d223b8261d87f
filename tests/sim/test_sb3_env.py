"""The Stable-Baselines3 face: terminal observations, truncations, statistics, seeds, and stock algorithms on it."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecMonitor, VecNormalize

from dexgrasp.sim.envs.gymnasium_env import GraspEnv
from dexgrasp.sim.envs.sb3_env import GraspVecEnv
from dexgrasp.sim.envs.trial_streams import TrialStreams, make_task
from dexgrasp.sim.rendering.offscreen import RenderUnavailable, backend
from dexgrasp.sim.task.disturbances import DISTURBANCES
from dexgrasp.sim.task.grasp_task import TaskCfg

TINY = TaskCfg(grasp_s=0.2, lift_s=0.2, hold_s=0.1)
STEPS = 4 + 4 + 2  # at 20 Hz


@pytest.fixture(scope="module")
def options(household, allegro, balanced):
    return {"objects": household, "hand": allegro, "physics": balanced, "task": TINY}


@pytest.fixture
def env(options):
    return GraspVecEnv(3, **options)


def noise(steps, envs=3):
    return np.random.default_rng(1).normal(0, 0.3, (steps, envs, 22)).astype(np.float32)


def test_a_terminal_observation_is_the_last_of_its_episode_and_no_reset_observation(env, options):
    streams = TrialStreams(make_task(3, **options))
    env.seed(0)
    np.testing.assert_array_equal(env.reset(), streams.reset()["student"])
    for step, action in enumerate(noise(STEPS)):
        obs, _, dones, infos = env.step(action)
        want = streams.step(torch.from_numpy(action))
        np.testing.assert_array_equal(obs, want.obs["student"])
        assert dones.tolist() == [step == STEPS - 1] * 3
        assert ["terminal_observation" in info for info in infos] == dones.tolist()
    for row, info in enumerate(infos):
        np.testing.assert_array_equal(info["terminal_observation"], want.info["final_obs"]["student"][row])
        phase = slice(-405, -402)  # complete when the episode ends, zero when one begins
        np.testing.assert_allclose(info["terminal_observation"][phase], 1.0)
        np.testing.assert_allclose(obs[row][phase], 0.0)


def test_reaching_full_length_is_a_truncation_and_leaving_the_workspace_a_termination(env):
    env.reset()
    for _ in range(3):
        _, _, dones, infos = env.step(np.zeros((3, 22)))
    assert [info["TimeLimit.truncated"] for info in infos] == [False] * 3
    env.task.engine.move_object(torch.tensor([1]), torch.tensor([[0.0, 0.9, 0.1]]))
    _, _, dones, infos = env.step(np.zeros((3, 22)))
    assert dones.tolist() == [False, True, False]
    assert [info["TimeLimit.truncated"] for info in infos] == [False] * 3
    assert infos[1]["episode"]["l"] == 4
    for _ in range(STEPS - 4):
        _, _, dones, infos = env.step(np.zeros((3, 22)))
    assert dones.tolist() == [True, False, True]
    assert [info["TimeLimit.truncated"] for info in infos] == [True, False, True]


def test_single_environments_in_a_dummy_vec_env_say_the_same(env, options):
    dummy = DummyVecEnv([lambda: Monitor(GraspEnv(**options))] * 3)
    assert env.seed(11) == dummy.seed(11) == [11, 12, 13]
    np.testing.assert_allclose(env.reset(), dummy.reset(), atol=1e-6)
    for action in noise(STEPS):
        ours, theirs = env.step(action), dummy.step(action)
        for mine, other in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-5)
    for mine, other in zip(ours[3], theirs[3], strict=True):
        assert set(mine) == set(other) - {"terms"}
        assert mine["TimeLimit.truncated"] is other["TimeLimit.truncated"] is True
        assert mine["outcome"] == pytest.approx(other["outcome"], abs=1e-6)
        assert mine["episode"]["l"] == other["episode"]["l"] == STEPS
        assert mine["episode"]["r"] == pytest.approx(other["episode"]["r"], abs=1e-4)  # Monitor rounds to six digits


def test_a_monitor_around_it_agrees_with_the_statistics_within(env):
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        monitored = VecMonitor(env)
    monitored.reset()
    total = np.zeros(3)
    for action in noise(STEPS):
        _, rewards, _, infos = monitored.step(action)
        total += rewards
    np.testing.assert_allclose([info["episode"]["r"] for info in infos], total, rtol=1e-4)
    assert [row.outcome.trial for row in env.rows] == [0, 0, 0]


class OneEach(VecEnvWrapper):
    """Reward 1 in every step."""

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        obs, rewards, dones, infos = self.venv.step_wait()
        return obs, np.ones_like(rewards), dones, infos


def test_a_constant_reward_has_no_advantage_over_its_true_value_also_where_episodes_end(env):
    # reward 1 for ever is worth 1 / (1 - 0.9) = 10; were the ends terminations, their advantage would be 1 - 10 = -9
    model = PPO("MlpPolicy", OneEach(env), n_steps=2 * STEPS, batch_size=30, gamma=0.9, n_epochs=1, device="cpu")
    with torch.no_grad():
        model.policy.value_net.weight.zero_()
        model.policy.value_net.bias.fill_(10.0)
    _, callback = model._setup_learn(1)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, n_rollout_steps=2 * STEPS)
    assert model.rollout_buffer.episode_starts.sum() == 3 * 2
    np.testing.assert_allclose(model.rollout_buffer.advantages, 0.0, atol=1e-4)


def test_stock_ppo_learns_on_it_and_is_evaluated_by_stock_means(env):
    model = PPO("MlpPolicy", env, n_steps=STEPS, batch_size=15, n_epochs=2, seed=3, device="cpu")
    before = [p.clone() for p in model.policy.parameters()]
    model.learn(2 * 3 * STEPS)
    assert model.num_timesteps == 60
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))
    assert np.isfinite(model.logger.name_to_value["train/loss"])
    assert len(model.ep_info_buffer) == 6
    assert [episode["l"] for episode in model.ep_info_buffer] == [STEPS] * 6
    rewards, lengths = evaluate_policy(model, env, n_eval_episodes=4, return_episode_rewards=True)
    assert lengths == [STEPS] * 4
    assert np.isfinite(rewards).all()


def test_both_observation_groups_come_as_a_dictionary(options):
    env = GraspVecEnv(2, obs="both", **options)
    obs = env.reset()
    assert {name: value.shape for name, value in obs.items()} == {
        name: (2, layout.size) for name, layout in env.task.layouts.items()
    }
    model = PPO("MultiInputPolicy", VecNormalize(env), n_steps=STEPS, batch_size=10, n_epochs=1, device="cpu")
    model.learn(2 * STEPS)
    assert model.num_timesteps == 2 * STEPS


def test_each_environment_has_its_own_seed_and_repeats_with_it(env):
    env.seed(5)
    first = env.reset()
    assert env.get_attr("seed") == [5, 6, 7]
    second = env.reset()
    env.seed(5)
    np.testing.assert_array_equal(env.reset(), first)
    np.testing.assert_array_equal(env.reset(), second)
    env.seed(6)
    np.testing.assert_allclose(env.reset()[:2], first[1:], atol=1e-6)


def test_attributes_and_methods_reach_single_environments(env):
    env.reset()
    assert env.get_attr("trial") == [0, 0, 0]
    assert env.get_attr("object", [0, 2]) == [env.task.objects[0], env.task.objects[2]]
    env.set_attr("level", 4, indices=1)
    assert env.get_attr("level", 1) == [4]
    assert env.has_attr("trial")
    assert not env.has_attr("level")
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.env_is_wrapped(VecMonitor, [0]) == [False]
    assert env.env_method("close", indices=[0, 1]) == [None, None]
    with pytest.raises(AttributeError, match=r"no attribute 'colour'; known: \['close', 'object', 'outcome'"):
        env.get_attr("colour")


def test_pictures_of_all_environments_are_tiled(options):
    try:
        backend()
    except RenderUnavailable as missing:
        pytest.skip(str(missing))
    env = GraspVecEnv(2, render_mode="rgb_array", **options)
    env.reset()
    assert env.render().shape == (2 * 480, 640, 3)
    env.close()


@pytest.mark.parametrize("name", DISTURBANCES)
def test_every_disturbance_of_the_evaluation_acts_as_on_the_task_itself(options, name):
    env = GraspVecEnv(2, disturbance=name, **options)
    streams = TrialStreams(make_task(2, disturbance=name, **options))
    env.reset()
    streams.reset()
    for action in noise(STEPS, envs=2):
        obs, reward, _, infos = env.step(action)
        want = streams.step(torch.from_numpy(action))
        np.testing.assert_array_equal(obs, want.obs["student"])
        np.testing.assert_array_equal(reward, want.reward)
    assert [info["outcome"] for info in infos] == [asdict(outcome) for outcome in want.info["outcomes"]]
    assert {info["outcome"]["disturbance"] for info in infos} == {name}

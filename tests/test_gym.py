"""The single environment as Gymnasium knows environments."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sim.gym import GraspEnv
from sim.task import TaskCfg

CFG = TaskCfg(grasp_s=0.4, lift_s=0.2, hold_s=0.1)


@pytest.fixture(scope="module")
def make(household, balanced):
    def build(**options):
        return GraspEnv(**({"objects": str(household.path), "task": CFG, "physics": balanced} | options))

    return build


@pytest.fixture
def env(make):
    return make()


@pytest.mark.filterwarnings("ignore:.*WARN:UserWarning")  # infinite bounds; no `spec` outside gymnasium's registry
def test_gymnasium_finds_nothing_wrong(env):
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("group", ["student", "teacher"])
def test_spaces_are_those_of_the_task(make, group):
    env = make(group=group)
    obs, _ = env.reset(seed=0)
    assert obs.dtype == np.float32
    assert env.observation_space.contains(obs)
    assert env.action_space.shape == (22,)
    assert float(env.action_space.high.max()) == CFG.action_clip


def test_an_episode_ends_by_truncation_with_its_outcome(env):
    env.reset(seed=0)
    steps = 14  # 0.4 + 0.2 + 0.1 s at 20 Hz
    for step in range(steps):
        obs, reward, terminated, truncated, info = env.step(np.zeros(22, np.float32))
        assert np.isfinite(obs).all()
        assert isinstance(reward, float)
        assert not terminated
        assert truncated == (step == steps - 1)
        assert len(info["outcomes"]) == int(truncated)
    assert info["outcomes"][0].trial == 0


def test_every_reset_starts_the_next_trial_and_a_seed_starts_anew(env):
    first, info = env.reset(seed=4)
    second, next_info = env.reset()
    again, same_info = env.reset(seed=4)
    assert [info["trial"], next_info["trial"], same_info["trial"]] == [0, 1, 0]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, env.reset(seed=5)[0])


def test_observations_are_not_overwritten_by_later_steps(env):
    obs, _ = env.reset(seed=0)
    kept = obs.copy()
    env.step(np.ones(22, np.float32))
    np.testing.assert_array_equal(obs, kept)


def test_an_unknown_group_lists_the_known_ones(make):
    with pytest.raises(ValueError, match=r"group must be one of \['student', 'teacher'\], got 'parrot'"):
        make(group="parrot")

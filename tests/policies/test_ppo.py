"""PPO: advantages by hand, a buffer that cannot mix its rows up, losses by hand, and learning on the real task."""

import copy
from dataclasses import replace

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from dexgrasp import configs
from dexgrasp.policies.algorithms.learner import IterationCallback
from dexgrasp.policies.algorithms.ppo import GraspPPO, gaussian_kl, log_prob, normalize_advantages, surrogate_loss
from dexgrasp.policies.algorithms.rollout_buffer import RolloutBuffer
from dexgrasp.policies.networks.actor_critic import Critic, Normaliser
from dexgrasp.sim.envs.sb3_env import GraspVecEnv
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.sim.task.rewards import RewardCfg

SHORT = TaskCfg(rate_hz=10.0, grasp_s=0.8, lift_s=0.3, hold_s=0.2)


def buffer(steps=2, envs=1, gamma=0.99, gae_lambda=0.95):
    return RolloutBuffer(steps, envs, {"teacher": 1}, 1, gamma, gae_lambda)


def fill(made, rewards, values, ends):
    for reward, value, end in zip(rewards, values, ends, strict=True):
        zero = torch.zeros(1, 1)
        stored = {"actions": zero, "means": zero, "values": torch.tensor([value]), "log_probs": torch.zeros(1)}
        made.add({"teacher": zero}, torch.tensor([reward]), torch.tensor([end]), **stored)
    return made


def test_gae_is_the_discounted_sum_of_the_errors_of_the_value():
    made = fill(buffer(), [1.0, 2.0], [0.5, 1.0], [False, False])
    made.compute_returns_and_advantages(torch.tensor([3.0]))
    later = 2.0 + 0.99 * 3.0 - 1.0  # 3.97
    first = 1.0 + 0.99 * 1.0 - 0.5 + 0.99 * 0.95 * later
    assert made.advantages[:, 0].tolist() == pytest.approx([first, later])
    assert made.returns[:, 0].tolist() == pytest.approx([first + 0.5, later + 1.0])


def test_gae_does_not_look_past_an_end():
    made = fill(buffer(), [1.0, 2.0], [0.5, 1.0], [True, False])
    made.compute_returns_and_advantages(torch.tensor([3.0]))
    assert made.advantages[0, 0] == pytest.approx(1.0 - 0.5)


def test_minibatches_hold_every_transition_once_and_whole():
    made = buffer(steps=4, envs=3)
    for t in range(4):
        mark = 10.0 * t + torch.arange(3.0)
        column = mark[:, None]
        stored = {"actions": column + 100, "means": column + 200, "values": mark + 300, "log_probs": mark + 400}
        made.add({"teacher": column}, mark, torch.zeros(3, dtype=torch.bool), **stored)
    seen = []
    for batch in map(made.minibatch, made.shuffled(5, torch.Generator().manual_seed(0))):
        mark = batch.obs["teacher"].squeeze(1)
        assert torch.equal(batch.actions.squeeze(1), mark + 100)
        assert torch.equal(batch.means.squeeze(1), mark + 200)
        assert torch.equal(batch.values, mark + 300)
        assert torch.equal(batch.log_probs, mark + 400)
        seen += mark.tolist()
    assert sorted(seen) == sorted(10.0 * t + i for t in range(4) for i in range(3))


def test_densities_and_divergence_agree_with_torch():
    mean, other, log_std = torch.randn(5, 3), torch.randn(5, 3), torch.tensor([-1.0, 0.2, 0.5])
    normal = torch.distributions.Normal
    torch.testing.assert_close(log_prob(other, mean, log_std), normal(mean, log_std.exp()).log_prob(other).sum(-1))
    want = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(other, torch.ones(3))).sum(-1)
    torch.testing.assert_close(gaussian_kl(mean, log_std, other, torch.zeros(3)), want)


def test_the_surrogate_is_clipped_where_the_policy_has_moved_far_enough():
    # ratios 1.5 and 0.5 with advantages 1 and 1: min(1.5, 1.2) + min(0.5, 0.8) = 1.7; advantages -1: -(1.5) - 0.8
    now, before = torch.tensor([1.5, 0.5]).log(), torch.zeros(2)
    loss, clipped = surrogate_loss(now, before, torch.ones(2), 0.2)
    assert (float(loss), float(clipped)) == pytest.approx((-0.85, 1.0))
    assert float(surrogate_loss(now, before, -torch.ones(2), 0.2)[0]) == pytest.approx((1.5 + 0.8) / 2)


def test_the_normaliser_agrees_with_all_the_data_at_once_and_can_be_inverted():
    parts = [torch.randn(7, 2) * 3 + 1, torch.randn(50, 2), torch.randn(1, 2) + 9]
    normaliser = Normaliser(2)
    for part in parts:
        normaliser.update(part)
    whole = torch.cat(parts)
    torch.testing.assert_close(normaliser.mean, whole.mean(0))
    torch.testing.assert_close(normaliser.var, whole.var(0, unbiased=False))
    torch.testing.assert_close(normaliser.inverse(normaliser(parts[1])), parts[1])


def test_values_are_in_units_of_the_returns():
    critic = Critic(3, (8,))
    critic.returns.update(torch.tensor([[10.0], [30.0]]))  # mean 20, deviation 10
    obs = torch.randn(4, 3)
    torch.testing.assert_close(critic(obs), 20 + 10 * critic.normalised_value(obs).squeeze(-1))


def test_advantages_that_count_are_standardised_in_place():
    advantages = torch.tensor([[1.0, 2.0], [3.0, 6.0], [99.0, 2.0]])
    counted = torch.tensor([[True, True], [True, True], [False, False]])
    normalize_advantages(advantages, counted)
    assert float(advantages[counted].mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(advantages[counted].std(unbiased=False)) == pytest.approx(1.0, abs=1e-6)
    assert float(advantages[2, 1]) == pytest.approx(float(advantages[0, 1]))


@pytest.fixture(scope="module")
def env(household):
    """Four objects and the fastest physics: the subject here is what is learnt from, not what happens."""
    physics = configs.load_option(PhysicsCfg, "physics", "turbo")
    return GraspVecEnv(24, household, obs="both", task=SHORT, physics=physics, num_threads=1)


def test_what_time_alone_ended_is_credited_with_its_value(env):
    model = GraspPPO(env, seed=0, gamma=0.9)
    model.policy.critic.returns.update(torch.tensor([[40.0], [60.0]]))  # every value is near 50
    model.learn(24 * model.num_steps)
    last = model.rollout_buffer.rewards[-1]
    assert model.rollout_buffer.ends[-1].all() and not model.rollout_buffer.ends[:-1].any()
    assert (last > 0.9 * 40 - 5).all()  # against rewards of at most 1 without it


def test_without_restarts_nothing_is_learnt_from_what_follows_an_end(env, monkeypatch):
    model, gone = GraspPPO(env, seed=0, restarts=False), torch.tensor([2, 5])
    step, calls = env.task.step, []

    def throw(*args):
        done = step(*args)
        calls.append(None)
        if len(calls) == 3:
            env.task.engine.move_object(gone, torch.tensor([[0.0, 0.9, 0.1]]).repeat(2, 1))
        return done

    monkeypatch.setattr(env.task, "step", throw)
    model.learn(24 * model.num_steps)
    buffer = model.rollout_buffer
    assert buffer.alive.sum(dim=0).tolist() == [4 if row in gone else model.num_steps for row in range(24)]
    assert len(model.outcomes) == 24 and all(model.outcomes[row].failure == "pushed_away" for row in gone)
    lived = 22 * model.num_steps + 2 * 4
    assert len(buffer.valid(buffer.rewards)) == model.policy.actor.normaliser.count == lived
    batches = [buffer.minibatch(rows) for rows in buffer.shuffled(3, torch.Generator().manual_seed(0))]
    learnt = torch.cat([batch.returns for batch in batches])
    assert torch.equal(learnt.sort().values, buffer.valid(buffer.returns).sort().values)


def test_a_saved_learner_acts_and_goes_on_as_the_one_that_was_not_saved(env, tmp_path):
    def learner():
        env.streams.seed(range(24))
        env.task.object_weights = None
        return GraspPPO(env, seed=3, num_minibatches=2, target_kl=1e9)  # its schedule knows the length of the run

    steps = 24 * SHORT.steps(1.3)
    through = learner()
    through.learn(4 * steps)
    stopped = learner()
    stopped.learn(2 * steps)
    stopped.save(tmp_path / "last.zip")
    resumed = learner().resume(tmp_path / "last.zip")
    resumed.learn(4 * steps)
    got = resumed.policy.state_dict()
    for name, want in through.policy.state_dict().items():
        assert torch.equal(want, got[name]), name
    assert resumed.num_timesteps == through.num_timesteps


def test_both_observation_groups_are_asked_for():
    with pytest.raises(TypeError, match="obs='both'"):
        GraspPPO(env=GraspVecEnv(2, obs="teacher", task=SHORT))


def test_the_learning_rate_follows_the_divergence(env):
    model = GraspPPO(env, target_kl=0.02, learning_rate=1e-4)
    model._adapt_learning_rate(torch.tensor(0.05))  # against the target at the start
    assert model.learning_rate == pytest.approx(1e-4 / 1.3)
    model._stopped.zero_()  # of the next iteration
    model._adapt_learning_rate(torch.tensor(0.005))
    assert model.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)
    model._adapt_learning_rate(torch.tensor(0.02))
    assert model.learning_rate == pytest.approx(1e-4)


def test_an_iteration_ends_where_the_policy_has_moved_by_two_targets(env):
    model = GraspPPO(env, seed=0, target_kl=0.02, learning_rate=5e-3)
    model.iteration = 1
    found, adapt = [], model._adapt_learning_rate
    model._adapt_learning_rate = lambda kl: found.append(kl) or adapt(kl)
    model.learn(24 * model.num_steps)
    assert 1 < len(found) < model.num_epochs * model.num_minibatches
    assert max(found[:-1]) <= 2 * 0.02 < found[-1]
    assert model.optimizer.state[model.policy.log_std]["step"] == len(found) - 1  # the excess is not learnt from


def test_gradient_steps_are_those_of_adam_whose_rate_python_sets(env):
    """To the last bit, up to the step at which an iteration ends."""
    ours, theirs = (GraspPPO(env, seed=0, target_kl=0.004) for _ in range(2))
    ours.env.reset()
    ours.iteration = theirs.iteration = 1
    ours._collect_rollout()
    theirs.rollout_buffer, theirs._behaviour_log_std = copy.deepcopy(ours.rollout_buffer), ours._behaviour_log_std
    rate, optimizer = 3e-4, torch.optim.Adam(theirs.policy.parameters(), lr=3e-4, eps=1e-5)
    theirs.policy.train()
    theirs.policy.critic.returns.update(theirs.rollout_buffer.valid(theirs.rollout_buffer.returns)[:, None])
    advantages = theirs.rollout_buffer.advantages
    normalize_advantages(advantages, theirs.rollout_buffer.alive)
    steps = 0
    for given in theirs._step_inputs():
        loss, record = theirs._loss(theirs.rollout_buffer.minibatch(given["rows"]))
        kl = float(record["kl"])
        rate = max(rate / 1.3, 5e-6) if kl > 2 * 0.004 else min(rate * 1.3, 4e-4) if 0 < kl < 0.004 / 2 else rate
        if kl > 2 * 0.004:
            break
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.policy.parameters(), 1.0)
        optimizer.step()
        steps += 1
    ours._update()
    assert 0 < steps < ours.num_epochs * ours.num_minibatches and ours.learning_rate == rate
    for one, other in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_exploration_is_narrowed_evenly_in_its_logarithm_and_never_widened(env):
    policy = GraspPPO(env, init_std=0.4).policy
    for progress, deviation in ((0.0, 0.4), (0.5, 0.2), (1.0, 0.1), (0.0, 0.1)):
        policy.limit_std(0.1, progress)
        assert policy.std.tolist() == pytest.approx([deviation] * env.task.num_actions)


def test_at_the_end_of_learning_exploration_is_as_narrow_as_was_asked_for(env):
    model = GraspPPO(env, seed=0, final_std=0.1)
    model.learn(2 * 24 * model.num_steps)
    assert float(model.policy.std.detach().max()) <= 0.1 + 1e-6


@pytest.mark.slow
def test_ppo_learns_to_keep_off_the_table():
    """With nothing but the table's contact in the reward, the hand must learn to stay above it."""
    off = dict.fromkeys([name for name in RewardCfg.__dataclass_fields__ if name not in ("floor", "extra")], 0.0)
    easy = replace(SHORT, reward=RewardCfg(**off | {"table_contact": -1.0}), palm_action_m_s=0.4)
    model = GraspPPO(env=GraspVecEnv(32, obs="both", task=easy, num_threads=2), seed=0, target_kl=0.1)
    returns = []

    class Watch(IterationCallback):
        def on_rollout_end(self, learner):
            returns.append(learner.iteration_stats["return"])

    model.learn(16 * 32 * model.num_steps, [Watch()])
    assert sum(returns[-3:]) > 0.6 * sum(returns[:3]), returns  # negative: much of the contact is gone


def test_in_half_precision_the_update_sees_the_policy_of_the_roll_out(env):
    model = GraspPPO(env, seed=0, bf16=True)
    found = {}

    class Watch(IterationCallback):
        def on_rollout_end(self, learner):
            buffer = model.rollout_buffer
            batch = buffer.minibatch(buffer.shuffled(1, torch.Generator().manual_seed(0))[0])
            for name, half in (("half", True), ("single", False)):
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    loss, found[name] = model._loss(batch)
                    means = model.policy.mean(batch.obs)
                assert means.dtype == loss.dtype == torch.float32
                model.policy.zero_grad()
                loss.backward()
                gradients = [part.grad.flatten() for part in model.policy.parameters() if part.grad is not None]
                found[name] |= {"means": (means - batch.means).abs().max(), "gradient": torch.cat(gradients)}

    model.learn(24 * model.num_steps, [Watch()])
    assert found["half"]["means"] < 1e-6 and found["half"]["kl"] < 1e-9
    assert 1e-6 < found["single"]["means"] < 2e-3  # against a deviation of 0.3
    assert torch.cosine_similarity(found["half"]["gradient"], found["single"]["gradient"], dim=0) > 0.99


def test_callbacks_act_in_order_and_can_stop_training(env):
    calls = []

    class Record(IterationCallback):
        def on_training_start(self, learner):
            calls.append("start")

        def on_rollout_start(self, learner):
            calls.append(f"rollout {learner.iteration}")

        def on_rollout_end(self, learner):
            calls.append(f"outcomes {len(learner.outcomes) >= 24}")

        def on_iteration_end(self, learner):
            calls.append(f"iteration {learner.iteration}")
            if learner.iteration == 2:
                learner.stop()

        def on_training_end(self, learner):
            calls.append("end")

    model = GraspPPO(env, seed=0)
    model.learn(9 * 24 * model.num_steps, [Record()])
    first, second = (["rollout 0", "outcomes True", "iteration 1"], ["rollout 1", "outcomes True", "iteration 2"])
    assert calls == ["start", *first, *second, "end"]
    assert model.num_timesteps == 2 * 24 * model.num_steps


def test_a_callback_of_stable_baselines_is_refused_with_where_it_works(env):
    class Theirs(BaseCallback):
        def _on_step(self):
            return True

    with pytest.raises(TypeError, match=r"are IterationCallbacks, got Theirs; stable_baselines3\.PPO on a GraspVecEnv"):
        GraspPPO(env).learn(1, [Theirs()])


def test_a_checkpoint_of_other_networks_or_environments_is_refused(env, tmp_path):
    GraspPPO(env, seed=0).save(tmp_path / "last.zip")
    with pytest.raises(ValueError, match=r"the policy has hidden=\(256, 128\), here it is \(8,\)"):
        GraspPPO(env, hidden=(8,)).resume(tmp_path / "last.zip")
    with pytest.raises(ValueError, match="holds 24 environments, this run has 2"):
        GraspPPO(GraspVecEnv(2, obs="both", task=SHORT)).resume(tmp_path / "last.zip")


def test_a_learner_that_diverged_keeps_its_last_checkpoint(env, tmp_path):
    model = GraspPPO(env, seed=0)
    model.save(tmp_path / "last.zip")
    before = (tmp_path / "last.zip").read_bytes()
    model.policy.log_std.data[3] = float("nan")
    with pytest.raises(ValueError, match="'policy/log_std' holds values that are not finite: learning diverged"):
        model.save(tmp_path / "last.zip")
    assert (tmp_path / "last.zip").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.zip"]

"""Proximal policy optimisation on the task's device, with a KL-adaptive learning rate.

Rollout   every iteration starts new episodes and runs them to their end; they depend only on the iteration's number, so
          that a stopped run resumes exactly
Update    clipped surrogate + value loss in units of the returns; after each minibatch the learning rate is raised or
          lowered so that the policy moves by about `target_kl` (Schulman et al. 2017; rsl_rl does it as well); once it
          has moved by more than twice `target_kl`, the iteration takes no further step
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dexgrasp.policies.agents.base import ActorAgent
from dexgrasp.policies.algorithms.learner import Learner
from dexgrasp.policies.algorithms.rollout_buffer import Minibatch, RolloutBuffer
from dexgrasp.sim.engine.cuda_graph import GraphedFunction
from dexgrasp.sim.envs.sb3_env import GraspVecEnv
from dexgrasp.sim.task.grasp_task import StepResult
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.utils import distributed
from dexgrasp.utils.rows import Rows

CLIP_RATIO = 0.2
"""The surrogate is clipped where the ratio of probabilities leaves 1 by more than this."""
LEARNING_RATE_FACTOR = 1.3
"""Factor by which the learning rate follows the KL divergence."""
LEARNING_RATES = (5e-6, 4e-4)
"""Range of the learning rate."""
Record = dict[str, Tensor]
"""Parts of the loss of a gradient step by name, without dimensions; `counted`: 0 where the step had no effect."""
REWARD_SCALE = 0.2
MAX_GRAD_NORM = 1.0


def log_prob(actions: Tensor, means: Tensor, log_std: Tensor) -> Tensor:
    """Return the log-densities (sample,) of actions (sample, action) under diagonal Gaussians.

    `log_std`: (action,).
    """
    standard = (actions - means) / log_std.exp()
    return -(0.5 * standard.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)


def gaussian_kl(old_means: Tensor, old_log_std: Tensor, means: Tensor, log_std: Tensor) -> Tensor:
    """Return the KL divergence (sample,) of the new Gaussians from the old ones."""
    spread = (old_log_std.exp().square() + (old_means - means).square()) / (2 * log_std.exp().square())
    return (log_std - old_log_std + spread - 0.5).sum(-1)


def surrogate_loss(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Return the clipped surrogate loss (Schulman et al. 2017, eq. 7) and the share of clipped samples.

    `log_prob`, `old_log_prob`: (sample,) of the actions under the present policy and that of the rollout.
    """
    ratio = (log_prob - old_log_prob).exp()
    loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).mean()
    return loss, ((ratio - 1).abs() > clip).float().mean()


def mean_record(records: Sequence[Record]) -> dict[str, float]:
    """Return the mean of every entry over the gradient steps that count; reads the device once."""
    table = torch.stack([torch.stack([value.double() for value in record.values()]) for record in records])
    rows = [dict(zip(records[0], values, strict=True)) for values in table.tolist()]
    counted = [row for row in rows if row.pop("counted")]
    return {name: sum(row[name] for row in counted) / len(counted) for name in counted[0]}


@torch.no_grad()
def normalize_advantages(advantages: Tensor, counted: Tensor) -> None:
    """Scale advantages in place to mean 0 and standard deviation 1 over all ranks.

    `counted`: bool mask of the samples that enter mean and deviation.
    """
    samples = advantages[counted]
    moments = torch.stack([samples.new_tensor(samples.numel()), samples.sum(), samples.square().sum()])
    number, first, second = distributed.all_reduce_sum(moments.double())
    mean = first / number
    advantages.sub_(mean).div_((second / number - mean.square()).clamp(min=0).sqrt() + 1e-8)


def imitation_loss(means: Tensor, labels: Tensor) -> Tensor:
    """Return the mean squared error of the student's mean actions (sample, action) to the teacher's."""
    return functional.mse_loss(means, labels)


def reconstruction_loss(estimate: Tensor, true: Tensor) -> Tensor:
    """Return the mean squared error of reconstructed values (sample, value), in standard deviations."""
    return functional.mse_loss(estimate, true)


class GraspPPO(Learner):
    """PPO with the actor and critic of a GraspPolicy."""

    def __init__(
        self,
        env: GraspVecEnv,
        *,
        num_minibatches: int = 4,
        num_epochs: int = 5,
        gamma: float = 0.99,
        target_kl: float = 0.02,
        frozen_std: float = 0.0,
        final_std: float = 0.0,
        bf16: bool = False,
        restarts: bool = True,
        cuda_graphs: bool = False,
        **options: Any,
    ) -> None:
        """`target_kl`: of a minibatch step, at the start; a third of it at the end.

        `frozen_std`: rollouts explore with this deviation whatever is learnt, as the published release does; 0: off.
        `final_std`: the deviation is limited so that it ends at this value, evenly in its logarithm; 0: off.
        `bf16`: networks compute in half precision up to their last layers. `restarts`: an episode that ends early is
        followed by another one; otherwise its environment waits, and nothing is learnt from the wait. `cuda_graphs`: a
        GPU repeats a recorded gradient step; not with several ranks, whose messages no graph holds.
        `options`: those of Learner.
        """
        super().__init__(env, **options)
        self.num_minibatches, self.num_epochs, self.gamma, self.target_kl = (
            num_minibatches,
            num_epochs,
            gamma,
            target_kl,
        )
        self.frozen_std, self.final_std, self.bf16, self.restarts = frozen_std, final_std, bf16, restarts
        self.cuda_graphs = cuda_graphs and distributed.world_size() == 1
        sizes = {group: layout.size for group, layout in env.task.layouts.items()}
        self.rollout_buffer = RolloutBuffer(
            self.num_steps, env.num_envs, sizes, env.task.num_actions, gamma, device=self.device
        )

    def _collect_rollout(self) -> None:
        """Run new episodes in all environments."""
        env, buffer = self.env, self.rollout_buffer
        self.policy.eval()
        buffer.reset()
        outcomes, terms, alive = [], [], torch.ones(env.num_envs, dtype=torch.bool, device=self.device)
        obs, noise = self._new_episodes(), self._noise(self.num_steps, env.num_envs)
        std, policy = self.exploration.detach(), ActorAgent(self.policy.actor, env.task)
        self._behaviour_log_std = log_std = self.policy.std.log().detach()
        with torch.no_grad():
            for t in range(self.num_steps):
                with self.autocast():
                    means, values = policy.act(obs), self.policy.predict_values(obs)
                actions = means + std * noise[t]
                log_probs = log_prob(actions, means, log_std)
                step = (env.streams if self.restarts else env.task).step(actions, policy.grip)
                rewards, dones = self._reward(step), step.terminated | step.truncated
                stored = {"actions": actions, "means": means, "values": values, "log_probs": log_probs}
                buffer.add(obs, rewards, dones, alive=alive, **stored)
                alive = alive & ~dones | self.restarts
                obs = step.obs
                outcomes += step.info["outcomes"]
                terms.append(step.info["terms"])
                self.num_timesteps += env.num_envs * distributed.world_size()
            buffer.compute_returns_and_advantages(self._values(obs))
        outcomes = outcomes if self.restarts else env.task.outcomes()
        self._new_episodes()  # before the curriculum moves on, so that `resume` draws all of them alike
        self._summarise(outcomes, terms)

    @property
    def exploration(self) -> Tensor:
        """Standard deviation (action,) of the actions' noise; that of the start where `frozen_std` is set."""
        return torch.full_like(self.policy.std, self.frozen_std) if self.frozen_std else self.policy.std

    def _new_episodes(self) -> dict[str, Tensor]:
        """Open an episode in every environment whose episode has begun; return the observations."""
        task = self.env.task
        begun = (task.steps_since_reset > 0).nonzero().squeeze(1)
        return self.env.streams.reset(begun) if len(begun) else task.observe()

    def _noise(self, steps: int, num_envs: int) -> Tensor:
        """Draw standard normal noise (time, env, action) by seed and iteration, for the environments of this rank."""
        generator = torch.Generator(device=self.device).manual_seed(((self.seed or 0) << 20) + self.iteration)
        shape = (steps, num_envs * distributed.world_size(), self.env.task.num_actions)
        first = distributed.rank() * num_envs
        return torch.randn(shape, generator=generator, device=self.device)[:, first : first + num_envs]

    def _reward(self, step: StepResult) -> Tensor:
        """Return scaled rewards (env,); a truncated episode is credited with the value of its final state."""
        rewards, task = step.reward * REWARD_SCALE, self.env.task
        if not (self.restarts or (task.clock.host_since_pregrasp >= task.episode_steps).any()):
            return rewards  # known without a question to a GPU
        rows = Rows.where(step.truncated)
        if len(rows):
            final = {group: values[rows.index] for group, values in step.info.get("final_obs", step.obs).items()}
            rows.write(rewards, rewards[rows.index] + self.gamma * self._values(final))
        return rewards

    def _values(self, obs: dict[str, Tensor]) -> Tensor:
        """Return values (env,) in the precision of rollouts."""
        with self.autocast():
            return self.policy.predict_values(obs)

    def autocast(self) -> torch.autocast:
        """Context in which networks compute in half precision if `bf16` is set."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def _summarise(self, outcomes: list[Outcome], terms: list[dict[str, float]]) -> None:
        """Average success and reward terms over all ranks and log them."""
        won = torch.tensor([float(sum(o.success for o in outcomes)), float(len(outcomes))], dtype=torch.float64)
        won = distributed.all_reduce_sum(won)
        self.outcomes = outcomes
        sums = torch.tensor([[term[name] for name in terms[0]] for term in terms], dtype=torch.float64).sum(dim=0)
        means = dict(zip(terms[0], distributed.all_reduce_mean(sums).tolist(), strict=True))
        rate = float(won[0] / won[1].clamp(min=1))
        self.iteration_stats = {"won": rate, "return": sum(means.values()), **means}
        self._recent_successes.extend(outcome.success for outcome in outcomes)
        for name, value in means.items():
            self.logger.record(f"reward/{name}", value)
        self.logger.record("rollout/success", rate)

    def _update(self) -> None:
        """Update the policy from the rollout; the first rollout only sets the scales of the normalisers."""
        self.policy.train()
        buffer = self.rollout_buffer
        self.policy.critic.returns.update(buffer.valid(buffer.returns)[:, None])
        if self.iteration > 0:
            normalize_advantages(buffer.advantages, buffer.alive)
            means = self._take_steps(self._reinforce, self._step_inputs())
            self.iteration_stats |= means | {"std": float(self.policy.std.detach().mean()), "lr": self.learning_rate}
            for name in (*means, "std", "lr"):
                self.logger.record(f"train/{name}", self.iteration_stats[name])
        self.policy.update_normalisers({group: buffer.valid(seen) for group, seen in buffer.obs.items()})
        if self.final_std:
            self.policy.limit_std(self.final_std, 1 - self._progress_remaining)
        self.iteration += 1

    def _step_inputs(self) -> Iterator[Mapping[str, Tensor]]:
        """Yield what each gradient step of the iteration learns from: rows of the rollout, in all epochs."""
        generator = torch.Generator(device=self.device).manual_seed(self.iteration)
        for _ in range(self.num_epochs):
            for rows in self.rollout_buffer.shuffled(self.num_minibatches, generator):
                yield {"rows": rows}

    def _take_steps(
        self, step: Callable[[Mapping[str, Tensor]], Record], inputs: Iterable[Mapping[str, Tensor]]
    ) -> dict[str, float]:
        """Apply a gradient step to each of the inputs until the policy has moved too far; return means of its record.

        The host of a GPU does not wait to hear of it: there the steps that follow have no effect.
        """
        self._stopped.zero_()
        graphed = GraphedFunction(step, self.device) if self.cuda_graphs else step
        records = []
        for one in inputs:
            records.append(graphed(one))
            if self.device.type == "cpu" and self._stopped:
                break
        return mean_record(records)

    def _reinforce(self, inputs: Mapping[str, Tensor]) -> Record:
        """Apply a gradient step along the loss of a minibatch, if the policy has not moved too far; return the parts.

        `inputs`: rows of the rollout, and labelled observations where there are any.
        """
        counted = 1 - self._stopped
        with self.autocast():
            loss, record = self._loss(self._minibatch(inputs))
        self._adapt_learning_rate(record["kl"])
        if self.device.type != "cpu" or not self._stopped:
            self._gradient_step(loss)
        return record | {"counted": counted}

    def _minibatch(self, inputs: Mapping[str, Tensor]) -> Minibatch:
        return self.rollout_buffer.minibatch(inputs["rows"])

    def _gradient_step(self, loss: Tensor) -> None:
        """Apply one step of the optimiser along the mean gradient of all ranks."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average_gradients(self.policy.parameters())
        nn.utils.clip_grad_norm_(self.policy.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()

    def _loss(self, batch: Minibatch) -> tuple[Tensor, Record]:
        """Return the loss of a minibatch, and its parts."""
        means, log_std = self.policy.mean(batch.obs), self.policy.std.log()
        present = log_prob(batch.actions, means, log_std)
        surrogate, clipped = surrogate_loss(present, batch.log_probs, batch.advantages, CLIP_RATIO)
        value = self._value_loss(batch)
        with torch.no_grad():
            kl = distributed.all_reduce_mean(gaussian_kl(batch.means, self._behaviour_log_std, means, log_std).mean())
        record = {"kl": kl, "surrogate": surrogate, "value": value, "clipped": clipped}
        return surrogate + value, {name: part.detach() for name, part in record.items()}

    def _value_loss(self, batch: Minibatch) -> Tensor:
        critic = self.policy.critic
        target = critic.returns(batch.returns[:, None])
        return functional.mse_loss(critic.normalised_value(batch.obs[self.policy.critic_group]), target)

    def _adapt_learning_rate(self, kl: Tensor) -> None:
        """Raise or lower the learning rate so that the KL divergence of a step approaches its target.

        Far beyond the target of the start the iteration ends; the falling target alone lowers the rate. Computed on
        the device, whose host does not wait for it.
        """
        limit, kl, rate = self.target_kl or math.inf, kl.double(), self._rate
        target = limit * (1 + 2 * self._progress_remaining) / 3
        slower = (rate / LEARNING_RATE_FACTOR).clamp(min=LEARNING_RATES[0])
        faster = (rate * LEARNING_RATE_FACTOR).clamp(max=LEARNING_RATES[1])
        followed = torch.where(kl > 2 * target, slower, torch.where((kl > 0) & (kl < target / 2), faster, rate))
        self._set_learning_rate(torch.where(self._stopped > 0, rate, followed))
        self._stopped.copy_((self._stopped > 0) | (kl > 2 * limit))

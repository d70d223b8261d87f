"""Distillation of a teacher into a student: from imitation to reinforcement learning.

    L = rho L_PPO + L_reconstruction + (1 - rho) w L_imitation            (RobustDexGrasp, student)

The student drives the rollouts; the teacher, which reads the simulator's state, labels the visited states (DAgger, Ross
et al. 2011). While rho is zero the student acts without noise and learns from several rollouts together; afterwards the
weight of PPO's clipped surrogate grows with rho.
"""

import logging
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from torch import Tensor

from dexgrasp.policies.agents.base import ActorAgent
from dexgrasp.policies.agents.checkpoint import Checkpoint, CheckpointData, TrainingState
from dexgrasp.policies.algorithms.ppo import GraspPPO, Record, imitation_loss, reconstruction_loss
from dexgrasp.policies.algorithms.rollout_buffer import Minibatch
from dexgrasp.policies.networks.actor_critic import Encoder, GraspPolicy
from dexgrasp.policies.networks.student import StudentPolicy
from dexgrasp.sim.envs.sb3_env import GraspVecEnv
from dexgrasp.utils.bounds import Bounds, Share, bounded
from dexgrasp.utils.tensor_archive import ArchiveError, read_archive, write_archive

log = logging.getLogger("dexgrasp")


@dataclass(frozen=True)
@bounded
class DistillationCfg:
    """Schedule from imitation to reinforcement, and the weights and sizes of imitation."""

    schedule: Literal["iteration", "success"] = "iteration"
    """Quantity that determines rho: the number of the iteration, or the success rate of the last rollouts."""
    rho_start: Annotated[float, Bounds(0, 10)] = 0.5
    """Share of the iterations, or success rate, at which rho starts to rise from 0."""
    rho_end: Annotated[float, Bounds(0, 10)] = 0.8
    """Share of the iterations, or success rate, at which rho reaches `rho_max`."""
    rho_max: Share = 0.9
    """Highest rho; the share 1 - rho stays imitation."""
    imitation_weight: Annotated[float, Bounds(0, 1000)] = 1.0
    """Weight of the imitation loss; 0: no imitation."""
    reconstruction_weight: Annotated[float, Bounds(0, 1000)] = 0.2
    """Weight of the loss of reconstructed contacts and forces."""
    num_rollouts: Annotated[int, Bounds(1, 1000)] = 10
    """Number of rollouts in the buffer of the imitation loss."""
    samples_per_rollout: Annotated[int, Bounds(1, 10_000_000)] = 32768
    """Samples kept of each rollout, chosen at random: limits memory and the size of RUN/last.window."""
    gradient_steps: Annotated[int, Bounds(1, 100_000)] = 60
    """Gradient steps of an iteration while rho is 0."""
    batch_size: Annotated[int, Bounds(1, 1_000_000)] = 1024
    """Samples of an imitation batch."""
    imitation_rate: Annotated[float, Bounds(1e-8, 1)] = 1e-3
    """Learning rate while rho is 0; it falls to a third until rho rises."""
    ppo_rate: Annotated[float, Bounds(1e-8, 1)] = 3e-5
    """Learning rate when reinforcement starts."""

    def __post_init__(self) -> None:
        if self.rho_start > self.rho_end:
            found = f"rho_start={self.rho_start} and rho_end={self.rho_end}"
            raise ValueError(f"distillation.rho_start must lie in 0..rho_end, got {found}")

    def rho(self, where: float) -> float:
        """Return the share of reinforcement at `where`, a share of the iterations or a success rate."""
        if where >= self.rho_end:
            return self.rho_max
        if where <= self.rho_start:
            return 0.0
        return self.rho_max * (where - self.rho_start) / (self.rho_end - self.rho_start)

    def missing_imitation(self, iterations: int) -> str:
        """Return a warning where no iteration imitates alone although the schedule asks for it; else "".

        The teacher's first episode counts in the schedule: the first rollout has the share 1 / iterations.
        """
        wanted = self.schedule == "iteration" and self.imitation_weight > 0 and self.rho_start > 0
        if not wanted or self.rho(1 / iterations) == 0:
            return ""
        least = math.ceil(1 / self.rho_start)
        least += self.rho(1 / least) > 0  # rho_start = rho_end: at that share rho has risen already
        return (
            f"no iteration is imitation alone: rho is {self.rho(1 / iterations):.2f} from the first one, because "
            f"distillation.rho_start={self.rho_start:g} is a share of iterations={iterations}; iterations={least} "
            "or more begin with imitation"
        )


class StudentPPO(GraspPPO):
    """PPO on the student's observations, with an imitation loss towards a teacher."""

    policy: StudentPolicy

    def __init__(
        self,
        env: GraspVecEnv,
        *,
        distillation: DistillationCfg | None = None,
        iterations: int = 1,
        teacher: GraspPolicy | None = None,
        encoder: Encoder = "conv",
        **options: Any,
    ) -> None:
        """`iterations`: of the whole run, for the schedule. `teacher`: labels rollouts; None: nothing is imitated."""
        self.distillation, self.iterations, self.teacher = distillation or DistillationCfg(), iterations, teacher
        self._encoder: Encoder = encoder
        self._rollouts: deque[dict[str, Tensor]] = deque(maxlen=self.distillation.num_rollouts)
        super().__init__(env, **options)

    def _make_policy(self, hidden: Sequence[int], init_std: float) -> StudentPolicy:
        task = self.env.task
        return StudentPolicy(task.layouts, task.num_actions, self._encoder, hidden=hidden, init_std=init_std)

    @property
    def rho(self) -> float:
        """Share rho of reinforcement in this iteration."""
        if self.distillation.schedule == "success":
            return self.distillation.rho(self.iteration_stats.get("won", 0.0))
        return self.distillation.rho(self.iteration / self.iterations)

    @property
    def exploration(self) -> Tensor:
        """Standard deviation (action,) of the actions' noise; zero while the student only imitates."""
        return super().exploration if self.rho > 0 else torch.zeros_like(self.policy.std)

    @torch.no_grad()
    def start_from_teacher(self, copy: bool = True) -> None:
        """Set the student's scales from one episode of its teacher in every environment.

        `copy`: copy the teacher's weights as well.
        """
        teacher, seen = self.teacher, []
        assert teacher is not None
        policy, obs = ActorAgent(teacher.actor, self.env.task), self.env.streams.reset()
        for _ in range(self.num_steps):
            seen.append(obs)
            obs = self.env.streams.step(policy.act(obs), policy.grip).obs
        self.policy.update_actor_normalisers({group: torch.stack([step[group] for step in seen]) for group in obs})
        if copy:
            self.policy.copy_teacher(teacher)
        self.iteration = 1
        self._begin_reinforcement()

    def start_from(self, checkpoint: Checkpoint) -> None:
        """Start from the policy of another run, at `ppo_rate` where the schedule begins with reinforcement."""
        super().start_from(checkpoint)
        self._begin_reinforcement()

    def _begin_reinforcement(self) -> None:
        """Set the learning rate of reinforcement if the next iteration reinforces."""
        if self.rho > 0:
            self._set_learning_rate(self.distillation.ppo_rate)

    def _update(self) -> None:
        """Update from the rollout by PPO and from the teacher's labels of stored rollouts by imitation."""
        self._store_rollout()
        if self.rho > 0:
            super()._update()
            return
        self.policy.train()
        decay = 3 ** -(self.iteration / self.iterations / max(self.distillation.rho_start, 1e-6))
        self._set_learning_rate(self.distillation.imitation_rate * decay)
        means = self._take_steps(self._imitate, self._labelled_batches(self.distillation.gradient_steps))
        self.iteration_stats |= means | {"std": 0.0, "lr": self.learning_rate, "rho": 0.0}
        for name, value in self.iteration_stats.items():
            self.logger.record(f"train/{name}", value)
        self.policy.critic.returns.update(self.rollout_buffer.valid(self.rollout_buffer.returns)[:, None])
        self.iteration += 1
        self._begin_reinforcement()

    def save(self, path: Path, with_rollouts: bool = False) -> None:
        """Write a checkpoint.

        `with_rollouts`: write the rollouts of the imitation loss to NAME.window beside it.
        """
        if not with_rollouts:
            super().save(path)
            return
        stored = enumerate(self._rollouts)
        tensors = {f"{i}/{name}": value for i, kept in stored for name, value in kept.items()}
        file, following = _window_files(path)
        write_archive(following, {"iteration": self.iteration}, tensors)  # beside the old pair: a kill leaves one pair
        super().save(path)
        os.replace(following, file)

    def resume(self, path: Path) -> Self:
        """Continue from a checkpoint of a learner with these settings, with the rollouts beside it."""
        super().resume(path)
        self.load_rollouts(path)
        return self

    def load_rollouts(self, path: Path) -> None:
        """Read the rollouts that `save` wrote beside `path`; without them imitation starts with new ones."""
        file, following = _window_files(path)
        with suppress(OSError, ArchiveError):  # of a process that was killed between checkpoint and rollouts
            if read_archive(following)[0].get("iteration") == self.iteration:
                os.replace(following, file)
        following.unlink(missing_ok=True)
        rollouts: dict[str, dict[str, Tensor]] = {}
        try:
            header, tensors = read_archive(file)
            if header.get("iteration", self.iteration) != self.iteration:  # older files do not state it
                raise ArchiveError(f"it belongs to iteration {header['iteration']}, not {self.iteration}")
            for name, value in tensors.items():
                number, _, term = name.partition("/")
                rollouts.setdefault(number, {})[term] = value.to(self.device)
            if not all(map(self._is_rollout, rollouts.values())):
                raise ArchiveError("its tensors are not rollouts of this student")
        except (OSError, ArchiveError) as error:
            log.warning("%s cannot be read (%s): imitation goes on with new rollouts", file.name, error)
            return
        self._rollouts.extend(rollouts.values())

    def _is_rollout(self, kept: dict[str, Tensor]) -> bool:
        """Return whether these tensors are a stored rollout.

        `student`: (sample, size). `true`: (sample, reconstructed). `labels`: the teacher's actions.
        """
        widths = {"student": self.policy.layouts["student"].size, "true": len(self.policy.reconstructed_columns)}
        widths |= {"labels": self.policy.num_actions} if self.teacher else {}
        shapes = {name: (len(kept.get("true", ())), width) for name, width in widths.items()}
        return {name: tuple(value.shape) for name, value in kept.items()} == shapes

    def _state(self) -> TrainingState:
        return replace(super()._state(), schedule_iterations=self.iterations)

    def _load_state(self, path: Path, data: CheckpointData) -> None:
        super()._load_state(path, data)
        self.iterations = data.state.schedule_iterations  # the schedule stays that of the first start

    @torch.no_grad()
    def _store_rollout(self) -> None:
        """Store observations of the rollout (at most `samples_per_rollout`) with the teacher's labels."""
        obs = {group: self.rollout_buffer.valid(values) for group, values in self.rollout_buffer.obs.items()}
        seen = len(obs["student"])
        if seen > self.distillation.samples_per_rollout:
            rows = torch.randperm(seen, generator=torch.Generator().manual_seed(self.iteration))[
                : self.distillation.samples_per_rollout
            ]
            obs = {group: values[rows.to(values.device)] for group, values in obs.items()}
        limit = self.env.task.cfg.action_clip
        true = self.policy.actor.felt_normaliser(obs["teacher"][:, self.policy.reconstructed_columns])
        kept = {"student": obs["student"].clone(), "true": true}
        if self.teacher is not None:
            kept["labels"] = self.teacher.mean(obs).clamp(-limit, limit)
        self._rollouts.append(kept)

    def _labelled_batches(self, number: int) -> Iterator[dict[str, Tensor]]:
        """Yield random batches of the stored rollouts; the iteration's number decides them.

        Their rows are drawn on the host and sent to the device together.
        """
        generator = torch.Generator().manual_seed(self.iteration)
        sizes, drawn = [len(kept["true"]) for kept in self._rollouts], []
        for _ in range(number):
            which = torch.randint(len(sizes), (self.distillation.batch_size,), generator=generator)
            counts = torch.bincount(which, minlength=len(sizes)).tolist()
            drawn += [
                torch.randint(size, (count,), generator=generator) for size, count in zip(sizes, counts, strict=True)
            ]
        rows = torch.cat(drawn).to(self.device).split([len(part) for part in drawn])
        for first in range(0, len(rows), len(sizes)):
            parts = [
                {name: value[chosen] for name, value in kept.items()}
                for kept, chosen in zip(self._rollouts, rows[first : first + len(sizes)], strict=True)
            ]
            yield {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _imitate(self, batch: Mapping[str, Tensor]) -> Record:
        """Apply one gradient step of imitation and reconstruction; return its losses."""
        with self.autocast():
            loss, record = self._imitation(batch)
        self._gradient_step(loss)
        return record | {"counted": 1 - self._stopped}

    def _step_inputs(self) -> Iterator[Mapping[str, Tensor]]:
        steps = self.num_epochs * self.num_minibatches
        for rows, labelled in zip(super()._step_inputs(), self._labelled_batches(steps), strict=False):
            yield {**rows, **labelled}

    def _minibatch(self, inputs: Mapping[str, Tensor]) -> Minibatch:
        labelled = {name: value for name, value in inputs.items() if name != "rows"}
        return replace(super()._minibatch(inputs), labelled=labelled)

    def _imitation(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Record]:
        """Return the weighted loss of imitation and reconstruction of labelled samples, and its parts."""
        means, reconstructed = self.policy.actor.act_and_reconstruct(batch["student"])
        reconstruction = reconstruction_loss(reconstructed, batch["true"])
        imitation = imitation_loss(means, batch["labels"]) if "labels" in batch else reconstruction.new_zeros(())
        record = {"imitation": imitation.detach(), "reconstruction": reconstruction.detach()}
        cfg = self.distillation
        loss = (1 - self.rho) * cfg.imitation_weight * imitation + cfg.reconstruction_weight * reconstruction
        return loss, record

    def _loss(self, batch: Minibatch) -> tuple[Tensor, Record]:
        ppo, record = super()._loss(batch)
        rest, more = self._imitation(batch.labelled)
        more["rho"] = torch.full_like(record["kl"], self.rho, dtype=torch.float64)
        return self.rho * ppo + rest, record | more


def _window_files(checkpoint: Path) -> tuple[Path, Path]:
    """Return the file of the rollouts of a checkpoint, and that of the checkpoint which is being written."""
    return checkpoint.with_suffix(".window"), checkpoint.with_suffix(".window.next")

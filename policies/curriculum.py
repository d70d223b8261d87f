"""From teacher to student: imitation first, reinforcement later, and the mixture between them.

    L = rho L_PPO + L_reconstruction + (1 - rho) w L_imitation            (RobustDexGrasp, student)

The student drives the roll-outs; the teacher, who knows the simulator's state, labels what it saw there (DAgger, Ross
et al. 2011). While rho is zero the student acts without noise and learns from the last roll-outs together; from then on
the clipped surrogate of PPO counts more and more.
"""

import logging
import os
import pickle
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from policies.actor_policy import ActorPolicy
from policies.losses import imitation_loss, mean_record, reconstruction_loss
from policies.networks import GraspPolicy
from policies.ppo import GraspPPO
from policies.rollout import Minibatch
from policies.student import StudentPolicy

log = logging.getLogger("dexgrasp")


@dataclass(frozen=True)
class MixCfg:
    """How the student's learning goes over from imitation to reinforcement."""

    by: Literal["iteration", "success"] = "iteration"
    """What rho follows: the number of the iteration, or the success of the last roll-outs."""
    start: float = 0.5
    """Iteration, as a share of all, or success rate, from which rho rises from 0."""
    end: float = 0.8
    """Likewise, at which it arrives at `ceiling`."""
    ceiling: float = 0.9
    """The greatest rho; what is missing to 1 stays imitation."""
    imitation: float = 1.0
    """Weight w of the imitation; 0: none."""
    reconstruction: float = 0.2
    """Weight of the reconstruction of contacts and forces."""
    window: int = 10
    """Roll-outs that imitation learns from together."""
    keep: int = 32768
    """Samples that are kept of each of them, at random where there are more: bounds memory and RUN/last.window."""
    updates: int = 60
    """Gradient steps of an iteration that only imitates."""
    batch: int = 1024
    """Samples of each."""
    imitation_rate: float = 1e-3
    """Learning rate while rho is 0, falling to a third until it rises."""
    ppo_rate: float = 3e-5
    """Learning rate where reinforcement begins."""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"mix.start must lie in 0..mix.end, got start={self.start} and end={self.end}")
        if not 0 <= self.ceiling <= 1:
            raise ValueError(f"mix.ceiling must lie in 0..1, got {self.ceiling}")
        if min(self.window, self.keep, self.updates, self.batch) < 1:
            raise ValueError("mix.window, mix.keep, mix.updates and mix.batch must be at least 1")

    def rho(self, where: float) -> float:
        """The share of reinforcement at `where`, an iteration as a share of all or a success rate."""
        if where >= self.end:
            return self.ceiling
        if where <= self.start:
            return 0.0
        return self.ceiling * (where - self.start) / (self.end - self.start)


class StudentPPO(GraspPPO):
    """PPO on the student's observations whose loss is mixed with imitation of a teacher."""

    policy: StudentPolicy

    def __init__(self, *args: Any, mix: MixCfg | None = None, iterations: int = 1, **options: Any) -> None:
        """`iterations`: of the whole run, for the schedule."""
        self.mix, self.iterations = mix or MixCfg(), iterations
        self.teacher: GraspPolicy | None = None
        """Labels what the student saw; None where nothing is imitated."""
        self._window: deque[dict[str, Tensor]] = deque(maxlen=self.mix.window)
        self._samples: Iterator[dict[str, Tensor]] = iter(())
        super().__init__(*args, **options)

    @property
    def rho(self) -> float:
        """The share of reinforcement in this iteration."""
        if self.mix.by == "success":
            return self.mix.rho(self.iteration_stats.get("won", 0.0))
        return self.mix.rho(self.iteration / self.iterations)

    @property
    def exploration(self) -> Tensor:
        """(action,) no noise while the student only imitates."""
        return super().exploration if self.rho > 0 else torch.zeros_like(self.policy.std)

    @torch.no_grad()
    def meet(self, teacher: GraspPolicy, copy: bool = True) -> None:
        """Watch `teacher` for one episode in every environment, then start as a copy of it, or from nothing."""
        self.teacher, seen, policy = teacher, [], ActorPolicy(teacher.actor, self.env.task)
        obs = self.env.streams.reset()
        for _ in range(self.n_steps):
            seen.append(obs)
            obs = self.env.streams.step(policy.act(obs), policy.grip).obs
        self.policy.learn_scales({group: torch.stack([step[group] for step in seen]) for group in obs})
        if copy:
            self.policy.take_over(teacher)
        self.iteration = 1

    def train(self) -> None:
        """Learn from the roll-out, and from the last ones what the teacher would have done."""
        self._remember()
        self._samples = self._labelled()
        if self.rho > 0:
            super().train()
            return
        self.policy.set_training_mode(True)
        self._set_rate(self.mix.imitation_rate * 3 ** -(self.iteration / self.iterations / max(self.mix.start, 1e-6)))
        means = mean_record([self._imitate(batch) for batch in islice(self._samples, self.mix.updates)])
        self.iteration_stats |= means | {"std": 0.0, "lr": self.lr, "rho": 0.0}
        for name, value in self.iteration_stats.items():
            self.logger.record(f"train/{name}", value)
        self.policy.critic.returns.update(self.rollout_buffer.lived(self.rollout_buffer.returns)[:, None])
        self.iteration += 1
        if self.rho > 0:
            self._set_rate(self.mix.ppo_rate)

    def checkpoint(self, path: Path) -> None:
        """As its base does; the roll-outs that imitation learns from go beside the policy."""
        partial = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.window")
        torch.save(list(self._window), partial)  # takes longest: whenever it is killed, the two of before are whole
        super().checkpoint(path)
        os.replace(partial, Path(path).with_suffix(".window"))

    def recall(self, path: Path) -> None:
        """Take back the roll-outs that `checkpoint` put beside `path`; without them imitation begins with new ones."""
        try:
            kept = torch.load(path.with_suffix(".window"), map_location=self.device, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            log.warning("%s cannot be read (%s): imitation goes on with new roll-outs", path.stem + ".window", error)
            return
        self._window = deque(kept, maxlen=self.mix.window)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "teacher", "_window", "_samples"]

    @torch.no_grad()
    def _remember(self) -> None:
        """Keep what the student saw, or `mix.keep` samples of it, with the teacher's labels."""
        obs = {group: self.rollout_buffer.lived(values) for group, values in self.rollout_buffer.obs.items()}
        seen = len(obs["student"])
        if seen > self.mix.keep:
            rows = torch.randperm(seen, generator=torch.Generator().manual_seed(self.iteration))[: self.mix.keep]
            obs = {group: values[rows.to(values.device)] for group, values in obs.items()}
        limit = self.env.task.cfg.action_clip
        true = self.policy.actor.felt_normaliser(obs["teacher"][:, self.policy.felt])
        kept = {"student": obs["student"].clone(), "true": true}
        if self.teacher is not None:
            kept["labels"] = self.teacher.mean(obs).clamp(-limit, limit)
        self._window.append(kept)

    def _labelled(self) -> Iterator[dict[str, Tensor]]:
        """Random samples of the window, always new ones; the same in the same iteration."""
        generator = torch.Generator().manual_seed(self.iteration)
        sizes = torch.tensor([len(kept["true"]) for kept in self._window])
        while True:
            which = torch.randint(len(self._window), (self.mix.batch,), generator=generator)
            parts = []
            for i, kept in enumerate(self._window):
                rows = torch.randint(int(sizes[i]), (int((which == i).sum()),), generator=generator)
                parts.append({name: value[rows] for name, value in kept.items()})
            yield {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _imitate(self, batch: dict[str, Tensor]) -> dict[str, float]:
        with self.autocast():
            loss, record = self._imitation(batch)
        self._descend(loss)
        return record

    def _imitation(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """w L_imitation + L_reconstruction of labelled samples."""
        means, felt = self.policy.actor.both(batch["student"])
        rebuilt = reconstruction_loss(felt, batch["true"])
        imitated = imitation_loss(means, batch["labels"]) if "labels" in batch else rebuilt.new_zeros(())
        record = {"imitation": float(imitated.detach()), "reconstruction": float(rebuilt.detach())}
        return (1 - self.rho) * self.mix.imitation * imitated + self.mix.reconstruction * rebuilt, record

    def _loss(self, batch: Minibatch) -> tuple[Tensor, dict[str, float]]:
        ppo, record = super()._loss(batch)
        rest, more = self._imitation(next(self._samples))
        return self.rho * ppo + rest, record | more | {"rho": self.rho}

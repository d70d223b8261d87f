"""Student policy on one camera's points and proprioception.

It predicts contacts and forces from the history of its joints.

    history (frame, proprioception) -> encoder -> contacts and forces (privileged values of the teacher)
    rest of the observation, predicted contacts and forces -> actor MLP -> mean action

It can start from its teacher's weights: columns of the first layer are copied by the names of the observation terms,
with the visible points in place of the whole object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dexgrasp.perception.observations import HISTORY_FRAMES, Layout
from dexgrasp.policies.networks.actor_critic import (
    Actor,
    Architecture,
    Encoder,
    GraspPolicy,
    Normaliser,
    OutputLayer,
    mlp,
)

RECONSTRUCTED = ("contact", "contact_force")
"""Teacher terms that the student reconstructs from its history."""
TEACHER_TERM = {"visible_vectors": "object_vectors"}
"""Student term -> teacher term that it replaces, where the names differ."""


def make_encoder(kind: Encoder, width: int, out: int) -> nn.Module:
    """Build the network from the history (sample, frame, width) to features (sample, out)."""
    if kind == "lstm":
        return LstmEncoder(width, out)
    if kind == "mlp":
        return nn.Sequential(nn.Flatten(), mlp([HISTORY_FRAMES * width, 128, 64, out], gain_out=1.0))
    if kind == "conv":
        return ConvEncoder(width, out)
    raise ValueError(f"encoder must be lstm, mlp or conv, got '{kind}'")


class LstmEncoder(nn.Module):
    """Three LSTM layers of 64 over the frames, from a zero state (RobustDexGrasp, student)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(width, 64, num_layers=3, batch_first=True), OutputLayer(64, out)

    def forward(self, frames: Tensor) -> Tensor:
        """Map (sample, frame, width) to (sample, out)."""
        return self.head(self.lstm(frames)[0][:, -1])


class ConvEncoder(nn.Module):
    """Two convolutions over time, at a tenth of the cost of the LSTM."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(width, 48, 3, stride=2),
            nn.ELU(),
            nn.Conv1d(48, 32, 3),
            nn.ELU(),
            nn.Flatten(),
        )
        self.head = OutputLayer(64, out)

    def forward(self, frames: Tensor) -> Tensor:
        """Map (sample, frame, width) to (sample, out)."""
        recent = frames[:, 1:].transpose(1, 2)  # windows of three, two apart: these end at the newest frame
        return self.head(self.net(recent))


class StudentActor(nn.Module):
    """Network from the student observation to the mean action, contacts and forces.

    (env, size) to (env, action) and the reconstructed values (env, reconstructed).
    """

    def __init__(
        self, layout: Layout, num_reconstructed: int, actions: int, hidden: Sequence[int], encoder: Encoder
    ) -> None:
        """`num_reconstructed`: number of reconstructed contacts and forces."""
        super().__init__()
        self.layout = layout
        self._history = layout.slices()["history"]
        own = self._history.start
        if self._history.stop != layout.size:
            raise ValueError("the student's history must be the last term of its observation")
        width = (layout.size - own) // HISTORY_FRAMES
        self.normaliser = Normaliser(layout.size)
        self.felt_normaliser = Normaliser(num_reconstructed)  # of the reconstructed values; checkpoints hold this name
        self.encoder = make_encoder(encoder, width, num_reconstructed)
        self.net = mlp([own + num_reconstructed, *hidden, actions], gain_out=0.01)

    def forward(self, obs: Tensor) -> Tensor:
        """Return the mean of the action distribution."""
        return self.act_and_reconstruct(obs)[0]

    def act_and_reconstruct(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean actions (env, action) and reconstructed values (env, value), standardised."""
        standard = self.normaliser(obs)
        own, history = standard[:, : self._history.start], standard[:, self._history]
        reconstructed = self.encoder(history.unflatten(1, (HISTORY_FRAMES, -1)))
        return self.net(torch.cat([own, reconstructed], dim=1)), reconstructed

    def contact_probabilities(self, reconstructed: Tensor) -> Tensor:
        """Return contact probabilities (env, body) from reconstructed values (env, reconstructed).

        Probability that the contact body touches the object.
        """
        values = reconstructed * self.felt_normaliser.deviation + self.felt_normaliser.mean
        return values[:, : values.shape[1] // len(RECONSTRUCTED)].clamp(0.0, 1.0)


class StudentPolicy(GraspPolicy):
    """Actor on the student's group, critic on the teacher's."""

    stage = "student"
    actor_group = "student"
    actor: StudentActor

    def __init__(
        self, layouts: Mapping[str, Layout], num_actions: int, encoder: Encoder = "conv", **options: Any
    ) -> None:
        """`layouts`: of both observation groups. `options`: those of GraspPolicy."""
        self._encoder: Encoder = encoder
        teacher = layouts["teacher"].slices()
        self.reconstructed_columns = [
            column for name in RECONSTRUCTED for column in range(teacher[name].start, teacher[name].stop)
        ]
        """Columns of the teacher's group that are reconstructed."""
        super().__init__(layouts, num_actions, **options)

    def _make_actor(self) -> nn.Module:
        return StudentActor(
            self.layouts["student"], len(self.reconstructed_columns), self.num_actions, self.hidden, self._encoder
        )

    @property
    def architecture(self) -> Architecture:
        """Architecture of the networks, as a checkpoint stores it."""
        return replace(super().architecture, encoder=self._encoder)

    def update_normalisers(self, obs: Mapping[str, Tensor]) -> None:
        """Merge observations (..., size) of both groups into the normalisers."""
        self.update_actor_normalisers(obs)
        self.critic.normaliser.update(obs["teacher"])

    @torch.no_grad()
    def update_actor_normalisers(self, obs: Mapping[str, Tensor]) -> None:
        """Merge observations (..., size) into the actor's normalisers, before it copies its teacher's weights."""
        self.actor.normaliser.update(obs["student"])
        self.actor.felt_normaliser.update(obs["teacher"][..., self.reconstructed_columns])

    @torch.no_grad()
    def copy_teacher(self, teacher: GraspPolicy) -> None:
        """Copy the teacher's weights where observation terms match; the critic is copied whole.

        The first layer of the teacher is W (x - m) / s + b; with the student's own scales the same function has the
        columns W s'/s and the offset b + W (m' - m) / s.
        """
        source, own = teacher.actor, self.actor
        assert isinstance(source, Actor)
        self.critic.load_state_dict(teacher.critic.state_dict())
        first, into = source.net[0], own.net[0]
        assert isinstance(first, nn.Linear) and isinstance(into, nn.Linear)
        scale = source.normaliser.deviation
        mine_mean = torch.cat([own.normaliser.mean[: own._history.start], own.felt_normaliser.mean])
        mine_scale = torch.cat([own.normaliser.deviation[: own._history.start], own.felt_normaliser.deviation])
        weight, bias = torch.zeros_like(into.weight), first.bias.clone()
        for mine, theirs in self._pairs():
            part = first.weight[:, theirs] / scale[theirs]
            weight[:, mine] = part * mine_scale[mine]
            bias += part @ (mine_mean[mine] - source.normaliser.mean[theirs])
        into.weight.copy_(weight)
        into.bias.copy_(bias)
        for layer, other in zip(list(own.net)[1:], list(source.net)[1:], strict=True):
            layer.load_state_dict(other.state_dict())

    def _pairs(self) -> list[tuple[slice, slice]]:
        """Return pairs: columns of the actor's input, columns of the teacher's that they correspond to."""
        mine, theirs = self.layouts["student"].slices(), self.layouts["teacher"].slices()
        named = [(part, TEACHER_TERM.get(name, name)) for name, part in mine.items()]
        pairs = [(part, theirs[name]) for part, name in named if name in theirs]
        start = self.actor._history.start
        for name in RECONSTRUCTED:
            size = theirs[name].stop - theirs[name].start
            pairs.append((slice(start, start + size), theirs[name]))
            start += size
        return pairs


def make_policy(architecture: Architecture, layouts: Mapping[str, Layout]) -> GraspPolicy:
    """Build the policy that a checkpoint describes.

    `layouts`: of the observation groups, with these sizes.
    """
    shape = {"hidden": architecture.hidden, "init_std": architecture.init_std}
    if architecture.stage == "teacher":
        return GraspPolicy(layouts, architecture.num_actions, **shape)
    return StudentPolicy(layouts, architecture.num_actions, architecture.encoder or "conv", **shape)

"""Disturbances: the object is moved or pushed unseen, heavier than it looks, or slippery."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from dexgrasp.perception.transforms import quat_rotate
from dexgrasp.sim.engine.base import Engine, State
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws, draw_shift
from dexgrasp.sim.randomization.trial_rng import TrialRandom
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import GRAVITY_M_S2
from dexgrasp.sim.task.actions import Phases
from dexgrasp.sim.task.outcomes import opposed_contact
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.rows import Rows

SHIFT_TRIGGER_M = 0.07
"""Distance between object and nearest keypoint at which the object is moved, once."""
CLEARANCE_M = 0.02
"""Least distance of the moved object's points from every keypoint: fingers are 12 mm thick."""
GRIP_S = 0.25
"""Time of uninterrupted touch by thumb and a finger after which the object counts as gripped. At the first touch the
force would accelerate a free object of 40 g with 60 m/s^2, before any hand can close."""
FORCE_TURN_S = 1.0
"""Time after which the direction of the force changes."""
PUSH_S = 0.2
"""Length of the push of domain randomisation."""
MIXED = "mixed"
"""Name of the mixture for training: each episode draws a kind, or none, at up to `Disturber.level` of its strength."""
MIXTURE = {"none": 0.3, "shift5": 0.2, "force": 0.3, "heavy": 0.05, "slippery": 0.15}
"""Probability of each kind in the mixture."""


@dataclass(frozen=True)
@bounded
class DisturbanceCfg:
    """Set how often the object is shifted, and how hard it is pushed."""

    per: Literal["trial", "attempt"] = "trial"
    """Shift of shift3 and shift5: trial = one in the first attempt that comes near the object; attempt = one in each
    attempt, drawn anew from the seed of the trial."""
    force_n: Annotated[float, Bounds(0, 100)] = 2.5
    """Pushing force of disturbance=force [N]; 0 where force_weights is given."""
    force_weights: Annotated[float, Bounds(0, 100)] = 0.0
    """Pushing force of disturbance=force as a multiple of the object's weight; 0 where force_n is given."""

    def __post_init__(self) -> None:
        if (self.force_n > 0) == (self.force_weights > 0):
            raise ValueError(
                "task.disturbance needs exactly one of force_n and force_weights above 0, got "
                f"{self.force_n:g} and {self.force_weights:g}: force_n=0 force_weights=2 pushes with twice the weight"
            )

    def force_in_words(self) -> str:
        """Return the pushing force: "2.5 N", or "2 times the weight"."""
        return f"{self.force_n:g} N" if self.force_n else f"{self.force_weights:g} times the weight"


@dataclass(frozen=True)
class Disturbance:
    """Set one kind of disturbance of an evaluation; the defaults disturb nothing."""

    shift_m: float = 0.0
    """Radius of the disc within which the object is moved, once, unseen [m]."""
    force: float = 0.0
    """Share of `DisturbanceCfg`'s force that acts on the centre of mass from the grip on until the hand opens."""
    mass_scale: float = 1.0
    """Factor on the object's mass."""
    friction: float | None = None
    """Sliding friction of the object against the hand; None: as drawn."""


DISTURBANCES = {
    "none": Disturbance(),
    "shift3": Disturbance(shift_m=0.03),
    "shift5": Disturbance(shift_m=0.05),
    "force": Disturbance(force=1.0),
    "heavy": Disturbance(mass_scale=2.0),
    "slippery": Disturbance(friction=0.3),
}


def disturbance_named(name: str) -> Disturbance:
    """Return the disturbance `name`. Raise ValueError, which lists them, where there is none."""
    if name not in DISTURBANCES:
        raise ValueError(f"disturbance must be one of {[*DISTURBANCES, MIXED]}, got '{name}'")
    return DISTURBANCES[name]


class Disturber:
    """Disturbs the episodes of a batch: with one kind in all of them, or with a mixture."""

    def __init__(
        self,
        name: str,
        hand: HandSpec,
        num_envs: int,
        step_s: float,
        device: torch.device | str = "cpu",
        cfg: DisturbanceCfg | None = None,
    ) -> None:
        self.name, self._step_s, self._cfg = name, step_s, cfg or DisturbanceCfg()
        self._kinds = [disturbance_named(kind) for kind in (MIXTURE if name == MIXED else (name,))]
        self._thresholds = (
            torch.tensor(list(MIXTURE.values()) if name == MIXED else [1.0]).cumsum(0)[:-1].double().to(device)
        )
        self.level = 1.0
        """Strength of a mixture, from 0 to 1; read at every reset."""
        self._thumb, self._fingers = (torch.tensor(mask, device=device) for mask in (hand.thumb_mask, hand.finger_mask))
        self._shift_m, self._force = (torch.zeros(num_envs, dtype=torch.float64, device=device) for _ in range(2))
        self.shift_xy_w = torch.zeros(num_envs, 2, dtype=torch.float64, device=device)
        """(env, 2) sum of the shifts of the trial: the object was moved by them, not pushed by the hand [m]."""
        self._has_force = self._has_shift = False
        self.shifted, self.gripped = (torch.zeros(num_envs, dtype=torch.bool, device=device) for _ in range(2))
        """(env,) whether the object was moved, and whether it is gripped."""
        self._touched_steps = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._grip_steps = max(1, round(GRIP_S / step_s))

    def reset(self, rows: Tensor, draws: EpisodeDraws) -> None:
        """Reset `rows`: choose their disturbance, and change their draws of mass and friction accordingly."""
        self.shifted[rows], self.shift_xy_w[rows] = False, 0.0
        self.release(rows)
        which, amount = draws.disturbance.T.contiguous()
        kind = torch.bucketize(which, self._thresholds, right=True)
        amount = self.level * amount if self.name == MIXED else torch.ones_like(amount)

        def column(values: list[float]) -> Tensor:
            return amount.new_tensor(values)[kind]

        reach = self.level if self.name == MIXED else 1.0  # the shift is drawn in a disc, the force's time by the grip
        self._shift_m[rows] = reach * column([kind.shift_m for kind in self._kinds])
        self._force[rows] = reach * column([kind.force for kind in self._kinds])
        self._has_force, self._has_shift = (bool((value > 0).any()) for value in (self._force, self._shift_m))
        draws.mass_scale *= 1 + amount * (column([kind.mass_scale for kind in self._kinds]) - 1)
        slippery = column([kind.friction or 0.0 for kind in self._kinds])
        mixed = (1 - amount) * draws.friction + amount * slippery
        draws.friction[:] = torch.where(slippery > 0, mixed, draws.friction)

    @property
    def kinds(self) -> tuple[bool, bool]:
        """Return whether any open episode has a steady force, and whether any has a shift."""
        return self._has_force, self._has_shift

    def release(self, rows: Tensor) -> None:
        """Mark the objects of `rows` as released: the steady force stops until the next grip."""
        self.gripped[rows], self._touched_steps[rows] = False, 0

    def start_attempt(self, rows: Tensor, draws: EpisodeDraws, attempts: Tensor) -> None:
        """Prepare the next attempt of `rows`: no grip; with per=attempt a new shift is drawn into `draws`.

        `attempts` (env,) int64: number of grasps, the next one included.
        """
        self.release(rows)
        if self._cfg.per == "attempt":
            self.shifted[rows] = False
            draws.shift[rows] = draw_shift(TrialRandom(draws.key[rows]), attempts[rows] - 1)

    def apply(
        self,
        engine: Engine,
        draws: EpisodeDraws,
        phases: Phases,
        distance_m: Tensor,
        points_o: Tensor,
        may_shift: bool = True,
    ) -> None:
        """Move or push objects before a physics step.

        `distance_m` (env,): nearest keypoint from the object. `points_o` (env, point, 3): its surface, object frame.
        `may_shift`: whether any environment is in its grasp phase.
        """
        if self._has_shift and may_shift:
            near = (distance_m < SHIFT_TRIGGER_M) & ~self.shifted & phases.grasping & (self._shift_m > 0)
            self._shift(engine, draws, Rows.where(near), points_o)
        force = self._push(draws, phases)
        if self._has_force:
            force = force + self._steady_force(engine.state, draws, phases)
        engine.push(force)

    def _push(self, draws: EpisodeDraws, phases: Phases) -> Tensor:
        """Return the push of domain randomisation (env, 3) [N]; in lift or hold, as it would throw a free object."""
        held_steps = phases.episode_steps - phases.grasp_steps
        since_s = (phases.step - phases.grasp_steps - (draws.push_at * held_steps).floor()) * self._step_s
        return torch.where(((since_s >= 0) & (since_s < PUSH_S))[:, None], draws.push, 0.0)

    def _steady_force(self, state: State, draws: EpisodeDraws, phases: Phases) -> Tensor:
        """Return the force of the evaluation (env, 3) [N], which acts from the grip on."""
        both = opposed_contact(state.object_contact, self._thumb, self._fingers)
        self._touched_steps = torch.where(both & (phases.step >= 0), self._touched_steps + 1, 0)
        self.gripped |= self._touched_steps >= self._grip_steps
        turn = (phases.step * self._step_s / FORCE_TURN_S).long() % draws.force.shape[1]
        direction = draws.force[torch.arange(len(turn), device=turn.device), turn]
        newtons = self._cfg.force_n or self._cfg.force_weights * GRAVITY_M_S2 * state.object_mass
        return direction * (self._force * newtons * self.gripped)[:, None]

    def _shift(self, engine: Engine, draws: EpisodeDraws, near: Rows, points_o: Tensor) -> None:
        if not len(near):
            return
        state, rows = engine.state, near.index
        pos, keypoints_w = state.object_pos_w[rows].double(), state.keypoints_w[rows].double()
        points_w = quat_rotate(state.object_quat_w[rows][:, None], points_o[rows].double()) + pos[:, None]
        shift = free_shift(draws.shift[rows], self._shift_m[rows], points_w, keypoints_w)
        pos[:, :2] += shift
        engine.move_object(rows, pos, near.counted)
        near.write(self.shift_xy_w, self.shift_xy_w[rows] + shift)
        near.write(self.shifted, torch.ones_like(rows, dtype=torch.bool))


def free_shift(tries: Tensor, shift_m: Tensor, points_w: Tensor, keypoints_w: Tensor) -> Tensor:
    """Return the first of the displacements that keeps clear of the hand (row, 2) [m].

    Displacements are `tries` (row, try, 2) times `shift_m` (row,).
    `points_w` (row, point, 3), `keypoints_w` (row, keypoint, 3). Where none is free, the clearest one is taken.
    """
    tries = tries * shift_m[:, None, None]
    clearance = torch.stack([_clearance(points_w, keypoints_w, tries[:, k]) for k in range(tries.shape[1])], dim=1)
    free = clearance > CLEARANCE_M
    pick = torch.where(free.any(dim=1), free.int().argmax(dim=1), clearance.argmax(dim=1))
    return tries[torch.arange(len(tries), device=tries.device), pick]


def _clearance(points_w: Tensor, keypoints_w: Tensor, shift_xy: Tensor) -> Tensor:
    """Return the distance of the moved points from the nearest keypoint, or midpoint of two, (row,) [m]."""
    hand = torch.cat([keypoints_w, (keypoints_w[:, 1:] + keypoints_w[:, :-1]) / 2], dim=1)
    moved = points_w.clone()
    moved[..., :2] += shift_xy[:, None]
    return torch.cdist(hand, moved).amin(dim=(1, 2))

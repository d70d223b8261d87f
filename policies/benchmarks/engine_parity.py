"""Compare the engines: motion without contact to float32 precision, grasps by their success.

The CPU engine is deterministic. Warp on a GPU sums contact forces in any order, and contact amplifies the last bit;
its success must stay within a band, `ALIKE` and `rate_band`, around the CPU engine and around a repetition on Warp.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexgrasp.perception.transforms import quat_from_rotvec, quat_multiply
from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.evaluation.config import EvaluateCfg, make_task
from dexgrasp.policies.evaluation.episodes import play
from dexgrasp.policies.evaluation.statistics import success_summary
from dexgrasp.sim.engine.base import Engine, InitialState, PhysicsVariation
from dexgrasp.sim.engine.config import EngineName
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.outcomes import Outcome

PERIOD_S = 0.05
AFTER = (1, 10, 100)
"""Control steps after which the states are compared."""
HAND = ("joint_pos", "palm_pos_w", "palm_quat_w", "keypoints_w")
FLIGHT = ("object_pos_w", "object_quat_w", "object_linvel_w", "object_angvel_w")
ALLOWED = {1: (1e-6, 1e-6), 10: (2e-6, 5e-6), 100: (5e-6, 5e-5)}
"""Control steps -> largest differences that float32 explains, of HAND [rad, m] and of FLIGHT (rotation accumulates)."""
ALIKE = 0.95
"""Minimum share of trials with equal success on both engines, and in two runs on Warp."""


def flying(hand: HandSpec, library: ObjectLibrary, rows: int) -> InitialState:
    """Return an initial state without contact: no gravity, objects high beside the hands."""
    names = [library.names[row % len(library)] for row in range(rows)]
    spread = torch.linspace(-0.1, 0.1, rows).double()
    away = torch.stack([spread + 0.7, spread, 0 * spread + 0.6], dim=1)
    down = torch.tensor([0.5**0.5, 0.0, 0.5**0.5, 0.0]).double().repeat(rows, 1)
    return InitialState(
        objects=names,
        object_pos_w=away,
        object_quat_w=quat_from_rotvec(torch.stack([3 * spread, 0 * spread, 5 * spread], dim=1)),
        palm_pos_w=torch.tensor([0.1, 0.05, 0.5]).double().repeat(rows, 1),
        palm_quat_w=down,
        joint_pos=torch.tensor(hand.open_pose).repeat(rows, 1),
        variation=replace(
            PhysicsVariation.none(rows, len(hand.motors.names)), gravity=torch.zeros(rows, 3, dtype=torch.float64)
        ),
    )


def free_motion(engines: Sequence[Engine], hand: HandSpec, library: ObjectLibrary) -> dict[int, dict[str, float]]:
    """Return the largest differences between two engines in motion without contact.

    {control steps: {quantity: difference}}

    From identical states, fingers move to random targets, palms move and turn along a curve, objects fly and spin.
    """
    rows = engines[0].num_envs
    start = flying(hand, library, rows)
    for engine in engines:
        every = torch.arange(rows, device=engine.device)
        engine.reset(every, moved(start, engine.device))
        speed = {"object_linvel_w": [0.1, 0.0, 0.05], "object_angvel_w": [0.3, 0.5, -0.2]}
        engine.write(every, {name: torch.tensor(v, device=engine.device).repeat(rows, 1) for name, v in speed.items()})
    rng, found = np.random.default_rng(0), {}
    for step in range(1, max(AFTER) + 1):
        fingers = hand.motors.positions(start.joint_pos)
        fingers = fingers + torch.from_numpy(rng.normal(0, 0.2, fingers.shape))
        palm = start.palm_pos_w + 0.05 * torch.tensor([np.sin(step / 9), np.cos(step / 7), 0.0])
        turn = quat_from_rotvec(torch.tensor([[0.02 * step, 0.0, 0.01 * step]]).double())
        targets = fingers, palm, quat_multiply(start.palm_quat_w, turn)
        for engine in engines:
            fingers, palm, turn = (target.to(engine.device) for target in targets)
            engine.step(fingers, palm, turn, PERIOD_S)
        if step in AFTER:
            found[step] = {name: _gap(engines, name) for name in (*HAND, *FLIGHT)}
    return found


def moved(start: InitialState, device: torch.device) -> InitialState:
    """Return a copy of `start` on another device."""
    places: dict[str, Any] = {k: value.to(device) for k, value in vars(start).items() if isinstance(value, Tensor)}
    places["variation"] = PhysicsVariation(**{name: value.to(device) for name, value in vars(start.variation).items()})
    return replace(start, **places)


def _gap(engines: Sequence[Engine], name: str) -> float:
    one, other = (getattr(engine.state, name).double().cpu() for engine in engines)
    return float((one - other).abs().max())


@dataclass(frozen=True)
class EngineComparison:
    """Success of the scripted grasp on both engines, for identical trials."""

    cpu: dict[str, Any]
    warp: dict[str, Any]
    agree: float
    """Share of the trials with equal success on both engines."""

    @property
    def apart(self) -> float:
        """Difference between the two success rates, without sign."""
        return abs(self.cpu["success_rate"] - self.warp["success_rate"])


@dataclass(frozen=True)
class RepeatedComparison:
    """Success of the scripted grasp with several seeds on both engines, and in a second Warp run.

    The second Warp run uses the first seed.
    """

    seeds: dict[int, EngineComparison]
    again: float
    """Share of the trials with equal success in both Warp runs."""
    exact: bool
    """Whether lift, slip and penetration were bit-identical in both Warp runs."""

    @property
    def band(self) -> float:
        """Largest allowed difference between the success rates of a seed."""
        return rate_band(next(iter(self.seeds.values())).warp["trials"])

    @property
    def kept(self) -> bool:
        """Whether every seed and the second Warp run stay within the band."""
        within = (one.agree >= ALIKE and one.apart <= self.band for one in self.seeds.values())
        return self.again >= ALIKE and all(within)

    def lines(self) -> list[str]:
        """Return the lines of text for the terminal."""
        shown = []
        for seed, one in self.seeds.items():
            rates = ", ".join(f"{name} {_rate(found)}" for name, found in (("CPU", one.cpu), ("Warp", one.warp)))
            shown.append(f"scripted grasp, seed {seed}: {rates}; {100 * one.agree:.1f} % end alike")
        last = "to the last bit" if self.exact else "not to the last bit"
        shown.append(f"seed {next(iter(self.seeds))} on Warp once more: {100 * self.again:.1f} % end alike, {last}")
        allowed = f"at least {100 * ALIKE:.0f} % alike, rates not over {100 * self.band:.1f} points apart"
        return [*shown, f"band: {allowed}: {'kept' if self.kept else 'LEFT'}"]


def rate_band(trials: int) -> float:
    """Return the largest plausible difference between two success rates.

    Assumption: a share ALIKE of the trials has equal outcomes.

    Three standard deviations: each other trial moves the difference of the counts by +1 or -1, with equal probability.
    """
    return 3 * math.sqrt((1 - ALIKE) / trials)


def repeats(cfg: EvaluateCfg, hand: HandSpec, library: ObjectLibrary, seeds: int = 3) -> RepeatedComparison:
    """Run `cfg.trials` trials with each of `seeds` seeds on both engines.

    The first seed runs on Warp a second time.
    """
    played = {seed: _on_both(replace(cfg, seed=seed), hand, library) for seed in range(cfg.seed, cfg.seed + seeds)}
    before, after = played[cfg.seed][1], scripted_outcomes(replace(cfg, engine="warp"), hand, library)
    found = {seed: _compared(*pair) for seed, pair in played.items()}
    return RepeatedComparison(seeds=found, again=share_alike(before, after), exact=repr(before) == repr(after))


def _on_both(cfg: EvaluateCfg, hand: HandSpec, library: ObjectLibrary) -> tuple[list[Outcome], list[Outcome]]:
    names: tuple[EngineName, ...] = ("cpu", "warp")
    cpu, warp = (scripted_outcomes(replace(cfg, engine=name), hand, library) for name in names)
    return cpu, warp


def _compared(cpu: list[Outcome], warp: list[Outcome]) -> EngineComparison:
    counts = [success_summary(sum(one.success for one in won), len(won)) for won in (cpu, warp)]
    return EngineComparison(cpu=counts[0], warp=counts[1], agree=share_alike(cpu, warp))


def share_alike(one: Sequence[Outcome], other: Sequence[Outcome]) -> float:
    """Return the share of the trials with equal success."""
    return float(np.mean([a.success == b.success for a, b in zip(one, other, strict=True)]))


def _rate(found: dict[str, Any]) -> str:
    low, high = (100 * end for end in found["wilson95"])
    return f"{found['successes']} of {found['trials']} ({100 * found['success_rate']:.1f} %, {low:.1f} – {high:.1f})"


def scripted_outcomes(cfg: EvaluateCfg, hand: HandSpec, library: ObjectLibrary) -> list[Outcome]:
    """Return the outcomes of `cfg.trials` scripted grasps."""
    task = make_task(cfg, hand, library, "none", cfg.rows())
    policy, outcomes = make_policy("synergy", task), []
    for first in range(0, cfg.trials, cfg.rows()):
        outcomes += play(task, policy, range(first, first + cfg.rows()))
    return outcomes[: cfg.trials]

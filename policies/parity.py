"""How far the engines agree: to the last digits without contact, in their successes with it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perception.geometry import quat_from_rotvec, quat_multiply
from policies.evaluate import EvaluateCfg, make_task, run_block
from policies.statistics import success_summary
from policies.synergy import make_policy
from sim.engine import Engine, Start, Variation
from sim.engines import EngineName
from sim.hands import HandSpec
from sim.objects import ObjectLibrary

PERIOD_S = 0.05
AFTER = (1, 10, 100)
"""Control steps after which the engines are compared."""
HAND = ("joint_pos", "palm_pos_w", "palm_quat_w", "keypoints_w")
FLIGHT = ("object_pos_w", "object_quat_w", "object_linvel_w", "object_angvel_w")
ALLOWED = {1: (1e-6, 1e-6), 10: (2e-6, 5e-6), 100: (5e-6, 5e-5)}
"""By control steps, what float32 explains: of HAND [rad, m], and of FLIGHT, whose turning adds its errors up."""


def flying(hand: HandSpec, library: ObjectLibrary, rows: int) -> Start:
    """Objects high beside the hands, without weight: nothing touches anything."""
    names = [library.names[row % len(library)] for row in range(rows)]
    spread = torch.linspace(-0.1, 0.1, rows).double()
    away = torch.stack([spread + 0.7, spread, 0 * spread + 0.6], dim=1)
    down = torch.tensor([0.5**0.5, 0.0, 0.5**0.5, 0.0]).double().repeat(rows, 1)
    return Start(
        objects=names,
        object_pos_w=away,
        object_quat_w=quat_from_rotvec(torch.stack([3 * spread, 0 * spread, 5 * spread], dim=1)),
        palm_pos_w=torch.tensor([0.1, 0.05, 0.5]).double().repeat(rows, 1),
        palm_quat_w=down,
        joint_pos=torch.tensor(hand.open_pose).repeat(rows, 1),
        variation=replace(
            Variation.none(rows, len(hand.joint_names)), gravity=torch.zeros(rows, 3, dtype=torch.float64)
        ),
    )


def free_motion(engines: Sequence[Engine], hand: HandSpec, library: ObjectLibrary) -> dict[int, dict[str, float]]:
    """Greatest difference of two engines in each quantity, after so many control steps without any contact.

    From identical states: fingers go to random targets, palms along a curve and turn, objects fly and spin.
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
        fingers = start.joint_pos + torch.from_numpy(rng.normal(0, 0.2, start.joint_pos.shape))
        palm = start.palm_pos_w + 0.05 * torch.tensor([np.sin(step / 9), np.cos(step / 7), 0.0])
        turn = quat_from_rotvec(torch.tensor([[0.02 * step, 0.0, 0.01 * step]]).double())
        targets = fingers, palm, quat_multiply(start.palm_quat_w, turn)
        for engine in engines:
            fingers, palm, turn = (target.to(engine.device) for target in targets)
            engine.step(fingers, palm, turn, PERIOD_S)
        if step in AFTER:
            found[step] = {name: _gap(engines, name) for name in (*HAND, *FLIGHT)}
    return found


def moved(start: Start, device: torch.device) -> Start:
    """The same start on another device."""
    places: dict[str, Any] = {k: value.to(device) for k, value in vars(start).items() if isinstance(value, Tensor)}
    places["variation"] = Variation(**{name: value.to(device) for name, value in vars(start.variation).items()})
    return replace(start, **places)


def _gap(engines: Sequence[Engine], name: str) -> float:
    one, other = (getattr(engine.state, name).double().cpu() for engine in engines)
    return float((one - other).abs().max())


@dataclass(frozen=True)
class Grasps:
    """Successes of the scripted grasp on the same trials."""

    cpu: dict[str, object]
    warp: dict[str, object]
    agree: float
    """Share of the trials that end alike."""


def grasps(cfg: EvaluateCfg, hand: HandSpec, library: ObjectLibrary) -> Grasps:
    """`cfg.trials` trials of the scripted grasp on both engines."""
    names: tuple[EngineName, ...] = ("cpu", "warp")
    won = [_successes(replace(cfg, engine=name), hand, library) for name in names]
    counts = [success_summary(sum(one), len(one)) for one in won]
    return Grasps(counts[0], counts[1], agree=float(np.mean(np.equal(won[0], won[1]))))


def _successes(cfg: EvaluateCfg, hand: HandSpec, library: ObjectLibrary) -> list[bool]:
    task = make_task(cfg, hand, library, "none", cfg.rows())
    policy, won = make_policy("synergy", task), []
    for first in range(0, cfg.trials, cfg.rows()):
        won += [outcome.success for outcome in run_block(task, policy, range(first, first + cfg.rows()))]
    return won[: cfg.trials]

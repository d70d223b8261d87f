"""What the regression tests measure, and the golden files that hold it.

A measurement plays every shipped object once: fixed seed, physics `balanced`, a hold of one second. The engine repeats
a trial bit by bit on one kind of machine; another one rounds the last place otherwise, which decides a contact here and
there. So the exact is held on the machine that the golden file names, and elsewhere what rounding leaves alone.
"""

import hashlib
import json
import platform
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dexgrasp import assets, configs
from dexgrasp.policies.agents.registry import POLICIES, make_policy
from dexgrasp.policies.evaluation.config import EvaluateCfg, apply_policy_config, make_task
from dexgrasp.policies.run_directory import versions
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.utils.files import write_json

GOLDEN = Path(__file__).parents[1] / "data" / "regression"
SHIPPED = assets.ROOT / "policies"
OPENING_S = 0.3
"""The palm is on its way and the fingers are open: nothing was touched, nothing can diverge."""


@dataclass(frozen=True)
class Case:
    """A policy and the hand that it moves."""

    policy: str
    hand: str = "allegro"

    @property
    def name(self) -> str:
        """As in the name of its golden file."""
        return f"{self.policy}_{self.hand}" if self.policy in POLICIES else self.policy.replace("/", "_")

    @property
    def stage(self) -> str:
        """synergy, teacher or student."""
        return self.policy.rpartition("/")[2]

    @property
    def golden(self) -> Path:
        """Its golden file."""
        return GOLDEN / f"{self.name}.json"

    def sha256(self) -> str:
        """SHA-256 of the shipped checkpoint; empty for the scripted grasp."""
        file = SHIPPED / self.policy / "policy.zip"
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def cases() -> list[Case]:
    """The scripted grasp of each hand, and every policy under assets/policies."""
    shipped = sorted(file.parent.relative_to(SHIPPED).as_posix() for file in SHIPPED.glob("*/*/policy.zip"))
    return [Case("synergy"), Case("synergy", "leap"), *map(Case, shipped)]


def machine() -> dict[str, str | None]:
    """All that decides the last place of a number: libraries choose their kernels by the model of the processor."""
    packages = {name: versions()[name] for name in ("mujoco", "torch", "numpy")}
    kind = {"system": platform.system(), "machine": platform.machine(), "libc": " ".join(platform.libc_ver())}
    return kind | {"processor": processor(), "torch_capability": torch.backends.cpu.get_cpu_capability()} | packages


def processor() -> str:
    """Vendor, family and model, where Linux tells them."""
    file = Path("/proc/cpuinfo")
    first = file.read_text(encoding="utf-8").partition("\n\n")[0] if file.is_file() else ""
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    known = [told[key] for key in ("vendor_id", "cpu family", "model") if key in told]
    return " ".join(known) or platform.processor() or platform.machine()


def measure(case: Case) -> dict:
    """What the golden file holds: successes, weighted reward terms per trial, and how each object's trial ended."""
    torch.set_num_threads(1)
    library = open_library("shipped")
    physics = configs.load_option(PhysicsCfg, "physics", "balanced")
    cfg = EvaluateCfg(case.policy, hand=case.hand, trials=len(library), num_envs=72, physics=physics)
    cfg = apply_policy_config(replace(cfg, task=replace(cfg.task, hold_s=1.0)))
    task = make_task(cfg, HandSpec.load(cfg.hand, side=cfg.side), library, "none", cfg.rows())
    policy = make_policy(case.policy, task)
    opening, whole, outcomes = {}, {}, []
    for first in range(0, cfg.trials, cfg.rows()):
        trials = range(first, first + cfg.rows())
        obs = task.reset(trials)
        policy.reset(trials)
        for step in range(task.episode_steps):
            done = task.step(policy.act(obs), policy.grip)
            obs, terms = done.obs, done.info["terms"]
            _add(whole, terms, cfg.rows() / cfg.trials)
            if step < cfg.task.steps(OPENING_S):
                _add(opening, terms, cfg.rows() / cfg.trials)
        outcomes += task.outcomes()
    return {
        "policy_sha256": case.sha256(),
        "machine": machine(),
        "successes": sum(outcome.success for outcome in outcomes),
        "opening_rewards": {name: round(value, 6) for name, value in opening.items()},
        "rewards": {name: round(value, 6) for name, value in whole.items()},
        "outcomes": {outcome.object: outcome.failure or "held" for outcome in outcomes},
    }


def regenerate(case: Case) -> None:
    """Write the golden file anew."""
    case.golden.parent.mkdir(parents=True, exist_ok=True)
    write_json(case.golden, measure(case))


def read(case: Case) -> dict:
    """The golden file; AssertionError, which says how to make it, where there is none."""
    how = f"{case.golden.name}: make it with `pytest -m regression --regenerate` and look at what changed"
    assert case.golden.is_file(), f"no golden file {how}"
    return json.loads(case.golden.read_text(encoding="utf-8"))


def _add(sums: dict[str, float], terms: dict[str, float], weight: float) -> None:
    for name, value in terms.items():
        sums[name] = sums.get(name, 0.0) + weight * value

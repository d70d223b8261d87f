"""`dexgrasp compare A B`: paired test of two policies on identical trials.

The result is the gains and losses of B, and the p-value of the losses.

RUN/a, RUN/b        the two evaluations, each a run directory of its own
RUN/compare.json    the paired result
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from dexgrasp.policies.evaluation.config import EvaluateCfg, apply_policy_config
from dexgrasp.policies.evaluation.evaluate import evaluate
from dexgrasp.policies.evaluation.trial_store import JsonLinesStore
from dexgrasp.policies.run_directory import Run, default_path
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.utils.files import write_json

LOSS = 1
"""Exit status when B is worse than A by more than chance."""


@dataclass(frozen=True)
class CompareCfg(EvaluateCfg):
    """Run two policies on identical trials; the exit status is 1 if the second one is significantly worse."""

    a: str = ""
    """Reference policy, given as `policy` of `evaluate`."""
    b: str = ""
    """Policy to compare with the reference; the option `policy` is not used."""
    alpha: float = 0.05
    """Significance level: B is worse if the one-sided p-value of its losses is below this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {self.alpha}")

    def evaluation(self, policy: str, out: Path) -> EvaluateCfg:
        """Return the configuration of one evaluation."""
        shared: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(EvaluateCfg)}
        shared["policy"], shared["out"] = policy, str(out)
        return EvaluateCfg(**shared)


@dataclass(frozen=True)
class Paired:
    """Outcomes of two policies on identical trials."""

    both: int
    gained: list[Outcome]
    """Outcomes of B in the trials where only B succeeds."""
    lost: list[Outcome]
    """Outcomes of B in the trials where only A succeeds."""
    neither: int

    @property
    def trials(self) -> int:
        """Number of trials."""
        return self.both + self.neither + len(self.gained) + len(self.lost)

    @property
    def difference(self) -> float:
        """Success rate of B minus that of A."""
        return (len(self.gained) - len(self.lost)) / self.trials

    def p_value(self, alternative: str = "two-sided") -> float:
        """Return the p-value of McNemar's exact test: gains among the trials that differ, both equally likely."""
        differing = len(self.gained) + len(self.lost)
        return float(binomtest(len(self.gained), differing, 0.5, alternative).pvalue) if differing else 1.0


def pair(a: list[Outcome], b: list[Outcome]) -> Paired:
    """Pair the outcomes of A and B trial by trial; raises ValueError where the trials differ."""
    keys = [[(outcome.disturbance, outcome.trial, outcome.object) for outcome in side] for side in (a, b)]
    if keys[0] != keys[1]:
        raise ValueError(f"the two evaluations are not about the same trials: {len(a)} and {len(b)} of them")
    both = list(zip(a, b, strict=True))
    return Paired(
        both=sum(x.success and y.success for x, y in both),
        gained=[y for x, y in both if y.success and not x.success],
        lost=[y for x, y in both if x.success and not y.success],
        neither=sum(not x.success and not y.success for x, y in both),
    )


def compare(cfg: CompareCfg) -> int:
    """Evaluate both policies, print the difference, write RUN/compare.json; return the exit status."""
    if not cfg.a or not cfg.b:
        raise ValueError("compare needs two policies: dexgrasp compare A B")
    out = Path(cfg.out) if cfg.out else default_path("compare")
    sides = {"a": cfg.a, "b": cfg.b}
    for side, policy in sides.items():  # both, before the first is run
        apply_policy_config(cfg.evaluation(policy, out / side))
    with Run.open(out, cfg) as run:
        for side, policy in sides.items():
            evaluate(cfg.evaluation(policy, out / side))
        paired = pair(*(JsonLinesStore(out / side / "trials.jsonl").read() for side in sides))
        worse = paired.p_value("less") < cfg.alpha
        write_json(run.path / "compare.json", summary(cfg, paired) | {"facts": run.facts})
        _show(cfg, paired, worse)
    return LOSS if worse else 0


def summary(cfg: CompareCfg, paired: Paired) -> dict[str, Any]:
    """Return the content of compare.json."""
    return {
        "a": cfg.a,
        "b": cfg.b,
        "trials": paired.trials,
        "both": paired.both,
        "neither": paired.neither,
        "gained": [outcome.object for outcome in paired.gained],
        "lost": [outcome.object for outcome in paired.lost],
        "difference": paired.difference,
        "p_value": paired.p_value(),
        "p_value_loss": paired.p_value("less"),
    }


def _show(cfg: CompareCfg, paired: Paired, worse: bool) -> None:
    table = Table("", "B succeeds", "B fails", title=f"A = {cfg.a}, B = {cfg.b}, {paired.trials} trials")
    table.add_row("A succeeds", str(paired.both), str(len(paired.lost)))
    table.add_row("A fails", str(len(paired.gained)), str(paired.neither))
    Console(width=100).print(table)
    for word, outcomes in (("gained", paired.gained), ("lost", paired.lost)):
        names = sorted({outcome.object for outcome in outcomes})
        print(f"{word}: {', '.join(names) or 'none'}")
    verdict = "significantly worse" if worse else "no significant loss"
    print(f"B - A: {100 * paired.difference:+.1f} points, McNemar p = {paired.p_value():.3f}: {verdict}")

"""`dexgrasp compare A B`: paired test of two policies on identical trials.

The result is the gains and losses of B, and the p-value of the losses.

RUN/a, RUN/b        the two evaluations, each a run directory of its own
RUN/compare.json    the paired result
RUN/report.html     both evaluations side by side
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from dexgrasp import configs
from dexgrasp.policies.evaluation.conditions import camera_errors_note
from dexgrasp.policies.evaluation.config import EvaluateCfg, apply_policy_config
from dexgrasp.policies.evaluation.evaluate import MAY_DIFFER, evaluate
from dexgrasp.policies.evaluation.report import write_comparison
from dexgrasp.policies.evaluation.statistics import Paired, pair
from dexgrasp.policies.evaluation.stored_run import StoredRun
from dexgrasp.policies.evaluation.trial_store import has_trials
from dexgrasp.policies.run_directory import Run
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.files import write_json
from dexgrasp.utils.text import counted, print_table

LOSS = 1
"""Exit status when B is worse than A by more than chance."""


@dataclass(frozen=True)
@bounded
class CompareCfg(EvaluateCfg):
    """Run two policies on identical trials; the exit status is 1 if the second one is significantly worse."""

    a: str = ""
    """Reference policy, given as `policy` of `evaluate`."""
    b: str = ""
    """Policy to compare with the reference; the option `policy` is not used."""
    alpha: Annotated[float, Bounds(1e-9, 0.999)] = 0.05
    """Significance level: B is worse if the one-sided p-value of its losses is below this."""

    def evaluation(self, policy: str, out: Path) -> EvaluateCfg:
        """Return the configuration of one evaluation."""
        shared: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(EvaluateCfg)}
        shared["policy"], shared["out"] = policy, str(out)
        return EvaluateCfg(**shared)


def compare(cfg: CompareCfg) -> int:
    """Evaluate both policies, print the difference, write RUN/compare.json; return the exit status."""
    if not cfg.a or not cfg.b:
        raise ValueError("compare needs two policies: dexgrasp compare A B")
    sides = {"a": cfg.a, "b": cfg.b}
    with Run.claim(cfg.out, CompareCfg, resumes=True) as run:
        out = run.path
        for side, policy in sides.items():  # both, before the first is run
            apply_policy_config(cfg.evaluation(policy, out / side))
        begun = any(has_trials(out / side) for side in sides)
        run.record(cfg, may_differ=(*MAY_DIFFER, "alpha") if begun else None)
        for side, policy in sides.items():
            evaluate(cfg.evaluation(policy, out / side))
        runs = [StoredRun.read(out / side) for side in sides]
        paired = pair(*(run.outcomes for run in runs))
        worse = paired.p_value("less") < cfg.alpha
        write_json(run.path / "compare.json", summary(cfg, paired) | {"facts": run.facts})
        _show(cfg, paired, worse)
        for exact in filter(None, dict.fromkeys(camera_errors_note(configs.as_dict(run.cfg)) for run in runs)):
            print(f"camera errors: {exact}")
        print(f"report: {write_comparison(runs, out / 'report.html')}")
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
    rows = [
        ("", "B succeeds", "B fails"),
        ("A succeeds", str(paired.both), str(len(paired.lost))),
        ("A fails", str(len(paired.gained)), str(paired.neither)),
    ]
    print_table(rows, f"A = {cfg.a}, B = {cfg.b}, {counted(paired.trials, 'trial')}")
    for word, outcomes in (("gained", paired.gained), ("lost", paired.lost)):
        names = sorted({outcome.object for outcome in outcomes})
        print(f"{word}: {', '.join(names) or 'none'}")
    verdict = "significantly worse" if worse else "no significant loss"
    print(f"B - A: {100 * paired.difference:+.1f} points, McNemar p = {paired.p_value():.3f}: {verdict}")

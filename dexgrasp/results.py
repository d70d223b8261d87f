"""The result of `dexgrasp.evaluate`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.evaluation.evaluate import evaluate
from dexgrasp.policies.evaluation.stored_run import StoredRun
from dexgrasp.policies.run_directory import default_path
from dexgrasp.sim.objects import ObjectLibrary, open_library
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.task_options import load
from dexgrasp.utils.plugins import import_plugins, plugin_names


@dataclass(frozen=True)
class EvaluationResult:
    """Success rate of a policy, with the outcome of every trial."""

    success_rate: float
    """Share of successful trials."""
    interval: tuple[float, float]
    """95 % Wilson interval of the success rate."""
    successes: int
    """Number of successful trials."""
    trials: int
    """Number of trials, of all disturbances."""
    failures: dict[str, int]
    """Number of failed trials by kind of failure."""
    outcomes: list[Outcome]
    """Outcome of every trial, ordered by disturbance and number."""
    folder: Path
    """Run directory: result.json, report.html, the trials."""


def evaluate_policy(
    policy: str, objects: str | Path | ObjectLibrary, trials: int, options: Mapping[str, Any]
) -> EvaluationResult:
    """Run the evaluation and return its result; `options`: those of `dexgrasp evaluate`."""
    import_plugins(plugin_names(options.get("plugins", ())))
    if isinstance(objects, ObjectLibrary) and set(objects.names) != set(open_library(objects.spec).names):
        raise ValueError(
            f"evaluate: objects is a part of the library {objects.spec}, which would be evaluated as a whole; give a "
            f"folder of the meshes or a generated library of these objects"
        )
    given = {"policy": policy, "objects": objects.spec if isinstance(objects, ObjectLibrary) else objects}
    cfg = load(EvaluateCfg, "evaluate", {**options, **given, "trials": trials}, "evaluate")
    cfg = replace(cfg, out=cfg.out or str(default_path("evaluate")))
    result, folder = evaluate(cfg), Path(cfg.out)
    low, high = result["wilson95"]
    return EvaluationResult(
        success_rate=result["success_rate"],
        interval=(low, high),
        successes=result["successes"],
        trials=result["trials"],
        failures=result["failures"],
        outcomes=StoredRun.read(folder).outcomes,
        folder=folder,
    )

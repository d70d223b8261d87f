"""Write the report of a stored evaluation again, or compare several: `dexgrasp report RUN [RUN ...]`.

Differences are to the first run, with a paired test where the trials are the same.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scipy.stats import fisher_exact

from dexgrasp import configs
from dexgrasp.policies.evaluation.conditions import NO_CONDITION, conditions, repeat_command, success_definition
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.evaluation.evaluate import code_of_trials, diagnostics, object_facts, summarise
from dexgrasp.policies.evaluation.html_report import MOST_OBJECTS, Bar, origin, report_content, write_page
from dexgrasp.policies.evaluation.statistics import FEW, pair, success_summary
from dexgrasp.policies.evaluation.stored_run import StoredRun
from dexgrasp.policies.run_directory import default_path, evaluations, flat
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.utils.output import claim_file
from dexgrasp.utils.readers import DamagedFileError, read_json_object, reading
from dexgrasp.utils.text import comma_separated, counted, shown

log = logging.getLogger("dexgrasp")

REPORT = "report.html"
"""Report of a run, in its folder."""
Success = Callable[[Outcome], bool]


@dataclass(frozen=True)
class ReportCfg:
    """Write the report of one evaluation, or of several side by side; nothing is simulated."""

    runs: tuple[str, ...] = ()
    """Run directories of evaluations, or the folder of a sweep of them; differences are to the first."""
    out: str = ""
    """HTML file; empty = RUN/report.html for one run, runs/report-TIME/report.html for several."""

    def __post_init__(self) -> None:
        if self.out and not self.out.endswith(".html"):
            raise ValueError(f"out must be an .html file, got '{self.out}'")


def report(cfg: ReportCfg) -> Path:
    """Write the report and print its path, with the success rate of every run."""
    if not cfg.runs:
        raise ValueError("report needs the run directory of an evaluation: dexgrasp report RUN [RUN ...]")
    cfg = replace(cfg, runs=tuple(map(str, evaluations(cfg.runs))))
    if twice := [name for name, count in Counter(Path(name).resolve() for name in cfg.runs).items() if count > 1]:
        log.warning("%s is given more than once: its differences to itself say nothing", twice[0])
    _refuse_report_of_another(cfg)
    out = claim_file(cfg.out) if cfg.out else None
    runs = [StoredRun.read(name) for name in cfg.runs]
    for run in runs:
        print(f"{run.path}: {_rate(run)}")
    if len(runs) == 1:
        path = _report_one(runs[0], out or runs[0].path / REPORT)
    else:
        for text in _warnings(runs):
            log.warning(text)
        path = write_comparison(runs, out or default_path("report") / REPORT)
    print(f"report: {path}")
    return path


def _refuse_report_of_another(cfg: ReportCfg) -> None:
    """Raise ValueError where out= is the report.html of a run that is not the only one reported."""
    path = Path(cfg.out).resolve()
    owner = path.parent
    if not (cfg.out and path.name == REPORT and (owner / "run.json").exists()):
        return
    if [Path(name).resolve() for name in cfg.runs] != [owner]:
        raise ValueError(
            f"out={cfg.out} is the report of the run {owner} itself: choose another out=, as {owner.parent / REPORT}"
        )


def _report_one(run: StoredRun, path: Path) -> Path:
    """Write the report of one run from its stored trials, also of a run that was interrupted."""
    code = code_of_trials(run.path, run.facts, run.outcomes)
    result = summarise(run.cfg, run.outcomes, code)
    notes = diagnostics(run.outcomes, _facts_of_objects(run, {}), code)
    missing = f"interrupted: {len(run.outcomes)} of {counted(run.planned, 'trial')} have finished"
    content = report_content(run.path, result, notes, [missing] if len(run.outcomes) < run.planned else [])
    return write_page(path, "report.html.j2", content)


def _facts_of_objects(run: StoredRun, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return `object_facts` of a run: from diagnostics.json and `known`, else from the objects themselves.

    Raises ValueError where none of these has them.
    """
    path, names = run.path / "diagnostics.json", {one.object for one in run.outcomes}
    stored = _stored_facts(path) if path.is_file() else {}
    found = {name: facts for name, facts in {**known, **stored}.items() if name in names}
    if len(found) < len(names):
        try:
            found |= object_facts(run.outcomes, open_library(run.cfg.objects))
        except FileNotFoundError as error:
            raise ValueError(f"{run.path}: {path} does not have all objects of the trials; {error}") from error
    if missing := sorted(names - set(found)):
        raise ValueError(
            f"{run.path}: '{run.cfg.objects}' has no {comma_separated(missing[:3])} any more, and {path} does not "
            f"either: put back the objects of the evaluation"
        )
    return found


def _stored_facts(path: Path) -> dict[str, Any]:
    """Return the facts of objects in a diagnostics.json, those that are whole."""
    with reading(path, "JSON file of an evaluation"):
        stored = read_json_object(path)["objects"]
        for name, facts in stored.items():
            numbers = [facts["mass_kg"], *facts["extents_m"]]
            words = [name, facts["family"], facts["split"]]
            if len(numbers) != 4 or not all(type(n) in (int, float) for n in numbers) or not all(map(_is_text, words)):
                raise DamagedFileError(path, "JSON file of an evaluation", f"facts of {shown(name)} are {shown(facts)}")
        return stored


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _rate(run: StoredRun) -> str:
    row = success_summary(sum(one.success for one in run.outcomes), len(run.outcomes))
    low, high = (100 * end for end in row["wilson95"])
    interrupted = (
        f", interrupted: {row['trials']} of {counted(run.planned, 'trial')}" if row["trials"] < run.planned else ""
    )
    interval = f"95 % interval {low:.1f} – {high:.1f} %"
    return f"{100 * row['success_rate']:.1f} % of {row['trials']} trials ({interval}){interrupted}"


@dataclass(frozen=True)
class RateDifference:
    """Success rate of a run minus that of the first run, on one group of trials."""

    points: float
    """Difference [percentage points]."""
    p_value: float
    paired: bool
    """Whether the p-value is McNemar's on identical trials, otherwise Fisher's on unequal ones."""
    trials: int
    """Number of trials of the run with fewer."""

    @property
    def text(self) -> str:
        """Return difference and p-value in words."""
        points = f"{self.points:+.1f} points".replace("-", "\N{MINUS SIGN}")
        if self.trials < FEW:
            return points
        p_value = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return f"{points}, {p_value}{'' if self.paired else ' (unpaired)'}"

    @property
    def sign(self) -> str:
        """Return "plus", "minus" or "" for a significant gain or loss, or for neither or no p-value."""
        if self.trials < FEW or self.p_value >= 0.05 or not self.points:
            return ""
        return "plus" if self.points > 0 else "minus"


@dataclass(frozen=True)
class ComparisonRow:
    """One line of a table: a group of trials, one bar per run, differences to the first run."""

    label: str
    bars: list[Bar | None]
    """None: the run has no such trial."""
    differences: list[RateDifference | None]
    """Of the second and further runs."""


def write_comparison(runs: Sequence[StoredRun], path: Path) -> Path:
    """Write the page and return its path."""
    return write_page(path, "comparison.html.j2", comparison_content(runs))


def comparison_content(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Return the variables of comparison.html.j2."""
    family_of = _families(runs)
    settings = [configs.as_dict(run.cfg) for run in runs]
    same = [have_same_start(runs[0].cfg, run.cfg) for run in runs[1:]]
    families = _grouped(runs, same, lambda one: family_of[one.object])
    objects = [row for row in _grouped(runs, same, lambda one: one.object) if _spread(row) > 0]
    objects.sort(key=_spread, reverse=True)
    counts = [len({one.object for one in run.outcomes}) for run in runs]
    return {
        "names": _names(runs),
        "warnings": _warnings(runs),
        "paths": [str(run.path) for run in runs],
        "commands": [repeat_command(setting) for setting in settings],
        "conditions": [conditions(settings[i], counts[i]) | origin(run.path, run.facts) for i, run in enumerate(runs)],
        "success": success_definition(settings[0]),
        "different": _different_settings(settings),
        "totals": [
            _row("success at the first attempt", [run.outcomes for run in runs], same, _at_once),
            _row("success", [run.outcomes for run in runs], same),
        ],
        "disturbances": _grouped(runs, same, lambda one: one.disturbance)
        if len(runs[0].cfg.disturbances()) > 1
        else [],
        "families": [row for row in families if _most(row) >= FEW],
        "small_families": [row for row in families if _most(row) < FEW],
        "objects": objects[:MOST_OBJECTS],
        "few": FEW,
        "paired": all(same) and all(_identical(runs[0].outcomes, run.outcomes) for run in runs[1:]),
    }


def _names(runs: Sequence[StoredRun]) -> list[str]:
    """Return a name per run: letter and policy, with the run folder where a policy occurs twice."""
    policies, folders = [run.cfg.policy for run in runs], [run.path.name for run in runs]
    if len(set(folders)) < len(folders):
        folders = [str(run.path) for run in runs]
    return [
        f"{chr(ord('A') + i)}: {policy}{f' ({folder})' if policies.count(policy) > 1 else ''}"
        for i, (policy, folder) in enumerate(zip(policies, folders, strict=True))
    ]


def _warnings(runs: Sequence[StoredRun]) -> list[str]:
    """Return a warning for each run that cannot be compared with the first."""
    return [text for run in runs[1:] if (text := _nothing_in_common(runs[0], run))]


def _nothing_in_common(first: StoredRun, other: StoredRun) -> str:
    """Return a warning where no object of one run occurs in the other."""
    objects, others = ({one.object for one in run.outcomes} for run in (first, other))
    if objects & others or not objects or not others:
        return ""
    return f"{first.path} and {other.path} have no trial in common: their rates are of different objects"


def compare_outcomes(
    first: Sequence[Outcome], other: Sequence[Outcome], success: Success, same_start: bool
) -> RateDifference | None:
    """Return the difference of `other` to `first`; None where one of them has no trial.

    Trials are compared in pairs where they are the same ones; `same_start`: equal numbers mean equal trials.
    """
    if not first or not other:
        return None
    rates = [sum(map(success, outcomes)) / len(outcomes) for outcomes in (first, other)]
    points, trials = 100 * (rates[1] - rates[0]), min(len(first), len(other))
    if same_start and _identical(first, other):
        marked = [[_marked(one, success(one)) for one in outcomes] for outcomes in (first, other)]
        return RateDifference(points, pair(*marked).p_value(), paired=True, trials=trials)
    table = [[sum(map(success, outcomes)), sum(not success(one) for one in outcomes)] for outcomes in (first, other)]
    p_value = float(fisher_exact(table)[1])  # pyright: ignore[reportArgumentType]
    return RateDifference(points, p_value, paired=False, trials=trials)


def _families(runs: Sequence[StoredRun]) -> dict[str, str]:
    """Return the family of each object."""
    found: dict[str, Any] = {}
    for run in runs:
        found |= _facts_of_objects(run, found)
    return {name: facts["family"] for name, facts in found.items()}


def have_same_start(first: EvaluateCfg, other: EvaluateCfg) -> bool:
    """Return whether a trial of equal number starts equally in both: seed, start positions, randomisation."""
    return all(getattr(first.task, key) == getattr(other.task, key) for key in ("reset", "randomization")) and (
        first.seed,
        first.objects,
    ) == (other.seed, other.objects)


def _identical(first: Sequence[Outcome], other: Sequence[Outcome]) -> bool:
    keys = [[(one.disturbance, one.trial, one.object) for one in outcomes] for outcomes in (first, other)]
    return keys[0] == keys[1]


def _marked(outcome: Outcome, success: bool) -> Outcome:
    """Return the outcome with another success."""
    return replace(outcome, success=success)


def _success(outcome: Outcome) -> bool:
    return outcome.success


def _at_once(outcome: Outcome) -> bool:
    return outcome.success and outcome.attempts == 1


def _row(
    label: str, groups: Sequence[Sequence[Outcome]], same_start: Sequence[bool], success: Success = _success
) -> ComparisonRow:
    bars = [Bar(label, sum(map(success, group)), len(group)) if group else None for group in groups]
    others = zip(groups[1:], same_start, strict=True)
    return ComparisonRow(label, bars, [compare_outcomes(groups[0], group, success, same) for group, same in others])


def _grouped(
    runs: Sequence[StoredRun], same_start: Sequence[bool], key: Callable[[Outcome], str]
) -> list[ComparisonRow]:
    """Return one row for each value of `key`, in the order of the trials."""
    groups: dict[str, list[list[Outcome]]] = {}
    for i, run in enumerate(runs):
        for one in run.outcomes:
            groups.setdefault(key(one), [[] for _ in runs])[i].append(one)
    return [_row(label, group, same_start) for label, group in groups.items()]


def _spread(row: ComparisonRow) -> float:
    rates = [bar.rate for bar in row.bars if bar is not None]
    return max(rates) - min(rates)


def _most(row: ComparisonRow) -> int:
    return max(bar.trials for bar in row.bars if bar is not None)


def _different_settings(settings: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the keys whose values differ, each with its value in every run."""
    leaves = [flat(setting) for setting in settings]
    keys = [key for key in leaves[0] if key not in NO_CONDITION]
    values = {key: [str(leaf.get(key)) for leaf in leaves] for key in keys}
    return [[key, *shown] for key, shown in values.items() if len(set(shown)) > 1]

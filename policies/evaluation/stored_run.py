"""Read the run directory of an evaluation: configuration, trials, versions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexgrasp import configs
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.evaluation.trial_store import JsonLinesStore, ParquetStore, select
from dexgrasp.policies.run_directory import check_evaluation, read_facts
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.utils.readers import DamagedFileError


@dataclass(frozen=True)
class StoredRun:
    """A finished or interrupted evaluation on disk."""

    path: Path
    cfg: EvaluateCfg
    facts: dict[str, Any]
    """Content of run.json."""
    outcomes: list[Outcome]
    """Outcomes of the requested trials that are stored, in order."""

    @classmethod
    def read(cls, path: str | Path) -> "StoredRun":
        """Read a run directory. Raises ValueError where it holds no trials of an evaluation."""
        path = Path(path)
        check_evaluation(path)
        facts = _facts(path / "run.json")
        cfg = configs.from_dict(EvaluateCfg, configs.read_plain(path / "config.yaml"), str(path / "config.yaml"))
        lines = JsonLinesStore(path / "trials.jsonl")
        stored = lines.read() or (ParquetStore(path / "trials").read() if (path / "trials").is_dir() else [])
        wanted = select(stored, cfg.disturbances(), cfg.trials)
        if not wanted:
            raise ValueError(f"{path} holds no finished trial yet: run the evaluation again with out={path}")
        return cls(path=path, cfg=cfg, facts=facts, outcomes=wanted)

    @property
    def planned(self) -> int:
        """Number of requested trials, of all disturbances."""
        return self.cfg.trials * len(self.cfg.disturbances())

    def outcome(self, trial: int, disturbance: str) -> Outcome:
        """Return the stored outcome of one trial. Raises ValueError where it is not stored."""
        of_disturbance = [one for one in self.outcomes if one.disturbance == disturbance]
        for one in of_disturbance:
            if one.trial == trial:
                return one
        if not of_disturbance:
            known = ", ".join(dict.fromkeys(one.disturbance for one in self.outcomes))
            raise ValueError(f"{self.path} has no trials with disturbance={disturbance}; it has: {known}")
        known = consecutive_ranges([one.trial for one in of_disturbance])
        raise ValueError(f"{self.path} has no trial {trial}: it has {known}")


def consecutive_ranges(numbers: Sequence[int]) -> str:
    """Return ascending trial numbers in words: "trials 0 to 3, 8, 10 to 11"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return "trials " + ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _facts(path: Path) -> dict[str, Any]:
    """Return the content of a run.json. Raises DamagedFileError where what a report takes from it is missing."""
    facts = read_facts(path.parent)
    if missing := [key for key in ("git", "versions", "starts") if key not in facts]:
        raise DamagedFileError(path, "run.json of an evaluation", f"it lacks {', '.join(missing)}")
    return facts

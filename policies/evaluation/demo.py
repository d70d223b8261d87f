"""One command that shows what this is: a hand picks up the shipped objects."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.evaluation.evaluate import evaluate
from dexgrasp.policies.run_directory import default_path


def demo(cfg: EvaluateCfg) -> dict[str, Any]:
    """Evaluate as configs/demo.yaml says; the last three lines are the success rate, a video and the report."""
    out = Path(cfg.out) if cfg.out else default_path("demo")
    result = evaluate(replace(cfg, out=str(out)))
    low, high = (100 * end for end in result["wilson95"])
    count = f"{result['successes']} of {result['trials']} trials"
    print(f"success rate  {100 * result['success_rate']:.1f} % ({count}; 95 % interval {low:.1f} – {high:.1f} %)")
    print(f"video         {best_video(out / 'videos') or 'none (see the warning above)'}")
    print(f"report        {out / 'report.html'}")
    return result


def best_video(folder: Path) -> Path | None:
    """A success if there is one, else a failure, else None."""
    return next(iter(sorted(folder.glob("success_*.mp4")) + sorted(folder.glob("failure_*.mp4"))), None)

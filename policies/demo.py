"""`dexgrasp demo`: evaluate the scripted grasp on the shipped objects, with a video."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from policies.evaluate import evaluate
from policies.evaluate_cfg import EvaluateCfg
from policies.runs import default_path


def demo(cfg: EvaluateCfg) -> dict[str, Any]:
    """Evaluate with the options of configs/demo.yaml; print success rate, video and report as the last three lines."""
    out = Path(cfg.out) if cfg.out else default_path("demo")
    result = evaluate(replace(cfg, out=str(out)))
    low, high = (100 * end for end in result["wilson95"])
    count = f"{result['successes']} of {result['trials']} trials"
    print(f"success rate  {100 * result['success_rate']:.1f} % ({count}; 95 % interval {low:.1f} – {high:.1f} %)")
    print(f"video         {best_video(out / 'videos') or 'none (see the warning above)'}")
    print(f"report        {out / 'report.html'}")
    return result


def best_video(folder: Path) -> Path | None:
    """Return the video of a success, else that of a failure, else None."""
    return next(iter(sorted(folder.glob("success_*.mp4")) + sorted(folder.glob("failure_*.mp4"))), None)

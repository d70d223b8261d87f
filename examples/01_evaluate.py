"""Measure the success rate of a shipped policy, undisturbed and with objects that are shifted during the approach.

python examples/01_evaluate.py --trials 100
"""

import argparse

import dexgrasp


def main(trials: int, policy: str) -> None:
    """Print success rate, 95 % interval and failures for two disturbances."""
    for disturbance in ("none", "shift5"):
        result = dexgrasp.evaluate(
            policy=policy, trials=trials, camera="d435", disturbance=disturbance, num_envs=min(trials, 64)
        )
        low, high = result.interval
        first = sum(outcome.success and outcome.attempts == 1 for outcome in result.outcomes)
        print(f"{disturbance}: {result.success_rate:.1%} ({low:.1%} to {high:.1%}) of {result.trials} trials")
        print(f"  at the first attempt: {first}; failures: {result.failures}")
        print(f"  report: {result.folder / 'report.html'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100, help="number of trials per disturbance")
    parser.add_argument("--policy", default="allegro/student", help="shipped name, run directory, checkpoint or bundle")
    given = parser.parse_args()
    main(given.trials, given.policy)

"""Describe a hand in one folder (a model, hand.yaml), measure it with the scripted grasp, draw it.

python examples/06_own_hand.py --trials 50
"""

import argparse
from pathlib import Path

import dexgrasp
from dexgrasp.sim.robots import HandSpec

HAND = Path(__file__).parent / "three_finger_hand"


def main(trials: int, out: str | None) -> None:
    """Print the description of the hand and the success rate of the scripted grasp with it."""
    hand = HandSpec.load(HAND)
    print(f"{hand.name}: {len(hand.joint_names)} joints, {len(hand.keypoint_names)} keypoints")

    options = {"out": out, "videos": 1} if out else {}
    result = dexgrasp.evaluate(policy="synergy", hand=str(HAND), trials=trials, **options)
    low, high = result.interval
    print(f"scripted grasp: {result.successes} of {result.trials} trials ({low:.0%} to {high:.0%})")
    print(f"failures: {result.failures}")
    print(f"report: {result.folder / 'report.html'}")

    # An untrained student for this hand: the observation and action sizes follow from the description.
    env = dexgrasp.make_gym(HAND)
    print(f"student observation {env.observation_space.shape}, action {env.action_space.shape}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50, help="number of trials")
    parser.add_argument("--out", help="run directory; default: a new one under runs/, without videos")
    given = parser.parse_args()
    main(given.trials, given.out)

"""Sampling weights of training objects: objects that fail often are drawn more often, every object keeps a floor.

probability = floor / n + (1 - floor) (share of the difficulty, mixed with the share of the failures)
"""

from collections.abc import Sequence

import numpy as np

from dexgrasp.sim.objects.manifest import ObjectEntry


def sampling_weights(
    entries: Sequence[ObjectEntry],
    successes: Sequence[int] | np.ndarray | None = None,
    trials: Sequence[int] | np.ndarray | None = None,
    floor: float = 0.3,
    difficulty_share: float = 0.3,
) -> np.ndarray:
    """Return probabilities (object,) of drawing each object; at least floor / number of objects each.

    `successes` and `trials` (object,): counts so far; an object without trials counts as half mastered.
    """
    if not 0 < floor <= 1:
        raise ValueError(f"floor must be in (0, 1], got {floor}: at 0 a mastered object would never be drawn again")
    if not 0 <= difficulty_share <= 1:
        raise ValueError(f"difficulty_share must be in [0, 1], got {difficulty_share}")
    count = len(entries)
    won = np.zeros(count) if successes is None else np.asarray(successes, float)
    tried = np.zeros(count) if trials is None else np.asarray(trials, float)
    if won.shape != (count,) or tried.shape != (count,):
        raise ValueError(f"expected {count} successes and trials, one for each object, got {len(won)} and {len(tried)}")
    if (won > tried).any() or (won < 0).any():
        raise ValueError("successes must lie between 0 and the trials of each object")
    failure = 1 - (won + 1) / (tried + 2)  # Laplace's rule: no trials give one half
    difficulty = np.array([entry.difficulty for entry in entries])
    wanted = difficulty_share * _share(difficulty) + (1 - difficulty_share) * _share(failure)
    return floor / count + (1 - floor) * wanted


def _share(values: np.ndarray) -> np.ndarray:
    total = values.sum()
    return values / total if total > 0 else np.full(len(values), 1 / len(values))

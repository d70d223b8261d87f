"""Random numbers of trials in plain Python, from the definition: SplitMix64 and the CRC-32 of a name."""

import math
import zlib

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(bits):
    """SplitMix64's finaliser of an unsigned number."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


def key(seed, trial):
    """The key of a trial, unsigned."""
    return mix((mix((seed + GAMMA) & MASK) + trial) & MASK)


def uniform(trial_key, name, count=1, at=0):
    """The `at`-th `count` numbers in [0, 1) of a quantity."""
    stream = mix((trial_key + zlib.crc32(name.encode())) & MASK)
    places = range(1 + count * at, 1 + count * (at + 1))
    return [(mix((stream + GAMMA * place) & MASK) >> 11) / 2**53 for place in places]


def normal(trial_key, name, count=1):
    """Standard normal numbers of a quantity, by Box and Muller."""
    radius, turn = (uniform(trial_key, f"{name}, {part}", count) for part in ("radius", "turn"))
    return [math.sqrt(-2 * math.log(1 - r)) * math.cos(2 * math.pi * t) for r, t in zip(radius, turn, strict=True)]

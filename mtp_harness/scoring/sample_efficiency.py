"""How many training tokens a score takes, read between the checkpoints of one training.

The score is log-linear in training tokens between two checkpoints, of which there are at least
three; nothing is said before the first or beyond the last.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

CHECKPOINTS = 3
"""Fewest checkpoints that a score is read between."""


def tokens_to_reach(points: Sequence[tuple[float, float]], score: float) -> float | None:
    """Return the training tokens at which checkpoints first reach a score; more is better.

    None with fewer than three checkpoints, and where it is not first reached between two of them.

    Args:
        points: (training tokens, score) of each checkpoint, by tokens.
        score: To reach.
    """
    if len(points) < CHECKPOINTS or points[0][1] >= score:
        return None
    for (before, low), (after, high) in pairwise(points):
        if low < score <= high:
            share = (score - low) / (high - low)
            return math.exp(math.log(before) + share * math.log(after / before))
    return None

"""How many training tokens a score takes, interpolated between the checkpoints of one training.

Between two checkpoints, the score is taken as linear in the logarithm of training tokens. There
must be at least three checkpoints, and nothing is extrapolated.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

CHECKPOINTS = 3
"""Fewest checkpoints to interpolate between."""


def tokens_to_reach(points: Sequence[tuple[float, float]], score: float) -> float | None:
    """Return the training tokens at which checkpoints first reach a score; higher is better.

    None with fewer than three checkpoints, or if it is not first reached between two of them.

    Args:
        points: (training tokens, score) of each checkpoint, by tokens.
        score: The score to reach.
    """
    if len(points) < CHECKPOINTS or points[0][1] >= score:
        return None
    for (before, low), (after, high) in pairwise(points):
        if low < score <= high:
            share = (score - low) / (high - low)
            return math.exp(math.log(before) + share * math.log(after / before))
    return None

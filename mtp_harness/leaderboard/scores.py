"""Values, 90 % intervals and paired differences of comparable runs, from their documents.

All of it comes from one set of bootstrap replicates over documents (`scoring.bootstrap`), so that a
difference compares models on the same drawn documents.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtp_harness.leaderboard.documents import Score
from mtp_harness.scoring.bootstrap import LEVEL, Estimate, replicates

Floats = NDArray[np.float64]

_TOLERANCE = 1e-6


class Key(NamedTuple):
    """One metric of one run."""

    run: int
    metric: str
    filtered: str


class Scores:
    """The per-document scores of comparable runs.

    A metric takes part where its documents give the value that the results file states; one that is
    pooled in another way (a corpus score) has no interval here.
    """

    def __init__(
        self,
        scores: Mapping[Key, Mapping[str, Score]],
        stated: Mapping[Key, float],
    ) -> None:
        """Draw the replicates.

        Args:
            scores: By document.
            stated: The pooled values of the results files.
        """
        self._means: dict[Key, tuple[float, Floats]] = {}
        self._of_documents: dict[Key, frozenset[str]] = {}
        alike: dict[frozenset[str], list[Key]] = defaultdict(list)
        for key, by_document in scores.items():
            names = frozenset(by_document)
            if key in stated and _agrees(_pooled(list(by_document.values())), stated[key]):
                alike[names].append(key)
                self._of_documents[key] = names
        for names, keys in alike.items():
            self._draw(sorted(names), keys, scores)

    def _draw(
        self, names: Sequence[str], keys: Sequence[Key], scores: Mapping[Key, Mapping[str, Score]]
    ) -> None:
        pairs = np.array([[_pair(scores[key][name]) for key in keys] for name in names])  # [P,C,2]
        drawn = replicates(pairs.reshape(len(names), -1)).reshape(-1, len(keys), 2)  # [R, C, 2]
        own = pairs.mean(axis=0)  # [C, 2]
        with np.errstate(invalid="ignore", divide="ignore"):
            values, resampled = own[:, 0] / own[:, 1], drawn[..., 0] / drawn[..., 1]
        for place, key in enumerate(keys):
            self._means[key] = (float(values[place]), resampled[:, place])

    def estimate(self, key: Key) -> Estimate | None:
        """Return a metric with its interval; None where its documents are not known."""
        if key not in self._means:
            return None
        value, resampled = self._means[key]
        return _estimate(value, resampled)

    def difference(self, key: Key, baseline: Key) -> Estimate | None:
        """Return a metric less the baseline's, paired by document; None where that cannot be."""
        if not {key, baseline} <= self._means.keys():
            return None
        if self._of_documents[key] != self._of_documents[baseline]:
            return None
        (value, mine), (other, its) = self._means[key], self._means[baseline]
        return _estimate(value - other, mine - its)


def _estimate(value: float, resampled: Floats) -> Estimate | None:
    known = resampled[~np.isnan(resampled)]  # a replicate may have drawn no step at all
    if not len(known) or np.isnan(value):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def _pair(score: Score) -> tuple[float, float]:
    return score if isinstance(score, tuple) else (score, 1.0)


def _pooled(scores: Sequence[Score]) -> float:
    numerator = sum(_pair(score)[0] for score in scores)
    denominator = sum(_pair(score)[1] for score in scores)
    return numerator / denominator if denominator else float("nan")


def _agrees(one: float, other: float) -> bool:
    return abs(one - other) <= _TOLERANCE * max(1.0, abs(other))

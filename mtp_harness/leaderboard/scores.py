"""Values, 90 % intervals and paired differences of comparable runs, from their documents.

All of it comes from one set of bootstrap replicates over documents (`scoring.bootstrap`), so that a
difference compares models on the same drawn documents.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtp_harness.leaderboard.documents import Score
from mtp_harness.scoring.bootstrap import LEVEL, Estimate, replicates

Floats = NDArray[np.float64]

_TOLERANCE = 1e-6

KEPT = 256
"""Metrics whose replicates are remembered, 80 kB each."""


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
        """Take the scores; replicates are drawn when they are asked for.

        Args:
            scores: By document.
            stated: The pooled values of the results files.
        """
        self._scores = {
            key: by_document
            for key, by_document in scores.items()
            if key in stated and _agrees(_pooled(list(by_document.values())), stated[key])
        }
        self._recent: OrderedDict[Key, Floats] = OrderedDict()

    def _drawn(self, key: Key) -> Floats:
        """Return a metric in each replicate, [R]; all keys of the same documents share them."""
        if key not in self._recent:
            by_document = self._scores[key]
            pairs = np.array([_pair(by_document[name]) for name in sorted(by_document)])  # [P, 2]
            sums = replicates(pairs)  # [R, 2]
            with np.errstate(invalid="ignore", divide="ignore"):
                self._recent[key] = sums[:, 0] / sums[:, 1]
            if len(self._recent) > KEPT:
                self._recent.popitem(last=False)
        self._recent.move_to_end(key)
        return self._recent[key]

    def _value(self, key: Key) -> float:
        return _pooled(list(self._scores[key].values()))

    def estimate(self, key: Key) -> Estimate | None:
        """Return a metric with its interval; None where its documents are not known."""
        if key not in self._scores:
            return None
        return _estimate(self._value(key), self._drawn(key))

    def difference(self, key: Key, baseline: Key) -> Estimate | None:
        """Return a metric less the baseline's, paired by document; None where that cannot be."""
        drawn = self.drawn_difference(key, baseline)
        return None if drawn is None else _estimate(*drawn)

    def drawn_difference(self, key: Key, baseline: Key) -> tuple[float, Floats] | None:
        """Return the same as its value and its replicates [R]."""
        mine, its = self._scores.get(key), self._scores.get(baseline)
        if mine is None or its is None or mine.keys() != its.keys():
            return None
        difference = self._value(key) - self._value(baseline)
        return difference, self._drawn(key) - self._drawn(baseline)


def mean_of(drawn: Sequence[tuple[float, Floats]]) -> Estimate | None:
    """Return the plain mean of differences on several tasks, each task drawn for itself."""
    values, resampled = zip(*drawn, strict=True)
    return _estimate(float(np.mean(values)), np.mean(resampled, axis=0))


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

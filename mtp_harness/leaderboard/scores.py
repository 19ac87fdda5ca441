"""Values, 90 % intervals and paired differences of comparable runs, from their documents.

All of it comes from one set of bootstrap replicates over documents (`scoring.bootstrap`), so that a
difference compares models on the same drawn documents.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtp_harness.results.documents import Score
from mtp_harness.scoring.bits_per_byte import bits_per_byte
from mtp_harness.scoring.bootstrap import LEVEL, Estimate, replicates

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Takes sums or means over documents, [..., C], to values [...]."""

_TOLERANCE = 1e-6

KEPT = 256
"""Metrics whose replicates are remembered, 80 kB each."""


Drawn = tuple[float, Floats]
"""A gain: its value, and its replicates [R]."""


class Key(NamedTuple):
    """One metric of one run."""

    run: int
    metric: str
    filtered: str


def ratio(sums: Floats) -> Floats:
    """Return numerator ÷ denominator of [..., 2]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient: Floats = sums[..., 0] / sums[..., 1]
    return quotient


def perplexity(sums: Floats) -> Floats:
    """Return exp(nats ÷ count) of [..., 2]."""
    with np.errstate(over="ignore"):
        return np.exp(ratio(sums))


STATISTICS: dict[int, tuple[Statistic, ...]] = {2: (ratio, perplexity), 4: (bits_per_byte,)}
"""What documents' sums are pooled to, by how many there are of each document."""


class Pooled(NamedTuple):
    """One metric of one run.

    Attributes:
        documents: Their names, sorted.
        sums: Of each, [P, C].
        statistic: Pools them.
    """

    documents: list[str]
    sums: Floats
    statistic: Statistic

    @property
    def value(self) -> float:
        """The metric."""
        return float(self.statistic(self.sums.sum(axis=0)))


class Scores:
    """The per-document scores of comparable runs.

    A metric takes part where its documents, pooled as a ratio, a perplexity or bits per byte, give
    the value that the results file states; one that is pooled in another way (a corpus score) has
    no interval here.
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
            key: pooled
            for key, by_document in scores.items()
            if key in stated and (pooled := _pooled(by_document, stated[key]))
        }
        self._recent: OrderedDict[Key, Floats] = OrderedDict()

    def _drawn(self, key: Key) -> Floats:
        """Return a metric in each replicate, [R]; all keys of the same documents share them."""
        if key not in self._recent:
            _, sums, statistic = self._scores[key]
            self._recent[key] = statistic(replicates(sums))
            if len(self._recent) > KEPT:
                self._recent.popitem(last=False)
        self._recent.move_to_end(key)
        return self._recent[key]

    def estimate(self, key: Key) -> Estimate | None:
        """Return a metric with its interval; None where its documents are not known."""
        if key not in self._scores:
            return None
        return estimate(self._scores[key].value, self._drawn(key))

    def difference(self, key: Key, baseline: Key) -> Estimate | None:
        """Return a metric less the baseline's, paired by document; None where that cannot be."""
        drawn = self.drawn_gain(key, baseline)
        return None if drawn is None else estimate(*drawn)

    def drawn_gain(self, key: Key, baseline: Key, relative: bool = False) -> Drawn | None:
        """Return the same with all its replicates.

        Args:
            key: The metric.
            baseline: What it is compared with.
            relative: As a share of the baseline's; NaN where that is 0.
        """
        mine, its = self._scores.get(key), self._scores.get(baseline)
        if mine is None or its is None or mine.documents != its.documents:
            return None
        value, drawn = mine.value - its.value, self._drawn(key) - self._drawn(baseline)
        if relative:
            with np.errstate(invalid="ignore", divide="ignore"):
                value = value / its.value if its.value else np.nan
                drawn = drawn / self._drawn(baseline)
        return value, drawn


def mean_of(drawn: Sequence[Drawn]) -> Drawn:
    """Return the plain mean of gains on several tasks, each task drawn for itself."""
    values, resampled = zip(*drawn, strict=True)
    return float(np.mean(values)), np.mean(resampled, axis=0)


def estimate(value: float, resampled: Floats) -> Estimate | None:
    """Return a value with the interval of its replicates [R]; None where there is none."""
    known = resampled[~np.isnan(resampled)]  # a replicate may have drawn no step at all
    if not len(known) or np.isnan(value):
        return None
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    # A gain over nothing is infinite, and between that and a number nothing can be interpolated.
    low, high = np.quantile(known, ends, method="linear" if np.isfinite(known).all() else "nearest")
    return Estimate(value, float(low), float(high))


def _pooled(by_document: Mapping[str, Score], stated: float) -> Pooled | None:
    """Return documents with what pools them to the stated value; None where nothing does."""
    if sum(not isinstance(score, tuple) or score[-1] > 0 for score in by_document.values()) < 2:
        return None  # one document is no sample, and its interval would have no width
    names = sorted(by_document)
    scores = [by_document[name] for name in names]
    rows = [score if isinstance(score, tuple) else (score, 1.0) for score in scores]
    if len(set(map(len, rows))) != 1:
        return None
    sums = np.array(rows)  # [P, C]
    for statistic in STATISTICS.get(sums.shape[-1], ()):
        pooled = Pooled(names, sums, statistic)
        if abs(pooled.value - stated) <= _TOLERANCE * max(1.0, abs(stated)):
            return pooled
    return None

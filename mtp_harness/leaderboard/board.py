"""Comparable runs of one task: their values, 90 % intervals and paired differences.

All of them come from one set of bootstrap replicates over documents (`scoring.bootstrap`), so that
a difference compares models on the same drawn documents.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtp_harness.results.documents import Documents, Score
from mtp_harness.results.protocol import Protocol
from mtp_harness.results.run import Run
from mtp_harness.scoring.bits_per_byte import bits_per_byte
from mtp_harness.scoring.bootstrap import LEVEL, Estimate, replicates

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Takes sums or means over documents, [..., C], to values [...]."""

Drawn = tuple[float, Floats]
"""A gain: its value, and its replicates [R]."""

KEPT = 256
"""Most metrics whose replicates are kept, 80 kB each."""

_TOLERANCE = 1e-6


Key = tuple[int, str, str]
"""Place of a run on its board, metric, filter."""


class Column(NamedTuple):
    """One metric of one task, under one protocol."""

    task: str
    metric: str  # by the harness's name, or `table.SPEED` for the speed of the run
    filtered: str  # the harness's filter
    protocol: int  # index of the protocol among the task's
    higher_is_better: bool | None  # None if unknown


class Pooled(NamedTuple):
    """One metric of one run, from its documents."""

    value: float  # the metric
    documents: list[str]  # their names, sorted
    sums: Floats  # of each document, [P, C]
    statistic: Statistic  # pools them


@dataclass
class Board:
    """One task under one protocol, and its runs.

    A metric has an interval if its documents, pooled as a ratio, a perplexity or bits per byte,
    give the value in the results file; a metric pooled in another way (a corpus score) has none.
    """

    task: str
    protocol: Protocol
    columns: list[Column] = field(default_factory=list)  # the most important first
    runs: list[Run] = field(default_factory=list)
    documents: list[Documents | None] = field(default_factory=list)  # None if none were logged

    def metrics(self, place: int) -> dict[tuple[str, str], float]:
        """Return the values in a run's results file, by (metric, filter), without NaN."""
        stated = self.runs[place].metrics(self.task)
        return {name: float(value) for name, value in stated.items() if value == value}

    @cached_property
    def _pooled(self) -> dict[Key, Pooled]:
        return {
            (place, *name): pooled
            for place, documents in enumerate(self.documents)
            for name, value in (self.metrics(place) if documents else {}).items()
            if documents and (pooled := _pool(documents.scores.get(name, {}), value))
        }

    @cached_property
    def _drawn(self) -> Callable[[Key], Floats]:
        """A metric's replicates, [R]; metrics of the same documents share the draws."""
        return lru_cache(KEPT)(
            lambda key: self._pooled[key].statistic(replicates(self._pooled[key].sums))
        )

    def estimate(self, key: Key) -> Estimate | None:
        """Return a metric with its interval; None if its documents are not known."""
        known = self._pooled.get(key)
        return estimate(known.value, self._drawn(key)) if known else None

    def n_documents(self, key: Key) -> int:
        """Return how many documents a metric is pooled from; 0 if they are not known."""
        known = self._pooled.get(key)
        return 0 if known is None else int((known.sums[:, -1] > 0).sum())

    def difference(self, key: Key, place: int) -> Estimate | None:
        """Return a metric minus that of the run at an index; None if there is no difference."""
        drawn = self.drawn_gain(key, place)
        return None if drawn is None else estimate(*drawn)

    def by_document(self, key: Key, place: int) -> dict[str, float | None]:
        """Return the same by document; None for a document that counted nothing."""
        mine, its = self._pooled[key], self._pooled[place, *key[1:]]
        each = mine.statistic(mine.sums) - its.statistic(its.sums)  # [P]
        known = (None if np.isnan(one) else float(one) for one in each)
        return dict(zip(mine.documents, known, strict=True))

    def drawn_gain(self, key: Key, place: int, relative: bool = False) -> Drawn | None:
        """Return the same with its replicates, paired by document; NaN if relative to 0."""
        baseline = (place, *key[1:])
        mine, its = self._pooled.get(key), self._pooled.get(baseline)
        if mine is None or its is None or mine.documents != its.documents:
            return None
        value, drawn = mine.value - its.value, self._drawn(key) - self._drawn(baseline)
        if relative:
            with np.errstate(invalid="ignore", divide="ignore"):
                value = value / its.value if its.value else np.nan
                drawn = drawn / self._drawn(baseline)
        return value, drawn


def mean_of(drawn: Sequence[Drawn]) -> Drawn:
    """Return the plain mean of gains on several tasks, each task resampled independently."""
    values, resampled = zip(*drawn, strict=True)
    return float(np.mean(values)), np.mean(resampled, axis=0)


def estimate(value: float, resampled: Floats) -> Estimate | None:
    """Return a value with the interval of its replicates [R]; None if there are none."""
    known = resampled[~np.isnan(resampled)]  # a replicate may have no step at all
    if not len(known) or np.isnan(value):
        return None
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    # A gain over nothing is infinite, and between that and a number nothing can be interpolated.
    low, high = np.quantile(known, ends, method="linear" if np.isfinite(known).all() else "nearest")
    return Estimate(value, float(low), float(high))


def _ratio(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient: Floats = sums[..., 0] / sums[..., 1]
    return quotient


def _perplexity(sums: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.exp(_ratio(sums))


_STATISTICS: dict[int, tuple[Statistic, ...]] = {2: (_ratio, _perplexity), 4: (bits_per_byte,)}
"""How documents' sums are pooled, by the number of sums of a document."""


def _pool(by_document: Mapping[str, Score], stated: float) -> Pooled | None:
    """Return documents with the statistic that gives the stated value; None if none does."""
    names = sorted(by_document)
    scores = [by_document[name] for name in names]
    rows = [score if isinstance(score, tuple) else (score, 1.0) for score in scores]
    if sum(row[-1] > 0 for row in rows) < 2:
        return None  # one document is not a sample, and its interval would have no width
    if len(set(map(len, rows))) != 1:
        return None
    sums = np.array(rows)  # [P, C]
    for statistic in _STATISTICS.get(sums.shape[-1], ()):
        value = float(statistic(sums.sum(axis=0)))
        if abs(value - stated) <= _TOLERANCE * max(1.0, abs(stated)):
            return Pooled(value, names, sums, statistic)
    return None

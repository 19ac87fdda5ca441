"""90 % bootstrap intervals of means over problems, for scores and for gains.

A replicate draws as many problems as there are, with replacement, and takes the mean again. One
matrix product of the draws and the scores gives all replicates of all columns at once, so columns
(temperatures, models) of one replicate share their problems: a gain is the difference of two
columns, and an oracle temperature is chosen again in each replicate.

Source: Gloeckle et al. 2024, figure 3: "90 % confidence intervals … by bootstrapping over dataset
samples". That figure does not say how the interval is read off the replicates; here it is their 5 %
and 95 % quantiles.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

REPLICATES = 10_000
LEVEL = 0.9
SEED = 0
BLOCK = 1000
"""Replicates computed at once."""

_COLUMNS = 128
"""Ratios computed at once."""


class Estimate(NamedTuple):
    """A mean over problems with its interval; all three are NaN without problems."""

    value: float
    low: float
    high: float


def replicates(
    scores: ArrayLike, n_replicates: int = REPLICATES, seed: int = SEED
) -> NDArray[np.float64]:
    """Return the means [R, C] of resampled problems [P, C]; equal P give equal draws."""
    matrix = np.asarray(scores, dtype=np.float64)
    n_problems = len(matrix)
    means = [block @ matrix / n_problems for block in _draws(n_problems, n_replicates, seed)]
    return np.concatenate(means)


@lru_cache(maxsize=1)
def _draws(n_problems: int, n_replicates: int, seed: int) -> list[NDArray[np.integer]]:
    """Return how often each replicate draws each problem, [R, P] in blocks of rows.

    Metrics of the same problems are pooled one after the other, and drawing is most of the work.
    With the 11,490 articles of CNN/DailyMail this is 230 MB, and a block as floats 92 MB.
    """
    generator, chances = np.random.default_rng(seed), np.full(n_problems, 1 / n_problems)
    sizes = [min(BLOCK, n_replicates - start) for start in range(0, n_replicates, BLOCK)]
    small = np.min_scalar_type(n_problems)
    return [generator.multinomial(n_problems, chances, size=size).astype(small) for size in sizes]


def estimate(
    scores: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda means: means[:, 0],
) -> Estimate:
    """Return a statistic of column means with its 90 % interval.

    Args:
        scores: One row per problem, [P] or [P, C].
        statistic: Takes means [R, C] to values [R], such as a maximum or a difference of columns;
            by default the first column.
    """
    matrix = np.asarray(scores, dtype=np.float64)
    if not len(matrix):
        return Estimate(np.nan, np.nan, np.nan)
    matrix = matrix.reshape(len(matrix), -1)
    value = float(statistic(matrix.mean(axis=0)[None])[0])
    return Estimate(value, *_interval(statistic(replicates(matrix))))


def low90(values: Sequence[float]) -> float:
    """Aggregate as the lower end of the 90 % bootstrap interval of the mean over problems.

    Values are sorted first: several ranks give the problems in a different order from one rank.
    """
    return estimate(np.sort(values)).low


def high90(values: Sequence[float]) -> float:
    """Aggregate as the upper end of that interval."""
    return estimate(np.sort(values)).high


def ratios(
    numerators: ArrayLike, denominators: ArrayLike, n_replicates: int = REPLICATES
) -> list[Estimate]:
    """Return the ratio of sums [C] of problems [P, C], each with its 90 % interval.

    A replicate in which a column's denominators are all zero is ignored for that column. Without
    problems the ratio is NaN.
    """
    top = np.asarray(numerators, dtype=np.float64)
    bottom = np.asarray(denominators, dtype=np.float64)
    if not len(top):
        return [Estimate(np.nan, np.nan, np.nan)] * top.shape[1]
    found: list[Estimate] = []
    with np.errstate(divide="ignore", invalid="ignore"):
        values = top.sum(axis=0) / bottom.sum(axis=0)
        for at in range(0, top.shape[1], _COLUMNS):
            some = slice(at, at + _COLUMNS)
            drawn = replicates(top[:, some], n_replicates)
            drawn /= replicates(bottom[:, some], n_replicates)
            pairs = zip(values[some], drawn.T, strict=True)
            found += [Estimate(float(value), *_interval(column)) for value, column in pairs]
    return found


def _interval(drawn: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the interval of replicates [R]; NaN replicates are ignored."""
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return (np.nan, np.nan)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return (float(low), float(high))

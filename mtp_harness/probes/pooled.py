"""Measurements of documents, pooled into cells of a table: sums first, then one division.

Intervals are over documents (`scoring.bootstrap`); with fewer than two there is no interval.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtp_harness.results.long_table import Cell
from mtp_harness.scoring.bootstrap import Estimate, estimate, ratios

Place = tuple[Any, ...]


class Measured(dict[str, Any]):
    """The answer to a probe's request: plain numbers and lists of one document, by name."""

    def __str__(self) -> str:
        """Return a short text: the samples hold the answer twice as text, beside the metrics."""
        return f"measured: {', '.join(self)}"


def column(documents: Sequence[Measured], name: str) -> NDArray[np.float64]:
    """Return a measurement of all documents, [P] or [P, C]; lists of lists are flattened."""
    rows = np.array([one[name] for one in documents], dtype=np.float64)
    return rows.reshape(len(documents), -1) if rows.ndim > 1 else rows


def ratio_cells(
    places: Sequence[Place],
    metric: str,
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
) -> Iterator[Cell]:
    """Yield a cell for each of the C places, without those that counted nothing.

    Numerators are [P, C], denominators are counts, [P, C] or [P, 1].
    """
    denominators = np.broadcast_to(denominators, numerators.shape)
    counts = denominators.sum(axis=0)
    several = len(numerators) > 1
    for place, found, count in zip(places, ratios(numerators, denominators), counts, strict=True):
        if count:
            yield _cell(place, metric, found, int(count), several)


def pair_cell(
    place: Place, metric: str, pairs: Sequence[tuple[float, float]], count: int | None = None
) -> Cell:
    """Return a cell for one ratio of sums, NaN if nothing was counted.

    Pairs are (numerator, denominator) of documents; without `count`, denominators are counts.
    """
    matrix = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    (found,) = ratios(matrix[:, :1], matrix[:, 1:])
    counted = int(matrix[:, 1].sum()) if count is None else count
    return _cell(place, metric, found, counted, len(matrix) > 1)


def statistic_cell(
    place: Place,
    metric: str,
    sums: Iterable[NDArray[np.float64]],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    count: float,
) -> Cell:
    """Return a cell for a statistic of sums over documents, columns [P] or [P, C] side by side.

    The statistic takes means over documents, [R, all columns], to values [R].
    """
    matrix = np.column_stack(list(sums))
    return _cell(place, metric, estimate(matrix, statistic), int(count), len(matrix) > 1)


def _cell(place: Place, metric: str, found: Estimate, count: int, several: bool) -> Cell:
    low, high = (found.low, found.high) if several else (None, None)
    return Cell(place, metric, found.value, low, high, count)

"""Scores over several temperatures: the oracle score, as in the paper, and an honest one.

- *oracle*: the temperature with the best score on the same problems that are then reported, chosen
  per model, data set and k (Gloeckle et al. 2024, tables 1 and S12). The maximum of noisy scores is
  too high on average; its interval chooses again in every bootstrap replicate.
- *honest*: the temperature is chosen on a random half of the problems and scored on the other half,
  averaged over 100 such splits: the score you get when you tune the temperature on other problems.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtp_harness.scoring.bootstrap import Estimate, estimate

SPLITS = 100
SEED = 0


class OracleScore(NamedTuple):
    """The best temperature's score."""

    temperature: float
    score: Estimate


def oracle(scores: ArrayLike, temperatures: list[float]) -> OracleScore:
    """Return the best temperature and its score; of equal ones the lowest.

    Args:
        scores: Score of each problem at each temperature, [P, T].
        temperatures: T of them, in the order of the columns.
    """
    matrix, ordered = _in_order(scores, temperatures)
    best = int(np.argmax(matrix.mean(axis=0)))
    return OracleScore(ordered[best], estimate(matrix, _best))


def oracle_gain(scores: ArrayLike, baseline: ArrayLike) -> Estimate:
    """Return the difference of two models' oracle scores, [P, T] and [P, U], on the same problems.

    The rows of both are in the same order.
    """
    first = np.asarray(scores, dtype=np.float64)
    both = np.concatenate([first, np.asarray(baseline, dtype=np.float64)], axis=1)
    split = first.shape[1]
    return estimate(both, lambda means: _best(means[:, :split]) - _best(means[:, split:]))


def honest(scores: ArrayLike, temperatures: list[float], splits: int = SPLITS) -> float:
    """Return the mean score on one half at the temperature that is best on the other.

    NaN with fewer than two problems; the arguments are those of `oracle`.
    """
    matrix, _ = _in_order(scores, temperatures)
    n_problems = len(matrix)
    if n_problems < 2:
        return float("nan")
    every = np.tile(np.arange(n_problems), (splits, 1))
    orders = np.random.default_rng(SEED).permuted(every, axis=1)
    half = n_problems // 2
    chosen = matrix[orders[:, :half]].mean(axis=1).argmax(axis=1)  # [splits]
    others = matrix[orders[:, half:]].mean(axis=1)  # [splits, T]
    return float(others[np.arange(splits), chosen].mean())


def _best(means: NDArray[np.float64]) -> NDArray[np.float64]:
    best: NDArray[np.float64] = means.max(axis=1)
    return best


def _in_order(
    scores: ArrayLike, temperatures: list[float]
) -> tuple[NDArray[np.float64], list[float]]:
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != len(temperatures):
        raise ValueError(
            f"scores of shape {matrix.shape} for {len(temperatures)} temperatures; expected one "
            "row per problem and one column per temperature"
        )
    order = np.argsort(temperatures, kind="stable")
    return matrix[:, order], [float(temperatures[i]) for i in order]

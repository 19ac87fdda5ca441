"""pass@k: the chance that at least one of k answers is right.

With n answers per problem of which c are right,

    pass@k = 1 − C(n−c, k) / C(n, k),

the share of all subsets of k answers that contain a right one. This is unbiased, which
1 − (1 − c/n)^k is not.

Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1, where it
is a product of n−c … terms in floating point. Here the binomials are exact integers, and the
one division is correctly rounded.
"""

import math
import re

import numpy as np
from numpy.typing import ArrayLike, NDArray

KS = (1, 10, 100)
"""Reported by default, as far as there are enough answers."""


def read_ks(text: str) -> tuple[int, ...]:
    """Return the k of a command line, `1,10,100`."""
    parts = [part.strip() for part in text.split(",")]
    # Python reads no more than some thousands of digits, and no count has more.
    if wrong := [part for part in parts if not re.fullmatch(r"0*[1-9][0-9]{0,9}", part)]:
        raise ValueError(
            f"--k {text}: {wrong[0]!r} is not a whole number from 1, expected such as 1,10,100"
        )
    return tuple(dict.fromkeys(map(int, parts)))


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate of pass@k for one problem.

    It is exactly 0 for c = 0 and exactly 1 for n − c < k.

    Args:
        n: Answers graded; answers whose grading ended in an error do not count.
        c: Right ones among them, 0…n.
        k: 1…n; with k > n the estimate does not exist.
    """
    if not 0 <= c <= n:
        raise ValueError(f"c={c} right of n={n} answers; expected 0 <= c <= n")
    if not 1 <= k <= n:
        raise ValueError(f"k={k} with n={n} answers; expected 1 <= k <= n, or sample more answers")
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets


def pass_at_k_each(n: ArrayLike, c: ArrayLike, k: int) -> NDArray[np.float64]:
    """Return `pass_at_k` of every problem, [P]; NaN where fewer than k answers were graded."""
    pairs, place = np.unique(np.stack([np.asarray(n), np.asarray(c)]), axis=1, return_inverse=True)
    values = [pass_at_k(int(a), int(b), k) if a >= k else math.nan for a, b in pairs.T]
    found: NDArray[np.float64] = np.array(values, dtype=np.float64)[place.reshape(-1)]
    return found

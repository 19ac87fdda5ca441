"""pass@k: the chance that at least one of k answers is right.

With n answers per problem of which c are right,

    pass@k = 1 − C(n−c, k) / C(n, k),

the share of the k-subsets of the n answers that hold a right one. This is unbiased, which
1 − (1 − c/n)^k is not.

Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1. There it
is a product of n−c … terms in floating point; here the binomials are exact integers, and the one
division at the end is correctly rounded.
"""

import math


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate of pass@k for one problem.

    Args:
        n: Answers graded; answers whose grading ended in an error do not count.
        c: Right ones among them, 0…n.
        k: 1…n.

    Returns:
        A probability in [0, 1]; exactly 0 for c = 0 and exactly 1 for n − c < k.

    Raises:
        ValueError: The numbers do not fit together; with k > n the estimate does not exist.
    """
    if not 0 <= c <= n:
        raise ValueError(f"c={c} right of n={n} answers; expected 0 <= c <= n")
    if not 1 <= k <= n:
        raise ValueError(f"k={k} with n={n} answers; expected 1 <= k <= n, or sample more answers")
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets

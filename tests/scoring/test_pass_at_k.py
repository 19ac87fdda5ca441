from fractions import Fraction
from itertools import combinations, product

import pytest

from mtp_harness.scoring.pass_at_k import pass_at_k, pass_at_k_each


@pytest.mark.parametrize("n", range(1, 9))
def test_equals_the_share_of_subsets_with_a_right_answer(n):
    for c, k in product(range(n + 1), range(1, n + 1)):
        right = [i < c for i in range(n)]
        subsets = list(combinations(right, k))
        assert pass_at_k(n, c, k) == float(Fraction(sum(map(any, subsets)), len(subsets)))


@pytest.mark.parametrize(("n", "c"), [(1, 0), (1, 1), (10, 3), (200, 7), (1000, 999)])
def test_closed_forms(n, c):
    assert pass_at_k(n, c, 1) == c / n
    assert pass_at_k(n, c, n) == float(c > 0)
    if n > 1:
        assert pass_at_k(n, c, 2) == pytest.approx(
            1 - (n - c) * (n - c - 1) / (n * (n - 1)), abs=1e-15
        )


@pytest.mark.parametrize(("n", "c", "k"), [(200, 1, 100), (200, 37, 10), (5000, 13, 100)])
def test_equals_the_product_form_of_the_paper(n, c, k):
    value = 1.0
    for i in range(n - c + 1, n + 1):
        value *= 1 - k / i
    assert pass_at_k(n, c, k) == pytest.approx(1 - value, rel=1e-12)


def test_is_exact_at_the_ends():
    assert pass_at_k(200, 0, 100) == 0.0
    assert pass_at_k(200, 101, 100) == 1.0
    assert 0.0 < pass_at_k(10**4, 1, 1) < pass_at_k(10**4, 2, 1)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 6), (5, 2, 0), (5, 6, 1), (5, -1, 1), (0, 0, 1)])
def test_numbers_that_do_not_fit_raise(n, c, k):
    with pytest.raises(ValueError, match="expected"):
        pass_at_k(n, c, k)


def test_every_problem_at_once_is_every_problem_alone():
    pairs = [(n, c) for n in range(1, 9) for c in range(n + 1)]
    n, c = zip(*pairs, strict=True)
    for k in range(1, 9):
        expected = []
        for total, right in pairs:
            subsets = list(combinations([i < right for i in range(total)], k))
            expected.append(sum(map(any, subsets)) / len(subsets) if subsets else float("nan"))
        assert pass_at_k_each(n, c, k).tolist() == pytest.approx(expected, nan_ok=True)
    assert pass_at_k_each([], [], 1).shape == (0,)

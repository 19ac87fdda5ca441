from itertools import product

import numpy as np
import pytest

from mtp_harness.scoring.bootstrap import (
    BLOCK,
    estimate,
    high90,
    low90,
    ratios,
    replicates,
)
from mtp_harness.scoring.temperatures import honest, oracle, oracle_gain


def all_resamples(n):
    """Every equally likely draw of n problems, as indices."""
    return np.array(list(product(range(n), repeat=n)))


SCORES = np.array([0.0, 0.1, 0.5, 1.0])


def test_replicates_follow_the_distribution_of_all_resamples():
    exact = SCORES[all_resamples(4)].mean(axis=1)
    found = replicates(SCORES[:, None], 40_000)[:, 0]
    values = np.unique(exact.round(9))
    share = [(np.abs(exact - v) < 1e-9).mean() for v in values]
    seen = [(np.abs(found - v) < 1e-9).mean() for v in values]
    assert sum(seen) == pytest.approx(1)  # nothing but what resampling can give
    assert seen == pytest.approx(share, abs=0.01)


def test_interval_is_that_of_all_resamples():
    scores = np.array([0.0, 0.3, 0.35, 0.7, 0.95, 1.0])
    exact = np.quantile(scores[all_resamples(6)].mean(axis=1), [0.05, 0.95])
    value, *ends = estimate(scores)
    assert value == pytest.approx(scores.mean())
    assert ends == pytest.approx(exact, abs=0.01)


def test_interval_does_not_depend_on_the_order_of_the_problems():
    scores = np.random.default_rng(3).random(40)
    other = np.random.default_rng(4).permutation(scores)
    assert (low90(scores), high90(scores)) == (low90(other), high90(other))
    assert estimate(scores)[1:] == pytest.approx((low90(scores), high90(scores)), abs=0.01)


def test_replicates_do_not_depend_on_the_blocks_they_are_drawn_in():
    plain = np.random.default_rng(0).multinomial(4, [0.25] * 4, size=2 * BLOCK + 7) @ SCORES / 4
    assert replicates(SCORES[:, None], 2 * BLOCK + 7)[:, 0] == pytest.approx(plain, rel=1e-12)


def test_interval_of_many_problems_is_the_normal_one():
    scores = np.random.default_rng(5).random(2000)
    value, low, high = estimate(scores)
    half = 1.6449 * scores.std() / 2000**0.5
    assert (value - low, high - value) == pytest.approx((half, half), rel=0.05)


def test_gain_is_of_pairs():
    rng = np.random.default_rng(1)
    baseline = rng.random(400)  # hard and easy problems differ much more than the two models
    better = baseline + 0.01 + 0.01 * rng.standard_normal(400)
    value, low, high = oracle_gain(better[:, None], baseline[:, None])
    difference = better - baseline
    half = 1.6449 * difference.std() / 20
    assert value == pytest.approx(difference.mean())
    assert (low, high) == pytest.approx((value - half, value + half), rel=0.1)


def test_no_problem_has_no_score():
    assert np.isnan(estimate(np.zeros((0, 1)))).all()


class TestOracle:
    def test_temperature_is_chosen_again_in_each_replicate(self):
        # Problem i is solved at temperature i only: every resample has a best one of its own.
        scores = np.eye(4)
        exact = scores[all_resamples(4)].mean(axis=1).max(axis=1)
        found = oracle(scores, [0.1, 0.2, 0.4, 0.8])
        assert (found.temperature, found.score.value) == (0.1, 0.25)
        assert found.score[1:] == pytest.approx(np.quantile(exact, [0.05, 0.95]))
        assert found.score.high > found.score.value  # a fixed temperature could not show this

    def test_of_equal_temperatures_the_lowest(self):
        scores = [[0, 1, 1], [0, 0, 0]]
        assert oracle(scores, [0.1, 0.8, 0.2]).temperature == 0.2

    def test_gain_draws_the_same_problems_for_both(self):
        scores = np.random.default_rng(2).random((30, 4))
        assert oracle_gain(scores, scores) == (0, 0, 0)
        assert oracle_gain(scores + 0.1, scores) == pytest.approx((0.1, 0.1, 0.1))

    def test_shape_is_checked(self):
        with pytest.raises(ValueError, match=r"shape \(2, 2\) for 1 temperatures"):
            oracle([[0, 1], [1, 0]], [0.1])


class TestHonest:
    def test_equals_the_score_over_every_split_of_a_small_set(self):
        rng = np.random.default_rng(3)
        scores = rng.random((6, 3))
        halves = [s for s in product([0, 1], repeat=6) if sum(s) == 3]
        exact = []
        for half in halves:
            chosen = [i for i in range(6) if half[i]]
            others = [i for i in range(6) if not half[i]]
            means = [sum(scores[i][t] for i in chosen) for t in range(3)]
            exact.append(sum(scores[i][means.index(max(means))] for i in others) / 3)
        found = honest(scores, [0.1, 0.2, 0.4], splits=20_000)
        assert found == pytest.approx(np.mean(exact), abs=0.005)

    def test_is_below_the_oracle_where_temperatures_are_alike(self):
        scores = np.random.default_rng(4).random((100, 8))
        temperatures = [i / 10 for i in range(8)]
        score = oracle(scores, temperatures).score.value
        assert honest(scores, temperatures) < score - 0.01
        assert honest(scores, temperatures) == pytest.approx(scores.mean(), abs=0.02)

    def test_is_exact_where_one_temperature_is_best_everywhere(self):
        scores = np.stack([np.full(10, 0.2), np.full(10, 0.7)], axis=1)
        assert honest(scores, [0.1, 0.8]) == pytest.approx(0.7)

    def test_one_problem_cannot_be_split(self):
        assert np.isnan(honest([[0.5, 0.5]], [0.1, 0.2]))


def test_ratios_are_those_of_all_resamples():
    """Ratio of sums over documents; the second column counts nothing in two of the five."""
    top = np.array([[1.0, 0], [5, 2], [2, 0], [9, 1], [4, 4]])
    bottom = np.array([[4.0, 0], [9, 3], [2, 0], [20, 8], [5, 5]])
    draws = all_resamples(5)
    found = ratios(top, bottom, 40_000)
    for i, (value, *ends) in enumerate(found):
        a, b = top[draws, i].sum(1), bottom[draws, i].sum(1)
        exact = np.quantile(a[b > 0] / b[b > 0], [0.05, 0.95])
        assert value == pytest.approx(top[:, i].sum() / bottom[:, i].sum())
        assert ends == pytest.approx(exact, abs=0.02)


def test_ratios_without_anything_counted():
    (found,) = ratios(np.zeros((3, 1)), np.zeros((3, 1)))
    assert all(np.isnan(found))


def test_ratios_of_no_problems_are_nan():
    for one in ratios(np.empty((0, 2)), np.empty((0, 2))):
        assert np.isnan(one).all()

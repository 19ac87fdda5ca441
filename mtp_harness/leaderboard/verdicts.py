"""The rules by which a claim is judged: agree, disagree, inconclusive or not comparable.

With d the paired difference of n heads and n = 1, and [low, high]
its 90 % interval by bootstrap over documents:

    higher       agrees where low > 0        disagrees where high < 0
    lower        agrees where high < 0       disagrees where low > 0
    not lower    agrees where low >= 0       disagrees where high < 0
    equal        agrees where -margin <= low and high <= margin     disagrees where 0 is farther
                 than margin from all of [low, high]
    more_by      d is relative, n heads' score / n = 1's - 1: agrees where low > 0 and
                 high >= value, so that there is a gain and it may be as large as the paper's;
                 disagrees where high < value
    at_least     agrees where low >= value   disagrees where high < value; a timing without an
                 interval counts as [value - 5 %, value + 5 %]; `over_k_1` divides by k = 1 first
    decreasing   agrees where each offset's low lies above the next one's high; disagrees where some
                 offset's high lies below the next one's low

Everything else is inconclusive, as is anything from fewer than 30 documents, for which the
bootstrap's interval is too narrow. Runs outside a claim's range (parameters, training tokens,
vocabulary, a GPU for timings) are not comparable with it, whatever they measured.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from mtp_harness.scoring.bootstrap import Estimate

Verdict = Literal["agree", "disagree", "inconclusive", "not comparable", "not measured"]

ENOUGH = 30
"""Fewest documents for agree or disagree."""


def of_enough(verdict: Verdict, n_documents: int) -> Verdict:
    """Return a verdict, or inconclusive with too few documents."""
    return verdict if n_documents >= ENOUGH else "inconclusive"


def pool(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict of several findings."""
    agree, disagree = "agree" in verdicts, "disagree" in verdicts
    return _verdict(agree and set(verdicts) == {"agree"}, disagree and not agree)


def side(difference: Estimate, direction: str, margin: float = 0.0) -> Verdict:
    """Return the verdict on a difference."""
    low, high = difference.low, difference.high
    rules = {
        "higher": (low > 0, high < 0),
        "lower": (high < 0, low > 0),
        "not lower": (low >= 0, high < 0),
        "equal": (-margin <= low and high <= margin, low > margin or high < -margin),
    }
    return _verdict(*rules[direction])


def grows(gain: Estimate, value: float) -> Verdict:
    """Return the verdict on a relative gain that is claimed to be `value`."""
    return _verdict(gain.low > 0 and gain.high >= value, gain.high < value)


def reaches(low: float, high: float, value: float) -> Verdict:
    """Return the verdict on a value that should be reached."""
    return _verdict(low >= value, high < value)


def decreases(intervals: Sequence[tuple[float, float]]) -> Verdict:
    """Return the verdict on (low, high) that should decrease from each to the next."""
    steps = list(pairwise(intervals))
    falls = [near[0] > far[1] for near, far in steps]
    return _verdict(bool(steps) and all(falls), any(near[1] < far[0] for near, far in steps))


def better_or_worse(low: float, high: float, higher_is_better: bool) -> str:
    """Return which of both a difference is, by its interval; empty if that holds 0."""
    if low <= 0 <= high:
        return ""
    return "better" if (low > 0) is higher_is_better else "worse"


def _verdict(agree: bool, disagree: bool) -> Verdict:
    return "agree" if agree else "disagree" if disagree else "inconclusive"

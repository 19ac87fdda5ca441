"""Windows of a text, against those of lm_eval."""

import pytest
from lm_eval.utils import get_rolling_token_windows

from mtp_harness.probes.windows import Span, spans


def test_by_hand():
    assert list(spans(10, 4, 2)) == [
        Span(0, 0, 4),
        Span(2, 4, 6),
        Span(4, 6, 8),
        Span(6, 8, 10),
    ]
    assert list(spans(3, 4, 2)) == [Span(0, 0, 3)]
    assert list(spans(9, 4, 4)) == [Span(0, 0, 4), Span(4, 4, 8), Span(5, 8, 9)]


@pytest.mark.parametrize("n_states", [1, 2, 7, 8, 9, 16, 23, 40])
@pytest.mark.parametrize(("window", "stride"), [(1, 1), (8, 1), (8, 3), (8, 7), (8, 8), (40, 16)])
def test_they_are_lm_eval_s(n_states, window, stride):
    tokens = list(range(1, n_states + 1))  # the prefix token is 0, so a token is its place
    theirs = get_rolling_token_windows(tokens, 0, window, window - stride + 1)
    ours = spans(n_states, window, stride)
    for (read, scored), span in zip(theirs, ours, strict=True):
        assert read == list(range(span.start, span.end))
        assert scored == [state + 1 for state in range(span.first, span.end)]

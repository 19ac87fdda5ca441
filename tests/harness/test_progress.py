"""The cost of generation in the results' totals."""

import pytest

from mtp_harness.decode.records import DecodeRecord
from mtp_harness.harness.progress import Spent, totals

ANSWER = DecodeRecord(
    **{"n_prompt_tokens": 5, "n_truncated": 0, "draft_heads": 2, "draft_rule": "greedy"},
    **{"n_kept": 3, "n_verified": (1, 0), "ended_by": "eos", "looping": False, "batch_size": 1},
    **{"prefill_s": 0.5, "decode_s": 1.5},
)


@pytest.mark.parametrize(
    ("spent", "speed"), [(Spent(2.0, 8), 4.0), (Spent(2.0, 0, 1), None), (Spent(), None)]
)
def test_a_run_that_decodes_nothing_has_no_speed(spent, speed):
    """All answers can come from a journal: it was shown as 0 tokens/s, beside other models."""
    found = totals([ANSWER], spent)
    assert found["timing"]["tokens_per_s"] == speed and found["tokens_per_forward"] == 1.5

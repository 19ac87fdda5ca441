"""Counters by hand: per answer, and pooled."""

import copy
import json
import math
import pickle
from dataclasses import replace

import pytest

from mtp_harness.decode.records import Acceptance, DecodeRecord, Generation, is_looping


def record(n_verified, n_kept, k=4):
    return DecodeRecord(
        n_prompt_tokens=5,
        n_truncated=0,
        draft_heads=k,
        draft_rule="greedy",
        n_kept=n_kept,
        n_verified=tuple(n_verified),
        ended_by="eos",
        looping=False,
        batch_size=2,
        prefill_s=0.5,
        decode_s=1.5,
    )


@pytest.fixture
def pooled():
    """Two answers with k = 4.

    First: 3, 0, 1 drafts verified, so 4 + 1 + 2 = 7 emitted, of which a stop string keeps 6.
    Second: 2, 3, 0, 0, 3 verified, so 3 + 4 + 1 + 1 + 4 = 13 emitted, all kept.
    """
    return Acceptance.pool([record([3, 0, 1], 6), record([2, 3, 0, 0, 3], 13)])


def test_tokens_per_forward_of_an_answer():
    assert record([3, 0, 1], 6).n_steps == 3
    assert record([3, 0, 1], 6).tokens_per_forward == 2.0
    assert math.isnan(record([], 0).tokens_per_forward)


def test_counts_are_pooled(pooled):
    # Eight steps: 0 verified in three, 1 in one, 2 in one, 3 in three.
    assert pooled == Acceptance(
        4,
        n_kept=19,
        n_steps=8,
        n_by_verified=(3, 1, 1, 3),
        n_by_drafted=(0, 0, 0, 8),
        n_open=(8, 5, 4),
    )
    assert pooled.tokens_per_forward == 19 / 8  # not the mean of 6/3 and 13/5


def test_drafts_verified_per_offset(pooled):
    assert [pooled.n_drafts_verified(offset) for offset in (2, 3, 4)] == [5, 4, 3]


def test_accept_rates(pooled):
    assert pooled.accept_rate_prefix() == {2: 5 / 8, 3: 4 / 8, 4: 3 / 8}
    assert pooled.accept_rate_cond() == {2: 5 / 8, 3: 4 / 5, 4: 3 / 4}


def test_prefix_rates_are_products_of_conditional_ones(pooled):
    product = 1.0
    for offset, rate in pooled.accept_rate_cond().items():
        product *= rate
        assert pooled.accept_rate_prefix()[offset] == pytest.approx(product, rel=1e-15)


def test_rates_without_a_denominator_are_nan():
    nothing = Acceptance.pool([record([], 0)])
    assert nothing.n_by_verified == (0, 0, 0, 0) and math.isnan(nothing.tokens_per_forward)
    assert all(math.isnan(rate) for rate in nothing.accept_rate_prefix().values())
    never = Acceptance.pool([record([0, 0], 2)])
    assert never.accept_rate_prefix() == {2: 0.0, 3: 0.0, 4: 0.0}
    cond = never.accept_rate_cond()
    assert cond[2] == 0.0 and math.isnan(cond[3]) and math.isnan(cond[4])


def test_ntp_has_no_accept_rates():
    ntp = Acceptance.pool([record([0, 0, 0], 3, k=1)])
    assert ntp == Acceptance(1, 3, 3, (3,), (3,), ())
    assert ntp.tokens_per_forward == 1.0
    assert ntp.accept_rate_prefix() == ntp.accept_rate_cond() == {}


def test_pools_a_generator():
    assert Acceptance.pool(record([1], 2) for _ in range(3)).n_steps == 3


def test_refuses_to_pool_different_k_or_nothing():
    with pytest.raises(
        ValueError, match=r"^expected records of one draft_heads and rule, got \[2, 4\]$"
    ):
        Acceptance.pool([record([0], 1, k=4), record([0], 1, k=2)])
    with pytest.raises(ValueError, match="got none$"):
        Acceptance.pool([])


def test_record_as_json():
    plain = record([3, 0], 5).as_dict()
    read = json.loads(json.dumps(plain))
    assert DecodeRecord(**{**read, "n_verified": tuple(read["n_verified"])}) == record([3, 0], 5)


def test_generation_is_its_text_and_keeps_its_record():
    answer = Generation("return x\n", record([1], 2))
    assert answer == "return x\n" and isinstance(answer, str)
    assert type(answer.strip()) is str
    assert answer.record == record([1], 2)


@pytest.mark.parametrize(
    ("tokens", "looping"),
    [
        ([], False),
        ([1] * 7, False),  # no 8-gram
        ([1] * 8, False),  # one, distinct
        ([1] * 9, False),  # two, one distinct: half is not fewer than half
        ([1] * 10, True),  # three, one distinct
        (list(range(100)), False),
        ([1, 2, 3] * 4, False),  # five, three distinct
        ([1, 2, 3] * 5, True),  # eight, three distinct
        (list(range(20)) + [1] * 40, True),  # 53, of which 13 + 7 + 1 distinct
        (list(range(40)) + [1] * 20, False),  # 53, of which 33 + 7 + 1 distinct
    ],
)
def test_is_looping(tokens, looping):
    assert is_looping(tokens) is looping


def test_is_looping_with_another_length():
    assert is_looping([1, 2] * 3, length=2) is True  # five, two distinct
    assert is_looping([1, 2] * 2, length=2) is False  # three, two distinct


def test_rates_count_only_steps_that_drafted():
    # Drafts made and verified per step: 3 of 3, 1 of 1, 0 of 2, 0 of 0, 2 of 3.
    made, verified = (3, 1, 2, 0, 3), (3, 1, 0, 0, 2)
    pooled = Acceptance.pool([replace(record(list(verified), 11), n_drafted=made)])
    assert pooled.accept_rate_prefix() == {2: 3 / 4, 3: 2 / 3, 4: 1 / 2}
    # Offset 3 was drafted after a verified draft in the first step and the last.
    assert pooled.accept_rate_cond() == {2: 3 / 4, 3: 2 / 2, 4: 1 / 2}


def test_unverified_drafts_have_no_rates():
    pooled = Acceptance.pool([replace(record([3, 3], 8), lossless=False)])
    assert pooled.tokens_per_forward == 4
    assert pooled.accept_rate_prefix() == pooled.accept_rate_cond() == {}


def test_records_that_were_verified_and_not_are_not_pooled():
    with pytest.raises(ValueError, match="one draft_heads and rule"):
        Acceptance.pool([record([3], 4), replace(record([3], 4), lossless=False)])


def test_a_record_goes_through_json():
    one = replace(record([3, 0], 5), n_drafted=(3, 2))
    for original in (one, record([1], 2)):
        assert DecodeRecord.from_dict(json.loads(json.dumps(original.as_dict()))) == original


def test_what_is_read_from_a_cache_carries_no_record():
    """A cache keeps pickles; what it gives back was not decoded in that run."""
    generation = Generation("text", record([1], 2))
    read = pickle.loads(pickle.dumps(generation))
    assert (type(read), read) == (str, "text")
    assert copy.deepcopy(generation).record == generation.record

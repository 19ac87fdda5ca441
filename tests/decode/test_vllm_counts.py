"""vLLM's numbers of an answer become our record: recorded outputs against our own decoder.

`vllm_counts/record.py` made the recordings. Both engines decode the same text from the same
checkpoint, so the records must be equal, step by step.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtp_harness.decode.engine import Engine, Request
from mtp_harness.decode.vllm_counts import REJECTION_RULE, Heard, Setting, record_of, steps_of
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.checkpoints.sequential_folder import load_sequential

from .vllm_counts.requests import CONTEXT, REQUESTS, write_checkpoint

FOLDER = Path(__file__).with_name("vllm_counts")
RECORDINGS = sorted(path.stem for path in FOLDER.glob("*.json"))
LISTS = ("tokens", "sizes", "accepted", "drafted")


def heard_from(values):
    return Heard(**{n: tuple(v) if n in LISTS and v is not None else v for n, v in values.items()})


@pytest.fixture(scope="module", params=RECORDINGS)
def case(request, tmp_path_factory):
    """k, what vLLM told of each request, and our own records of them."""
    family, k = request.param.split("_k")
    folder = tmp_path_factory.mktemp(request.param)
    write_checkpoint(folder, family)
    model = load_sequential(folder, torch.float32)
    model.family = model.family.as_engines_do()
    decode = byte_tokenizer(CONTEXT).decode
    ours = []
    for ids in {tuple(asked["eos"]) for asked in REQUESTS}:
        some = [i for i, asked in enumerate(REQUESTS) if tuple(asked["eos"]) == ids]
        engine = Engine(model, int(k), [0, *ids], decode, slots=4)
        asked = [REQUESTS[i] for i in some]
        answers = engine.generate(
            [Request(a["prompt"], a["budget"], (*a["until"],)) for a in asked]
        )
        ours += zip(
            some, (answer.record for answer in answers), (a.tokens for a in answers), strict=True
        )
    told = json.loads((FOLDER / f"{request.param}.json").read_text())
    return (
        int(k),
        [heard_from(one) for one in told],
        [one[1:] for one in sorted(ours, key=lambda o: o[0])],
    )


def test_records_are_our_own_decoder_s_step_by_step(case):
    k, told, ours = case
    for heard, (expected, tokens) in zip(told, ours, strict=True):
        found = record_of(heard, Setting(k, CONTEXT, 4), greedy=True)
        assert found.tokens == tuple(tokens)
        assert found.n_verified == expected.n_verified
        assert found.n_drafted == expected.n_drafted
        for name in ("n_prompt_tokens", "n_kept", "ended_by", "looping", "draft_rule", "lossless"):
            assert getattr(found, name) == getattr(expected, name), name


def test_the_recordings_hold_what_is_hard():
    """Ends inside a step, at a stop string, at EOS and in the prefill; repeats."""
    read = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
    assert {*read} == {f"{family}_k{k}" for family in ("glm4_moe", "mimo") for k in (1, 2, 3, 4)}
    assert all(told[5] == told[10] for told in read.values())
    told = [heard_from(one) for some in read.values() for one in some]
    assert {one.finish_reason for one in told} == {"stop", "length"}
    assert any(sum(one.sizes) > len(one.tokens) for one in told)
    assert any(one.accepted is None for one in told)
    assert any(isinstance(one.stop_reason, int) for one in told)
    assert any(one.sizes == (1,) for one in told)


@pytest.mark.parametrize(
    ("sizes", "accepted", "drafted", "expected"),
    [
        # The module's example.
        ((1, 4, 2, 1, 2), (3, 1, 3), (3, 3, 3), [(3, 3), (1, 3), (0, 0), (3, 3)]),
        # Its first token ended it.
        ((1,), (), (), []),
        # A stop string: no metrics, the last output whole.
        ((1, 1, 4), None, None, [(0, 3), (3, 3)]),
    ],
)
def test_steps_of_hand_worked_answers(sizes, accepted, drafted, expected):
    n_tokens = sum(sizes) - (accepted is None)
    heard = Heard(5, tuple(range(n_tokens)), "stop", None, sizes, accepted, drafted)
    assert [*steps_of(heard, Setting(4, 100, 1))] == expected


def test_a_step_behind_the_last_draft_that_the_context_has_room_for():
    """The end of an answer as vLLM 0.32 told it: 3, 3, 2, 1 drafts, then a step without one."""
    heard = Heard(
        24, tuple(range(7)), "length", None, (1, 1, 2, 1, 1, 1), (0, 1, 0, 0), (3, 3, 2, 1)
    )
    expected = [(0, 3), (1, 3), (0, 2), (0, 1), (0, 0)]
    assert [*steps_of(heard, Setting(4, 31, 4))] == expected
    stopped = replace(heard, accepted=None, drafted=None)  # the same from the sizes alone
    assert [*steps_of(stopped, Setting(4, 31, 4))] == expected


def test_without_metrics_drafts_end_with_the_context():
    """A step that starts with t tokens of a context of 12 drafts at most 12 - t - 1."""
    heard = Heard(5, tuple(range(7)), "stop", "x", (1, 3, 1, 1, 1), None, None)
    assert [*steps_of(heard, Setting(4, 12, 1))] == [(2, 3), (0, 2), (0, 1), (0, 0)]


def test_ntp_has_a_step_for_every_token_after_the_first():
    heard = Heard(5, (1, 2, 3), "stop", None)
    record = record_of(heard, Setting(1, 100, 8), greedy=False)
    assert (record.n_verified, record.n_kept, record.ended_by) == ((0, 0), 2, "eos")
    assert record.tokens_per_forward == 1.0 and record.draft_rule != REJECTION_RULE


def test_sampled_answers_say_another_rule():
    heard = Heard(5, (1, 2), "length", None, (1, 1), (0,), (1,))
    assert record_of(heard, Setting(2, 100, 8), greedy=False).draft_rule == REJECTION_RULE


@pytest.mark.parametrize(
    ("sizes", "accepted"),
    [((), (0,)), ((2, 1), (0,)), ((1, 3), (1,)), ((1, 1), (0, 0)), ((1,), (0,)), ((1, 5), None)],
)
def test_numbers_that_contradict_each_other_are_one_sentence(sizes, accepted):
    drafted = None if accepted is None else (3,) * len(accepted)
    heard = Heard(5, (1, 2, 3), "stop", None, sizes, accepted, drafted)
    with pytest.raises(ValueError, match="contradict each other .*: use vLLM 0.32"):
        list(steps_of(heard, Setting(4, 100, 1)))

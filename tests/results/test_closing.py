"""The last lines of a run, against what the results hold."""

import pytest

from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.sampling import Sampling
from mtp_harness.results.closing import MOST_TASKS, closing

MTP = {
    "draft_heads": 3,
    "lossless": True,
    "totals": {"n_steps": 10, "tokens_per_forward": 2.25, "timing": {"tokens_per_s": 1234.6}},
}


def content(results, mtp=None, n=7):
    samples = {task: {"original": 9, "effective": n} for task in results}
    return {"results": results, "n-samples": samples, "config": {"mtp": mtp or {}}}


def test_a_score_with_its_interval_stands_first():
    values = {
        "alias": "t",
        "sample_len": 7,
        "tokens_per_forward,none": 2.25,
        "pass@1,none": 0.5,
        "pass@1_stderr,none": 0.1,
        "pass@1_low90,none": 0.25,
        "pass@1_high90,none": 0.75,
        "n_answers,none": 7,
    }
    assert closing(content({"t": values}, MTP), "out put", True) == [
        "t         pass@1 0.500 [0.250, 0.750], 7 documents",
        "decoding  2.250 tokens per forward, 1,235 tokens/s, k = 3",
        "next      mtp-harness report 'out put'",
    ]


def test_numbers_by_offset_share_a_part_and_at_most_three_are_shown():
    values = {
        "code_effective_horizon,none": 2,
        "code_bits_per_byte_1,none": 1.0,
        "code_bits_per_byte_2,none": 2.0,
        "code_accuracy_1,none": 0.75,
        "code_accuracy_2,none": 0.5,
        "prose_accuracy_1,none": 0.25,
        "prose_accuracy_stderr,none": "N/A",
    }
    (line, _) = closing(content({"heads": values}, n=1), None, True)
    assert line == (
        "heads  code_accuracy 0.750 0.500 at offsets 1, 2, prose_accuracy 0.250 at offset 1, "
        "code_effective_horizon 2.000, 1 document"
    )


def test_arithmetic_counts_operations_and_not_offsets():
    scores = {"accuracy_1,none": 1.0, "accuracy_2,none": 0.5}
    (line, _) = closing(content({"mtp_arithmetic": scores}), None, True)
    assert line == "mtp_arithmetic  accuracy 1.000 0.500 with 1, 2 operations, 7 documents"
    (line, _) = closing(content({"mtp_arithmetic": {"accuracy_1,none": 1.0}}), None, True)
    assert "accuracy 1.000 with 1 operation, " in line


def test_a_standard_error_is_shown_where_there_is_no_interval():
    values = {"acc,none": 0.5, "acc_stderr,none": 0.125, "pass_at_1,none": 0.25}
    (line, _) = closing(content({"t": values}), None, False)
    assert line == "t     acc 0.500 ± 0.125, pass_at_1 0.250, 7 documents"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lossless": False}, "k = 3, lossy: drafts were not verified"),
        ({"draft_heads_auto": {"draft_heads": 3}}, "k = 3, the fastest on the first requests"),
        ({"draft_rule": Rule().describe(Sampling())}, "k = 3"),
        (
            {"draft_rule": Rule().describe(Sampling(0.7))},
            "k = 3, sampled drafts verified with the same noise",
        ),
    ],
)
def test_how_it_decoded(change, said):
    found = closing(content({"t": {"acc,none": 0.5}}, MTP | change), None, False)
    assert found[1].endswith(said)


def test_what_was_not_saved_is_said():
    scores = content({"t": {"acc,none": 0.5}})
    assert "nothing was saved: add -o" in closing(scores, None, False)[-1]
    assert "with --log_samples it shows every answer" in closing(scores, "r", False)[-1]


def test_nothing_without_scores_and_no_endless_list():
    assert closing(content({"t": {"looping,none": 0.5}}, MTP), "r", True) == []
    many = {f"t{i}": {"acc,none": 0.5} for i in range(MOST_TASKS + 3)}
    found = closing(content(many), "r", True)
    assert len(found) == MOST_TASKS + 2
    assert "3 more tasks" in found[MOST_TASKS]

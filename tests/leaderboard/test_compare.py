"""`mtp-harness compare`: paired differences by another route, requirements, and what is refused."""

import json
import math
import random

import numpy as np
import pytest
import scipy.stats

from mtp_harness.cli import main
from mtp_harness.leaderboard.compare import compare, require
from mtp_harness.results import run
from mtp_harness.scoring.bootstrap import estimate

from .result_files import write_run

TOKENS = 100


def heads(folder, label, counts, task="mtp_heads", **more):
    """Write a run whose documents have so many right of a hundred tokens, by metric."""
    scores = {name: [(one, TOKENS) for one in each] for name, each in counts.items()}
    return write_run(folder, label, task, scores, generation=False, **more)


def compared(folder):
    return compare(run.find([str(folder / "base")]), run.find([str(folder / "tuned")]))


def pair(folder, base, tuned, **more):
    heads(folder / "base", "base", base, **more)
    heads(folder / "tuned", "tuned", tuned, **more)
    return compared(folder)


def test_differences_are_those_that_scipy_draws_paired(tmp_path):
    rng = random.Random(0)
    sizes = [rng.randint(50, 400) for _ in range(40)]
    # Documents differ far more than models do: the intervals of the two alone would overlap.
    chance = [rng.uniform(0.1, 0.9) for _ in sizes]
    right = [[round(size * one) for size, one in zip(sizes, chance, strict=True)]]
    right.append([count - rng.randint(0, 4) for count in right[0]])
    for label, counts in zip(("base", "tuned"), right, strict=True):
        scores = {"code_accuracy_2": list(zip(counts, sizes, strict=True))}
        write_run(tmp_path / label, label, "mtp_heads", scores, generation=False)
    (row,) = compared(tmp_path).rows

    def pooled(a, b, n, axis=-1):
        return (b.sum(axis) - a.sum(axis)) / n.sum(axis)

    arrays = [np.array(one, dtype=float) for one in (*right, sizes)]
    drawn = scipy.stats.bootstrap(
        arrays, pooled, paired=True, confidence_level=0.9, method="percentile", rng=1
    ).confidence_interval
    assert row.names == ["mtp_heads", "code", "accuracy", "2"]
    assert row.difference == pytest.approx((sum(right[1]) - sum(right[0])) / sum(sizes))
    assert (row.low, row.high) == pytest.approx((drawn.low, drawn.high), abs=3e-4)
    assert row.change == "worse" and row.n_documents == 40
    assert row.by_document["0"] == pytest.approx((right[1][0] - right[0][0]) / sizes[0])
    # A gate asks the end that could fall short: the difference itself reaches neither side.
    for side, end in ((">=", row.low), ("<=", row.high)):
        [asked] = require(compared(tmp_path), f"accuracy {side} {row.difference:.6f}")
        assert not asked.holds and asked.end == end


def test_nine_intervals_in_ten_hold_the_true_difference():
    """Coverage by simulation, with the normal's closed form for how many may miss."""
    rng, n_trials = np.random.default_rng(0), 400
    held = 0
    for _ in range(n_trials):
        found = estimate(rng.normal(0.1, 1.0, size=(40, 1)))
        held += found.low <= 0.1 <= found.high
    # The percentile interval of 40 documents is a little narrow: 1.645 of the normal, t has 1.685.
    expected = 1 - 2 * scipy.stats.t.sf(1.645 * math.sqrt(39 / 40), 39)
    assert held / n_trials == pytest.approx(expected, abs=3 * math.sqrt(0.09 / n_trials))


def test_lower_bits_are_better(tmp_path):
    for label, factor in (("base", 1.0), ("tuned", 0.9)):
        scores = {"code_bits_per_byte_1": [(n * factor, n, n, n) for n in (50, 80, 60)]}
        stated = {"code_bits_per_byte_1": factor / math.log(2)}
        own = {"scores": scores, "stated": stated, "generation": False}
        write_run(tmp_path / label, label, "mtp_heads", **own)
    (row,) = compared(tmp_path).rows
    assert (row.measure, row.change) == ("bits_per_byte", "better")
    assert row.difference == pytest.approx(-0.1 / math.log(2))


BASE = {"code_accuracy_2": [30, 60, 90, 50], "code_tf_agree_2": [30, 60, 90, 50]}
TUNED = {"code_accuracy_2": [28, 58, 88, 48], "code_tf_agree_2": [33, 63, 93, 53]}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("code accuracy 2 >= -0.021", True),  # every document loses two of its hundred tokens
        ("code accuracy 2 >= -0.01", False),
        ("mtp_heads tf_agree >= 0", True),
        ("code 2 >= 0", False),
        ("accuracy <= -0.019", True),
        ("accuracy <= -2.1e-2", False),
    ],
)
def test_a_requirement_is_a_gate(tmp_path, capsys, text, holds):
    pair(tmp_path, BASE, TUNED)
    status = main(
        ["compare", *(str(tmp_path / one) for one in ("base", "tuned")), "--require", text]
    )
    out = capsys.readouterr().out
    assert status == (0 if holds else 1)
    assert f"require {text}: {'holds' if holds else 'FALLS SHORT'}" in out or not holds
    assert "-0.020 [-0.020, -0.020]" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("code accuracy 2", "is not a requirement, expected such as"),
        ("code accuracy 2 >= much", "is not a requirement"),
        ("code accuracy 2 >= 0.1.2", "is not a requirement"),
        ("code accuracy 2 >= .", "is not a requirement"),
        (
            "prose accuracy >= 0",
            "names nothing that both runs measured; expected words of mtp_heads",
        ),
    ],
)
def test_requirements_that_are_none(tmp_path, text, said):
    found = pair(tmp_path, BASE, TUNED)
    with pytest.raises(ValueError, match=said):
        require(found, text)


def test_without_documents_there_is_a_difference_and_no_gate(tmp_path):
    found = pair(tmp_path, BASE, TUNED, samples=False)
    assert {row.low for row in found.rows} == {None}
    assert found.rows[0].difference == pytest.approx(-0.02)
    with pytest.raises(ValueError, match="has no interval, .* run with --log_samples"):
        require(found, "accuracy >= 0")


def test_scores_of_other_documents_are_not_paired(tmp_path):
    """A document that one run could not score: there is a difference, and no interval of pairs."""
    pair(tmp_path, BASE, {"code_accuracy_2": [28, 58, 88, 2]})
    stated = {"code_accuracy_2": (28 + 58 + 88) / 300}
    heads(tmp_path / "tuned", "tuned", {"code_accuracy_2": [28, 58, 88, 2]}, stated=stated)
    [samples] = (tmp_path / "tuned").glob("samples_*")
    *lines, last = map(json.loads, samples.read_text().splitlines())
    del last["code_accuracy_2"]
    samples.write_text("".join(f"{json.dumps(one)}\n" for one in (*lines, last)))
    [row] = compared(tmp_path).rows
    assert (row.low, row.high, row.n_documents) == (None, None, 0)
    assert row.difference == pytest.approx(0.58 - 0.575)


def test_runs_that_cannot_be_compared_are_refused(tmp_path):
    pair(tmp_path, BASE, TUNED)
    heads(tmp_path / "tuned", "tuned", TUNED, metadata={"window": 128})
    with pytest.raises(ValueError, match=r"cannot be compared: settings none against window=128"):
        compared(tmp_path)
    heads(tmp_path / "tuned", "tuned", TUNED)
    heads(tmp_path / "tuned/again", "another", TUNED)
    with pytest.raises(
        ValueError, match="are several runs of mtp_heads, expected one on each side"
    ):
        compared(tmp_path)
    heads(tmp_path / "other", "other", TUNED, task="mtp_positions")
    with pytest.raises(ValueError, match="no score of a task in common .*mtp_heads is in"):
        compare(run.find([str(tmp_path / "base")]), run.find([str(tmp_path / "other")]))


def test_what_one_of_the_two_has_is_named(tmp_path):
    more = {**TUNED, "code_accuracy_3": [1, 2, 3, 4]}
    found = pair(tmp_path, BASE, more)
    assert found.left_out == ["code_accuracy_3 of mtp_heads: tuned only"]


def test_a_gate_does_not_hold_because_the_candidate_measured_nothing(tmp_path):
    """A score that is NaN, a head that is gone, a task that was not run."""
    base = {"prose_accuracy_2": [30, 60, 90, 50], **BASE}
    nan = {**base, "code_accuracy_2": [30, 60, float("nan"), 50]}
    found = pair(tmp_path / "nan", base, nan)
    assert found.left_out == ["code_accuracy_2 of mtp_heads: NaN in tuned"]
    fewer = pair(tmp_path / "fewer", base, {"prose_accuracy_2": base["prose_accuracy_2"]})
    heads(tmp_path / "task/base/positions", "base", BASE, task="mtp_positions")
    without = pair(tmp_path / "task", base, base)
    for comparison in (found, fewer, without):
        with pytest.raises(ValueError, match="names what tuned lacks, expected a number of both"):
            require(comparison, "accuracy >= -0.5")
        [one] = require(comparison, "mtp_heads prose accuracy >= -0.5")
        assert one.holds
    # What only the candidate has is no loss.
    assert len(require(pair(tmp_path / "more", BASE, base), "accuracy >= -0.5")) == 1


def test_nan_on_both_sides_is_said(tmp_path):
    nan = {"code_accuracy_2": [30, float("nan")]}
    with pytest.raises(ValueError, match="code_accuracy_2 of mtp_heads: NaN in base"):
        pair(tmp_path, nan, nan)


@pytest.mark.parametrize("category", ["small talk", "c++", "tool-use", "\u65e5\u672c", "accuracy"])
def test_categories_are_what_users_call_them(tmp_path, category):
    name = f"{category}_accuracy_2"
    found = pair(tmp_path, {name: [30, 60]}, {name: [31, 61]})
    assert [row.names[1:] for row in found.rows] == [[category, "accuracy", "2"]]
    [one] = require(found, f"{category} accuracy 2 >= 0")
    assert one.holds and one.end == pytest.approx(0.01)


def test_sampled_tasks_are_named_with_their_temperature(tmp_path):
    how = {"until": ["x"], "max_gen_toks": 5, "do_sample": True}
    for label, passed in (("base", 0.0), ("tuned", 1.0)):
        for temperature in (0.2, 0.8):
            generation = {**how, "temperature": temperature}
            scores = {"pass@1_sampled": [1.0, 0.0, passed]}
            folder = tmp_path / label / str(temperature)
            write_run(folder, label, "humaneval_mtp", scores, generation=generation)
    [one] = require(compared(tmp_path), "humaneval_mtp temperature 0.8 pass@1_sampled >= 0")
    assert one.row.task == "humaneval_mtp, temperature 0.8"


def test_json_and_figure(tmp_path, capsys):
    pair(tmp_path, BASE, TUNED)
    both = [str(tmp_path / one) for one in ("base", "tuned")]
    out, picture = tmp_path / "out.json", tmp_path / "out.svg"
    assert main(["compare", *both, "-o", str(out), "--figure", str(picture)]) == 0
    written = json.loads(out.read_text())
    assert [row["change"] for row in written["rows"]] == ["worse", "better"]
    assert written["rows"][0]["by_document"] == pytest.approx(dict.fromkeys("0123", -0.02))
    assert "<svg" in picture.read_text()
    assert main(["compare", *both, "--figure", str(tmp_path / "out.bmp")]) == 2
    assert "expected a name that ends in .png, .pdf, .svg" in capsys.readouterr().err


def test_losses_over_different_vocabularies_are_left_out(tmp_path):
    """A drafter that can say fewer tokens is not credited for it."""
    counts = {f"code_bits_per_byte_{k}": [50, 60] for k in (1, 2)} | {"code_accuracy_2": [9, 8]}
    heads(tmp_path / "base", "base", counts, mtp={"draft_vocabulary": 320})
    heads(tmp_path / "tuned", "tuned", counts, mtp={"draft_vocabulary": 500})
    found = compared(tmp_path)
    assert [(row.measure, row.offset) for row in found.rows] == [
        ("accuracy", 2),
        ("bits_per_byte", 1),
    ]
    assert [said for said in found.left_out if "have vocabularies of different sizes" in said]
    heads(tmp_path / "tuned", "tuned", counts, mtp={"draft_vocabulary": 320})
    assert len(compared(tmp_path).rows) == 3

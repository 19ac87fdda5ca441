"""The table: values, intervals, paired differences, and what is refused."""

import math
import random
import statistics

import pytest

from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.sampling import Sampling
from mtp_harness.leaderboard.render import done, notes, task_rows
from mtp_harness.leaderboard.table import Cell, build
from mtp_harness.results import run

from .result_files import write_run


def board_of(folder, baseline=None):
    return build(run.find([str(folder)]), baseline)


def cell(board, name, metric):
    model = next(model for model in board.models if model.name == name)
    column = next(column for column in board.columns if column.metric == metric)
    return board.cells.get((model, column))


def by_resampling(values, statistic, rounds=4000):
    """The 90 % interval by a plain loop over Python's own random numbers."""
    rng = random.Random(1)
    found = sorted(statistic(rng.choices(values, k=len(values))) for _ in range(rounds))
    return found[rounds // 20], found[rounds - rounds // 20]


def test_interval_is_that_of_resampled_documents(tmp_path):
    rng = random.Random(0)
    scores = [float(rng.random() < 0.3) for _ in range(150)]
    write_run(tmp_path, scores={"pass@1": scores})
    found = cell(board_of(tmp_path), "model", "pass@1").interval
    low, high = by_resampling(scores, statistics.fmean)
    assert found.value == pytest.approx(sum(scores) / 150)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_difference_is_paired_by_document(tmp_path):
    # One point more on every document: however they are drawn, the difference is that point.
    base = [0.1, 0.9, 0.3, 0.5, 0.2]
    write_run(tmp_path / "a", "base", scores={"exact_match": base}, n=1, k=1)
    write_run(tmp_path / "b", "other", scores={"exact_match": [x + 0.05 for x in base]})
    board = board_of(tmp_path, "base")
    difference = cell(board, "other", "exact_match").difference
    assert tuple(difference) == pytest.approx((0.05, 0.05, 0.05))
    assert cell(board, "base", "exact_match").difference is None
    assert cell(board, "base", "exact_match").interval.low < 0.3


def test_difference_of_ratios(tmp_path):
    one = [(8, 2), (9, 3), (40, 10), (3, 3)]
    other = [(8, 8), (9, 9), (40, 40), (3, 3)]
    write_run(tmp_path / "a", "base", scores={"tokens_per_forward": other}, n=1, k=1)
    write_run(tmp_path / "b", "fast", scores={"tokens_per_forward": one})
    found = cell(board_of(tmp_path, "base"), "fast", "tokens_per_forward")
    assert found.value == pytest.approx(60 / 18)  # not the mean of 4, 3, 4 and 1
    low, high = by_resampling(
        one, lambda drawn: sum(a for a, _ in drawn) / sum(b for _, b in drawn)
    )
    assert found.difference.value == pytest.approx(60 / 18 - 1)
    assert found.difference.low == pytest.approx(low - 1, abs=0.05)
    assert found.difference.high == pytest.approx(high - 1, abs=0.05)


def bits_by_hand(documents):
    nats, scored, tokens, n_bytes = (sum(one[i] for one in documents) for i in range(4))
    return nats / scored * tokens / n_bytes / math.log(2)


def perplexity_by_hand(documents):
    return math.exp(sum(nats for nats, _ in documents) / sum(words for _, words in documents))


LOSSES = {"code_bits_per_byte_2": bits_by_hand, "code_word_perplexity": perplexity_by_hand}


def test_losses_have_intervals_and_differences_as_they_are_pooled(tmp_path):
    rng = random.Random(0)
    for label, loss in (("base", 0.5), ("other", 0.6)):
        sizes = [50 + 10 * (place % 7) for place in range(60)]
        nats = [size * (loss + rng.random() / 10) for size in sizes]
        both = list(zip(nats, sizes, strict=True))
        scores = {  # a head reaches nine tokens in ten
            "code_bits_per_byte_2": [(0.9 * a, 0.9 * b, b, b) for a, b in both],
            "code_word_perplexity": [(a, b / 5) for a, b in both],
        }
        stated = {name: by_hand(scores[name]) for name, by_hand in LOSSES.items()}
        write_run(tmp_path / label, label, scores=scores, stated=stated, generation=False)
    board = board_of(tmp_path, "base")
    for metric, by_hand in LOSSES.items():
        found = cell(board, "other", metric)
        low, high = by_resampling(scores[metric], by_hand)
        assert (found.interval.low, found.interval.high) == pytest.approx((low, high), rel=0.003)
        base = cell(board, "base", metric).value
        assert found.difference.value == pytest.approx(found.value - base)


def test_metric_that_is_pooled_in_another_way_has_no_interval(tmp_path):
    write_run(tmp_path, scores={"exact_match": [1.0, 0.0]}, stated={"exact_match": 0.25})
    found = cell(board_of(tmp_path), "model", "exact_match")
    assert (found.value, found.interval) == (0.25, None)


def test_metric_without_samples_has_no_interval_and_the_table_says_so(tmp_path):
    write_run(tmp_path / "a", "base", samples=False)
    write_run(tmp_path / "b", "other", samples=False)
    board = board_of(tmp_path, "base")
    assert cell(board, "other", "pass@1").interval is None
    assert any("--log_samples" in note for note in board.notes)


def test_speed_is_the_runs_and_has_no_difference(tmp_path):
    write_run(tmp_path, scores={"tokens_per_forward": [(4, 1)]})
    found = cell(board_of(tmp_path), "model", "tokens_per_s")
    assert (found.value, found.difference) == (1000.0, None)


def test_what_every_k_saves_is_shown_beside_the_rest(tmp_path):
    decoded = {"tokens_per_forward_2": [(4, 2), (5, 3)], "identical_2": [1.0, 0.0]}
    write_run(tmp_path / "a", task="mtp_speculative", scores=decoded, generation=False)
    timed = {"tokens_per_second_2": [500.0, 700.0], "speedup_2": [1.5, 1.7]}
    own = {"scores": timed, "stated": {"cells_not_measured": 0}}
    write_run(tmp_path / "b", task="mtp_speed", generation=False, **own)
    board = board_of(tmp_path)
    shown = {(column.task, column.metric) for column in board.columns}
    assert shown == {
        ("mtp_speculative", "tokens_per_forward_2"),
        ("mtp_speculative", "identical_2"),
        ("mtp_speed", "tokens_per_second_2"),
        ("mtp_speed", "speedup_2"),
    }
    assert cell(board, "model", "tokens_per_forward_2").value == 9 / 5
    assert cell(board, "model", "speedup_2") == Cell(pytest.approx(1.6))  # no interval
    assert any(note.startswith("timed on ") for note in notes(board))


def test_task_of_which_nothing_is_shown_is_named(tmp_path):
    write_run(tmp_path, task="odd", scores={"n_things": [1.0]}, generation=False)
    [note] = [note for note in notes(board_of(tmp_path)) if note.startswith("odd")]
    assert "not shown" in note


def test_a_run_whose_scores_are_nan_is_named(tmp_path):
    write_run(tmp_path / "a", "a", scores={"pass@1": [1.0, float("nan")]}, mtp={"totals": {}})
    write_run(tmp_path / "b", "b", scores={"pass@1": [1.0, 0.0]}, mtp={"totals": {}})
    said = "humaneval_mtp: a has no number (NaN) of what is shown."
    assert said in board_of(tmp_path).notes
    write_run(tmp_path / "a", "a", scores={"pass@1": [1.0, 0.0]}, mtp={"totals": {}})
    assert said not in board_of(tmp_path).notes


def test_speeds_of_two_machines_are_called_no_comparison(tmp_path):
    for name, hardware in (("one", {"cpu": "A", "threads": 1}), ("two", {"gpu": "B"})):
        mtp = {"hardware": hardware, "slots": 8}
        write_run(tmp_path / name, name, scores={"tokens_per_forward": [(4, 1)]}, mtp=mtp)
    [note] = [note for note in notes(board_of(tmp_path)) if note.startswith("tokens/s")]
    assert "cannot be compared: A, 1 thread, batch 8: one; B, batch 8: two" in note


def test_tasks_of_one_model_are_one_row(tmp_path):
    write_run(tmp_path / "a", task="humaneval_mtp")
    write_run(tmp_path / "b", task="mbpp_mtp")
    board = board_of(tmp_path)
    assert [model.name for model in board.models] == ["model"]
    assert {column.task for column in board.columns} == {"humaneval_mtp", "mbpp_mtp"}


DIFFERENT = {
    "task version": {"version": 1.2},
    "documents": {"documents": "another {}"},
    "prompts": {"prompts": "another {}"},
    "number of samples": {"n_samples": 3},
    "stops": {"generation": {"until": ["\nclass"], "max_gen_toks": 512, "do_sample": False}},
    "budget": {"generation": {"until": ["\ndef"], "max_gen_toks": 256, "do_sample": False}},
    "draft rule": {"mtp": {"draft_rule": "LOSSY: every draft is accepted unverified"}},
    "dtype": {"mtp": {"dtype": "bfloat16"}},
    "engine": {"mtp": {"engine": {"name": "vllm", "version": "0.32.0"}}},
    "settings": {"metadata": {"window": 128}},
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_runs_that_differ_are_kept_apart_and_the_difference_is_named(tmp_path, what):
    write_run(tmp_path / "a", "base")
    write_run(tmp_path / "b", "other", **DIFFERENT[what])
    board = board_of(tmp_path, "base")
    [sentence] = board.conflicts()
    assert f" {what} " in sentence
    assert str(tmp_path / "a") in sentence
    assert str(tmp_path / "b") in sentence
    assert all(found.difference is None for found in board.cells.values())


def test_temperatures_have_tables_of_their_own(tmp_path):
    write_run(tmp_path / "a", "base")
    how = {"until": ["\ndef"], "max_gen_toks": 512, "do_sample": True}
    for place, temperature in enumerate((0.2, 0.8)):
        more = {"generation": how | {"temperature": temperature}, "n_samples": 3}
        write_run(tmp_path / str(place), "base", **more)
    board = board_of(tmp_path, "base")
    assert board.conflicts() == []
    told = [one.protocol.temperature for one in board.boards.values()]
    assert sorted(told) == ["0 (greedy)", "0.2", "0.8"]
    write_run(tmp_path / "c", "other", generation=how | {"temperature": 0.5}, n_samples=4)
    assert "number of samples 3 against 4" in " ".join(board_of(tmp_path).conflicts())


def test_top_p_of_sampled_answers_counts(tmp_path):
    sampled = {"until": [], "max_gen_toks": 9, "do_sample": True, "temperature": 0.8}
    write_run(tmp_path / "a", "base", generation=sampled)
    write_run(tmp_path / "b", "other", generation=sampled | {"top_p": 0.95})
    [sentence] = board_of(tmp_path).conflicts()
    assert "top p 1 against 0.95" in sentence


def test_the_line_of_sampled_answers_says_by_which_rule_drafts_were_verified(tmp_path):
    sampled = {"until": [], "max_gen_toks": 9, "do_sample": True, "temperature": 0.8}
    rule = Rule().describe(Sampling(0.8))
    write_run(tmp_path / "a", "sampled", generation=sampled, mtp={"draft_rule": rule})
    write_run(tmp_path / "b", "greedy")
    said = sorted(done(one.protocol) for one in board_of(tmp_path).boards.values())
    greedy, other = sorted(said, key=lambda line: "temperature 0.8" in line)
    assert f", drafts {rule}, " in other and "drafts" not in greedy


def test_head_1_alone_fits_every_lossless_rule(tmp_path):
    write_run(tmp_path / "a", "one", n=1, k=1, mtp={"draft_rule": "none: an ordinary model"})
    write_run(tmp_path / "b", "four", k=4)
    write_run(tmp_path / "c", "four", k=1)
    assert board_of(tmp_path).conflicts() == []


def test_two_rules_do_not_meet_over_a_run_that_drafts_nothing(tmp_path):
    write_run(tmp_path / "a", "one", n=1, k=1)
    write_run(tmp_path / "b", "four", k=4)
    write_run(tmp_path / "c", "four lossy", k=4, mtp={"draft_rule": "LOSSY"})
    assert len(board_of(tmp_path).conflicts()) == 1


def test_model_arguments_are_no_settings_of_the_task(tmp_path):
    write_run(tmp_path / "a", "one")
    write_run(tmp_path / "b", "two")
    assert board_of(tmp_path).conflicts() == []


def test_same_run_twice_is_refused(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    with pytest.raises(ValueError, match="are both model, humaneval_mtp") as error:
        board_of(tmp_path)
    assert str(tmp_path / "a") in str(error.value)


@pytest.mark.parametrize(
    ("baseline", "said"),
    [("nobody", "names no rows"), ("four", "names 2 rows; expected one of 'four, k=1'")],
)
def test_baseline_that_is_no_row(tmp_path, baseline, said):
    write_run(tmp_path / "a", "four", k=4)
    write_run(tmp_path / "b", "four", k=1)
    with pytest.raises(ValueError, match=said):
        board_of(tmp_path, baseline)


def test_baseline_that_did_not_run_a_task(tmp_path):
    write_run(tmp_path / "a", "base")
    write_run(tmp_path / "b", "other", task="mbpp_mtp")
    assert any("mbpp_mtp" in note and "base" in note for note in board_of(tmp_path, "base").notes)


def test_a_table_is_turned_where_that_makes_it_narrower(tmp_path):
    for number in range(6):
        scores = {f"code_accuracy_{offset}": [0.5] for offset in range(1, 6)}
        write_run(tmp_path / str(number), f"a model of that name {number}", scores=scores)
    board = board_of(tmp_path)
    assert task_rows(board, board.columns)[0][0] == "model"  # six columns are wider than five
    write_run(tmp_path / "z", "z", scores={f"code_accuracy_{o}": [0.5] for o in range(1, 30)})
    board = board_of(tmp_path)
    assert task_rows(board, board.columns)[0][0] == "metric"


def test_names_say_no_more_than_tells_models_apart(tmp_path):
    told = {"train_tokens": 5000, "train_step": 3}
    for k in (2, 4):
        write_run(tmp_path / f"a{k}", "a", k=k, mtp=told)
    write_run(tmp_path / "b", "b", mtp=told)
    for step in (1, 2):
        write_run(tmp_path / f"c{step}", "c", mtp=told | {"train_step": step})
    names = {model.name for model in board_of(tmp_path).models}
    assert names == {"a, k=2", "a, k=4", "b", "c, step 1", "c, step 2"}
    board = board_of(tmp_path, "b, k=4, 5k tokens, step 3")  # the whole name is known, too
    assert board.baseline.label == "b"


def test_losses_over_a_part_of_the_vocabulary_are_named(tmp_path):
    write_run(tmp_path / "a", "tuned", mtp={"draft_vocabulary": 320})
    write_run(tmp_path / "b", "plain")
    [told] = [note for note in board_of(tmp_path).notes if "drafter's vocabulary" in note]
    assert told.endswith("for: tuned (320 tokens).")

"""Sample efficiency against straight lines in the logarithm of tokens, by hand."""

import pytest

from mtp_harness.leaderboard.table import DATA, build
from mtp_harness.results import run
from mtp_harness.scoring.sample_efficiency import tokens_to_reach

from .result_files import write_run

# The score is log10 of the tokens: 2 at 100, 3 at 1000, 4 at 10,000.
LINE = [(100.0, 2.0), (1000.0, 3.0), (10_000.0, 4.0)]


@pytest.mark.parametrize("score", [2.25, 3.0, 3.5, 4.0])
def test_between_checkpoints(score):
    assert tokens_to_reach(LINE, score) == pytest.approx(10**score)


@pytest.mark.parametrize("score", [1.0, 2.0, 4.01])
def test_never_beyond_them(score):
    assert tokens_to_reach(LINE, score) is None


def test_two_checkpoints_are_too_few():
    assert tokens_to_reach(LINE[:2], 2.5) is None


def test_first_time_counts():
    assert tokens_to_reach([(10, 0.0), (100, 1.0), (1000, 0.0), (10_000, 2.0)], 0.5) == (
        pytest.approx(10**1.5)
    )


def write_checkpoints(folder, label, n, scores):
    for tokens, score in scores:
        told = {"train_tokens": tokens, "label": label}
        write_run(folder / f"{label}{tokens}", label, n=n, k=n, scores=score, mtp=told)


def test_column_is_on_the_last_checkpoint(tmp_path):
    base = {"pass@1": [1.0, 0.0, 1.0, 0.0]}  # .5
    write_checkpoints(tmp_path, "one", 1, [(10_000, base), (100, {"pass@1": [0.0] * 4})])
    four = [
        (100, {"pass@1": [0.0] * 4}),
        (1000, {"pass@1": [1.0, 0.0, 0.0, 0.0]}),
        (10_000, {"pass@1": [1.0, 1.0, 1.0, 0.0]}),
    ]
    write_checkpoints(tmp_path, "four", 4, four)
    board = build(run.find([str(tmp_path)]))
    cells = {m.name: c.value for (m, column), c in board.cells.items() if column.metric == DATA}
    # From .25 at 1000 to .75 at 10,000: .5 is half way in the logarithm.
    assert cells == {"four, 10k tokens": pytest.approx(1000 * 10**0.5 / 10_000)}


def test_without_checkpoints_there_is_no_column(tmp_path):
    write_run(tmp_path)
    assert DATA not in [column.metric for column in build(run.find([str(tmp_path)])).columns]

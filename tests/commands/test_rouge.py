import json
from itertools import product

import numpy as np
import pytest

from mtp_harness.cli import main
from mtp_harness.data.summarization import BENCHMARKS
from mtp_harness.leaderboard.summaries import AVERAGE, table
from mtp_harness.results import samples
from mtp_harness.scoring.bootstrap import high90, low90
from mtp_harness.scoring.rouge import SCORES

EIGHT = [f"{name}_mtp" for name in BENCHMARKS]
GENERATOR = np.random.default_rng(7)


def write(folder, task, scores):
    """Write a samples file whose documents have these scores, [P, 30]."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"samples_{task}_2026-01-31T12-00-00.jsonl"
    rows = [dict(zip(SCORES, map(float, row), strict=True)) for row in scores]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_means_and_intervals_are_those_of_all_resamples(tmp_path):
    scores = GENERATOR.random((5, 30))
    path = write(tmp_path / "m", "xsum_mtp", scores)
    rows = table([path], EIGHT)
    assert [row.metric for row in rows] == list(SCORES)
    draws = np.array(list(product(range(5), repeat=5)))
    for column, row in enumerate(rows):
        exact = np.quantile(scores[draws, column].mean(axis=1), [0.05, 0.95])
        assert row.score.value == pytest.approx(scores[:, column].mean())
        assert row.score[1:] == pytest.approx(exact, abs=0.02)
        ends = low90(scores[:, column]), high90(scores[:, column])
        assert row.score[1:] == pytest.approx(ends, rel=1e-12)
        assert (row.model, row.task, row.n_documents) == ("m", "xsum_mtp", 5)


def test_average_weighs_benchmarks_not_documents(tmp_path):
    sizes = [2, 6, 6, 6, 6, 9, 9, 9]
    matrices = [GENERATOR.random((size, 30)) for size in sizes]
    for name, matrix in zip(BENCHMARKS, matrices, strict=True):
        write(tmp_path / "m", f"{name}_mtp", matrix)
    rows = [row for row in table(samples.find([str(tmp_path)]), EIGHT) if row.task == AVERAGE]
    expected = [np.mean([m[:, column].mean() for m in matrices]) for column in range(30)]
    assert [row.score.value for row in rows] == pytest.approx(expected)
    # The variance of a mean of independent means, to compare the width of the interval with.
    variance = sum(m[:, 0].var() / len(m) for m in matrices) / 64
    width = rows[0].score.high - rows[0].score.low
    assert width == pytest.approx(2 * 1.6449 * variance**0.5, rel=0.05)
    (tmp_path / "m" / "samples_xsum_mtp_2026-01-31T12-00-00.jsonl").unlink()
    assert not [row for row in table(samples.find([str(tmp_path)]), EIGHT) if row.task == AVERAGE]


def test_printed_table(tmp_path, capsys):
    write(tmp_path / "m", "docstring_mtp", np.full((4, 30), 0.25))
    write(tmp_path / "m", "humaneval_mtp", []).write_text('{"pass@1": 1}\n')
    assert main(["rouge", str(tmp_path), "--json", str(tmp_path / "rows.json")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("m  docstring_mtp  4 documents, ASCII tokens, the paper's reading\n")
    assert "  rougeLsum 25.00 [25.00, 25.00]  25.00 [25.00, 25.00]  25.00 [25.00, 25.00]\n" in said
    assert "another protocol" in said
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 30


def test_a_damaged_file_is_named_and_the_others_are_shown(tmp_path, capsys):
    write(tmp_path / "a", "xsum_mtp", np.full((2, 30), 0.5))
    torn = write(tmp_path / "b", "xsum_mtp", np.full((2, 30), 0.5))
    torn.write_text(torn.read_text()[:-9])
    lacking = write(tmp_path / "c", "xsum_mtp", np.full((2, 30), 0.5))
    lacking.write_text(lacking.read_text() + "{}\n")
    assert main(["rouge", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "a  xsum_mtp  2 documents" in out and "b  xsum_mtp" not in out
    assert f"{torn}:2 is not JSON" in err and f"{lacking} has a document without a score" in err


def test_models_whose_names_end_alike_are_two(tmp_path):
    for run in ("run1", "run2"):
        write(tmp_path / f"__ckpt__{run}__7B", "xsum_mtp", np.zeros((2, 30)))
    rows = table(samples.find([str(tmp_path)]), EIGHT)
    assert {row.model for row in rows} == {"run1/7B", "run2/7B"}


def test_refusals(tmp_path, capsys):
    write(tmp_path / "a" / "m", "xsum_mtp", np.zeros((2, 30)))
    write(tmp_path / "b" / "m", "xsum_mtp", np.zeros((2, 30)))
    assert main(["rouge", str(tmp_path)]) == 2
    assert "two files hold xsum_mtp of m" in capsys.readouterr().err
    write(tmp_path / "c", "humaneval_mtp", []).write_text('{"pass@1": 1}\n')
    assert main(["rouge", str(tmp_path / "c")]) == 2
    assert "no samples with ROUGE" in capsys.readouterr().err

"""The mean over the seven choice tasks, from result files."""

import json

import pytest

from mtp_harness.cli import main
from mtp_harness.leaderboard.choice import table
from mtp_harness.scoring.choice_metrics import METRICS

# Figure S12 at step 25000, n = 1 and n = 4; figure 5 shows their means, 52.31 and 50.85.
N1 = (0.374, 0.81, 0.676, 0.154, 0.765, 0.469, 0.413)
N4 = (0.384, 0.79, 0.657, 0.132, 0.759, 0.468, 0.37)


def write(path, scores, **mtp):
    path.parent.mkdir(parents=True, exist_ok=True)
    results = {
        task: {METRICS[task]: value, f"{METRICS[task]}_stderr": 0.01, "alias": task}
        for task, value in scores.items()
    }
    counts = {task: {"original": 100, "effective": 100} for task in scores}
    path.write_text(
        json.dumps(
            {
                "results": results,
                "configs": {task: {} for task in scores},
                "n-samples": counts,
                "model_name": "some/model",
                "config": {"mtp": {"n_future_tokens": 1, "draft_heads": 1, **mtp}} if mtp else {},
            }
        )
    )
    return path


def test_mean_is_that_of_figure_5(tmp_path):
    write(tmp_path / "a" / "results_1.json", dict(zip(METRICS, N1, strict=True)), label="n1")
    write(tmp_path / "b" / "results_1.json", dict(zip(METRICS, N4, strict=True)), label="n4")
    one, four = table([str(tmp_path)])
    assert (one.model, four.model) == ("n1", "n4")
    # The panels are digitised to a tenth: their mean is figure 5's to less than that.
    assert 100 * one.mean == pytest.approx(52.31, abs=0.05)
    assert 100 * four.mean == pytest.approx(50.85, abs=0.05)


def test_tasks_of_one_model_may_be_in_several_files(tmp_path):
    scores = dict(zip(METRICS, N1, strict=True))
    for task, value in scores.items():
        write(tmp_path / task / "results_x.json", {task: value}, label="m", train_step=2500)
    write(tmp_path / "later" / "results_x.json", {"copa": 0.5}, label="m", train_step=5000)
    first, later = table([str(tmp_path)])
    assert first.mean == pytest.approx(sum(N1) / 7) and first.train_step == 2500
    assert later.scores == {"copa": 0.5} and later.mean is None


def test_lines_name_what_is_missing_and_what_was_limited(tmp_path, capsys):
    path = write(tmp_path / "results_1.json", {"copa": 0.8, "piqa": 0.75})
    read = json.loads(path.read_text())
    read["n-samples"]["piqa"]["effective"] = 10
    path.write_text(json.dumps(read))
    assert main(["choice", str(path), "--json", str(tmp_path / "rows.json")]) == 0
    line = capsys.readouterr().out
    assert line.startswith("model  no mean of 7: arc_challenge, hellaswag, nq_open, social_iqa")
    assert "copa 0.800  piqa 0.750; head 1 only" in line
    assert line.strip().endswith("run with --limit: piqa")
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["mean"] is None and row["scores"] == {"copa": 0.8, "piqa": 0.75}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-1], "is not JSON"),
        (lambda text: "[]", "expected a results file of lm_eval"),
        (lambda text: text.replace("acc_norm,none", "acc,none"), "piqa has no acc_norm,none"),
        (lambda text: text.replace("piqa", "mmlu"), "no result of arc_challenge"),
    ],
)
def test_other_files_are_refused(tmp_path, capsys, change, message):
    path = write(tmp_path / "results_1.json", {"piqa": 0.75})
    path.write_text(change(path.read_text()))
    assert main(["choice", str(path)]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_a_damaged_file_is_named_and_the_others_count(tmp_path, capsys):
    write(tmp_path / "a" / "results_1.json", {"piqa": 0.75})
    torn = write(tmp_path / "b" / "results_1.json", {"piqa": 0.75})
    torn.write_text(torn.read_text()[:-1])
    assert main(["choice", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "piqa 0.750" in out and f"{torn} is not JSON" in err and err.count("\n") == 1


def test_models_whose_names_end_alike_are_two(tmp_path):
    for run in ("run1", "run2"):
        path = write(tmp_path / run / "results_1.json", {"copa": 0.8})
        path.write_text(path.read_text().replace("some/model", f"/ckpt/{run}/7B"))
    assert [row.model for row in table([str(tmp_path)])] == ["run1/7B", "run2/7B"]


def test_two_scores_of_one_task_are_refused(tmp_path):
    write(tmp_path / "a" / "results_1.json", {"copa": 0.8})
    write(tmp_path / "b" / "results_1.json", {"copa": 0.7})
    with pytest.raises(ValueError, match="both have copa of model; expected one"):
        table([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="no nowhere"):
        table(["nowhere"])

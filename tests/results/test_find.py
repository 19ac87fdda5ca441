"""Results are known by what they hold, samples by their date, whatever `--output_path` was."""

import json
import shutil

import pytest

from mtp_harness.cli import main
from mtp_harness.commands import demo
from mtp_harness.pipeline.results import complete_results
from mtp_harness.results.find import find_results, results_of, samples_of

from ..leaderboard.result_files import write_run

DATE = "2026-01-02T03-04-05.000001"


@pytest.fixture
def as_file(tmp_path):
    """A run as `-o outj/res.json` writes it."""
    folder = tmp_path / "outj"
    path = write_run(
        folder, "one", answers=[[{"text": "pass", "verdict": {"outcome": "pass"}}]] * 3
    )
    path.rename(folder / f"res_{DATE}.json")
    return folder


def test_the_harness_writes_them_where_they_are_looked_for(tmp_path):
    from lm_eval.loggers import EvaluationTracker

    for place in ("outj/res.json", "out"):
        tracker = EvaluationTracker(output_path=str(tmp_path / place))
        tracker.general_config_tracker.model_name_sanitized = "model"
        results = {"results": {"t": {}}, "configs": {"t": {}}, "config": {}}
        tracker.save_results_aggregated(results, {"t": []})
        tracker.save_results_samples("t", [{"doc_id": 0, "resps": [], "arguments": [[1]]}])
    one, two = find_results([tmp_path])
    assert one.parent.name == "model" and two.name.startswith("res_")
    for results in (one, two):
        samples = samples_of(results, "t")
        assert samples.is_file() and samples.parent == results.parent
        assert results_of(samples) == results
        assert samples_of(results, "other") is None


def test_other_json_beside_them_is_none(as_file):
    for name, text in {
        "cell.json": '{"results": 3, "task": "a"}',
        f"other_{DATE}.json": '{"kind": "a report"}',
        "list.json": "[1]",
        "torn.json": '{"kind": "a rep',
    }.items():
        (as_file / name).write_text(text)
    assert [path.name for path in find_results([as_file])] == [f"res_{DATE}.json"]


@pytest.mark.parametrize(
    ("name", "text"), [("run.json", '{\n  "results": {\n   "a"'), (f"res_{DATE}.json", "")]
)
def test_results_that_were_cut_off_count_so_that_they_are_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert [path.name for path in find_results([tmp_path])] == [name]


@pytest.mark.parametrize(
    "command",
    ["figures -o figs", "leaderboard", "report -o page.html", "passk", "grade --task humaneval"],
)
@pytest.mark.parametrize("place", [".", f"res_{DATE}.json"])
def test_every_command_finds_results_that_are_a_file(as_file, monkeypatch, capsys, command, place):
    monkeypatch.chdir(as_file)
    name, *rest = command.split()
    code = main([name, place, *rest])
    said = "".join(capsys.readouterr())
    if name == "grade":  # found; these documents hold no programs
        assert "samples_humaneval_mtp" in said and "the document lacks prompt" in said
    else:
        assert code == 0, said
    if name == "passk":  # called like the model, not like the user's folder
        assert said.startswith("one  humaneval_mtp  pass@1  100.00%")


def test_samples_are_pooled_with_results_that_are_a_file(as_file, capsys):
    assert main(["leaderboard", str(as_file), "--format", "csv"]) == 0
    # Of the 27 resamples of right, wrong, right, one has none right (3.7 %).
    assert f"{2 / 3},{1 / 3},1.0," in capsys.readouterr().out


def test_choice_and_export_find_them(tmp_path, capsys):
    scores = {"piqa": {"acc_norm,none": 0.5}}
    mtp = {"label": "m", "n_future_tokens": 2, "draft_heads": 2}
    mtp |= {"tables": {"mtp_speculative": {}}}
    content = {"results": scores, "configs": {"piqa": {}}, "config": {"mtp": mtp}}
    (tmp_path / f"res_{DATE}.json").write_text(json.dumps(content))
    assert main(["choice", str(tmp_path)]) == 0
    assert "piqa 50.00%" in capsys.readouterr().out
    assert main(["export", str(tmp_path), "--format", "speculation-profile"]) == 2
    assert f"res_{DATE}.json has damaged tables of mtp_speculative" in capsys.readouterr().err


def test_demo_and_run_find_them(as_file):
    config, samples, path = demo.newest(as_file)
    assert (config["label"], len(samples), path.name) == ("one", 3, f"res_{DATE}.json")
    assert complete_results(as_file.parent, "humaneval_mtp").path == path


def test_rouge_names_the_model_and_not_the_folder(tmp_path, capsys):
    from mtp_harness.scoring.rouge import SCORES

    for label in "ab":
        stamp = f"2026-01-02T03-04-05.00000{ord(label) % 9}"
        scores = {name: [0.5, 0.25] for name in SCORES}
        path = write_run(tmp_path, label, "xsum_mtp", scores, stamp=stamp)
        path.rename(tmp_path / f"{label}_{stamp}.json")
    assert main(["rouge", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "a  xsum_mtp  2 documents" in said and "b  xsum_mtp  2 documents" in said


def test_a_graded_copy_of_other_answers_is_not_read(as_file, capsys):
    [samples] = as_file.glob("samples_*")
    copy = samples.with_suffix(".graded.jsonl")
    shutil.copy(samples, copy)
    assert main(["leaderboard", str(as_file)]) == 0
    copy.write_text(samples.read_text().splitlines()[0] + "\n")
    capsys.readouterr()
    for command in (["leaderboard"], ["report", "-o", str(as_file / "page.html")], ["passk"]):
        assert main([command[0], str(as_file), *command[1:]]) == 2
        said = capsys.readouterr().err
        assert f"{copy} holds other answers than {samples.name}" in said
        assert said.count("\n") == 1

"""Results are known by what they hold, samples by their date, whatever `--output_path` was."""

import gzip
import json

import pytest

from mtp_harness.cli import main
from mtp_harness.commands import demo
from mtp_harness.pipeline.results import complete_results
from mtp_harness.results import samples as samples_file
from mtp_harness.results.find import (
    all_samples,
    find_results,
    graded_copy,
    is_graded,
    lines_of,
    results_of,
    samples_of,
    source_of,
    write_lines,
)

from ..leaderboard.result_files import write_run

DATE = "2026-01-02T03-04-05.000001"


def pack(path):
    """Compress a file as `gzip` does; return its new place."""
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


@pytest.fixture(params=["plain", "packed"])
def as_file(tmp_path, request):
    """A run as `-o outj/res.json` writes it; its samples may have been compressed since."""
    folder = tmp_path / "outj"
    path = write_run(
        folder, "one", answers=[[{"text": "pass", "verdict": {"outcome": "pass"}}]] * 3
    )
    path.rename(folder / f"res_{DATE}.json")
    if request.param == "packed":
        [samples] = folder.glob("samples_*")
        pack(samples)
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
        assert said.startswith("one  humaneval_mtp  pass@1  1.000")


def test_samples_are_pooled_with_results_that_are_a_file(as_file, capsys):
    assert main(["leaderboard", str(as_file), "--format", "csv"]) == 0
    # Of the 27 resamples of right, wrong, right, one has none right (3.7 %).
    assert f"{2 / 3},{1 / 3},1.0," in capsys.readouterr().out


def test_choice_and_export_find_them(tmp_path, capsys):
    scores = {"piqa": {"acc_norm,none": 0.5}}
    mtp = {"label": "m", "n_future_tokens": 2, "draft_heads": 2}
    mtp["tables"] = {"mtp_speculative": {}}
    content = {"results": scores, "configs": {"piqa": {}}, "config": {"mtp": mtp}}
    (tmp_path / f"res_{DATE}.json").write_text(json.dumps(content))
    assert main(["choice", str(tmp_path)]) == 0
    assert "piqa 0.500" in capsys.readouterr().out
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
    lines = list(lines_of(samples))
    copy = graded_copy(samples)
    assert copy.name == f"samples_humaneval_mtp_{DATE}.graded.jsonl"
    copy.write_bytes(b"".join(lines))
    assert main(["leaderboard", str(as_file)]) == 0
    copy.write_bytes(lines[0])
    capsys.readouterr()
    for command in (["leaderboard"], ["report", "-o", str(as_file / "page.html")], ["passk"]):
        assert main([command[0], str(as_file), *command[1:]]) == 2
        said = capsys.readouterr().err
        assert f"{copy} holds other answers than {samples.name}" in said
        assert said.count("\n") == 1


def test_a_compressed_graded_copy_is_read_and_written_as_one(as_file, capsys):
    [samples] = as_file.glob("samples_*")
    plain = graded_copy(samples)
    plain.write_bytes(b"".join(lines_of(samples)))
    copy = pack(plain)
    assert graded_copy(samples) == copy and is_graded(copy) and source_of(copy) == samples
    assert samples_of(as_file / f"res_{DATE}.json", "humaneval_mtp") == copy
    assert samples_file.find([as_file]) == samples_file.find([copy]) == [copy]
    assert samples_file.find_all([as_file / f"res_{DATE}.json"]) == [samples, copy]
    write_lines(copy, ['{"doc_id": 0}'])
    assert gzip.decompress(copy.read_bytes()) == b'{"doc_id": 0}\n'
    assert main(["passk", str(as_file)]) == 2
    assert f"{copy} holds other answers than {samples.name}" in capsys.readouterr().err


def test_of_samples_in_both_forms_those_that_are_not_compressed_count(as_file):
    [samples] = as_file.glob("samples_*")
    results = as_file / f"res_{DATE}.json"
    plain = as_file / f"samples_humaneval_mtp_{DATE}.jsonl"
    packed = plain.with_name(plain.name + ".gz")
    data = b"".join(lines_of(samples))
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data))
    assert all_samples(results) == samples_file.find([as_file]) == [plain]
    assert samples_of(results, "humaneval_mtp") == plain
    assert samples_file.find([packed]) == [packed]  # as it was asked


@pytest.mark.parametrize("kind", ["cut off", "no gzip", "changed"])
@pytest.mark.parametrize("command", ["leaderboard", "report -o page.html", "passk"])
def test_compressed_samples_that_are_damaged_are_named(
    tmp_path, monkeypatch, capsys, kind, command
):
    monkeypatch.chdir(tmp_path)
    for label in "ab":
        stamp = f"2026-01-02T03-04-05.00000{ord(label) % 9}"
        answers = [[{"text": "pass", "verdict": {"outcome": "pass"}}]] * 30
        write_run(
            tmp_path / label, label, answers=answers, scores={"pass@1": [1.0] * 30}, stamp=stamp
        )
    [samples] = (tmp_path / "a").glob("samples_*")
    packed = pack(samples)
    data = bytearray(packed.read_bytes())
    if kind == "changed":
        data[-6] ^= 255  # of the check sum
    packed.write_bytes({"cut off": data[:-20], "no gzip": b"text", "changed": data}[kind])
    name, *rest = command.split()
    assert main([name, ".", *rest]) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{packed.relative_to(tmp_path)} cannot be unpacked (" in said


def test_equal_lines_are_compressed_to_equal_bytes(tmp_path):
    one, two = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    write_lines(one, ["1", "half \ud800"])
    write_lines(two, ["1", "half \ud800"])
    assert one.read_bytes() == two.read_bytes()
    assert list(lines_of(one)) == [b"1\n", b"half \\ud800\n"]


def test_a_model_is_called_alike_with_and_without_its_results(tmp_path):
    runs = {}
    for place, name in enumerate(("/ckpt/run1/7B", "/ckpt/run2/7B")):
        folder = tmp_path / name.replace("/", "__")
        results = write_run(folder, name, mtp={"label": None}, stamp=f"2026-01-02T03-04-0{place}")
        [runs[results]] = folder.glob("samples_*")
    for _ in range(2):
        found = samples_file.describe_each(runs.values())
        assert [one.model for one in found.values()] == ["run1/7B", "run2/7B"]
        assert [samples_file.describe(path).model for path in runs.values()] == ["7B", "7B"]
        next(iter(runs)).unlink(missing_ok=True)  # the second time, the folder says it

"""`mtp-harness leaderboard`: formats, refusals, damaged files, and what it imports."""

import ast
import csv
import io
import json
import shutil
import subprocess
import sys

import pytest

from mtp_harness.cli import main
from mtp_harness.commands.leaderboard import FORMATS as OFFERED
from mtp_harness.leaderboard.render import FORMATS

from ..leaderboard.result_files import write_run


@pytest.fixture
def two(tmp_path):
    pair = {"pass@1": [1.0, 0.0, 0.0, 0.0], "tokens_per_forward": [(9, 9)] * 4}
    write_run(tmp_path / "a", "one_|&", n=1, k=1, scores=pair)
    other = {"pass@1": [1.0, 1.0, 0.0, 0.0], "tokens_per_forward": [(9, 3)] * 4}
    write_run(tmp_path / "b", "four", scores=other)
    return tmp_path


def run(capsys, *arguments):
    code = main(["leaderboard", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_terminal(two, capsys):
    code, out, _ = run(capsys, two, "--baseline", "one_|&")
    assert code == 0
    lines = out.splitlines()
    header = next(line for line in lines if line.startswith("model"))
    row = lines[next(i for i, line in enumerate(lines) if line.startswith("four"))]
    assert header.split() == ["model", "pass@1", "tokens/forward", "tokens/s"]
    assert row.removeprefix("four").strip().startswith("0.500 [")
    assert "3.000 [3.000, 3.000]" in row
    below = lines[lines.index(row) + 1]
    assert below.strip().startswith("+0.250 [0.000, ")
    assert "one_|&, baseline" in out
    assert "paper" not in out


def test_claims_only_where_they_are_asked_for_and_never_of_other_models(two, capsys):
    _, out, _ = run(capsys, two, "--claims")
    said = out.partition("not comparable, because the claim is about other models or machines:")
    assert "No claim of the paper is about models like these" in said[0]
    assert "- Small models are worse with four heads than with one: 4M parameters, the" in said[2]
    assert "Nearer heads are more accurate" not in out
    assert "more claims need other runs" in out


def test_csv_and_json_say_the_same(two, capsys):
    _, table, _ = run(capsys, two, "--baseline", "one_|&", "--format", "csv")
    _, whole, _ = run(capsys, two, "--baseline", "one_|&", "--format", "json", "--claims")
    cells = json.loads(whole)["cells"]
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [{k: "" if v is None else str(v) for k, v in c.items()} for c in cells] == rows
    found = {(row["model"], row["metric"]): row for row in rows}
    assert float(found["four", "pass@1"]["difference"]) == 0.25
    assert float(found["four", "tokens_per_forward"]["difference_low"]) == 2.0
    assert found["four", "tokens_per_forward"]["change"] == "better"
    assert {claim["verdict"] for claim in json.loads(whole)["claims"]} <= {
        "agree",
        "disagree",
        "inconclusive",
        "not comparable",
        "not measured",
    }


def test_markdown_has_cells_of_equal_number(two, capsys):
    _, out, _ = run(capsys, two, "--format", "markdown")
    table = [line for line in out.split("### humaneval_mtp")[1].splitlines() if line[:1] == "|"]
    first = table[: table.index(next(line for line in table if line.startswith("| four"))) + 1]
    assert len({line.replace("\\|", "").count("|") for line in first}) == 1


def test_latex_escapes_what_would_be_a_command(two, capsys):
    _, out, _ = run(capsys, two, "--format", "latex", "--claims")
    assert r"{}one\_|\& &" in out
    assert out.count(r"\begin{tabular}") == out.count(r"\end{tabular}") == 2


@pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="needs pdflatex with booktabs: apt-get install texlive-latex-recommended",
)
def test_latex_compiles(tmp_path, capsys):
    for number, label in enumerate((r"50% of $x_1^2$ #1 & ~a\b{c}", "[a]*b", "naïve – “7B” …")):
        write_run(tmp_path / str(number), label, scores={"pass@1": [1.0, 0.0]})
    _, tables, _ = run(capsys, tmp_path, "--format", "latex")
    page = r"\documentclass{article}\usepackage{booktabs}\begin{document}%s\end{document}"
    (tmp_path / "page.tex").write_text(page % f"\n{tables}\n")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert made.returncode == 0, made.stdout[-2000:]
    assert (tmp_path / "page.pdf").is_file()


@pytest.mark.parametrize("name", FORMATS)
def test_output_goes_to_a_file(two, tmp_path, capsys, name):
    code, out, _ = run(capsys, two, "--format", name, "-o", tmp_path / "out")
    assert (code, out) == (0, "")
    assert "four" in (tmp_path / "out").read_text()


def test_runs_that_cannot_be_compared_are_refused_in_one_sentence(two, capsys):
    write_run(two / "c", "third", version=9)
    code, out, err = run(capsys, two)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "task version 1.1 against 9" in err
    assert str(two / "c") in err


def test_every_format_is_offered():
    assert tuple(FORMATS) == OFFERED


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def broken(folder, how):
    path = write_run(folder / "run")
    samples = next((folder / "run").glob("samples_*"))
    lines = samples.read_text().splitlines()
    match how:
        case "nothing":
            return folder / "absent"
        case "empty folder":
            (folder / "empty").mkdir()
            return folder / "empty"
        case "half a file":
            path.write_text(path.read_text()[:100])
        case "empty file":
            path.write_text("")
        case "a list":
            path.write_text("[]")
        case "another JSON":
            path.write_text('{"results": {}}')
        case "half a sample":
            samples.write_text(samples.read_text()[:-40])
        case "a sample less":
            samples.write_text("\n".join(lines[:-1]) + "\n")
        case "no samples":
            samples.write_text("")
        case "samples without hashes":
            samples.write_text(lines[0].replace("prompt_hash", "other") + "\n")
        case "samples that are numbers":
            samples.write_text("3\n")
        case "binary":
            path.write_bytes(b"\xff\xfe\x00")
        case "a table without columns":
            tables = {"mtp_heads": {"by_offset": {"columns": None, "rows": []}}}
            edited(path, lambda content: content["config"]["mtp"].update(tables=tables))
        case "a row that is too short":
            table = {"columns": ["metric", "value"], "rows": [["accuracy"]]}
            tables = {"mtp_heads": {"by_offset": table}}
            edited(path, lambda content: content["config"]["mtp"].update(tables=tables))
        case "documents that are a number":
            edited(path, lambda content: content["config"]["mtp"].update(documents={"a": 3}))
        case "a hash that is a number":
            told = {"mtp_heads": {"code": {"sha256": 3}}}
            edited(path, lambda content: content["config"]["mtp"].update(documents=told))
        case "settings in words":
            config = {"humaneval_mtp": {"metadata": "x"}}
            edited(path, lambda content: content.update(configs=config))
        case "shots in a list":
            edited(path, lambda content: content.update({"n-shot": [1]}))
        case "a name that is there twice":
            path.write_text(path.read_text()[:-1] + ', "results": {}}')
        case "samples in another encoding":
            samples.write_bytes(b"\xe9" + samples.read_bytes())
        case "directions in a list":
            edited(path, lambda content: content.update(higher_is_better={"humaneval_mtp": [1]}))
        case "a score beyond all numbers":
            large = json.loads(lines[0]) | {"pass@1": 10**400}
            samples.write_text("\n".join([json.dumps(large), *lines[1:]]) + "\n")
        case "no tasks":
            edited(path, lambda content: content.update(results={}, configs={}))
        case "parameters in words":
            edited(path, lambda content: content["config"].update(model_num_parameters="4M"))
    return folder


@pytest.mark.parametrize(
    "how",
    [
        "nothing",
        "empty folder",
        "half a file",
        "empty file",
        "a list",
        "another JSON",
        "half a sample",
        "a sample less",
        "no samples",
        "samples without hashes",
        "samples that are numbers",
        "binary",
        "a table without columns",
        "a row that is too short",
        "documents that are a number",
        "a hash that is a number",
        "parameters in words",
        "settings in words",
        "shots in a list",
        "a name that is there twice",
        "samples in another encoding",
        "directions in a list",
        "a score beyond all numbers",
        "no tasks",
    ],
)
@pytest.mark.parametrize("command", ["leaderboard", "report"])
def test_damaged_input_is_one_sentence(tmp_path, capsys, monkeypatch, how, command):
    monkeypatch.chdir(tmp_path)
    place = broken(tmp_path, how)
    code = main([command, str(place)])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert str(place) in err


@pytest.mark.parametrize("how", ["half a file", "a list", "half a sample", "a sample less"])
@pytest.mark.parametrize("command", ["leaderboard", "report"])
def test_a_damaged_file_is_named_and_the_others_are_shown(
    two, tmp_path, capsys, monkeypatch, how, command
):
    monkeypatch.chdir(tmp_path)
    place = broken(tmp_path / "broken", how)
    code = main([command, str(two)])
    out, err = capsys.readouterr()
    assert (code, err.count("\n")) == (0, 1)
    assert str(place) in err
    page = out if command == "leaderboard" else (tmp_path / "report.html").read_text()
    assert "four" in page


def test_odd_names_and_settings_are_shown(tmp_path, capsys):
    # Half a character, and a temperature that nobody gave.
    path = write_run(
        tmp_path, "a \ud83d b", generation={"until": [], "do_sample": True, "temperature": None}
    )
    code, out, _ = run(capsys, tmp_path)
    assert code == 0 and "a ? b" in out
    next(tmp_path.glob("samples_*")).unlink()
    assert run(capsys, path)[0] == 0


def test_where_documents_lie_is_no_setting(tmp_path, capsys):
    for name in ("a", "b"):
        write_run(tmp_path / name, name, metadata={"stories": f"/data/{name}/stories"})
    assert run(capsys, tmp_path)[0] == 0
    write_run(tmp_path / "c", "c", metadata={"stories": "/data/stories", "window": 512})
    assert "settings" in run(capsys, tmp_path)[2]


@pytest.mark.parametrize("written", ["pretrained={}", "label=x, pretrained={}", {"pretrained": 1}])
def test_model_arguments_are_no_settings_of_a_task(tmp_path, capsys, written):
    for name in ("a", "b"):
        args = written.format(name) if isinstance(written, str) else written
        edited(
            write_run(tmp_path / name, name),
            lambda content, args=args: content["config"].update(model_args=args),
        )
    assert run(capsys, tmp_path)[0] == 0


@pytest.mark.parametrize("name", ["versions", "n-shot", "higher_is_better", "n-samples"])
def test_what_another_version_does_not_write_is_not_needed(tmp_path, capsys, name):
    edited(write_run(tmp_path), lambda content: content.update({name: None}))
    assert run(capsys, tmp_path)[0] == 0


def test_two_models_of_one_name_are_told_apart_first(tmp_path, capsys):
    for n in (2, 4):
        write_run(tmp_path / str(n), "same", n=n, k=2)
    code, _, err = run(capsys, tmp_path)
    assert code == 2 and "two models are called same (n = 2 and 4" in err


def test_a_page_without_documents_is_refused(two, capsys):
    assert main(["report", str(two), "--documents", "0"]) == 2
    assert "--documents 0, expected" in capsys.readouterr().err


def test_a_data_set_that_was_not_at_hand_is_named(tmp_path, capsys):
    told = {"humaneval": {"sha256": "ab" * 32}, "mbpp": {"sha256": None, "source": "not at hand"}}
    mtp = {"documents": {"mtp_solutions": told}}
    scores = {"humaneval_bits_per_byte_1": [(1.0, 2, 2, 2)]}
    own = {"scores": scores, "stated": {"humaneval_bits_per_byte_1": 0.72}, "generation": False}
    write_run(tmp_path, task="mtp_solutions", mtp=mtp, **own)
    code, out, _ = run(capsys, tmp_path)
    assert code == 0
    assert "humaneval abababababab, mbpp not at hand documents" in out


def test_mlflow_holds_the_runs_and_the_table(two, tmp_path, capsys, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.chdir(tmp_path)  # where MLflow puts files of a store without a place for them
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    code, _, _ = run(capsys, two, "--baseline", "one_|&", "--mlflow", uri)
    assert code == 0
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("mtp-harness")
    found = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert len(found) == 3
    files = client.list_artifacts(found["comparison"].info.run_id, "figures")
    assert [file.path for file in files] == ["figures/leaderboard.json"]


HEAVY = {"torch", "lm_eval", "transformers", "datasets", "pandas", "matplotlib"}


def heavy_after(code):
    """What a new process has imported of these when it has run some code."""
    code = f"import sys\n{code}\nprint(sorted({HEAVY | {'numpy', 'jinja2'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("command", ["leaderboard", "report", "passk", "rouge", "choice"])
@pytest.mark.parametrize("argument", ["--help", "--wrong"])
def test_arguments_are_read_before_anything_heavy_is_imported(command, argument):
    code = f"""
from mtp_harness.cli import main
try:
    main([{command!r}, {argument!r}])
except SystemExit:
    pass
"""
    assert heavy_after(code) == set()


@pytest.mark.parametrize(
    "module",
    [
        "leaderboard.render",
        "leaderboard.temperatures",
        "leaderboard.summaries",
        "leaderboard.choice",
        "report.page",
    ],
)
def test_neither_torch_nor_the_harness_is_imported(module):
    assert not heavy_after(f"import mtp_harness.{module}") & HEAVY

"""`mtp-harness figures` as it is typed."""

import subprocess
import sys
import time

import pytest

from mtp_harness.cli import main
from mtp_harness.results import tidy

from ..figures.damage import WHOLE, write
from ..figures.runs import table, write_run


def test_run_writes_figures_with_their_tables_and_says_what_is_missing(tmp_path, capsys):
    out = tmp_path / "figures"
    write(tmp_path / "runs")
    assert main(["figures", str(tmp_path / "runs"), "-o", str(out), "--format", "png,svg"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"7 drawn into {out}: fig_1, fig_2, fig_s11, table_1, table_s7, fig_")
    assert "not drawn, because no run measured them:" in said
    assert "  fig_s10, fig_speed: run `lm_eval --model mtp --tasks mtp_speed -o RESULTS`" in said
    names = {path.stem for path in out.iterdir()}
    assert len(names) == 7
    for name in names:
        assert {path.suffix for path in out.glob(f"{name}.*")} == {".csv", ".png", ".svg"}
    assert (
        (out / "table_1.csv").read_text().splitlines()[0].startswith("source,file,run,date,label")
    )


def test_two_runs_of_the_command_write_the_same_bytes(tmp_path):
    write(tmp_path / "runs")
    for place in "ab":
        main(
            ["figures", str(tmp_path / "runs"), "-o", str(tmp_path / place), "--only", "fig_heads"]
        )
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_named_figure_that_cannot_be_drawn_is_a_failure(tmp_path, capsys):
    write(tmp_path)
    assert main(["figures", str(tmp_path), "-o", str(tmp_path / "out"), "--only", "fig_s10"]) == 1
    assert "fig_s10: run `lm_eval --model mtp --tasks mtp_speed" in capsys.readouterr().out


def test_damaged_files_are_named_on_standard_error(tmp_path, capsys):
    bad = write(tmp_path / "bad", b"{")
    write(tmp_path / "good")
    assert main(["figures", str(tmp_path), "-o", str(tmp_path / "out"), "--only", "fig_heads"]) == 0
    assert str(bad) in capsys.readouterr().err


def test_signs_that_the_font_lacks_are_named_once(tmp_path, capsys, recwarn):
    rows = table("data_set offset", [["code", 1, "accuracy", 0.5]])
    write_run(tmp_path / "runs", "模 model", tables={"mtp_heads": {"by_offset": rows}})
    places = [str(tmp_path / "runs"), "-o", str(tmp_path / "out")]
    assert main(["figures", *places, "--format", "png,svg"]) == 0
    said = capsys.readouterr().err
    assert said == "the font of the figures lacks 模: boxes are shown instead\n"
    assert not recwarn.list


WRONG = {
    "no results": ([], "no results: name results_….json"),
    "no such folder": (["nowhere"], "no nowhere: give results_….json files"),
    "a folder without results": (["."], "holds no results_….json: run `lm_eval"),
    "another format": (["RUNS", "--format", "jpg"], "--format jpg, expected png, pdf or svg"),
    "no format": (["RUNS", "--format", ","], "--format is empty, expected png"),
    "another figure": (["RUNS", "--only", "fig_9"], "no figure is called fig_9"),
    "results of the paper": (["RUNS", "--paper-only"], "--paper-only draws no results"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_arguments_end_in_one_sentence(tmp_path, monkeypatch, capsys, kind):
    arguments, said = WRONG[kind]
    runs = write(tmp_path / "runs").parent
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    arguments = [str(runs) if one == "RUNS" else one for one in arguments]
    assert main(["figures", *arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mtp-harness figures: ") and said in error
    assert error.count("\n") == 1


def test_mlflow_that_cannot_be_reached_is_said(tmp_path, capsys):
    pytest.importorskip("mlflow")
    write(tmp_path)
    arguments = [str(tmp_path), "-o", str(tmp_path / "out"), "--only", "fig_1"]
    assert main(["figures", *arguments, "--mlflow", "nothing://x"]) == 2
    assert "MLflow cannot use nothing://x" in capsys.readouterr().err


def test_help_starts_without_anything_heavy():
    code = (
        "import sys; sys.argv = ['mtp-harness', 'figures', '--help']\n"
        "from mtp_harness.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'lm_eval', 'pandas', 'matplotlib', 'numpy') "
        "if m in sys.modules])"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - began < 10  # 0.1 s on an idle machine; the promise is 2
    assert "--paper-only" in done.stdout and done.stdout.endswith("[]\n")


def test_drawing_imports_neither_torch_nor_the_harness(tmp_path):
    write(tmp_path)
    code = (
        "import sys; from mtp_harness.commands.figures import main\n"
        f"main([{str(tmp_path)!r}, '-o', {str(tmp_path / 'out')!r}, '--only', 'table_1'])\n"
        "print([m for m in ('torch', 'lm_eval', 'transformers', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_runs_and_figures_go_to_mlflow(tmp_path, capsys):
    mlflow = pytest.importorskip("mlflow")
    write_run(tmp_path / "runs", metrics={"humaneval_mtp": {"pass@1": 0.5}})
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    arguments = [str(tmp_path / "runs"), "-o", str(tmp_path / "out"), "--only", "fig_1"]
    assert main(["figures", *arguments, "--mlflow", uri]) == 0
    assert "logged as 1 runs" in capsys.readouterr().out
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs(["1"])
    assert run.data.metrics["humaneval_mtp/pass_at_1"] == 0.5
    figures = {one.path for one in client.list_artifacts(run.info.run_id, "figures")}
    assert figures == {"figures/fig_1.png", "figures/fig_1.csv"}


def test_whole_example_is_what_the_reader_understands(tmp_path):
    write(tmp_path)
    assert not tidy.read_runs([tmp_path]).problems
    assert WHOLE["config"]["mtp"]["schema"] == 1

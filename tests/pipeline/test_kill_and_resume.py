"""A suite over both shipped models: killed, resumed, compared, and found in MLflow."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("suites")]

SUITE = """
models:
  - {label: n4, model_args: {pretrained: mtp-bytes-n4}}
  - {label: n1, model_args: {pretrained: mtp-bytes-n1}}
tasks:
  - humaneval_mtp
  - task: broken
settings: {limit: 12, batch_size: 2, device: cpu}
include_path: mine
"""
BROKEN = """
task: broken
class: !function broken.Broken
output_type: generate_until
"""
BROKEN_CLASS = """
from lm_eval.api.task import ConfigurableTask


class Broken(ConfigurableTask):
    def __init__(self, config):
        raise ValueError("the documents of broken are gone")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "mine").mkdir()
    (folder / "mine/broken.yaml").write_text(BROKEN)
    (folder / "mine/broken.py").write_text(BROKEN_CLASS)
    return folder


def start(place, *words):
    # Off: the suite must not depend on the start-up hook.
    own = {"MTP_HARNESS_NO_AUTOLOAD": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "mtp_harness.cli", "run", "suite.yaml", *words],
        cwd=place,
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(path):
    return path.read_text().splitlines() if path.is_file() else []


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def kill_in_the_middle(place, journal, n_answers):
    """Start the suite, wait for answers of one cell, and kill the suite alone."""
    process = start(place)
    until = time.monotonic() + 120
    while len(lines(journal)) < 1 + n_answers and time.monotonic() < until:
        time.sleep(0.05)
    [child] = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    for _ in range(100):  # the cell's process must not outlive it
        if not Path(f"/proc/{child}").exists():
            return
        time.sleep(0.1)
    state = Path(f"/proc/{child}/stat").read_text().split()[2]
    assert state == "Z", f"the cell's process {child} lives on"


@pytest.fixture(scope="module")
def resumed(place):
    kill_in_the_middle(place, place / "suite/n4/humaneval_mtp/journal.jsonl", 3)
    half = len(lines(place / "suite/n4/humaneval_mtp/journal.jsonl")) - 1
    assert 3 <= half < 12 and not list((place / "suite").rglob("results_*.json"))
    kill_in_the_middle(place, place / "suite/n1/humaneval_mtp/journal.jsonl", 2)
    process = start(place, "--mlflow", f"sqlite:///{place}/mlflow.db")
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def results_of(place, label):
    [path] = (place / f"suite/{label}/humaneval_mtp").rglob("results_*.json")
    return path, json.loads(path.read_text())


def test_finished_cells_stay_and_half_ones_go_on(place, resumed):
    status, out, err = resumed
    assert status == 1, err  # `broken` is
    assert "[1/4] n4  humaneval_mtp  finished before" in out
    assert "[2/4] n1  humaneval_mtp  finished after" in out
    for label in ("n4", "n1"):
        _, content = results_of(place, label)
        timing = content["config"]["mtp"]["totals"]["timing"]
        assert content["config"]["mtp"]["totals"]["n_answers"] == 12
        assert timing["n_answers_from_journal"] >= (3 if label == "n4" else 2)


def test_a_failed_cell_is_reported_with_its_last_lines(place, resumed):
    _, out, _ = resumed
    assert "2 of 4 cells failed" in out
    assert "the documents of broken are gone" in out
    assert f"{Path('suite/n1/broken/log.txt')}" in out
    assert "Traceback" in (place / "suite/n1/broken/log.txt").read_text()


def test_the_comparison_is_complete_and_says_what_the_results_say(place, resumed):
    table = (place / "suite/comparison.md").read_text()
    assert table in resumed[1]  # so few metrics that the screen has them all
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert rows[0] == ["task", "metric", "", "n4", "n1"]
    by_metric = {row[1]: row[3:] for row in rows[2:]}
    for column, label in enumerate(("n4", "n1")):
        metrics = results_of(place, label)[1]["results"]["humaneval_mtp"]
        for name in ("pass@1", "tokens_per_forward", "looping"):
            assert by_metric[name][column] == f"{metrics[f'{name},none']:.4f}"
    assert ["broken", "", "", "failed", "failed"] in rows


def test_the_text_is_that_of_a_run_that_nobody_killed(place, resumed):
    command = start(place, "--dry-run")
    printed, _ = command.communicate(timeout=100)
    [line] = [one for one in printed.splitlines() if "suite/n4/humaneval_mtp" in one]
    other = line.replace("suite/n4", "other/n4")  # pasted, with another folder
    done = subprocess.run(
        ["bash", "-c", other], cwd=place, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = []
    for folder in ("suite", "other"):
        [path] = (place / folder / "n4/humaneval_mtp").rglob("samples_*.jsonl")
        answers.append([json.loads(sample)["resps"] for sample in lines(path)])
    assert answers[0] == answers[1]


def test_mlflow_shows_both_models(place, resumed):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("suite")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {"n4/humaneval_mtp", "n1/humaneval_mtp", "comparison"}
    compared = runs["comparison"]
    artifacts = [one.path for one in client.list_artifacts(compared.info.run_id, "figures")]
    assert "figures/comparison.md" in artifacts and any(".png" in one for one in artifacts)
    for label in ("n4", "n1"):
        run = runs[f"{label}/humaneval_mtp"]
        path, content = results_of(place, label)
        value = content["results"]["humaneval_mtp"]["tokens_per_forward,none"]
        assert run.data.metrics["humaneval_mtp/tokens_per_forward"] == value
        assert run.data.params["model_args.pretrained"] == f"mtp-bytes-{label}"
        [samples] = client.list_artifacts(run.info.run_id, "samples")
        assert samples.path.endswith(path.name.replace("results_", "samples_humaneval_mtp_") + "l")


def test_other_settings_are_refused_before_anything_runs(place, resumed):
    (place / "other.yaml").write_text(SUITE.replace("limit: 12", "limit: 13"))
    process = start(place, "-o", "suite")
    assert process.communicate(timeout=300) and process.returncode == 1  # the same: goes on
    done = subprocess.run(
        [sys.executable, "-m", "mtp_harness.cli", "run", "other.yaml", "-o", "suite"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 2 and "running" not in done.stdout
    assert "is finished with other settings, differing in limit (12 there, 13 now)" in done.stderr

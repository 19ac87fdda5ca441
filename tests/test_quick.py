"""What the README shows first to those who have no checkpoint: `mtp_quick`, offline."""

import json
import os
import subprocess
import sys

import pytest
from lm_eval.tasks._yaml_loader import load_yaml

from mtp_harness.pipeline.expand import expand
from mtp_harness.pipeline.suite import Asked, read_suite

from .test_layers import PACKAGE


def test_the_example_suite_can_be_run():
    suite = read_suite(PACKAGE.parent / "examples/suite.yaml")
    assert {task.name for task in expand(suite.tasks)} >= {"humaneval_mtp", "mtp_heads"}


def test_probes_are_quick_in_mtp_quick():
    tasks = expand((Asked("mtp_quick", {}),))
    assert {task.name for task in tasks if not task.metadata().get("quick")} == {
        "humaneval_mtp",
        "docstring_mtp",
    }


@pytest.mark.parametrize("group", ["mtp_quick", "mtp_paper"])
def test_groups_say_the_versions_that_the_tasks_have(group):
    # What a group says of a member's metadata replaces all of it.
    for task in expand((Asked(group, {}),)):
        if "metadata" in task.settings:
            own = load_yaml(task.yaml_path, resolve_func=False)["metadata"]["version"]
            assert task.settings["metadata"]["version"] == own, task.name


@pytest.mark.slow
@pytest.mark.xdist_group("suites")
def test_mtp_quick_runs_without_a_network(tmp_path):
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    own = {**offline, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mtp_harness.cli", "lm_eval", "--model", "mtp"),
            *("--tasks", "mtp_quick,mtp_arithmetic", "--limit", "2", "--batch_size", "2"),
            *("--device", "cpu", "-o", "out", "--log_samples"),
        ],
        cwd=tmp_path,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [path] = tmp_path.rglob("results_*.json")
    content = json.loads(path.read_text())
    tasks = [task.name for task in expand((Asked("mtp_quick", {}),))]
    assert set(content["results"]) >= set(tasks)
    assert set(content["config"]["mtp"]["tables"]) == {
        task for task in (*tasks, "mtp_arithmetic") if task.startswith("mtp_")
    }
    # What every kind of task logs is read by what comes after.
    for command in (
        ("figures", "out", "-o", "drawn", "--format", "svg"),
        ("leaderboard", "out"),
        ("report", "out", "-o", "report.html"),
        ("passk", "out"),
        ("rouge", "out"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "mtp_harness.cli", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (command, done.stderr[-3000:])

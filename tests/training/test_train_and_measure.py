"""The script that trains and measures a model of a study, with a `python3` that only says so."""

import os
import subprocess

import pytest

from .studies import FOLDER

PYTHON = """#!/bin/sh
echo "$@" >>"$CALLS"
case $3 in
train) touch "$4/config.json" "$4/training.json" ;;
lm_eval) [ ! -f "$FAILS" ] || { echo "no memory" && exit 1; } ;;
esac
"""


@pytest.fixture
def call(tmp_path):
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "python3").write_text(PYTHON)
    (bin_ / "python3").chmod(0o755)
    path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
    calls, fails = tmp_path / "calls", tmp_path / "fails"
    environment = os.environ | {"PATH": path, "CALLS": str(calls), "FAILS": str(fails)}

    def run():
        calls.write_text("")
        script = [FOLDER / "train_and_measure.sh", tmp_path / "work", "text", "--tasks x --limit 1"]
        done = subprocess.run(
            ["sh", *script, "a-n1", "3", "--n", "1"],
            env=environment,
            capture_output=True,
            text=True,
        )
        return done, [line.split() for line in calls.read_text().splitlines()]

    return run, tmp_path / "work", fails


def test_a_model_is_trained_and_measured_once(call):
    run, work, _ = call
    done, (train, measure) = run()
    model = str(work / "models" / "a-n1-seed3")
    assert train[2:] == f"train {model} --data text --seed 3 --n 1".split()
    assert f"--model_args pretrained={model},label=a-n1 -o " in " ".join(measure)
    assert measure[-4:] == "--tasks x --limit 1".split()
    assert done.stdout == "a-n1-seed3 ends with status 0\n"
    assert (work / "results" / "a-n1-seed3" / "training.json").is_file()
    done, calls = run()
    assert (done.returncode, calls) == (0, [])


def test_a_failure_is_said_and_only_what_failed_is_done_again(call):
    run, work, fails = call
    fails.touch()
    done, calls = run()
    assert done.returncode == 1 and len(calls) == 2
    assert done.stdout == "no memory\na-n1-seed3 ends with status 1\n"
    fails.unlink()
    done, calls = run()
    assert done.returncode == 0 and [one[2] for one in calls] == ["lm_eval"]

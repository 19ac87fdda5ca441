"""The script that trains and measures a model of a study, with a PYTHON that only says so."""

import pytest

from .studies import run

PYTHON = """#!/bin/sh
echo "$@" >>"$CALLS"
case $3 in
train) touch "$4/config.json" "$4/training.json" ;;
lm_eval) [ ! -f "$FAILS" ] || { echo "no memory" && exit 1; } ;;
esac
"""


@pytest.fixture
def call(tmp_path):
    python, work, calls, fails = (tmp_path / name for name in ("python", "work", "calls", "fails"))
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = {"PYTHON": str(python), "CALLS": str(calls), "FAILS": str(fails)}

    def train_and_measure():
        calls.write_text("")
        arguments = [work, "text", "--tasks x --limit 1", "a-n1", "3", "--n", "1"]
        done = run("train_and_measure.sh", *arguments, **environment)
        return done, [line.split() for line in calls.read_text().splitlines()]

    return train_and_measure, work, fails


def test_a_model_is_trained_and_measured_once(call):
    train_and_measure, work, _ = call
    done, (train, measure) = train_and_measure()
    model = str(work / "models" / "a-n1-seed3")
    assert train[2:] == f"train {model} --data text --seed 3 --n 1".split()
    assert f"--model_args pretrained={model},label=a-n1 -o " in " ".join(measure)
    assert measure[-4:] == "--tasks x --limit 1".split()
    assert done.stdout == "a-n1-seed3 ends with status 0\n"
    assert (work / "results" / "a-n1-seed3" / "training.json").is_file()
    done, calls = train_and_measure()
    assert (done.returncode, calls) == (0, [])


def test_a_failure_is_said_and_only_what_failed_is_done_again(call):
    train_and_measure, work, fails = call
    fails.touch()
    done, calls = train_and_measure()
    assert done.returncode == 1 and len(calls) == 2
    assert done.stdout == "no memory\na-n1-seed3 ends with status 1\n"
    fails.unlink()
    done, calls = train_and_measure()
    assert done.returncode == 0 and [one[2] for one in calls] == ["lm_eval"]


def test_a_python_without_what_the_project_needs_is_named(tmp_path):
    done = run("arithmetic.sh", tmp_path, "--tiny", PYTHON="false")
    assert done.returncode == 2 and done.stderr.startswith("false has no lm_eval: activate the")
    assert list(tmp_path.iterdir()) == []

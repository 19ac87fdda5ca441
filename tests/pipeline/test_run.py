"""Cells share processes, and those with one answer run once."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mtp_harness.harness.task_facts import FACTS, NTP_TIMES
from mtp_harness.models import kept
from mtp_harness.pipeline import estimate, run
from mtp_harness.pipeline.plan import plan
from mtp_harness.pipeline.run import Outcome, Process, processes, run_cells
from mtp_harness.pipeline.suite import make_suite

N4 = {"label": "n4", "model_args": {"pretrained": "mtp-bytes-n4"}}
NTP = {"label": "ntp", "model_args": {"pretrained": "mtp-bytes-n4", "draft_heads": 1}}
N1 = {"label": "n1", "model_args": {"pretrained": "mtp-bytes-n1"}}


def cells(tmp_path, models, tasks):
    return plan(make_suite({"models": models, "tasks": tasks}, "mine", "mine.yaml"), tmp_path)


def names(some):
    return [(cell.label, cell.task) for cell in some]


def test_what_does_not_depend_on_draft_heads_is_given_by_the_first(tmp_path):
    tasks = ["humaneval_mtp", "mtp_heads", "mtp_speculative", "mtp_speed"]
    found = cells(tmp_path, [N4, NTP, N1], tasks)
    given = {(cell.label, cell.task): cell.given_by for cell in found if cell.given_by}
    assert given.keys() == {("ntp", task) for task in tasks[1:]}  # its own text is decoded
    assert {giver.label for giver in given.values()} == {"n4"}


@pytest.mark.parametrize(
    "other",
    [
        {"draft_heads": 1, "draft_threshold": 0.5},  # speculative decoding depends on it
        {"draft_heads": 1, "dtype": "float64"},
        {"draft_heads": 1, "max_length": 512},
    ],
)
def test_an_answer_of_other_arguments_is_not_given(tmp_path, other):
    other = {"label": "b", "model_args": {"pretrained": "mtp-bytes-n4", **other}}
    assert not any(cell.given_by for cell in cells(tmp_path, [N4, other], ["mtp_speculative"]))


def test_more_heads_of_one_module_are_another_answer(tmp_path):
    """One module has four heads, and more where more are asked for: probes then read them, too."""
    models = [
        {"label": f"k{k}", "model_args": {"pretrained": "mtp-bytes-qwen", "draft_heads": k}}
        for k in (4, 2, 8)
    ]
    _, two, eight = cells(tmp_path, models, ["mtp_heads"])
    assert two.given_by.label == "k4" and eight.given_by is None


def test_log_likelihoods_read_head_1_whatever_draft_heads_says(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/choice.yaml").write_text(
        "task: choice\ndataset_path: json\noutput_type: multiple_choice\n"
    )
    content = {"models": [N4, NTP], "tasks": ["choice"], "include_path": str(tmp_path / "mine")}
    _, second = plan(make_suite(content, "mine", "mine.yaml"), tmp_path)
    assert second.given_by.label == "n4"


def test_cells_of_one_checkpoint_share_a_process_and_timings_have_their_own(tmp_path):
    double = {"label": "double", "model_args": {**N4["model_args"], "dtype": "float64"}}
    found = cells(tmp_path, [N4, NTP, double, N1], ["mtp_speed", "humaneval_mtp", "mtp_heads"])
    groups = processes([cell for cell in found if not cell.given_by])
    assert [names(group) for group in groups] == [
        [("n4", "humaneval_mtp"), ("ntp", "humaneval_mtp"), ("n4", "mtp_heads")],
        [("double", "humaneval_mtp"), ("double", "mtp_heads")],  # its weights are of another type
        [("n1", "humaneval_mtp"), ("n1", "mtp_heads")],
        [("n4", "mtp_speed")],
        [("double", "mtp_speed")],
        [("n1", "mtp_speed")],
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_outcomes_keep_the_order_of_the_cells(tmp_path, monkeypatch, fails):
    found = cells(tmp_path, [N4, NTP], ["mtp_heads", "humaneval_mtp"])
    ran, said = [], []

    def one(cell, process):
        ran.append(cell)
        return Outcome(cell, None, "  it failed" if fails else "")

    monkeypatch.setattr(run, "run_cell", one)
    outcomes = run_cells(found, said.append)
    assert names(outcome.cell for outcome in outcomes) == names(found)
    assert names(ran) == [("n4", "mtp_heads"), ("n4", "humaneval_mtp"), ("ntp", "humaneval_mtp")]
    given = outcomes[1]
    assert given.cell.label == "ntp" and bool(given.failure) == fails
    assert any("ntp  mtp_heads  same results as n4" in line for line in said)


WORKER = """
import os
import sys
import threading
from mtp_harness.pipeline import worker

def run(arguments, of_harness):
    print("said by", *arguments)
    if "fail" in arguments:
        raise ValueError("it failed")
    if "die" in arguments:  # after it has said that the cell ended well
        threading.Timer(1, os._exit, [0]).start()

worker._run = run
worker.main()
"""


@pytest.mark.slow  # processes that import the harness
def test_a_process_runs_cells_until_one_fails(tmp_path, monkeypatch):
    started = []

    def start(command, **how):
        started.append(command)
        return popen([sys.executable, "-c", WORKER], **how)

    popen = subprocess.Popen
    monkeypatch.setattr(run.subprocess, "Popen", start)
    monkeypatch.setenv("PYTHONPATH", str(Path(run.__file__).parents[2]))

    class One:
        of_harness = False

        def __init__(self, *words):
            self.words, self.folder = list(words), tmp_path / words[0]
            self.folder.mkdir()
            (self.folder / run.LOG_FILE).write_text("")

        def arguments(self):
            return self.words

    one, bad, last = One("one"), One("bad", "fail"), One("last", "die")
    with Process() as process:
        assert [process.run(cell) for cell in (one, bad, last)] == [0, 1, 0]
        assert len(started) == 2  # again after the one that failed
        process._worker.wait()
        assert process.run(One("again")) == 0 and len(started) == 3
    said = [(cell.folder / run.LOG_FILE).read_text() for cell in (one, bad, last)]
    assert said[0] == "said by one\n" and said[2] == "said by last die\n"
    assert "said by bad fail" in said[1] and "ValueError: it failed" in said[1]


def test_a_kept_model_is_opened_once_whatever_draft_heads_says(monkeypatch):
    opened = []
    monkeypatch.setattr(kept, "open_model", lambda *names, **how: opened.append(names) or object())
    monkeypatch.setattr(kept, "_kept", {})
    first = kept.open_kept("mtp-bytes-n4", None, heads=4)
    assert kept.open_kept("mtp-bytes-n4", None, heads=4) is not first  # nobody asked to keep it
    monkeypatch.setattr(kept, "_keeping", [True])
    opened.clear()
    four, one = (kept.open_kept("mtp-bytes-n4", None, heads=k) for k in (4, 1))
    assert four is one and len(opened) == 1
    assert kept.open_kept("mtp-bytes-n1", None, heads=None) is not one
    assert len(kept._kept) == 1  # two are never in memory


def test_about_how_long_comes_from_what_tasks_took(tmp_path):
    quick = {"task": "mtp_heads", "metadata": {"quick": True}}
    few = {"task": "humaneval_mtp", "limit": 41}  # a quarter of 164
    found = cells(tmp_path, [N4, NTP], [quick, few])
    heads, given, mine, ntp = map(estimate.seconds, found)
    assert heads == given == FACTS["mtp_heads"].quick_cpu_s
    assert mine == pytest.approx(FACTS["humaneval_mtp"].cpu_s / 4)
    assert ntp == pytest.approx(mine * NTP_TIMES)
    assert estimate.about([[found[0], found[2]]]) == pytest.approx(estimate.START_S + heads + mine)


def test_how_long_is_not_guessed_for_what_nobody_timed(tmp_path):
    [cell] = cells(tmp_path, [N4], ["mtp_heads"])
    for unknown in (
        replace(cell, settings={"device": "cuda:0"}),
        replace(cell, model_args={"pretrained": "/ckpt/7B"}),
        replace(cell, task="mine"),
    ):
        assert estimate.about([[cell], [unknown]]) is None


def test_the_first_line_says_what_is_going_to_run(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "run_cell", lambda cell, process: Outcome(cell, None))
    said = []
    quick = {"task": "mtp_heads", "metadata": {"quick": True}}
    run_cells(cells(tmp_path, [N4, NTP], [quick, "mtp_speed"]), said.append)
    assert said[0].startswith(
        "4 cells: 2 with the results of another, 2 to run in 2 processes, about "
    )
    said.clear()
    mine = {"label": "a", "model_args": {"pretrained": "mtp-bytes-n4"}}
    run_cells(cells(tmp_path, [mine], [{**quick, "device": "cpu"}]), said.append)
    assert said[0] == "1 cell: 1 to run in 1 process, about 1 min 4 s on 2 idle cores"

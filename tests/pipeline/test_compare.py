from pathlib import Path

from mtp_harness.pipeline.cell import Cell
from mtp_harness.pipeline.compare import comparison
from mtp_harness.pipeline.run import Outcome, duration, last_lines
from mtp_harness.results.result_file import ResultFile


def outcome(label, task, metrics=None, better=None):
    cell = Cell(label, task, {}, {}, Path(label) / task)
    if metrics is None:
        return Outcome(cell, None, "failed")
    content = {"results": {task: metrics}, "higher_is_better": {task: better}}
    return Outcome(cell, ResultFile(Path("results.json"), "results.json", "", content))


def test_models_stand_side_by_side():
    better = {"acc": True, "loss": False, "n_bad": False, "neutral": None}
    first = {"name": "t", "acc,none": 0.25, "acc_stderr,none": 0.1, "loss,none": 1234.5}
    second = {"acc,none": float("nan"), "loss,flexible": 2, "n_bad,none": 1, "neutral,none": 3}
    table = comparison(
        [
            outcome("a", "t", first, better),
            outcome("b", "t", second, better),
            outcome("a", "u"),
            outcome("b", "u", {"acc,none": 1}, {"acc": True}),
            outcome("a", "v"),
            outcome("b", "v"),
        ]
    )
    assert table.splitlines() == [
        "| task | metric        |   |      a |      b |",
        "| ---- | ------------- | - | -----: | -----: |",
        "| t    | acc           | ↑ | 0.2500 |      - |",
        "|      | loss          | ↓ |   1234 |      - |",
        "|      | loss,flexible | ↓ |      - | 2.0000 |",
        "| u    | acc           | ↑ | failed | 1.0000 |",
        "| v    |               |   | failed | failed |",
    ]


def test_on_the_screen_long_tasks_are_cut():
    metrics = {f"m{i},none": i for i in range(5)}
    table = comparison([outcome("a", "t", metrics, {})], most=3)
    assert [line.split("|")[2].strip() for line in table.splitlines()[2:]] == [
        *("m0", "m1", "m2", "… 2 more"),
    ]


def test_the_last_lines_of_a_log_are_what_a_terminal_shows(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("first\n  5%|x\r100%|xxx\n\n\x1b[31mthe error\x1b[0m\n")
    assert last_lines(log) == ["first", "100%|xxx", "the error"]
    assert last_lines(log, 1) == ["the error"]


def test_durations_read_well():
    assert [duration(s) for s in (9.4, 59.6, 200, 7530)] == [
        "9 s",
        "1 min 0 s",
        "3 min 20 s",
        "2 h 5 min",
    ]

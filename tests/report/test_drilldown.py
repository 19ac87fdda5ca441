"""Documents of a report: whatever stands in a sample is shown or named, never a traceback."""

import copy
import json

from mtp_harness.leaderboard.table import build
from mtp_harness.report.drilldown import drilldown
from mtp_harness.results import run

from ..figures.damage import ODD, places
from ..leaderboard.result_files import write_run

DECODED = {
    "verdict": {"outcome": "pass", "detail": ""},
    "decode": {"n_verified": [1, 3], "n_characters": [1] * 5, "n_kept": 5, "draft_heads": 4},
}


def changed(value, place, odd):
    content = copy.deepcopy(value)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = odd
    return content


def test_no_odd_entry_of_a_sample_ends_in_a_traceback(tmp_path):
    answers = [[{"text": "answer", **DECODED}]] * 3
    write_run(tmp_path, answers=answers)
    (path,) = tmp_path.glob("samples_*")
    first, second, third = map(json.loads, path.read_text().splitlines())
    found = run.find([str(tmp_path)])
    n_named = 0
    for place in places(second):
        for odd in ODD:
            lines = [first, changed(second, place, odd), third]
            path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
            try:
                build(found)
                drilldown(found, 10, {(run.path, task) for run in found for task in run.tasks})
            except ValueError as error:
                n_named += 1
                assert str(path) in str(error) and "\n" not in str(error), (place, odd)
    assert n_named > 50

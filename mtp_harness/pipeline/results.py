"""The results in a cell's folder, complete or not."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.results import result_file
from mtp_harness.results.find import results_below, written_samples
from mtp_harness.results.samples import read


class Results(NamedTuple):
    """One results file.

    Attributes:
        path: `results_….json`.
        content: its JSON.
    """

    path: Path
    content: dict[str, Any]

    def metrics(self, task: str) -> dict[str, float]:
        """Return a task's numbers by `metric` or, with a filter, `metric,filter`."""
        numbers = {}
        for key, value in self.content["results"][task].items():
            name, _, filtered = key.partition(",")
            if filtered and not name.endswith("_stderr") and isinstance(value, int | float):
                numbers[name if filtered == "none" else key] = float(value)
        return numbers

    def arguments(self) -> list[str]:
        """Return the arguments of the `lm_eval` that wrote it, without the program's name."""
        recorded = (self.content.get("config") or {}).get("mtp") or {}
        words = shlex.split(recorded.get("command") or "")[1:]
        return words[1:] if words[:1] == ["run"] else words


def complete_results(folder: Path, task: str) -> Results | None:
    """Return the newest complete results of one task in a folder, with all their samples.

    The harness writes results and samples at the end of a run, in place: a process killed while it
    writes leaves incomplete files, which do not count.
    """
    for path in reversed(results_below(folder)):
        try:
            content = dict(result_file.read(path, path.name).content)
            samples = written_samples(path, task)
            each = read(samples) if samples.is_file() else ()
            n_documents = len({sample["doc_id"] for sample in each})
        except ValueError:
            continue
        counted = (content.get("n-samples") or {}).get(task)
        if counted and task in content["results"] and n_documents == counted["effective"]:
            return Results(path, content)
    return None


def remove_results(folder: Path) -> None:
    """Remove what unfinished runs left in a cell's folder, except the journal."""
    for path in [*results_below(folder), *folder.glob("*/samples_*.jsonl")]:
        path.unlink()

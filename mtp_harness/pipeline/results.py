"""The results in a cell's folder, complete or not."""

import shlex
from pathlib import Path

from mtp_harness.results import result_file
from mtp_harness.results.find import results_below, written_samples
from mtp_harness.results.result_file import ResultFile
from mtp_harness.results.samples import read


def metrics_of(file: ResultFile, task: str) -> dict[str, float]:
    """Return a task's numbers by `metric` or, with a filter, `metric,filter`."""
    numbers = file.metrics(task).items()
    return {",".join(name).removesuffix(",none"): value for name, value in numbers}


def arguments_of(file: ResultFile) -> list[str]:
    """Return the arguments of the `lm_eval` that wrote a file, without the program's name."""
    words = shlex.split(file.mtp.get("command") or "")[1:]
    return words[1:] if words[:1] == ["run"] else words


def complete_results(folder: Path, task: str) -> ResultFile | None:
    """Return the newest complete results of one task in a folder, with all their samples.

    The harness writes results and samples at the end of a run, in place: a process killed while it
    writes leaves incomplete files, which do not count.
    """
    for path in reversed(results_below(folder)):
        try:
            file = result_file.read(path, path.name)
            samples = written_samples(path, task)
            each = read(samples) if samples.is_file() else ()
            n_documents = len({sample["doc_id"] for sample in each})
        except ValueError:
            continue
        if task in file.content["results"] and n_documents == file.counted(task)[0]:
            return file
    return None


def remove_results(folder: Path) -> None:
    """Remove what unfinished runs left in a cell's folder, except the journal."""
    for path in [*results_below(folder), *folder.glob("*/samples_*.jsonl")]:
        path.unlink()

"""Documents of a run: how many of how many, and what its samples say of each."""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from mtp_harness.results.result_file import ResultFile

EMPTY = "n_empty_answers"
"""In samples of which the texts were left out: how many of a document's answers had none."""

_PART = re.compile(r"\d+ of the test split's (\d+) documents")
"""How a loader says that its file is a part of a test split."""


def told_of(file: ResultFile, task: str) -> dict[str, Any]:
    """Return what a run says of the data sets of a task: hash, source, how many documents."""
    metadata = file.content["configs"].get(task, {}).get("metadata") or {}
    told = (file.mtp.get("documents") or {}).get(task) or metadata.get("documents")
    return told if isinstance(told, dict) else {}


def counted(file: ResultFile, task: str) -> tuple[int | None, int | None]:
    """Return how many documents of a task were read, and how many its test split has."""
    counts = (file.content.get("n-samples") or {}).get(task) or {}
    sources = [str(about.get("source")) for about in told_of(file, task).values()]
    wholes = [int(found[1]) for source in sources if (found := _PART.search(source))]
    return counts.get("effective"), wholes[0] if wholes else counts.get("original")


def empty_answers(file: ResultFile, task: str) -> int | None:
    """Return how many answers have no text; None where the samples do not say it.

    Raises:
        ValueError: The samples are damaged.
    """
    path = file.samples(task)
    if path is None:
        return None
    each = [numbers[EMPTY] for _, numbers in _read(path) if EMPTY in numbers]
    return int(sum(each)) if len(each) == len(_read(path)) else None


def count_empty(sample: dict[str, Any]) -> int | None:
    """Return how many answers of a sample have no text; None where their texts were left out."""
    if "filtered_resps" not in sample:  # which the harness writes and the import leaves out
        return sample.get(EMPTY)
    answers = [
        one
        for each in sample.get("resps") or []
        for one in (each if isinstance(each, list) else [each])
    ]
    return sum(not one.strip() for one in answers if isinstance(one, str))


def scores(file: ResultFile, task: str, metric: str) -> dict[str, float] | None:
    """Return a metric by document; None where the run logged no samples.

    Args:
        file: The run's results.
        task: As the run calls it.
        metric: As the run calls it, with `_sampled` where answers were.

    Raises:
        ValueError: The samples are damaged, or do not have the metric.
    """
    path = file.samples(task)
    if path is None:
        return None
    by_document = {}
    for name, values in _read(path):
        if not isinstance(value := values.get(metric), int | float):
            raise ValueError(
                f"{path} has no {metric} for document {name}, expected what the run's results "
                "have: run again"
            )
        if value != value or name in by_document:
            what = f"document {name} twice" if name in by_document else f"{metric} = NaN for {name}"
            raise ValueError(f"{path} has {what}, expected one number for each: run again")
        by_document[name] = float(value)
    _refuse_others(file, task, metric, path, by_document)
    return by_document


def _refuse_others(
    file: ResultFile, task: str, metric: str, path: Path, by_document: dict[str, float]
) -> None:
    """Refuse samples that are not those which the results file was pooled from."""
    file.require_all(task, path, len(by_document))
    mean = sum(by_document.values()) / len(by_document)
    for key, stated in file.content["results"][task].items():
        if key.partition(",")[0] == metric and isinstance(stated, int | float):
            if not abs(mean - stated) <= 1e-6:
                raise ValueError(
                    f"{path} gives {metric} = {mean:g}, {file.path.name} says {stated:g}: run again"
                )


@lru_cache(maxsize=64)
def _read(path: Path) -> tuple[tuple[str, dict[str, float]], ...]:
    """Return the numbers of each line; answers and documents are not kept."""
    found = []
    with path.open("rb") as lines:
        for place, line in enumerate(lines, 1):
            try:
                sample = json.loads(line)
                name = str(sample["doc_id"])
            except (ValueError, RecursionError, KeyError, TypeError):
                raise ValueError(
                    f"{path}:{place} is no sample of lm_eval: was the run killed while it wrote? "
                    "remove the file, or run again"
                ) from None
            numbers = {k: v for k, v in sample.items() if type(v) in (int, float)}
            if (empty := count_empty(sample)) is not None:
                numbers[EMPTY] = empty
            found.append((name, numbers))
    if not found:
        raise ValueError(f"{path} is empty, expected one line per document: run again")
    return tuple(found)

"""Scores of each document, from the samples that a run logged."""

import json
from functools import lru_cache
from pathlib import Path

from mtp_harness.figures.result_file import ResultFile


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
            found.append((name, numbers))
    if not found:
        raise ValueError(f"{path} is empty, expected one line per document: run again")
    return tuple(found)

"""The plain mean over seven choice and knowledge tasks, as printed by `mtp-harness choice`.

The seven are the harness's own tasks (group `mtp_choice`). Their metrics have different names,
which the harness's groups cannot pool, so this reads result files. The paper's caption says "6
standard NLP benchmarks"; the figure shows the mean over the seven panels of figure S12. All use
head 1 only.

The paper states neither shots nor normalisation. Here: the harness's own prompts and shots, and
accuracy normalised by length if a task has it.

Source: Gloeckle et al. 2024, figures 5 and S12.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mtp_harness.results import run
from mtp_harness.results.find import read_each
from mtp_harness.results.sizes import in_digits
from mtp_harness.scoring.choice_metrics import METRICS


class Row(NamedTuple):
    """One model's scores."""

    model: str
    train_step: int | None  # of the checkpoint; None if the run does not say
    scores: dict[str, float]  # in [0, 1], of the tasks that were run
    limited: list[str]  # tasks that were run on a part of their documents (`--limit`)
    mean: float | None  # over the seven, in [0, 1]; None if one is missing


def table(places: Sequence[str]) -> list[Row]:
    """Return a row for every model and training step in results files and folders.

    Raises:
        FileNotFoundError: A place does not exist.
        ValueError: There is no score, or there are two for one task. A damaged file is reported on
            stderr and left out.
    """
    rows: dict[tuple[str, int | None], Row] = {}
    origin: dict[tuple[str, int | None, str], Path] = {}
    for one, scores in read_each(run.find(places), lambda one: (one, _scores(one))):
        key = one.label, one.model.train_step
        for task, score in scores.items():
            if other := origin.get((*key, task)):
                raise ValueError(
                    f"{one.path} and {other} both have {task} of {one.label}; expected "
                    "one: name the files to use"
                )
            origin[*key, task] = one.path
            row = rows.setdefault(key, Row(*key, {}, [], None))
            row.scores[task] = score
            counts = one.told("n-samples", task) or {}
            if counts.get("effective") != counts.get("original"):
                row.limited.append(task)
    if not rows:
        raise ValueError("no result of arc_challenge, copa, …: run --tasks mtp_choice -o FOLDER")
    for key, row in rows.items():
        if row.scores.keys() == METRICS.keys():
            rows[key] = row._replace(mean=math.fsum(row.scores.values()) / len(METRICS))
    return sorted(rows.values(), key=lambda row: (row.model, row.train_step or 0))


def _scores(one: run.Run) -> dict[str, float]:
    """Return the scores in one result file."""
    scores = {}
    for task in (task for task in METRICS if task in one.tasks):
        stated = one.content["results"][task]
        if METRICS[task] not in stated:
            found = ", ".join(name for name in stated if "," in name) or "no metric"
            raise ValueError(
                f"{one.path}: {task} has no {METRICS[task]}, which this reads; found {found}"
            )
        scores[task] = float(stated[METRICS[task]])
    return scores


def lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines to print."""
    for row in rows:
        step = "" if row.train_step is None else f" step {row.train_step}"
        known = [f"{task} {in_digits(row.scores[task])}" for task in METRICS if task in row.scores]
        missing = [task for task in METRICS if task not in row.scores]
        mean = f"no mean of 7: {', '.join(missing)} missing"
        if row.mean is not None:
            mean = f"mean of 7 {in_digits(row.mean)}"
        limited = f"  run with --limit: {', '.join(row.limited)}" if row.limited else ""
        yield f"{row.model}{step}  {mean}  ({'  '.join(known)}; head 1 only){limited}"

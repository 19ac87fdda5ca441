"""`mtp-harness choice RESULTS`: the plain mean over seven choice and knowledge tasks, as figure 5.

The seven are the harness's own tasks (group `mtp_choice`), with metrics of different names, which
its groups cannot pool: hence this reads result files. The caption says "6 standard NLP benchmarks";
what the figure shows is the mean over the seven panels of figure S12. They read head 1 only.

The paper says neither shots nor normalisation. Here: the harness's own prompts and shots, and
accuracy normalised by length where a task has it.

Source: Gloeckle et al. 2024, figures 5 and S12. Imports neither torch nor the harness.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.files import user_path, write_whole
from mtp_harness.results.find import find_results, read_each
from mtp_harness.scoring.choice_metrics import METRICS


class Run(NamedTuple):
    """One model's scores.

    Attributes:
        model: Its label, or its name where it has none.
        train_step: Of the checkpoint; None where the run did not say.
        scores: Task → score in [0, 1], of those that were run.
        limited: Tasks that were run on a part of their documents (`--limit`).
    """

    model: str
    train_step: int | None
    scores: dict[str, float]
    limited: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """The tasks without a score."""
        return [task for task in METRICS if task not in self.scores]

    @property
    def mean(self) -> float:
        """The plain mean over the seven, in [0, 1]; NaN where one is missing."""
        if self.missing:
            return math.nan
        return math.fsum(self.scores.values()) / len(METRICS)


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Its arguments.
    """
    parser = argparse.ArgumentParser(
        prog="mtp-harness choice",
        description="Print the plain mean over the seven tasks of mtp_choice (figure 5).",
    )
    parser.add_argument("results", nargs="+", help="results_….json files, or folders of them")
    parser.add_argument("--json", type=user_path, help="write the rows into this file, too")
    given = parser.parse_args(argv)
    runs = read_runs(given.results)
    sys.stdout.write("".join(f"{_line(run)}\n" for run in runs))
    if given.json:
        rows = [{**run._asdict(), "mean": None if run.missing else run.mean} for run in runs]
        write_whole(given.json, json.dumps(rows, indent=2) + "\n")
    return 0


def read_runs(places: Iterable[str | Path]) -> list[Run]:
    """Return a run for every model and training step in result files.

    Args:
        places: Results files, and folders with some below them.

    Raises:
        FileNotFoundError: A place does not exist.
        ValueError: There is no score, or there are two for one task. A damaged file is named on
            stderr and left out.
    """
    runs: dict[tuple[str, int | None], Run] = {}
    origin: dict[tuple[str, int | None, str], Path] = {}
    files = find_results(map(user_path, places))
    for path, run in read_each(files, lambda path: (path, run_of(_read(path), path))):
        key = run[:2]
        for task in run.scores:
            if (*key, task) in origin:
                raise ValueError(
                    f"{path} and {origin[*key, task]} both have {task} of {run.model}; expected "
                    "one: name the files to use"
                )
            origin[*key, task] = path
        if run.scores:
            seen = runs.get(key, Run(*key, {}))
            scores, limited = seen.scores | run.scores, seen.limited + run.limited
            runs[key] = Run(*key, scores, limited)
    if not runs:
        raise ValueError("no result of arc_challenge, copa, …: run --tasks mtp_choice -o FOLDER")
    return [runs[key] for key in sorted(runs, key=lambda key: (key[0], key[1] or 0))]


def run_of(results: Mapping[str, Any], path: Path) -> Run:
    """Return the scores in one result file.

    Args:
        results: What it holds.
        path: For messages.
    """
    mtp = results.get("config", {}).get("mtp") or {}
    name = mtp.get("label") or results.get("model_name") or path.parent.name
    scores, limited = {}, []
    for task, metric in METRICS.items():
        table = results["results"].get(task)
        if table is None:
            continue
        if metric not in table:
            raise ValueError(
                f"{path}: {task} has no {metric}, which is what this reads; found "
                f"{', '.join(key for key in table if ',' in key) or 'no metric'}"
            )
        scores[task] = float(table[metric])
        counts = results.get("n-samples", {}).get(task, {})
        if counts.get("effective") != counts.get("original"):
            limited.append(task)
    return Run(name, mtp.get("train_step"), scores, tuple(limited))


def _read(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(read, dict) or not isinstance(read.get("results"), dict):
        raise ValueError(f"{path} is no result file of the harness: it has no `results`")
    return read


def _line(run: Run) -> str:
    step = "" if run.train_step is None else f" step {run.train_step}"
    scores = "  ".join(f"{task} {run.scores[task]:.2%}" for task in METRICS if task in run.scores)
    mean = f"mean of 7 {run.mean:.2%}"
    if run.missing:
        mean = f"no mean of 7: {', '.join(run.missing)} missing"
    text = f"{run.model}{step}  {mean}  ({scores}; head 1 only)"
    if run.limited:
        text += f"  run with --limit: {', '.join(run.limited)}"
    return text

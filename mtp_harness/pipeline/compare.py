"""The models of a suite side by side: one row per task and metric, one column per model."""

import math
from collections.abc import Sequence

from mtp_harness.pipeline.results import metrics_of
from mtp_harness.pipeline.run import Outcome
from mtp_harness.results.result_file import ResultFile

FAILED, ABSENT = "failed", "-"

ON_SCREEN = 8
"""Metrics of a task on the screen; the file has all."""

_N_WORDS = 3
"""Columns of words; the others are numbers, aligned on the right."""


def comparison(outcomes: Sequence[Outcome], most: int | None = None) -> str:
    """Return the table, as Markdown.

    For each task it has the metrics for which higher or lower is better (an arrow says which); all
    metrics for a task that only describes a model, such as a probe. Counts (`n_…`) are left out.

    Args:
        outcomes: of all cells.
        most: metrics shown for a task; the table says how many are left out. None: all.
    """
    labels = list(dict.fromkeys(outcome.cell.label for outcome in outcomes))
    tasks = list(dict.fromkeys(outcome.cell.task for outcome in outcomes))
    of = {(outcome.cell.task, outcome.cell.label): outcome for outcome in outcomes}
    rows = [["task", "metric", "", *labels]]
    for task in tasks:
        mine = [of[task, label] for label in labels]
        metrics = dict.fromkeys(
            name for outcome in mine if outcome.results for name in shown(outcome.results, task)
        )
        first = next((one.results for one in mine if one.results), None)
        names = list(metrics) or [""]
        for place, name in enumerate(names[:most]):
            arrow = direction(first, task, name) if first else ""
            values = [_cell(outcome, task, name) for outcome in mine]
            rows.append(["" if place else task, name, arrow, *values])
        if more := len(names[most:]) if most else 0:
            rows.append(["", f"… {more} more", "", *("" for _ in labels)])
    return _markdown(rows)


def shown(results: ResultFile, task: str) -> list[str]:
    """Return the metrics of a task that the table has."""
    names = [name for name in metrics_of(results, task) if not name.startswith("n_")]
    return [name for name in names if direction(results, task, name)] or names


def direction(results: ResultFile, task: str, metric: str) -> str:
    """Return an arrow towards better; empty for a metric without better or worse."""
    better = results.told("higher_is_better", task) or {}
    return {True: "↑", False: "↓", None: ""}[better.get(metric.partition(",")[0])]


def _cell(outcome: Outcome, task: str, name: str) -> str:
    if outcome.results is None:
        return FAILED
    value = metrics_of(outcome.results, task).get(name, math.nan)
    if math.isnan(value):
        return ABSENT
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.0f}"


def _markdown(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width for width in widths[:_N_WORDS]]
    rule += ["-" * (width - 1) + ":" for width in widths[_N_WORDS:]]
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        cells = [
            text.ljust(width) if column < _N_WORDS else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)

"""The models of a suite side by side: one row per task and metric, one column per model."""

import math
from collections.abc import Sequence
from typing import Any

from mtp_harness.pipeline.results import Results
from mtp_harness.pipeline.run import Outcome

FAILED, ABSENT = "failed", "-"


def comparison(outcomes: Sequence[Outcome]) -> str:
    """Return the table, as Markdown.

    Of each task, the metrics that are better one way or the other; counts (`n_…`) are left to the
    results files. An arrow says which way is better.
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
        for place, name in enumerate(metrics or [""]):
            arrow = direction(first, task, name) if first else ""
            values = [_cell(outcome, task, name) for outcome in mine]
            rows.append(["" if place else task, name, arrow, *values])
    return _markdown(rows)


def metrics_of(results: Results, task: str) -> dict[str, float]:
    """Return a task's numbers by `metric` or, with a filter, `metric,filter`."""
    numbers = {}
    for key, value in results.content["results"][task].items():
        name, _, filtered = key.partition(",")
        if filtered and not name.endswith("_stderr") and isinstance(value, int | float):
            numbers[name if filtered == "none" else key] = float(value)
    return numbers


def shown(results: Results, task: str) -> list[str]:
    """Return the metrics of a task that the table has."""
    return [
        name
        for name in metrics_of(results, task)
        if direction(results, task, name) and not name.startswith("n_")
    ]


def direction(results: Results, task: str, metric: str) -> str:
    """Return an arrow towards better, or nothing where a metric has no better."""
    better: dict[str, Any] = results.content["higher_is_better"].get(task) or {}
    return {True: "↑", False: "↓", None: ""}[better.get(metric.partition(",")[0])]


def _cell(outcome: Outcome, task: str, name: str) -> str:
    if outcome.results is None:
        return FAILED
    value = metrics_of(outcome.results, task).get(name, math.nan)
    if math.isnan(value):
        return ABSENT
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.0f}"


def _markdown(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    n_words = 3  # columns of words; numbers stand on the right

    def line(row: list[str]) -> str:
        cells = [
            text.ljust(width) if column < n_words else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = [
        "-" * width if column < n_words else "-" * (width - 1) + ":"
        for column, width in enumerate(widths)
    ]
    return "\n".join([line(rows[0]), line(rule), *(line(row) for row in rows[1:])])

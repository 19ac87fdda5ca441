"""Long tables of the probes, and their way into the results.

A table has dimension columns, then `metric`, `value`, `low`, `high`, `count`: `low` and `high` are
a 90 % bootstrap interval over documents, `count` is the number of tokens, documents or steps behind
the value. Values that do not apply, and NaN (which JSON does not have), are None.

    task.aggregation ──▶ configs.TASK.metadata.{tables, documents} ──move──▶ config.mtp.{the same}

The harness reads a task's configuration after it has aggregated, and only on rank 0: there the
tables wait until `simple_evaluate` returns.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

VALUES = ("metric", "value", "low", "high", "count")
MOVED = ("tables", "documents")


@dataclass(frozen=True)
class Cell:
    """One row of a table: `place` has one entry per dimension; NaN: nothing was counted."""

    place: tuple[Any, ...]
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None


def long_table(dimensions: Sequence[str], cells: Iterable[Cell]) -> dict[str, list[Any]]:
    """Return a table as JSON values: {"columns": [...], "rows": [[...], ...]}.

    Raises:
        ValueError: a cell has the wrong number of dimensions.
    """
    rows = []
    for cell in cells:
        if len(cell.place) != len(dimensions):
            raise ValueError(f"{cell.place} does not have the dimensions {tuple(dimensions)}")
        values = (getattr(cell, name) for name in VALUES)
        rows.append([_plain(entry) for entry in (*cell.place, *values)])
    return {"columns": [*dimensions, *VALUES], "rows": rows}


def _plain(entry: Any) -> Any:
    return None if isinstance(entry, float) and math.isnan(entry) else entry


def move(results: Any) -> None:
    """Move tables from probes' metadata to `config.mtp` of the results of `simple_evaluate`.

    The hashes of documents of tasks without tables stay: any model may have answered them.

    Args:
        results: None on every rank but the first.
    """
    if not isinstance(results, dict):
        return
    for task, config in results.get("configs", {}).items():
        metadata = config.get("metadata") or {}
        for name in MOVED if MOVED[0] in metadata else ():
            if name in metadata:
                mtp = results["config"].setdefault("mtp", {})
                mtp.setdefault(name, {})[task] = metadata.pop(name)

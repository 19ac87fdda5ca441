"""The leaderboard and the claims as terminal text, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from mtp_harness.leaderboard import stale
from mtp_harness.leaderboard.claims import Judged
from mtp_harness.leaderboard.table import DATA, SPEED, Cell, Column, Leaderboard, is_timed
from mtp_harness.leaderboard.text import HELP, change, direction, interval, number, title
from mtp_harness.results.protocol import Protocol

Rows = list[list[str]]

WIDTH = 100
NOTE = (
    "[low, high]: 90 % interval by bootstrap over documents, + and -: paired difference to the "
    "baseline; an interval without width means that all documents scored alike."
)


def task_rows(board: Leaderboard, columns: Sequence[Column]) -> Rows:
    """Return one task's table as text, its heading first; differences below their values.

    Models are rows where that fits the width, and otherwise whichever is narrower.
    """
    cells = board.cells
    models = [m for m in board.models if any((m, column) in cells for column in columns)]
    names = [f"{m.name}, baseline" if m == board.baseline else m.name for m in models]
    titles = [title(column) for column in columns]
    grid = [[_written(cells.get((m, column)), column) for column in columns] for m in models]
    rows = _below_each_other("model", titles, names, grid)
    if _width(rows) <= WIDTH:
        return rows
    turned = _below_each_other("metric", names, titles, list(zip(*grid, strict=True)))
    return min(rows, turned, key=_width)


def _width(rows: Rows) -> int:
    """Return the letters of the longest line."""
    return max(map(len, _aligned(rows).splitlines()))


def _written(cell: Cell | None, column: Column) -> tuple[str, str]:
    """Return a cell's value and its difference to the baseline."""
    if cell is None:
        return "", ""
    span = interval(cell.interval, column)
    return f"{number(cell.value, column)} {span}".strip(), change(cell, column)


def _below_each_other(
    what: str, titles: list[str], names: list[str], grid: Sequence[Sequence[tuple[str, str]]]
) -> Rows:
    rows = [[what, *titles]]
    for name, cells in zip(names, grid, strict=True):
        values, changes = zip(*cells, strict=True)
        rows.append([name, *values])
        if any(changes):
            rows.append(["", *changes])
    return rows


def notes(board: Leaderboard) -> list[str]:
    """Return what a reader of the table should know."""
    told = [*_efficiency(board), *_speed(board), *_without_columns(board), *board.notes]
    return [NOTE, *told, *map(str, stale.heads(board))]


def _without_columns(board: Leaderboard) -> list[str]:
    """Name the tasks of which nothing is shown."""
    return [
        f"{task}: not shown, for none of its metrics is a known score, and nothing says of one "
        "that more is better."
        for task, _, columns in by_task(board)
        if not columns
    ]


def _efficiency(board: Leaderboard) -> list[str]:
    told = any(model.train_tokens is not None for model in board.models)
    if any(column.metric == DATA for column in board.columns):
        return [f"data needed: {HELP[DATA]}."]
    if told:
        return [
            "data needed: no model with n > 1 has three checkpoints (train_tokens=…) between which "
            "it reaches the score of an n = 1 of its size."
        ]
    return []


def _speed(board: Leaderboard) -> list[str]:
    """Say what speeds were measured on, and whether they may be compared."""
    timed = [column for column in board.columns if is_timed(column.metric)]
    rows: dict[str, set[str]] = {}
    answers = any(column.metric == SPEED for column in timed)
    for place in dict.fromkeys((column.task, column.protocol) for column in timed):
        for run, _ in board.boards[place].runs:
            machine = run.machine or "unknown machine"
            where = f"{machine}, batch {run.batch}" if answers else machine
            rows.setdefault(where, set()).add(run.model.name)
    if len(rows) <= 1:
        what = f"tokens/s: {HELP[SPEED]}; here" if answers else "timed on"
        return [f"{what} {machine}." for machine in rows]
    each = "; ".join(f"{machine}: {', '.join(sorted(rows[machine]))}" for machine in sorted(rows))
    return [f"tokens/s of different machines or batches are no comparison: {each}."]


def by_task(board: Leaderboard) -> list[tuple[str, Protocol, list[Column]]]:
    """Return the columns of each task under each protocol."""
    return [
        (task, one.protocol, [c for c in board.columns if (c.task, c.protocol) == (task, place)])
        for (task, place), one in board.boards.items()
    ]


def done(protocol: Protocol) -> str:
    """Return how a task was done, in one line."""
    samples = protocol.number_of_samples
    return (
        f"version {protocol.task_version}, {protocol.documents.split(' with ')[0]} documents, "
        f"{samples} sample{'s' if samples != '1' else ''}, temperature {protocol.temperature}, "
        f"{protocol.dtype}"
    )


def terminal(board: Leaderboard, claims: Sequence[Judged]) -> str:
    """Return what the command prints."""
    parts = []
    for task, protocol, columns in by_task(board):
        if columns:
            parts.append(f"{task}: {done(protocol)}\n{_aligned(task_rows(board, columns))}")
    parts.append("\n".join(_wrapped(line) for line in notes(board)))
    parts.append("\n".join(_claim_lines(claims)))
    return "\n\n".join(parts) + "\n"


def _claim_lines(claims: Sequence[Judged]) -> list[str]:
    """Return the claims that these runs speak to, then what the others need."""
    lines = [f"{'the paper claims':<54} {'verdict':<13} these runs"]
    for one in claims:
        if one.findings:
            said = f"{one.claim} ({one.source}: {one.printed})"
            lines += _beside((said, 54), (one.verdict, 13), (one.measured, 54))
    lines.append("inconclusive, as no run here speaks to them:")
    lines += [_wrapped(f"- {one.claim}: {one.measured}") for one in claims if not one.findings]
    return lines


def markdown(board: Leaderboard, claims: Sequence[Judged]) -> str:
    """Return Markdown, a table for each task and one for the claims."""
    parts = []
    for task, protocol, columns in by_task(board):
        if columns:
            table = _pipes(task_rows(board, columns))
            parts.append(f"### {task}\n\n{done(protocol)}\n\n{table}")
    parts.append("\n".join(f"- {line}" for line in notes(board)))
    rows = [["claim", "where", "printed", "these runs", "verdict"]]
    rows += [[c.claim, c.source, c.printed, c.measured, c.verdict] for c in claims]
    parts.append(f"### The paper's claims\n\n{_pipes(rows)}")
    return "\n\n".join(parts) + "\n"


def latex(board: Leaderboard, claims: Sequence[Judged]) -> str:
    """Return LaTeX `tabular`s (booktabs), one for each task and one for the claims."""
    parts = []
    for task, protocol, columns in by_task(board):
        if columns:
            rows = task_rows(board, columns)
            spec = "l" + "r" * (len(rows[0]) - 1)
            parts.append(f"% {task}: {done(protocol)}\n{_tabular(rows, spec)}")
    parts += [f"% {line}" for line in notes(board)]
    rows = [["claim", "where", "these runs", "verdict"]]
    rows += [[c.claim, c.source, c.measured, c.verdict] for c in claims]
    parts.append(_tabular(rows, "p{5cm}p{3cm}p{6cm}l"))
    return "\n\n".join(parts) + "\n"


def comma_separated(board: Leaderboard, _: Sequence[Judged]) -> str:
    """Return CSV, a line for each model and metric; `--format json` has the claims too."""
    written = io.StringIO()
    rows = _long(board)
    writer = csv.DictWriter(written, list(rows[0]) if rows else ["model"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def plain_json(board: Leaderboard, claims: Sequence[Judged]) -> str:
    """Return everything as JSON."""
    content = {
        "baseline": board.baseline.name if board.baseline else None,
        "models": [{"name": model.name, **model._asdict()} for model in board.models],
        "protocols": [
            {"task": task, "protocol": place, **vars(one.protocol)}
            for (task, place), one in board.boards.items()
        ],
        "cells": _long(board),
        "notes": notes(board),
        "heads": [head._asdict() for head in stale.heads(board)],
        "claims": [
            {**vars(one), "findings": [finding._asdict() for finding in one.findings]}
            for one in claims
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Leaderboard, Sequence[Judged]], str]] = {
    "terminal": terminal,
    "markdown": markdown,
    "csv": comma_separated,
    "json": plain_json,
    "latex": latex,
}


def _long(board: Leaderboard) -> list[dict[str, Any]]:
    rows = []
    for column in board.columns:
        for model in board.models:
            cell = board.cells.get((model, column))
            if cell is None:
                continue
            row = {"model": model.name, **model._asdict()}
            row |= {"task": column.task, "protocol": column.protocol, "metric": column.metric}
            row |= {"filter": column.filtered, "value": cell.value}
            for name, one in (("", cell.interval), ("difference_", cell.difference)):
                if name:
                    row[name.rstrip("_")] = one.value if one else None
                row |= {f"{name}low": one.low if one else None}
                row |= {f"{name}high": one.high if one else None}
            row["change"] = direction(cell, column) or None
            rows.append(row)
    return rows


def _aligned(rows: Rows) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _wrapped(line: str) -> str:
    return textwrap.fill(line, WIDTH, subsequent_indent="  ")


def _beside(*columns: tuple[str, int]) -> list[str]:
    """Return texts side by side, each wrapped to its width."""
    wrapped = [textwrap.wrap(text, width, drop_whitespace=True) for text, width in columns]
    lines = []
    for place in range(max(map(len, wrapped))):
        cells = [w[place] if place < len(w) else "" for w in wrapped]
        padded = (cell.ljust(width) for cell, (_, width) in zip(cells, columns, strict=True))
        lines.append(" ".join(padded).rstrip())
    return lines


def _pipes(rows: Rows) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(rows[0]), "|" + "---|" * len(rows[0]), *map(line, rows[1:])])


_LATEX = str.maketrans(
    {
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)


def _tabular(rows: Rows, spec: str) -> str:
    # A line that begins with [ would be the optional argument of the \\ before it.
    lines = [" & ".join(f"{{}}{cell.translate(_LATEX)}" for cell in row) + r" \\" for row in rows]
    body = "\n".join(lines[1:])
    return (
        f"\\begin{{tabular}}{{{spec}}}\n\\toprule\n{lines[0]}\n\\midrule\n{body}\n"
        "\\bottomrule\n\\end{tabular}"
    )

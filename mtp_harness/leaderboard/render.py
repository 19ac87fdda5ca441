"""The leaderboard and the claims as terminal text, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mtp_harness.leaderboard.board import Column
from mtp_harness.leaderboard.claims import Judged
from mtp_harness.leaderboard.table import DATA, SPEED, TIMED, Cell, Leaderboard
from mtp_harness.leaderboard.text import WIDTH, Rows, aligned, beside, pipes, tabular, wrapped
from mtp_harness.leaderboard.verdicts import better_or_worse
from mtp_harness.results.protocol import Protocol
from mtp_harness.results.sizes import in_digits
from mtp_harness.scoring.bootstrap import Estimate

NOTE = (
    "[low, high]: 90 % interval by bootstrap over documents, + and -: paired difference to the "
    "baseline; an interval without width means that all documents scored alike."
)

_SHORT = {
    "tokens_per_forward": "tokens/forward",
    "tokens_per_forward_no_loops": "without loops",
    SPEED: "tokens/s",
    DATA: "data needed",
}
HELP = {
    "tokens_per_forward": "tokens kept per trunk forward, summed over answers before dividing",
    "tokens_per_forward_no_loops": "the same over answers that do not repeat themselves",
    DATA: "training tokens at which the score of n = 1's last checkpoint is reached, ÷ its tokens",
    SPEED: "decoded by the whole run, prefills included; depends on machine and batch",
}


def title(column: Column) -> str:
    """Return a column's heading."""
    name = _SHORT.get(column.metric, column.metric)
    return name if column.filtered in ("", "none") else f"{name} ({column.filtered})"


def help_of(column: Column) -> str:
    """Return the explanation of a column."""
    return HELP.get(column.metric, f"{column.metric} of {column.task}")


def number(value: float, column: Column) -> str:
    """Return a value as shown: shares with three decimals, speeds without."""
    return f"{value:,.0f}" if column.metric == SPEED else in_digits(value)


def interval(one: Estimate | None, column: Column) -> str:
    """Return `[low, high]`; empty without an interval."""
    return "" if one is None else f"[{number(one.low, column)}, {number(one.high, column)}]"


def change(cell: Cell, column: Column) -> str:
    """Return the difference to the baseline with its interval; empty without a difference."""
    if cell.difference is None:
        return ""
    value = number(cell.difference.value, column)
    sign = "" if value.startswith("-") else "+"
    return f"{sign}{value} {interval(cell.difference, column)}"


def direction(cell: Cell, column: Column) -> str:
    """Return `better` or `worse` if the difference's interval excludes zero, else empty."""
    if cell.difference is None or column.higher_is_better is None:
        return ""
    return better_or_worse(cell.difference.low, cell.difference.high, column.higher_is_better)


def task_rows(board: Leaderboard, columns: Sequence[Column]) -> Rows:
    """Return one task's table as text, its heading first; differences below their values.

    Models are rows if that fits the width; otherwise the narrower form is used.
    """
    models = [m for m in board.models if any((m, column) in board.cells for column in columns)]
    names = [f"{m.name}, baseline" if m == board.baseline else m.name for m in models]
    titles = [title(column) for column in columns]
    grid = [[_written(board.cells.get((m, column)), column) for column in columns] for m in models]
    rows = _below_each_other("model", titles, names, grid)
    if _width(rows) <= WIDTH:
        return rows
    turned = _below_each_other("metric", names, titles, list(zip(*grid, strict=True)))
    return min(rows, turned, key=_width)


def _width(rows: Rows) -> int:
    """Return the length of the longest line."""
    return max(map(len, aligned(rows).splitlines()))


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


def done(protocol: Protocol) -> str:
    """Return in one line how a task was done."""
    samples, number = protocol.number_of_samples, protocol.number_of_documents
    told = [f"version {protocol.task_version}"]
    if number:
        told.append(f"{number} document{'s' * (number != '1')}")
    elif protocol.documents:
        told.append(f"{', '.join(map(' '.join, protocol.documents.items()))} documents")
    told += [f"{samples} sample{'s' * (samples != '1')}"] if protocol.temperature else []
    told += [f"temperature {protocol.temperature}"] if protocol.temperature else []
    if protocol.draft_rule and not protocol.is_greedy:  # greedy needs no rule
        told.append(f"drafts {protocol.draft_rule}")
    return ", ".join([*told, *([protocol.dtype] if protocol.dtype else [])])


def notes(board: Leaderboard) -> list[str]:
    """Yield remarks for a reader of the table."""
    hidden = [
        f"{task}: not shown, because none of its metrics is a known score or marked "
        "higher-is-better."
        for (task, _), one in board.boards.items()
        if not one.columns
    ]
    told = [*_efficiency(board), *_speed(board), *hidden, *board.notes]
    return [NOTE, *told]


def _efficiency(board: Leaderboard) -> Iterator[str]:
    if any(column.metric == DATA for column in board.columns):
        yield f"data needed: {HELP[DATA]}."
    elif any(model.train_tokens is not None for model in board.models):
        yield (
            "data needed: no model with n > 1 has three checkpoints (train_tokens=…) between which "
            "it reaches the score of an n = 1 of its size."
        )


def _speed(board: Leaderboard) -> list[str]:
    """Return what speeds were measured on, and whether they may be compared."""
    rows: dict[str, set[str]] = {}
    answers = any(column.metric == SPEED for column in board.columns)
    for one in board.boards.values():
        for run in (
            one.runs if any(TIMED.fullmatch(column.metric) for column in one.columns) else ()
        ):
            machine = run.machine or "unknown machine"
            where = f"{machine}, batch {run.batch}" if answers else machine
            rows.setdefault(where, set()).add(run.model.name)
    if len(rows) <= 1:
        what = f"tokens/s: {HELP[SPEED]}; here" if answers else "timed on"
        return [f"{what} {machine}." for machine in rows]
    each = "; ".join(f"{machine}: {', '.join(sorted(rows[machine]))}" for machine in sorted(rows))
    return [f"tokens/s of different machines or batches cannot be compared: {each}."]


def _tables(board: Leaderboard, write: Callable[[str, str, Rows], str]) -> list[str]:
    """Return each task's table, by a function of the task, how it was done, and rows."""
    return [
        write(task, done(one.protocol), task_rows(board, one.columns))
        for (task, _), one in board.boards.items()
        if one.columns
    ]


def terminal(board: Leaderboard, claims: Sequence[Judged]) -> str:
    """Return the text to print."""
    parts = _tables(board, lambda task, how, rows: f"{task}: {how}\n{aligned(rows)}")
    parts.append("\n".join(wrapped(line) for line in notes(board)))
    if claims:
        parts.append("\n".join(_claim_lines(claims)))
    return "\n\n".join(parts) + "\n"


def _claim_lines(claims: Sequence[Judged]) -> Iterator[str]:
    """Yield the claims that these runs can judge, and those about other models."""
    judged = [one for one in claims if one.findings]
    yield (
        f"{'the paper claims':<54} {'verdict':<13} these runs"
        if judged
        else "No claim of the paper is about models like these with tasks like these."
    )
    for one in judged:
        said = f"{one.claim} ({one.source}: {one.printed})"
        yield from beside((said, 54), (one.verdict, 13), (one.measured, 54))
    if others := [one for one in claims if one.verdict == "not comparable"]:
        yield "not comparable, because the claim is about other models or machines:"
        yield from (wrapped(f"- {one.claim}: {one.measured}") for one in others)
    if n_left := sum(one.verdict == "not measured" for one in claims):
        yield wrapped(f"{n_left} more claims need other runs; --format json says which.")


def _spoken_to(claims: Sequence[Judged]) -> list[Judged]:
    """Return the claims whose tasks these runs have done."""
    return [one for one in claims if one.verdict != "not measured"]


def markdown(board: Leaderboard, claims: Sequence[Judged]) -> str:
    """Return Markdown, a table for each task and one for claims."""
    parts = _tables(board, lambda task, how, rows: f"### {task}\n\n{how}\n\n{pipes(rows)}")
    parts.append("\n".join(f"- {line}" for line in notes(board)))
    rows = [["claim", "where", "printed", "these runs", "verdict"]]
    shown = _spoken_to(claims)
    rows += [[c.claim, c.source, c.printed, c.measured, c.verdict] for c in shown]
    if shown:
        parts.append(f"### The paper's claims\n\n{pipes(rows)}")
    return "\n\n".join(parts) + "\n"


def latex(board: Leaderboard, claims: Sequence[Judged]) -> str:
    """Return LaTeX `tabular`s (booktabs), one for each task and one for claims."""
    parts = _tables(
        board,
        lambda task, how, rows: f"% {task}: {how}\n{tabular(rows, 'l' + 'r' * (len(rows[0]) - 1))}",
    )
    rows = [["claim", "where", "these runs", "verdict"]]
    shown = _spoken_to(claims)
    rows += [[c.claim, c.source, c.measured, c.verdict] for c in shown]
    said = [f"% {line}" for line in notes(board)]
    table = [tabular(rows, "p{5cm}p{3cm}p{6cm}l")] if shown else []
    return "\n\n".join([*parts, *said, *table]) + "\n"


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
        "models": [{"name": model.name, **model.facts} for model in board.models],
        "protocols": [
            {"task": task, "protocol": place, **vars(one.protocol)}
            for (task, place), one in board.boards.items()
        ],
        "cells": _long(board),
        "notes": notes(board),
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
            mine, other = (one or (None, None, None) for one in (cell.interval, cell.difference))
            rows.append(
                {"model": model.name, **model.facts}
                | {"task": column.task, "protocol": column.protocol, "metric": column.metric}
                | {"filter": column.filtered, "value": cell.value, "low": mine[1], "high": mine[2]}
                | dict(zip(("difference", "difference_low", "difference_high"), other, strict=True))
                | {"change": direction(cell, column) or None}
            )
    return rows

"""The page: what it says, put into its template with its own style and script.

Three things keep what a model wrote from ever running: the template escapes every value, documents
travel as JSON in which no `<` is left and are shown by `textContent`, and the page's content
security policy allows the one script and the one style whose hashes it names, and no connection.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mtp_harness import __version__
from mtp_harness.leaderboard import render as leaderboard
from mtp_harness.leaderboard.claims import Judged, judge
from mtp_harness.leaderboard.table import Column, Leaderboard
from mtp_harness.report.drilldown import drilldown
from mtp_harness.results.run import Model, Run
from mtp_harness.results.sizes import in_short

_HERE = Path(__file__).parent

_NO_FACTS = frozenset({"totals", "tables", "documents", "versions", "hardware", "command"})
"""Entries of `config.mtp` that are no facts of the provenance, or stand there already."""


class Figure(NamedTuple):
    """A figure as the page shows it.

    Attributes:
        name: Such as `fig_s10`.
        uri: The picture itself, as a `data:` address.
        caption: What it shows.
        columns: Of the table behind it.
        rows: Its cells, as text.
    """

    name: str
    uri: str
    caption: str
    columns: list[str]
    rows: list[list[str]]


def render(
    runs: Sequence[Run],
    board: Leaderboard,
    figures: Sequence[Figure],
    refused: Sequence[str],
    title: str,
    limit: int,
) -> str:
    """Return the page.

    Args:
        runs: Everything that it shows.
        board: Their leaderboard.
        figures: In order.
        refused: Why other figures are not there.
        title: Of the page.
        limit: Documents of a task that the page holds.
    """
    order = {model: place for place, model in enumerate(board.models)}
    sound = {(run.path, task) for (task, _), one in board.boards.items() for run in one.runs}
    documents = drilldown(sorted(runs, key=lambda run: order[run.model]), limit, sound)
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        version=__version__,
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        summary=_summary(board),
        facts=_facts(runs, board, documents),
        leaderboard=_leaderboard(board),
        claims=_claims(judge(board)),
        figures={
            "introduction": "Drawn from these runs; the table behind each is below it."
            if figures
            else "None of the figures can be drawn from these runs.",
            "shown": [{**one._asdict(), "alt": f"{one.name}: {one.caption}"} for one in figures],
            "refused": list(refused),
        },
        documents=_documents(documents),
        provenance={
            "introduction": "Where every number comes from, one entry for each results file.",
            "runs": [
                {"name": f"{run.model.name}: {', '.join(run.tasks)}", "facts": _provenance(run)}
                for run in runs
            ],
        },
    )


def _hash(source: str) -> str:
    """Return what a content security policy calls a script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def harmless_json(value: Any) -> str:
    """Return JSON that may stand in a `script` element: it can neither end nor begin a tag."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace("&", "\\u0026")


def _summary(board: Leaderboard) -> str:
    tasks = list(dict.fromkeys(task for task, _ in board.boards))
    models = list(dict.fromkeys(model.label for model in board.models))
    return f"{_listed(models)} on {_listed(tasks)}."


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def _facts(
    runs: Sequence[Run], board: Leaderboard, documents: dict[str, Any]
) -> list[tuple[str, str]]:
    n_answers = sum((run.mtp.get("totals") or {}).get("n_answers", 0) for run in runs)
    n_documents = sum(len(task["documents"]) + task["n_left_out"] for task in documents["tasks"])
    return [
        ("models", str(len({model._replace(k=0) for model in board.models}))),
        ("results files", str(len(runs))),
        ("tasks", str(len({task for task, _ in board.boards}))),
        ("documents", f"{n_documents:,}"),
        ("answers decoded", f"{n_answers:,}"),
    ]


def _leaderboard(board: Leaderboard) -> dict[str, Any]:
    lead = ["model", "n", "k", "parameters"]
    if told := any(model.train_tokens is not None for model in board.models):
        lead.append("training tokens")
    name_of = {
        (task, place): task if not place else f"{task} ({place + 1})"
        for task, place in board.boards
    }
    groups = [
        {"task": place[0], "title": name_of[place], "columns": list(columns)}
        for place, columns in groupby(board.columns, lambda c: (c.task, c.protocol))
    ]
    begins = [place == 0 for group in groups for place, _ in enumerate(group["columns"])]
    best = [_best(board, column) for column in board.columns]
    return {
        "introduction": "Values with 90 % intervals by bootstrap over documents."
        + (f" Differences are to {board.baseline.name}, paired." if board.baseline else ""),
        "warnings": [f"{one}. They stand in columns of their own." for one in board.conflicts()],
        "tasks": list(dict.fromkeys(column.task for column in board.columns)),
        "lead": lead,
        "groups": groups,
        "columns": [
            {
                "title": leaderboard.title(column),
                "help": leaderboard.HELP.get(column.metric, f"{column.metric} of {column.task}"),
                "task": column.task,
                "place": len(lead) + place,
                "begins_group": begins[place],
                "higher_is_better": column.higher_is_better is not False,
            }
            for place, column in enumerate(board.columns)
        ],
        "rows": [
            {
                "words": f"{model.name} n={model.n} k={model.k}".lower(),
                "lead": _lead(model, told),
                "cells": [
                    _cell(board, model, *of) for of in zip(board.columns, begins, best, strict=True)
                ],
                "is_baseline": model == board.baseline,
            }
            for model in board.models
        ],
        "notes": [
            *leaderboard.notes(board),
            *(f"{name_of[of]}: {leaderboard.done(o.protocol)}." for of, o in board.boards.items()),
        ],
    }


def _lead(model: Model, with_tokens: bool) -> list[dict[str, Any]]:
    tokens = model.train_tokens
    lead = [
        {"sort": model.name, "text": model.name},
        {"sort": model.n, "text": model.n},
        {"sort": model.k, "text": model.k},
        {"sort": model.parameters or "", "text": in_short(model.parameters)},
        {"sort": "" if tokens is None else tokens, "text": in_short(tokens)},
    ]
    return lead if with_tokens else lead[:-1]


def _cell(
    board: Leaderboard, model: Model, column: Column, begins_group: bool, best: float | None
) -> dict[str, Any]:
    cell = board.cells.get((model, column))
    shown = {"sort": "", "text": "–", "interval": "", "change": "", "direction": "", "best": False}
    if cell is not None:
        shown = {
            "sort": repr(cell.value),
            "text": leaderboard.number(cell.value, column),
            "interval": leaderboard.interval(cell.interval, column),
            "change": leaderboard.change(cell, column),
            "direction": leaderboard.direction(cell, column),
            "best": cell.value == best,
        }
    return {"task": column.task, "begins_group": begins_group, **shown}


def _best(board: Leaderboard, column: Column) -> float | None:
    """Return the best value of a column; None where none is, or all are alike."""
    values = [cell.value for (_, at), cell in board.cells.items() if at == column]
    if column.higher_is_better is None or len(set(values)) < 2:
        return None
    return max(values) if column.higher_is_better else min(values)


def _claims(claims: Sequence[Judged]) -> dict[str, Any]:
    counts = Counter(claim.verdict for claim in claims)
    said = ", ".join(f"{name} {counts[name]}" for name in ("agree", "disagree", "inconclusive"))
    shown = [
        {
            **vars(one),
            "measured": list(dict.fromkeys(f.what for f in one.findings)) or [one.measured],
        }
        for one in claims
    ]
    return {
        "introduction": f"{said} of "
        f"{len(claims)}. A verdict is about the runs at hand, whose models are named: the paper's "
        "are far larger. The rules are fixed in mtp_harness/leaderboard/verdicts.py.",
        "rows": [one for one in shown if one["findings"]],
        "open": [one for one in shown if not one["findings"]],
    }


def _documents(documents: dict[str, Any]) -> dict[str, Any]:
    shown = any(task["documents"] for task in documents["tasks"])
    return {
        "any": shown,
        "introduction": "What each run answered. Colours tell which head proposed a token: heads "
        "from 2 on draft, head 1 verifies and writes the rest."
        if shown
        else "These runs logged no samples: run with --log_samples.",
        "json": harmless_json(documents),
    }


def _provenance(run: Run) -> list[tuple[str, str]]:
    """Return where the numbers of a run come from, as text."""
    content, mtp = run.content, run.mtp
    facts = {
        "results file": run.path.name,
        "its SHA-256": run.sha256,
        "command": mtp.get("command"),
        "hardware": _pairs(mtp.get("hardware")),
        "versions": _pairs(mtp.get("versions")) or f"lm_eval {content.get('lm_eval_version')}",
        "task versions": _pairs(content.get("versions")),
        "limit": content["config"].get("limit"),
    }
    own = [(name.replace("_", " "), value) for name, value in mtp.items() if name not in _NO_FACTS]
    return [(name, str(value)) for name, value in (*facts.items(), *own) if value is not None]


def _pairs(values: Mapping[str, Any] | None) -> str | None:
    return ", ".join(f"{name} {value}" for name, value in values.items()) if values else None

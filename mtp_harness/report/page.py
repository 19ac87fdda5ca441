"""The page: what it says, put into its template with its own style and script.

Three things keep what a model wrote from ever running: the template escapes every value, documents
travel as JSON in which no `<` is left and are shown by `textContent`, and the page's content
security policy allows the one script and the one style whose hashes it names, and no connection.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mtp_harness import __version__
from mtp_harness.leaderboard import text
from mtp_harness.leaderboard.claims import Judged, judge
from mtp_harness.leaderboard.render import done, notes
from mtp_harness.leaderboard.table import Column, Leaderboard
from mtp_harness.report.drilldown import drilldown
from mtp_harness.report.provenance import provenance
from mtp_harness.results.run import Model, Run
from mtp_harness.results.sizes import in_short

_HERE = Path(__file__).parent


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
    sound = {(run.path, task) for (task, _), one in board.boards.items() for run, _ in one.runs}
    documents = drilldown(sorted(runs, key=lambda run: order[run.model]), limit, sound)
    style, script = (_source(name) for name in ("page.css", "page.js"))
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
            "shown": [_shown(figure) for figure in figures],
            "refused": list(refused),
        },
        documents=_documents(documents),
        provenance={
            "introduction": "Where every number comes from, one entry for each results file.",
            "runs": provenance(runs),
        },
    )


def _source(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


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
    groups = [
        {"task": task, "title": task if not place else f"{task} ({place + 1})", "columns": list(c)}
        for (task, place), c in groupby(board.columns, lambda c: (c.task, c.protocol))
    ]
    columns = [
        {
            "title": text.title(column),
            "help": text.help_of(column),
            "task": column.task,
            "place": len(lead) + place,
            "begins_group": _begins_group(board, place),
            "higher_is_better": column.higher_is_better is not False,
        }
        for place, column in enumerate(board.columns)
    ]
    best = {column: _best(board, column) for column in board.columns}
    return {
        "introduction": "Values with 90 % intervals by bootstrap over documents."
        + (f" Differences are to {board.baseline.name}, paired." if board.baseline else ""),
        "warnings": [
            f"{sentence}. They stand in columns of their own." for sentence in board.conflicts()
        ],
        "tasks": list(dict.fromkeys(column.task for column in board.columns)),
        "lead": lead,
        "groups": groups,
        "columns": columns,
        "rows": [_row(board, model, best, told) for model in board.models],
        "notes": [
            *notes(board),
            *(
                f"{task if not place else f'{task} ({place + 1})'}: {done(one.protocol)}."
                for (task, place), one in board.boards.items()
            ),
        ],
    }


def _begins_group(board: Leaderboard, place: int) -> bool:
    column, before = board.columns[place], board.columns[place - 1] if place else None
    return before is None or (column.task, column.protocol) != (before.task, before.protocol)


def _best(board: Leaderboard, column: Column) -> float | None:
    """Return the best value of a column; None where none is, or all are alike."""
    values = [cell.value for (_, at), cell in board.cells.items() if at == column]
    if column.higher_is_better is None or len(set(values)) < 2:
        return None
    return max(values) if column.higher_is_better else min(values)


def _row(
    board: Leaderboard, model: Model, best: dict[Column, float | None], told: bool
) -> dict[str, Any]:
    cells = []
    for place, column in enumerate(board.columns):
        cell = board.cells.get((model, column))
        cells.append(
            {
                "task": column.task,
                "begins_group": _begins_group(board, place),
                "sort": "" if cell is None else repr(cell.value),
                "text": "–" if cell is None else text.number(cell.value, column),
                "interval": "" if cell is None else text.interval(cell.interval, column),
                "change": "" if cell is None else text.change(cell, column),
                "direction": "" if cell is None else text.direction(cell, column),
                "best": cell is not None and cell.value == best[column],
            }
        )
    lead = [
        {"sort": model.name, "text": model.name},
        {"sort": model.n, "text": model.n},
        {"sort": model.k, "text": model.k},
        {"sort": model.parameters or "", "text": in_short(model.parameters)},
    ]
    if told:
        tokens = model.train_tokens
        lead.append({"sort": "" if tokens is None else tokens, "text": in_short(tokens)})
    words = f"{model.name} n={model.n} k={model.k}".lower()
    return {
        "words": words,
        "lead": lead,
        "cells": cells,
        "is_baseline": model == board.baseline,
    }


def _claims(claims: Sequence[Judged]) -> dict[str, Any]:
    n_agree, n_disagree = (sum(c.verdict == v for c in claims) for v in ("agree", "disagree"))
    counts = [f"agree {n_agree}", f"disagree {n_disagree}"]
    n_clear = n_agree + n_disagree
    judged = [_claim(claim) for claim in claims if claim.findings]
    unjudged = [_claim(claim) for claim in claims if not claim.findings]
    return {
        "introduction": f"{', '.join(counts)}, inconclusive {len(claims) - n_clear} of "
        f"{len(claims)}. A verdict is about the runs at hand, whose models are named: the paper's "
        "are far larger. The rules are fixed in mtp_harness/leaderboard/verdicts.py.",
        "rows": judged,
        "open": unjudged,
    }


def _claim(claim: Judged) -> dict[str, Any]:
    findings = dict.fromkeys(finding.what for finding in claim.findings)
    return {**vars(claim), "measured": list(findings) or [claim.measured]}


def _shown(figure: Figure) -> dict[str, Any]:
    alt = f"{figure.name}: {figure.caption}"
    return {**figure._asdict(), "alt": alt}


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

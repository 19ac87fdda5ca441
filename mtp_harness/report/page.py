"""Fills the page's template with results, its style and its script.

Three things keep what a model wrote from ever running: the template escapes every value, documents
travel as JSON in which no `<` is left and are shown by `textContent`, and the page's content
security policy allows the one script and the one style whose hashes it names, and no connection.
"""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mtp_harness import __version__
from mtp_harness.leaderboard import render as text
from mtp_harness.leaderboard.board import Column
from mtp_harness.leaderboard.claims import Judged, judge
from mtp_harness.leaderboard.table import Leaderboard
from mtp_harness.report.drilldown import drilldown
from mtp_harness.report.results import cards
from mtp_harness.results.run import Run
from mtp_harness.results.sizes import in_short

_HERE = Path(__file__).parent

FEW = 2
"""Most models or tasks that the title names."""

LONGEST_TITLE = 72
"""Characters of a figure's title."""

_NO_FACTS = frozenset({"totals", "tables", "documents", "versions", "hardware", "command"})
"""Entries of `config.mtp` that are not part of the provenance, or are shown elsewhere."""


class Figure(NamedTuple):
    """A figure as the page shows it."""

    name: str  # such as `fig_s10`
    uri: str  # the picture itself, as a `data:` address
    caption: str
    columns: list[str]  # of the table behind it
    rows: list[list[str]]  # its cells, as text

    @property
    def title(self) -> str:
        """The caption's first sentence, or the beginning of a long one."""
        return self._parts[0]

    @property
    def rest(self) -> str:
        """The rest of the caption."""
        return self._parts[1][:1].upper() + self._parts[1][1:]

    @property
    def _parts(self) -> tuple[str, str]:
        title, _, rest = self.caption.partition(". ")
        if len(title) > LONGEST_TITLE:
            title, rest = [*re.split(r"[.;:,] ", self.caption, maxsplit=1), ""][:2]
        return title.removesuffix("."), rest


def render(
    runs: Sequence[Run],
    board: Leaderboard,
    figures: Sequence[Figure],
    refused: Sequence[str],
    title: str | None,
    limit: int,
    drafts: str | None,
) -> str:
    """Return the page of runs.

    Args:
        runs: The runs to show.
        board: The same as a table.
        figures: The same as pictures.
        refused: Why other figures were not drawn.
        title: Of the page; None for its models and tasks.
        limit: Most documents of a task.
        drafts: File of the page about drafts beside it; None if there is none.
    """
    order = {model: place for place, model in enumerate(board.models)}
    sound = {(run.path, task) for (task, _), one in board.boards.items() for run in one.runs}
    documents = drilldown(sorted(runs, key=lambda run: order[run.model]), limit, sound)
    style, script = style_sheet(), (_HERE / "page.js").read_text(encoding="utf-8")
    claims, table = judge(board), _table(board)
    pages = environment()
    pages.globals |= {"text": text, "in_short": in_short, "measured": _measured}
    return pages.get_template("page.html.j2").render(
        title=_title(board) if title is None else title,
        version=__version__,
        style=style,
        style_hash=hash_of(style),
        script=script,
        script_hash=hash_of(script),
        summary=_summary(board),
        facts=_facts(runs, board, documents),
        board=board,
        cards=cards(board, table["names"]),
        **table,
        verdicts=Counter(claim.verdict for claim in claims if claim.findings),
        judged=[claim for claim in claims if claim.findings],
        open=[claim for claim in claims if not claim.findings],
        figures=figures,
        refused=refused,
        has_documents=any(task["documents"] for task in documents["tasks"]),
        has_texts=any(task["has_text"] for task in documents["tasks"]),
        documents=harmless_json(documents),
        drafts=drafts,
        runs=runs,
        provenance=_provenance,
    )


def style_sheet() -> str:
    """Return the style of all pages."""
    return (_HERE / "page.css").read_text(encoding="utf-8")


def environment() -> Environment:
    """Return what fills in templates; every value is escaped, and none may be missing."""
    return Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def hash_of(source: str) -> str:
    """Return what a content security policy calls a script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def harmless_json(value: Any) -> str:
    """Return JSON for a `script` element: it can neither end nor begin a tag."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace("&", "\\u0026")


def _title(board: Leaderboard) -> str:
    """Return models and tasks by name where they are few, and how many otherwise."""
    models = dict.fromkeys(model.label for model in board.models)
    tasks = dict.fromkeys(task for task, _ in board.boards)
    who = _listed([*models]) if len(models) <= FEW else f"{len(models)} models"
    return f"{who} on {_listed([*tasks]) if len(tasks) <= FEW else f'{len(tasks)} tasks'}"


def _summary(board: Leaderboard) -> str:
    tasks = list(dict.fromkeys(task for task, _ in board.boards))
    models = list(dict.fromkeys(model.label for model in board.models))
    return f"{_listed(models)} on {_listed(tasks)}."


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def _facts(runs: Sequence[Run], board: Leaderboard, documents: dict[str, Any]) -> list[str]:
    n_answers = sum((run.mtp.get("totals") or {}).get("n_answers", 0) for run in runs)
    n_documents = sum(len(task["documents"]) + task["n_left_out"] for task in documents["tasks"])
    n_models = len({model.text for model in board.models})
    n_tasks = len({task for task, _ in board.boards})
    counts = [  # the title names a single one
        (n_models if n_models > 1 else 0, "model"),
        (n_tasks if n_tasks > 1 else 0, "task"),
        (n_documents, "document"),
        (n_answers, "decoded answer"),
        (len(runs), "results file"),
    ]
    told = []
    if len(board.models) == 1:  # where no table names it
        [model] = board.models
        told = [f"{in_short(model.parameters)} parameters"] if model.parameters else []
        told += [model.whole_name.removeprefix(model.label).removeprefix(", ")]
    return [one for one in told if one] + [
        f"{count:,} {name}{'s' * (count != 1)}" for count, name in counts if count
    ]


def _table(board: Leaderboard) -> dict[str, Any]:
    """Return what the table of the leaderboard needs in addition to the leaderboard."""
    lead = ["model", "n", "k", "parameters"]
    if any(model.train_tokens is not None for model in board.models):
        lead.append("training tokens")
    values: dict[Column, set[float]] = {column: set() for column in board.columns}
    for (_, column), cell in board.cells.items():
        values[column].add(cell.value)
    return {
        "lead": lead,
        "tasks": list(dict.fromkeys(column.task for column in board.columns)),
        "names": {of: _named(board, *of) for of in board.boards},
        "first": {one.columns[0] for one in board.boards.values() if one.columns},
        "best": {column: _best(column, its) for column, its in values.items()},
    }


def _named(board: Leaderboard, task: str, place: int) -> str:
    """Return the headings of a task's columns: by temperature, or numbered."""
    mine, first = board.boards[task, place].protocol, board.boards[task, 0].protocol
    if not place:
        return task
    return (
        f"{task} ({place + 1})"
        if mine.is_same_question(first)
        else (f"{task}, temperature {mine.temperature}")
    )


def _best(column: Column, values: set[float]) -> float | None:
    """Return the best value of a column; None if there is none, or all are equal."""
    if column.higher_is_better is None or len(values) < 2:
        return None
    return max(values) if column.higher_is_better else min(values)


def _measured(claim: Judged) -> list[str]:
    return list(dict.fromkeys(finding.what for finding in claim.findings)) or [claim.measured]


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

"""The cards at the top of the page: for each task its scores, how it decoded, numbers by head.

They show the leaderboard's most important columns; a table further down has all of them.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mtp_harness.leaderboard import render as text
from mtp_harness.leaderboard.board import Board, Column
from mtp_harness.leaderboard.table import SPEED, Cell, Leaderboard
from mtp_harness.results.closing import AT_OFFSET
from mtp_harness.results.run import Model
from mtp_harness.results.schema import OF_TIMES

MOST_SCORES = 2
"""Most scores of a card that are single numbers."""
MOST_SERIES = 6
"""Most metrics in a card's table by head."""
MOST_ROWS = 24
"""Most rows of that table; a single metric always has its rows."""

_DECODING = ("tokens_per_forward", SPEED)

_FIRST = (
    r"(pass@\d+|exact_match|acc(_norm)?|rouge\w+)\w*",
    r"(\w+_)?(accuracy(_cond)?|accept_rate_prefix|tokens_per_(second|forward))",
    r"(\w+_)?(text_walk_\w+|speedup|identical)",
    r"(\w+_)?bits_per_byte",
)
"""Names of metrics, without their offset, the most important first."""

_WORDS = {
    "tokens_per_forward": (
        "tokens per forward",
        "tokens that one forward pass of the model yields on average; 1 without drafts.",
    ),
    "accept_rate_prefix": (
        "drafts accepted",
        "the share of steps in which this head’s draft was accepted. Head 1 verifies: its own "
        "token is always kept.",
    ),
    "chained_accuracy": (
        "chained accuracy",
        "the same when each prediction reads the module’s state of the offset before, as in "
        "training. Plain accuracy is what decoding sees: the module drafts repeatedly.",
    ),
    "accuracy_cond": (
        "accuracy after right drafts",
        "the same among states whose earlier predictions, from offset 2 on, are all right: what "
        "decoding needs.",
    ),
    "accuracy": ("accuracy", "the share of predictions that are right."),
    "text_walk_tokens_per_forward": (
        "tokens per forward along real text",
        "tokens per forward if the model is forced along a given text: a draft is accepted while "
        "it matches that text.",
    ),
    "bits_per_byte": ("bits per byte", "loss in bits for each byte of text; less is better."),
    "tf_agree": (
        "agreement with head 1",
        "the share of predictions that equal what head 1 predicts once it gets there.",
    ),
    "effective_horizon": (
        "effective horizon",
        "the largest offset at which at least half of the predictions are right.",
    ),
    "rouge1_f1": ("ROUGE-1 F1", "overlap of words with the reference."),
    "rouge2_f1": ("ROUGE-2 F1", "overlap of pairs of words with the reference."),
    "rougeL_f1": ("ROUGE-L F1", "longest common sequence of words with the reference."),
    "identical": ("identical text", "the share of answers that equal those of plain decoding."),
    "tokens_per_second": ("tokens per second", "depends on machine and batch."),
    SPEED: ("tokens per second", f"{text.HELP[SPEED]}."),
}
"""Titles and explanations of metrics on the page."""

_BY = dict.fromkeys(OF_TIMES, "heads used, k") | {"mtp_arithmetic": "operations"}
"""What a metric's last number counts, if it is not the head."""

_KNOWN = re.compile(rf"(?:(?P<of>\w+?)_)??(?P<name>{'|'.join(_WORDS)})")
_SHARE = re.compile(r"(\w+_)?(accuracy(_cond)?|accept_rate_prefix|tf_agree|identical)")


class Entry(NamedTuple):
    """A number as shown."""

    value: str
    interval: str  # empty without an interval
    change: str  # to the baseline; empty without one
    direction: str  # of the change: better, worse or empty
    whisker: tuple[float, float, float] | None  # low, value, high in percent of the column's span
    share: int | None  # tenths, for a number from 0 to 1 that is one of several by head


class Series(NamedTuple):
    """One metric by head: a row for each model, an entry for each head."""

    title: str
    rows: list[tuple[Model, list[Entry | None]]]


class Card(NamedTuple):
    """One task under one protocol."""

    name: str
    done: str  # how, and on how many documents
    titles: list[str]  # of the single numbers
    rows: list[tuple[Model, list[Entry | None]]]  # the same of each model
    decodes: bool  # whether heads were used to decode
    by: str  # what `places` count
    places: list[int]
    series: list[Series]
    words: list[tuple[str, str]]  # what the metrics are


def cards(board: Leaderboard, names: Mapping[tuple[str, int], str]) -> list[Card]:
    """Return a card for each board that has columns, in order."""
    return [_card(board, one, names[place]) for place, one in board.boards.items() if one.columns]


def _card(whole: Leaderboard, board: Board, name: str) -> Card:
    cells = whole.cells | _accepted(board)
    single, series = _chosen(board, [*board.columns, *dict.fromkeys(of for _, of in cells)])
    models = [m for m in whole.models if any(run.model == m for run in board.runs)]
    n_series = min(MOST_SERIES, max(1, MOST_ROWS // max(1, len(models))))
    by_head = list(series.items())[:n_series]
    places = sorted({at for _, columns in by_head for at in columns})
    shown = {column.metric: None for column in single} | {metric: None for metric, _ in by_head}
    return Card(
        name,
        f"{text.done(board.protocol)}{_limit(board)}",
        [_title(column.metric, column.filtered) for column in single],
        [(m, [_entry(cells, m, column) for column in single]) for m in models],
        any(column.metric == "tokens_per_forward" for column in single),
        _BY.get(board.task, "head"),
        places,
        [
            Series(
                _title(metric),
                [(m, [_entry(cells, m, columns.get(at), True) for at in places]) for m in models],
            )
            for metric, columns in by_head
        ],
        _words(shown),
    )


def _chosen(
    board: Board, columns: Sequence[Column]
) -> tuple[list[Column], dict[str, dict[int, Column]]]:
    """Return the single numbers and the metrics by offset that are shown, most important first."""
    single: list[Column] = []
    series: dict[str, dict[int, Column]] = {}
    own = [c for c in dict.fromkeys(columns) if c.task == board.task]
    own = [c for c in own if c.protocol == board.columns[0].protocol]
    for column in own:
        if found := AT_OFFSET.fullmatch(column.metric):
            series.setdefault(found["name"], {})[int(found["offset"])] = column
        else:
            single.append(column)
    decoding = [c for c in single if c.metric in _DECODING]
    if len(board.runs) > 1:
        decoding = decoding[:1]  # runs' speeds depend on more than their models
    scores = [c for c in single if not re.fullmatch(rf"tokens_per_forward.*|{SPEED}|data_.*", c[1])]
    scores = sorted(scores, key=lambda column: _rank(column.metric))[:MOST_SCORES]
    # Other readings of one metric stand beside it, the plain one first.
    plain = list(dict.fromkeys(map(_plain, series)))
    first = [name for name in series if _rank(name) < len(_FIRST)] or list(series)
    first = sorted(first, key=lambda name: (_rank(name), plain.index(_plain(name)), len(name)))
    return [*scores, *decoding], {name: series[name] for name in first}


def _rank(metric: str) -> int:
    """Return a metric's place in `_FIRST`."""
    ranks = (place for place, known in enumerate(_FIRST) if re.fullmatch(known, metric))
    return next(ranks, len(_FIRST))


def _plain(metric: str) -> str:
    return metric.replace("chained_", "").removesuffix("_cond")


def _accepted(board: Board) -> dict[tuple[Model, Column], Cell]:
    """Return the share of steps in which each head's draft was accepted."""
    place_of_protocol = board.columns[0].protocol
    found = {}
    for place, run in enumerate(board.runs):
        for (metric, filtered), value in board.metrics(place).items():
            if metric.startswith("accept_rate_prefix_"):
                column = Column(board.task, metric, filtered, place_of_protocol, True)
                estimated = board.estimate((place, metric, filtered))
                found[run.model, column] = Cell(value, estimated)
    return found


def _entry(
    cells: Mapping[tuple[Model, Column], Cell],
    model: Model,
    column: Column | None,
    by_head: bool = False,
) -> Entry | None:
    """Return a number as shown; None if it was not measured."""
    cell = cells.get((model, column)) if column else None
    if cell is None or column is None:
        return None
    found = AT_OFFSET.fullmatch(column.metric) if by_head else None
    is_share = found is not None and _SHARE.fullmatch(found["name"]) is not None
    return Entry(
        text.number(cell.value, column),
        text.interval(cell.interval, column),
        text.change(cell, column),
        text.direction(cell, column),
        _whisker(cell, [c for (_, of), c in cells.items() if of == column])
        if column.metric not in _DECODING and not by_head
        else None,
        round(10 * min(1.0, max(0.0, cell.value))) if is_share else None,
    )


def _whisker(cell: Cell, column: Sequence[Cell]) -> tuple[float, float, float] | None:
    """Return an interval as percentages of the span of all intervals in a column."""
    spans = [(one.interval.low, one.interval.high) for one in column if one.interval]
    if cell.interval is None or len(spans) < 2:
        return None
    least, most = min(low for low, _ in spans), max(high for _, high in spans)
    if most <= least:
        return None
    ends = (cell.interval.low, cell.value, cell.interval.high)
    low, value, high = (round(100 * (one - least) / (most - least), 1) for one in ends)
    return low, value, high


def _limit(board: Board) -> str:
    """Say how many documents were used, if a run was limited."""
    counted = board.runs[0].told("n-samples", board.task) or {}
    done, there = counted.get("effective"), counted.get("original")
    return f"; limited to the first {done} of {there}" if done and there and done < there else ""


def _title(metric: str, filtered: str = "") -> str:
    """Return a metric's title on the page, without its offset."""
    by = "" if filtered in ("", "none") else f" ({filtered})"
    if found := _KNOWN.fullmatch(metric):
        of = f", {found['of'].replace('_', ' ')}" if found["of"] else ""
        return f"{_WORDS[found['name']][0]}{of}{by}"
    return f"{metric.replace('_', ' ')}{by}"


def _words(metrics: Mapping[str, None]) -> list[tuple[str, str]]:
    """Return the explanations of a card's metrics."""
    names = [found["name"] for metric in metrics if (found := _KNOWN.fullmatch(metric))]
    return [_WORDS[name] for name in dict.fromkeys(names)]

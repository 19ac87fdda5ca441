"""A table of numbers as a picture: booktabs rules, and bold.

The paper's numbers are bold where it prints them so. Of runs a number is bold where its interval
lies above every other of its group: what is best by chance alone is not set apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from mtp_harness.figures import words
from mtp_harness.figures.series import is_mixed, is_paper, refuse_doubled, with_paper_named
from mtp_harness.figures.style import GREY, RULE, Style

LINE = 0.165
"""Height of a line of text, inches."""


@dataclass(frozen=True)
class TextTable:
    """How tidy rows become a table.

    Attributes:
        rows: Columns whose entries name a row, outermost first.
        columns: Columns whose entries name a column, outermost first.
        form: Writes a value.
        best: Columns of `rows` within whose groups the best run is bold; None for nothing.
        titles: Of the row columns, instead of their names.
        order: Of the entries of the outer column, as far as they are named here.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    form: Callable[[float], str]
    best: tuple[str, ...] | None = None
    titles: tuple[str, ...] = ()
    order: tuple[Any, ...] = ()

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table."""
        paper = is_paper(shown)
        mixed = is_mixed(shown)
        frame = shown.assign(_paper=paper)
        if mixed and "label" in self.columns:  # heads of columns say whose they are
            frame = with_paper_named(shown).assign(_paper=False)
        keys = ["_paper", *self.rows]
        rows = list(frame[keys].drop_duplicates().itertuples(index=False, name=None))
        if mixed:
            rows.sort(key=lambda row: row[0])
        columns = list(
            frame[list(self.columns)].drop_duplicates().itertuples(index=False, name=None)
        )
        columns.sort(key=self._place)
        refuse_doubled(frame, [*keys, *self.columns])
        places = zip(_entries(frame, keys), _entries(frame, self.columns), strict=True)
        numbers = zip(
            *(frame[name] for name in ("value", "low", "bold")), is_paper(frame), strict=True
        )
        cells = {place: Cell(*number) for place, number in zip(places, numbers, strict=True)}
        body = [[self._cell(cells, row, column) for column in columns] for row in rows]
        bold = self._bold(cells, rows, columns)
        titles, lead = self._without_constants(self._titles(), self._lead(rows, mixed), rows)
        _paint(canvas, self._heads(columns), titles, lead, body, bold)

    def _place(self, column: tuple[Any, ...]) -> tuple[Any, ...]:
        rank = tuple(
            self.order.index(one) if one in self.order else len(self.order) for one in column
        )
        return tuple((r, _sortable(one)) for r, one in zip(rank, column, strict=True))

    def _titles(self) -> list[str]:
        return list(self.titles or (words.axis(name) for name in self.rows))

    def _without_constants(
        self, titles: list[str], lead: list[list[str]], rows: Sequence[tuple[Any, ...]]
    ) -> tuple[list[str], list[list[str]]]:
        """Leave out names that are missing in every row."""
        kept = [
            place
            for place in range(len(titles))
            if any(not pd.isna(row[1 + place]) for row in rows)
        ]
        return [titles[i] for i in kept], [[line[i] for i in kept] for line in lead]

    def _lead(self, rows: Sequence[tuple[Any, ...]], mixed: bool) -> list[list[str]]:
        """Return the names of the rows; what repeats the row above stays empty."""
        lead: list[list[str]] = []
        before: tuple[Any, ...] = ()
        for row in rows:
            same = True
            entries = []
            for place, (name, entry) in enumerate(zip(self.rows, row[1:], strict=True), 1):
                same = (
                    same
                    and bool(before)
                    and _known(before[: place + 1]) == _known(row[: place + 1])
                )
                last = place == len(self.rows)
                entries.append("" if same and not last else _plain(name, entry))
            if mixed and row[0] and entries[0]:
                entries[0] += " (paper)"
            lead.append(entries)
            before = row
        return lead

    def _cell(self, cells: dict[Any, Any], row: Any, column: Any) -> str:
        found = cells.get((_known(row), _known(column)))
        if found is None or pd.isna(found.value):
            return "–"
        return self.form(float(found.value)).replace("-", "−")

    def _bold(self, cells: Any, rows: Any, columns: Any) -> set[tuple[int, int]]:
        """Return the places of bold numbers: row, column."""
        bold = set()
        places = [1 + self.rows.index(name) for name in self.best or ()]
        for x, column in enumerate(columns):
            groups: dict[Any, list[tuple[int, Cell]]] = {}
            for y, row in enumerate(rows):
                found = cells.get((_known(row), _known(column)))
                if found is None or pd.isna(found.value):
                    continue
                if found.of_paper:
                    bold |= set() if pd.isna(found.bold) else {(y, x)}
                elif self.best is not None:
                    key = _known(tuple(row[place] for place in places))
                    groups.setdefault(key, []).append((y, found))
            for group in groups.values():
                bold |= {(y, x) for y, cell in group if _is_best(cell, [one for _, one in group])}
        return bold

    def _heads(self, columns: Sequence[tuple[Any, ...]]) -> "Heads":
        """Return the lines of the head: names with the number of columns that each spans."""
        lines = []
        for depth, name in enumerate(self.columns):
            spans = groupby(columns, key=lambda column: _known(column[: depth + 1]))
            line = []
            for _, group in spans:
                members = list(group)
                line.append((_head(name, members[0][depth]), len(members)))
            lines.append(line)
        return lines


class Cell(NamedTuple):
    """A number of the table, and what decides whether it is bold."""

    value: Any
    low: Any
    bold: Any
    of_paper: bool


def _is_best(cell: Cell, group: Sequence[Cell]) -> bool:
    others = [float(one.value) for one in group if one is not cell]
    return bool(others) and not pd.isna(cell.low) and float(cell.low) > max(others)


def _entries(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[Any, ...]]:
    return [_known(row) for row in frame[list(names)].itertuples(index=False, name=None)]


def _plain(name: str, entry: Any) -> str:
    if pd.isna(entry):
        return "–"
    if name in ("n", "k", "extra_layers"):
        return str(entry)
    if name == "at":
        return f"@{entry}"
    return words.entry(name, entry)


def _head(name: str, entry: Any) -> str:
    if name in ("n", "k") and not pd.isna(entry):
        return f"{name} = {entry}"
    return words.HEADS.get(entry, "") or _plain(name, entry)


def _known(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(None if pd.isna(entry) else entry for entry in entries)


def _sortable(entry: Any) -> tuple[int, Any]:
    return (1, "") if pd.isna(entry) else (0, entry)


Heads = list[list[tuple[str, int]]]
"""Lines of a head: names, each with the number of columns that it spans."""

LETTER = 0.056
"""Width of a letter of 6.5 points, inches, on average."""

PAD = 0.14
"""Between columns, inches."""

SMALL: dict[str, Any] = {"fontsize": 6.5, "va": "center"}


def _paint(
    canvas: Canvas,
    heads: Heads,
    titles: list[str],
    lead: list[list[str]],
    body: list[list[str]],
    bold: set[tuple[int, int]],
) -> None:
    """Put the texts on a canvas as wide as they need."""
    named = [
        LETTER * max(len(text) for text in [title, *(line[i] for line in lead)]) + PAD
        for i, title in enumerate(titles)
    ]
    widths = _widths(heads, body)
    width = sum(named) + sum(widths)
    height = LINE * (len(heads) + len(body) + 1.0)
    canvas.set_size_inches(width + 0.25, height + 0.3)
    axes = canvas.subplots()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    _paint_head(axes, heads, titles, named, widths)
    y = LINE * (len(heads) + 0.2)
    _rule(axes, y, 0, width, 0.6)
    for number, (names, texts) in enumerate(zip(lead, body, strict=True)):
        y += LINE
        if number and names[0] and len(titles) > 1:
            _rule(axes, y - LINE / 2 - 0.01, 0, width, 0.3, GREY)
        left = 0.0
        for text, room in zip(names, named, strict=True):
            axes.text(left, y, text, ha="left", **SMALL)
            left += room
        for column, (text, room) in enumerate(zip(texts, widths, strict=True)):
            left += room
            weight = "bold" if (number, column) in bold else "normal"
            axes.text(left - PAD / 2, y, text, ha="right", fontweight=weight, **SMALL)
    _rule(axes, 0.02, 0, width, 0.9)
    _rule(axes, y + LINE * 0.62, 0, width, 0.9)


def _widths(heads: Heads, body: list[list[str]]) -> list[float]:
    """Return the width of each column; a head that is wider than its columns widens them."""
    widths = [LETTER * max(len(line[x]) for line in body) + PAD for x in range(len(body[0]))]
    for line in heads:
        first = 0
        for text, span in line:
            lack = LETTER * len(text) + PAD - sum(widths[first : first + span])
            for x in range(first, first + span):
                widths[x] += max(lack, 0.0) / span
            first += span
    return widths


def _paint_head(
    axes: Axes, heads: Heads, titles: list[str], named: list[float], widths: list[float]
) -> None:
    for depth, line in enumerate(heads):
        left, y, place = sum(named), LINE * (depth + 0.75), 0
        for text, span in line:
            right = left + sum(widths[place : place + span])
            if span > 1:
                axes.text((left + right) / 2, y, text, ha="center", **SMALL)
                _rule(axes, y + LINE / 2, left + 0.05, right - 0.05, 0.4)
            else:
                axes.text(right - PAD / 2, y, text, ha="right", **SMALL)
            left, place = right, place + span
    for i, title in enumerate(titles):
        axes.text(sum(named[:i]), LINE * (len(heads) - 0.25), title, ha="left", **SMALL)


def _rule(
    axes: Axes, y: float, left: float, right: float, width: float, colour: str = RULE
) -> None:
    axes.plot([left, right], [y, y], color=colour, linewidth=width, clip_on=False)

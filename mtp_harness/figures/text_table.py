"""A table of numbers as a figure: booktabs rules, and bold.

The paper's numbers are bold as printed. A run's number is bold if its interval lies above all
others of its group: a number that is best by chance is not marked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from mtp_harness.figures import words
from mtp_harness.figures.series import (
    Entry,
    entries,
    is_mixed,
    is_paper,
    refuse_doubled,
    with_paper_named,
)
from mtp_harness.figures.style import GREY, RULE, Style


class Cell(NamedTuple):
    """A number of the table, and what decides whether it is bold."""

    value: Any
    low: Any
    bold: Any
    of_paper: bool


Cells = dict[tuple[Entry, Entry], Cell]
"""Numbers by row and column; a row's key begins with whether it is the paper's."""

Heads = list[list[tuple[str, int]]]
"""Lines of a heading: names, each with the number of columns that it spans."""


@dataclass(frozen=True)
class TextTable:
    """How tidy rows become a table, whose rows and columns are named by columns' entries."""

    rows: tuple[str, ...]  # outermost first
    columns: tuple[str, ...]  # outermost first
    form: str = "{:.2f}"
    percent: bool = False  # whether shares are shown as percentages
    best: tuple[str, ...] | None = None  # the best run is bold among equal entries of these `rows`
    titles: tuple[str, ...] = ()  # of `rows`, instead of their names
    order: tuple[Any, ...] = ()  # of the entries of `columns`; other entries follow, sorted

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table."""
        mixed = is_mixed(shown)
        frame = shown.assign(_paper=is_paper(shown))
        if mixed and "label" in self.columns:  # the headings of columns name the paper
            frame = with_paper_named(shown).assign(_paper=False)
        keys = ["_paper", *self.rows]
        refuse_doubled(frame, [*keys, *self.columns])
        of_rows, of_columns = entries(frame, keys), entries(frame, self.columns)
        numbers = entries(frame.assign(of_paper=is_paper(frame)), Cell._fields)
        cells = {
            (row, column): Cell(*number)
            for row, column, number in zip(of_rows, of_columns, numbers, strict=True)
            if number[0] is not None
        }
        rows = sorted(dict.fromkeys(of_rows), key=lambda row: row[0])
        size = frame.groupby("label", sort=False)["parameters"].min().rank().fillna(0)
        columns = sorted(dict.fromkeys(of_columns), key=lambda one: self._place(one, size))
        bold = self._bold(cells)
        body = [
            [(self._text(cells.get((row, one))), (row, one) in bold) for one in columns]
            for row in rows
        ]
        # Names that are missing in every row are left out.
        kept = [i for i in range(len(self.rows)) if any(row[1 + i] is not None for row in rows)]
        titles = self.titles or tuple(map(words.axis, self.rows))
        lead = [[line[i] for i in kept] for line in self._lead(rows, mixed)]
        _paint(canvas, self._heads(columns), [titles[i] for i in kept], lead, body)

    def _place(self, column: Entry, size: "pd.Series[float]") -> list[Any]:
        """Return what to sort a column by: `order`, models by size, others by name."""
        rank = [
            self.order.index(one) if one in self.order else len(self.order) + size.get(one, 0)
            for one in column
        ]
        known = [(one is None, "" if one is None else one) for one in column]
        return list(zip(rank, known, strict=True))

    def _lead(self, rows: Sequence[Entry], mixed: bool) -> list[list[str]]:
        """Return the names of the rows; a name repeated from the row above is empty."""
        lead: list[list[str]] = []
        for before, row in zip([(), *rows], rows, strict=False):
            names = [_name(name, entry) for name, entry in zip(self.rows, row[1:], strict=True)]
            for place in range(1, len(self.rows)):
                if before[: place + 1] == row[: place + 1]:
                    names[place - 1] = ""
            if mixed and row[0] and names[0]:
                names[0] += " (paper)"
            lead.append(names)
        return lead

    def _text(self, cell: Cell | None) -> str:
        if cell is None:
            return "–"
        number = float(cell.value) * (100 if self.percent else 1)
        return self.form.format(number).replace("-", "−")

    def _bold(self, cells: Cells) -> set[tuple[Entry, Entry]]:
        """Return the places of the bold numbers."""
        bold = set()
        groups: dict[Entry, list[tuple[Entry, Entry]]] = {}
        places = [1 + self.rows.index(name) for name in self.best or ()]
        for (row, column), cell in cells.items():
            if cell.of_paper:
                bold |= set() if cell.bold is None else {(row, column)}
            elif self.best is not None:
                name = (column, *(row[place] for place in places))
                groups.setdefault(name, []).append((row, column))
        for group in groups.values():
            *others, best = sorted(group, key=lambda place: float(cells[place].value))
            low = cells[best].low
            if others and low is not None and float(low) > float(cells[others[-1]].value):
                bold.add(best)
        return bold

    def _heads(self, columns: Sequence[Entry]) -> Heads:
        lines = []
        for depth, name in enumerate(self.columns, 1):
            prefix = itemgetter(slice(depth))
            spans = [list(group) for _, group in groupby(columns, key=prefix)]
            lines.append([(_head(name, span[0][depth - 1]), len(span)) for span in spans])
        return lines


def _name(name: str, entry: Any) -> str:
    if entry is None:
        return "–"
    if name in ("n", "k", "extra_layers"):
        return str(entry)
    return f"@{entry}" if name == "at" else words.entry(name, entry)


def _head(name: str, entry: Any) -> str:
    if name in ("n", "k") and entry is not None:
        return f"{name} = {entry}"
    return words.HEADS.get(entry, "") or _name(name, entry)


LINE = 0.165
"""Height of a line of text, inches."""

LETTER = 0.056
"""Average width of a character of 6.5 points, inches."""

PAD = 0.14
"""Space between columns, inches."""

SMALL: dict[str, Any] = {"fontsize": 6.5, "va": "center"}


def _paint(
    canvas: Canvas,
    heads: Heads,
    titles: list[str],
    lead: list[list[str]],
    body: list[list[tuple[str, bool]]],
) -> None:
    """Put the texts, bold or not, on a canvas as wide as they need."""
    named = [LETTER * max(map(len, texts)) + PAD for texts in zip(titles, *lead, strict=True)]
    lefts = list(accumulate(named, initial=0.0))
    edges = list(accumulate(_widths(heads, body), initial=lefts.pop()))
    width, height = edges[-1], LINE * (len(heads) + len(body) + 1.0)
    canvas.set_size_inches(width + 0.25, height + 0.3)
    axes = canvas.subplots()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    for depth, line in enumerate(heads):
        y, place = LINE * (depth + 0.75), 0
        for text, span in line:
            left, right = edges[place], edges[place + span]
            if span > 1:
                axes.text((left + right) / 2, y, text, ha="center", **SMALL)
                _rule(axes, y + LINE / 2, left + 0.05, right - 0.05, 0.4)
            else:
                axes.text(right - PAD / 2, y, text, ha="right", **SMALL)
            place += span
    for left, title in zip(lefts, titles, strict=True):
        axes.text(left, LINE * (len(heads) - 0.25), title, ha="left", **SMALL)
    y = LINE * (len(heads) + 0.2)
    _rule(axes, y, 0, width, 0.6)
    for number, (names, texts) in enumerate(zip(lead, body, strict=True)):
        y += LINE
        if number and names[0] and len(titles) > 1:
            _rule(axes, y - LINE / 2 - 0.01, 0, width, 0.3, GREY)
        for left, text in zip(lefts, names, strict=True):
            axes.text(left, y, text, ha="left", **SMALL)
        for right, (text, bold) in zip(edges[1:], texts, strict=True):
            weight = "bold" if bold else "normal"
            axes.text(right - PAD / 2, y, text, ha="right", fontweight=weight, **SMALL)
    _rule(axes, 0.02, 0, width, 0.9)
    _rule(axes, y + LINE * 0.62, 0, width, 0.9)


def _widths(heads: Heads, body: list[list[tuple[str, bool]]]) -> list[float]:
    """Return the width of each column; a heading wider than its columns widens them."""
    texts = zip(*([len(text) for text, _ in line] for line in body), strict=True)
    widths = [LETTER * max(column) + PAD for column in texts]
    for line in heads:
        first = 0
        for text, span in line:
            lack = LETTER * len(text) + PAD - sum(widths[first : first + span])
            for x in range(first, first + span):
                widths[x] += max(lack, 0.0) / span
            first += span
    return widths


def _rule(
    axes: Axes, y: float, left: float, right: float, width: float, colour: str = RULE
) -> None:
    axes.plot([left, right], [y, y], color=colour, linewidth=width, clip_on=False)

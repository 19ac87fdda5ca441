"""A table as a heat map with the number in each field."""

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm, to_rgba
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from mtp_harness.figures import words
from mtp_harness.figures.series import Entry, entries, refuse_doubled, with_paper_named
from mtp_harness.figures.style import RULE, Style, make_room_for_titles, set_title

HEAD = 16
"""Characters of a line of a column's heading."""


@dataclass(frozen=True)
class Heat:
    """Shares in fields of rows × columns, in a row of panels; all are named by columns' entries.

    In a table of differences, 0 is in the middle of the scale; rows without a `baseline` are
    absolute values, shown without colour.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    panels: tuple[str, ...]
    row_words: Callable[[Entry], str]
    column_words: Callable[[Entry], str]
    difference: bool = False
    form: str = "{:.2f}"
    field: tuple[float, float] = (0.46, 0.19)  # size of each, inches
    xlabel: str = ""
    ylabel: str = ""
    counts: tuple[str, ...] = ()  # metrics that are whole numbers, without colour
    plain: tuple[str, ...] = ()  # metrics that are shares, without colour

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table."""
        shown = with_paper_named(shown)  # never in one column with runs
        refuse_doubled(shown, [*self.panels, *self.rows, *self.columns])
        of_panels = pd.Series(entries(shown, self.panels), shown.index, dtype=object)
        panels = [
            _Panel(
                name,
                grid := shown[[one == name for one in of_panels]],
                list(dict.fromkeys(entries(grid, self.rows))),
                list(dict.fromkeys(entries(grid, self.columns))),
            )
            for name in dict.fromkeys(of_panels)
        ]
        heads = [self._column(column) for panel in panels for column in panel.columns]
        names = [self.row_words(row) for panel in panels for row in panel.rows]
        field = max(
            self.field[0],
            *(0.058 * len(line) + 0.05 for head in heads for line in head.split("\n")),
        )
        wide = [max(len(panel.columns), 2) for panel in panels]
        most = max(len(panel.rows) for panel in panels)
        tall = most * self.field[1]
        tall += 0.1 * max(0, max(head.count("\n") for head in heads) - 2)
        beside = 0.062 * max(map(len, names)) + 0.35
        named = [place for place, one in enumerate(panels) if one.rows != panels[place - 1].rows]
        named = named or [0]
        width = sum(wide) * field + beside * len(named) + 0.15 * len(panels)
        canvas.set_size_inches(width, tall + 0.85)
        layout = canvas.subplots(1, len(panels), squeeze=False, width_ratios=wide)[0]
        norm = self._norm(shown)
        for place, (axes, panel, width) in enumerate(zip(layout, panels, wide, strict=True)):
            self._paint(axes, panel, norm, style)
            if place in named:
                axes.set_ylabel(self.ylabel)
            else:  # the same names as the panel before it
                axes.set_yticks([])
            axes.set_ylim(most, 0)
            if panel.name:
                parts = zip(self.panels, panel.name, strict=True)
                title = ", ".join(filter(None, (words.entry(*one) for one in parts)))
                set_title(axes, title, width * field)
        make_room_for_titles(canvas, [layout])

    def _column(self, entry: Entry) -> str:
        return "\n".join(fill(line, HEAD) for line in self.column_words(entry).split("\n"))

    def _norm(self, shown: pd.DataFrame) -> Normalize:
        shown = shown[~shown["metric"].isin((*self.counts, *self.plain))]
        values = shown["value"].astype(float) * 100
        if self.difference:
            gains = values[shown["baseline"].notna()]
            most = max(gains.abs().max() if len(gains) else 0.0, 1e-9)
            return TwoSlopeNorm(0, -most, most)
        return Normalize(values.min(), max(values.max(), values.min() + 1e-9))

    def _paint(self, axes: Axes, panel: "_Panel", norm: Normalize, style: Style) -> None:
        scale = matplotlib.colormaps[style.diverging if self.difference else style.sequential]
        axes.set_xlim(0, len(panel.columns))
        axes.set_ylim(len(panel.rows), 0)
        places = zip(entries(panel.grid, self.columns), entries(panel.grid, self.rows), strict=True)
        for (column, of_row), (_, row) in zip(places, panel.grid.iterrows(), strict=True):
            x, y = panel.columns.index(column), panel.rows.index(of_row)
            text, colour = self._field(row, norm, scale)
            red, green, blue, _ = to_rgba(colour)
            axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white"))
            axes.text(
                x + 0.5,
                y + 0.52,
                text,
                ha="center",
                va="center",
                fontsize=6.0,
                fontweight="normal" if pd.isna(row["bold"]) else "bold",
                color=RULE if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white",
            )
        heads = [self._column(column) for column in panel.columns]
        names = [self.row_words(row) for row in panel.rows]
        axes.set_xticks([x + 0.5 for x in range(len(heads))], heads)
        axes.set_yticks([y + 0.5 for y in range(len(names))], names)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.tick_params(length=0, labelsize=6)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(self.xlabel)

    def _field(self, row: Any, norm: Normalize, scale: Any) -> tuple[str, Any]:
        """Return the text and the colour of a field."""
        if row["metric"] in self.counts:
            return f"{row['value']:.0f}", "white"
        value = float(row["value"]) * 100
        absolute = self.difference and pd.isna(row["baseline"]) or row["metric"] in self.plain
        strength = norm(value)
        if self.difference:
            strength = 0.5 + 0.78 * (strength - 0.5)
        sign = "+" if self.difference and not absolute and value > 0 else ""
        text = (sign + self.form.format(value)).replace("-", "−")
        return text, "white" if absolute else scale(strength)


class _Panel(NamedTuple):
    """One map: its entry, its part of the table, and the entries of its rows and columns."""

    name: Entry
    grid: pd.DataFrame
    rows: list[Entry]
    columns: list[Entry]

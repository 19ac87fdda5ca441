"""A table as a map of colours with the number in each field."""

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure as Canvas

from mtp_harness.figures import words
from mtp_harness.figures.series import refuse_doubled, with_paper_named
from mtp_harness.figures.style import RULE, Style, make_room_for_titles, set_title

Entry = tuple[Any, ...]

HEAD = 16
"""Letters of a line of a column's head."""


@dataclass(frozen=True)
class Heat:
    """Fields of one or more rows × columns, in a grid of panels.

    Attributes:
        rows, columns: Columns of the table whose entries name a field.
        panels: Column whose entries are panels, side by side.
        difference: Whether values are gains, with 0 in the middle of the scale; rows without a
            `baseline` are then absolute, and shown without colour.
        percent: Whether shares are shown as percentages.
        form: Writes a number.
        field: Size of a field, inches.
        row_words, column_words: Write an entry.
        xlabel: Of the horizontal axis.
        counts: Metrics that are whole numbers, without colour.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    panels: tuple[str, ...] = ()
    difference: bool = False
    percent: bool = True
    form: str = "{:.2f}"
    field: tuple[float, float] = (0.46, 0.19)
    row_words: Callable[[Entry], str] | None = None
    column_words: Callable[[Entry], str] | None = None
    xlabel: str = ""
    fontsize: float = 6.0
    counts: tuple[str, ...] = ()

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table."""
        shown = with_paper_named(shown)  # never in one column
        refuse_doubled(shown, [*self.panels, *self.rows, *self.columns])
        panels = _entries(shown, self.panels) if self.panels else [()]
        grids = [_where(shown, self.panels, panel) for panel in panels]
        rows = [_entries(grid, self.rows) for grid in grids]
        columns = [_entries(grid, self.columns) for grid in grids]
        field = max(
            self.field[0],
            *(
                0.058 * len(line) + 0.05
                for own in columns
                for column in own
                for line in self._column(column).split("\n")
            ),
        )
        wide = sum(max(len(own), 2) for own in columns) * field
        name_width = 0.062 * max(len(self._row(row)) for own in rows for row in own)
        heads = max(self._column(column).count("\n") for own in columns for column in own)
        tall = max(map(len, rows)) * self.field[1] + 0.1 * max(0, heads - 2)
        canvas.set_size_inches(wide + (name_width + 0.35) * len(panels), tall + 0.85)
        layout = canvas.subplots(
            1, len(panels), squeeze=False, width_ratios=[max(len(own), 2) for own in columns]
        )[0]
        norm = self._norm(shown)
        for axes, panel, grid, its_rows, its_columns in zip(
            layout, panels, grids, rows, columns, strict=True
        ):
            self._paint(axes, grid, its_rows, its_columns, norm, style)
            if panel:
                named = zip(self.panels, panel, strict=True)
                title = ", ".join(filter(None, (words.entry(*one) for one in named)))
                set_title(axes, title, max(len(its_columns), 2) * field)
        make_room_for_titles(canvas, [layout])

    def _row(self, entry: Entry) -> str:
        named = self.row_words or (
            lambda row: " ".join(map(_word, zip(self.rows, row, strict=True)))
        )
        return named(entry)

    def _column(self, entry: Entry) -> str:
        if self.column_words:
            lines = self.column_words(entry).split("\n")
        else:
            lines = [_word(named) for named in zip(self.columns, entry, strict=True)]
        return "\n".join(fill(line, HEAD) for line in lines)

    def _norm(self, shown: pd.DataFrame) -> Normalize:
        scale = 100 if self.percent else 1
        shown = shown[~shown["metric"].isin(self.counts)]
        values = shown["value"].astype(float) * scale
        if self.difference:
            gains = values[shown["baseline"].notna()]
            most = max(gains.abs().max() if len(gains) else 0.0, 1e-9)
            return TwoSlopeNorm(0, -most, most)
        return Normalize(values.min(), max(values.max(), values.min() + 1e-9))

    def _paint(
        self,
        axes: Axes,
        grid: pd.DataFrame,
        rows: list[Entry],
        columns: list[Entry],
        norm: Normalize,
        style: Style,
    ) -> None:
        import matplotlib

        colours = matplotlib.colormaps[style.diverging if self.difference else style.sequential]
        axes.set_xlim(0, len(columns))
        axes.set_ylim(len(rows), 0)
        for _, row in grid.iterrows():
            y = rows.index(_of(row, self.rows))
            x = columns.index(_of(row, self.columns))
            text, colour = self._field(row, norm, colours)
            axes.add_patch(
                matplotlib.patches.Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white")
            )
            axes.text(
                x + 0.5,
                y + 0.52,
                text,
                ha="center",
                va="center",
                fontsize=self.fontsize,
                fontweight="normal" if pd.isna(row["bold"]) else "bold",
                color=_ink(colour),
            )
        axes.set_xticks([x + 0.5 for x in range(len(columns))], [self._column(c) for c in columns])
        axes.set_yticks([y + 0.5 for y in range(len(rows))], [self._row(row) for row in rows])
        axes.tick_params(length=0, top=False, labelsize=6)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(self.xlabel)

    def _field(self, row: Any, norm: Normalize, colours: Any) -> tuple[str, Any]:
        """Return what stands in a field, and its colour."""
        if row["metric"] in self.counts:
            return f"{row['value']:.0f}", "white"
        value = float(row["value"]) * (100 if self.percent else 1)
        absolute = self.difference and pd.isna(row["baseline"])
        strength = norm(value)
        if self.difference:
            strength = 0.5 + 0.78 * (strength - 0.5)
        sign = "+" if self.difference and not absolute and value > 0 else ""
        text = (sign + self.form.format(value)).replace("-", "−")
        return text, "white" if absolute else colours(strength)


def _word(named: tuple[str, Any]) -> str:
    return words.entry(*named)


def _of(row: Any, names: tuple[str, ...]) -> Entry:
    return tuple(None if pd.isna(row[name]) else row[name] for name in names)


def _entries(frame: pd.DataFrame, names: tuple[str, ...]) -> list[Entry]:
    there: dict[Entry, None] = {}
    for _, row in frame[list(names)].drop_duplicates().iterrows():
        there[_of(row, names)] = None
    return list(there)


def _where(frame: pd.DataFrame, names: tuple[str, ...], entry: Entry) -> pd.DataFrame:
    for name, value in zip(names, entry, strict=True):
        frame = frame[frame[name].isna() if value is None else frame[name] == value]
    return frame


def _ink(colour: Any) -> str:
    import matplotlib

    red, green, blue, _ = matplotlib.colors.to_rgba(colour)
    return RULE if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"

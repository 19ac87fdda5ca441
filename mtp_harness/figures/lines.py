"""Lines over an axis, in a grid of panels: most of the paper's figures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from mtp_harness.figures import words
from mtp_harness.figures.series import Series, is_paper, series_of, with_paper_named
from mtp_harness.figures.style import GREY, Style, legend_beside, make_room_for_titles, set_title
from mtp_harness.results.sizes import in_short, rounded

MANY = 4
"""With more series than this, the legend is beside the panels."""

DENSE = 25
"""With more points than this a line has no markers, and a band for its intervals."""

BAND: dict[str, Any] = {"alpha": 0.15, "linewidth": 0}
THIN: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.8}

Shared = Literal["none", "row", "col", "all"]
"""Which panels share an axis, in matplotlib's words."""

TURNED: dict[Shared, Shared] = {"none": "none", "row": "col", "col": "row", "all": "all"}

Panel = tuple[Any, Any]
"""Entries of a panel's row and column; None if a figure has no rows or no columns."""


@dataclass(frozen=True)
class Lines:
    """How a table becomes lines; `colour` and others name its columns."""

    x: str  # column of the horizontal axis
    colour: str = "n"  # sets colour and dashes
    told: tuple[str, ...] = ("label",)  # also separate series
    dashed: str | None = None  # sets dashes and markers, instead of `colour`
    rows: str | None = None  # column whose entries are rows of panels
    columns: str | None = None  # the same, side by side
    order: tuple[Any, ...] = ()  # of panels; other entries follow, sorted
    wrap: int | None = None  # most panels side by side, if there is one row of them
    panel_words: Callable[[Any], str] | None = None  # the title of a panel, from its entry
    size: tuple[float, float] = (2.6, 2.0)  # of a panel, inches
    log_x: bool = False
    log_y: bool = False
    percent: bool = False  # whether shares are shown as percentages
    ylabel: str | None = None  # instead of the metric's name
    ylim: tuple[float, float] | None = None  # of all panels, in the unit shown
    from_zero: bool = False  # whether vertical axes begin at 0
    share_x: Shared = "none"  # which panels share their horizontal axis
    share_y: Shared = "none"  # the same for the vertical axis
    limit: str | None = None  # a metric drawn as thin lines: the most that the machine allows
    ticks: tuple[float, ...] = ()  # on the horizontal axis, instead of all values
    solid: bool = False  # whether all lines are solid, as in the paper's figure S13
    paper_points: bool = False  # whether the paper's points are not joined: others lie between them
    decorate: Callable[[Axes], None] | None = None  # draws anything else that a panel needs

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table.

        Raises:
            ValueError: Two values fall on one point of one line.
        """
        models_apart = "label" in (self.rows, self.columns)
        shown = self._in_units(with_paper_named(shown) if models_apart else shown)
        down, across = self._entries(shown, self.rows), self._entries(shown, self.columns)
        layout = self._layout(down, across)
        grid = self._grid(canvas, layout, turned=self.columns is not None and len(across) == 1)
        limits = shown[shown["metric"] == self.limit]
        measured = shown.drop(limits.index)
        every = list(series_of(measured, self.colour, self.told, style, self.dashed, models_apart))
        labels: dict[str, Any] = {}
        for entries, (y, x) in layout.items():
            axes, panel = grid[y, x], self._of(shown, entries)
            drawn = [one for one in every if one.rows.index.isin(panel.index).any()]
            for number, one in enumerate(drawn):
                here = one.rows[one.rows.index.isin(panel.index)]
                beside = self._beside(panel, number, len(drawn))
                labels.setdefault(one.label, self._line(axes, one, here, beside))
            _thin_lines(axes, self.x, limits[limits.index.isin(panel.index)], style)
            self._set_y(axes, self._of(shown, _scope(entries, self.share_y)))
            there = self._of(shown, _scope(entries, self.share_x))[self.x].dropna()
            self._set_x(axes, sorted({float(one) for one in there}))
            self._name(axes, entries, measured, top=y == 0, left=x == 0, in_grid=len(across) > 1)
            if (y + 1, x) not in layout.values():
                axes.set_xlabel(words.axis(self.x))
                axes.tick_params(labelbottom=True)
            if self.decorate:
                self.decorate(axes)
        make_room_for_titles(canvas, grid)
        for axes in grid.flat:
            if not axes.has_data():
                axes.set_axis_off()
        labels = {one.label: labels[one.label] for one in every if one.label in labels}
        if len(limits):
            labels[words.metric(str(self.limit))] = Line2D([], [], color=GREY, **THIN)
        _legend(canvas, list(grid.flat), labels, inside=bool(is_paper(shown).all()))

    def _in_units(self, shown: pd.DataFrame) -> pd.DataFrame:
        shares = pd.Series(self.percent, shown.index)
        if "metric" in (self.rows, self.columns):  # panels of several units
            shares |= shown["metric"].map(lambda name: words.metric(name).endswith("(%)"))
        return in_percent(shown, shares)

    def _layout(self, down: list[Any], across: list[Any]) -> dict[Panel, tuple[int, int]]:
        """Return the row and column of each panel in the grid."""
        if self.columns is not None and len(across) == 1:  # a single column: side by side instead
            return {(row, across[0]): (0, x) for x, row in enumerate(down)}
        wide = min(len(across), self.wrap or len(across))
        lines = -(-len(across) // wide)
        return {
            (row, column): (y * lines + x // wide, x % wide)
            for y, row in enumerate(down)
            for x, column in enumerate(across)
        }

    def _grid(self, canvas: Canvas, layout: dict[Panel, tuple[int, int]], turned: bool) -> Any:
        """Return the panels [rows, columns] of the grid; if it is turned, rows are columns."""
        tall, wide = (1 + max(place[axis] for place in layout.values()) for axis in (0, 1))
        canvas.set_size_inches(self.size[0] * wide, self.size[1] * tall)
        share_x, share_y = (TURNED[one] if turned else one for one in (self.share_x, self.share_y))
        return canvas.subplots(tall, wide, squeeze=False, sharex=share_x, sharey=share_y)

    def _name(
        self, axes: Axes, entries: Panel, shown: pd.DataFrame, top: bool, left: bool, in_grid: bool
    ) -> None:
        """Write title and vertical label: in a grid the row is named on the left, once."""
        row, column = entries
        in_grid = in_grid and row is not None
        if in_grid and (top or self.wrap):
            set_title(axes, self._title((None, column)), self.size[0] - 0.15)
        elif not in_grid and self._title(entries) and len(shown) > len(self._of(shown, entries)):
            set_title(axes, self._title(entries), self.size[0] - (0.4 if column is None else 0.15))
        if left:
            axes.set_ylabel(self._ylabel(shown, row if in_grid else None))

    def _of(self, shown: pd.DataFrame, entries: Panel) -> pd.DataFrame:
        """Return the rows of a panel; None: of all rows or columns."""
        for name, entry in zip((self.rows, self.columns), entries, strict=True):
            shown = shown if name is None or entry is None else shown[shown[name] == entry]
        return shown

    def _beside(self, panel: pd.DataFrame, number: int, of: int) -> float:
        """Return how far to move a series sideways, if all of a panel are at one place."""
        there = panel[self.x].dropna().astype(float)
        if not self.log_x or there.empty or there.max() >= 1.5 * there.min():
            return 1.0
        return float(1.1 ** (number - (of - 1) / 2))

    def _entries(self, shown: pd.DataFrame, column: str | None) -> list[Any]:
        """Return the panels of a column: models by size, others sorted, `order` first."""
        if column is None:
            return [None]
        size = shown["parameters"].map(rounded, na_action="ignore") if column == "label" else 0
        ordered = shown.assign(_size=size).sort_values(["_size", column], kind="stable")
        there = list(dict.fromkeys(ordered[column].dropna()))
        first = [one for one in self.order if one in there]
        # Where no row has an entry there is one panel, of all rows.
        return first + [one for one in there if one not in self.order] or [None]

    def _title(self, entries: Panel) -> str:
        return ", ".join(
            self.panel_words(entry) if self.panel_words else words.entry(name, entry)
            for name, entry in zip((self.rows, self.columns), entries, strict=True)
            if name is not None and entry is not None
        )

    def _ylabel(self, shown: pd.DataFrame, row: Any) -> str:
        """Return the label of the vertical axis, with the row's name unless a title has it."""
        metrics = list(dict.fromkeys(shown["metric"]))
        unit = self.ylabel or (words.metric(metrics[0]) if len(metrics) == 1 else "")
        if row is None or self.rows is None:
            return unit
        named = words.entry(self.rows, row)
        if self.rows == "metric":
            return f"{named} ({unit})" if unit else named
        return "\n".join(filter(None, (fill(named, 28), unit)))

    def _line(self, axes: Axes, one: Series, rows: pd.DataFrame, beside: float) -> Any:
        points = rows.dropna(subset=[self.x]).sort_values(self.x, kind="stable")
        points = points.assign(**{self.x: beside * points[self.x].astype(float)})
        counts = points.groupby(self.x).size()
        several = bool((counts > 1).any())
        if several:
            _refuse_unless_seeds(points, self.x, counts.index[counts > 1][0])
        means = points.groupby(self.x)["value"].mean()
        dense = len(means) > DENSE
        look: dict[str, Any] = {"color": one.colour, "alpha": one.alpha}
        marker = "" if several or self.x == "at" or dense else one.marker
        linestyle = "-" if self.solid else one.dashes
        (line,) = axes.plot(
            means.index.astype(float),
            means.astype(float),
            linestyle="" if self.paper_points and one.from_paper else linestyle,
            linewidth=one.width,
            marker=marker,
            label=one.label,
            **look,
        )
        if several:
            at, value = points[self.x].astype(float), points["value"].astype(float)
            axes.plot(at, value, linestyle="", marker=one.marker, markersize=3, **look)
        elif points["low"].notna().any():
            known = points.dropna(subset=["low", "high"])
            ends = [known[name].astype(float) for name in (self.x, "low", "high")]
            if dense:
                axes.fill_between(*ends, **BAND, color=one.colour)
            else:
                axes.vlines(*ends, linewidth=0.7, **look)
        return line

    def _set_y(self, axes: Axes, panel: pd.DataFrame) -> None:
        if self.log_y:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: in_short(y)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        highest = float(panel["high"].fillna(panel["value"]).max()) if len(panel) else 0.0
        if self.from_zero and len(panel):
            axes.set_ylim(0, 1.05 * highest)
        elif self.percent and len(panel) and not panel["value"].any():
            axes.set_ylim(-0.1, 5)  # only zeros: matplotlib's own scale would magnify nothing
        if self.ylim:
            low, high = self.ylim
            axes.set_ylim(low, max(high, 1.05 * highest))

    def _set_x(self, axes: Axes, there: list[float]) -> None:
        """Set the scale and the ticks; `there` are the values of the panel's points, sorted."""
        if self.log_x:
            axes.set_xscale("log")
        if self.log_x and there and there[-1] < 1.5 * there[0]:  # sizes that are all but one
            axes.set_xlim(there[0] / 2, there[-1] * 2)
        ticks = [t for t in self.ticks if there and there[0] <= t <= there[-1]]
        ticks = ticks if len(ticks) > 2 else there
        if ticks and len(ticks) <= 11:
            ticks = _thinned(ticks, axes.get_xlim(), self.log_x)
            axes.xaxis.set_major_locator(FixedLocator(ticks))
            axes.xaxis.set_minor_locator(NullLocator())
        if self.x == "parameters":  # one tick may stand for sizes that are all but one
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: in_short(x, digits=2)))
        elif self.x == "prompt_tokens" and ticks and ticks[-1] >= 10_000:  # 32k is 32,768
            axes.xaxis.set_major_formatter(
                FuncFormatter(lambda x, _: f"{x:g}" if x < 1024 else f"{x / 1024:g}k")
            )
        elif self.x == "train_tokens" or (ticks and ticks[-1] >= 10_000):
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: in_short(x)))
        elif self.log_x:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def in_percent(shown: pd.DataFrame, which: "pd.Series[bool]") -> pd.DataFrame:
    """Return some rows as percentages."""
    ends = ("value", "low", "high")
    return shown.assign(**{end: shown[end].where(~which, 100 * shown[end]) for end in ends})


def _scope(entries: Panel, shared: Shared) -> Panel:
    """Return the entries of all panels that share an axis with one."""
    row, column = entries
    kept = {"none": (row, column), "row": (row, None), "col": (None, column)}
    return kept.get(shared, (None, None))


def _thin_lines(axes: Axes, x: str, limits: pd.DataFrame, style: Style) -> None:
    """Draw the most that the machine allows, a line for each k."""
    for (k, *_), line in limits.groupby(["k", "run", "baseline"], dropna=False):
        points = line.sort_values(x)[[x, "value"]].astype(float)
        axes.plot(*points.T.to_numpy(), "-", color=style.colour(int(k)), **THIN)


def _thinned(ticks: list[float], limits: tuple[float, float], log: bool) -> list[float]:
    """Return ticks whose labels do not touch."""
    scale = math.log if log else float
    reach = scale(limits[1]) - scale(limits[0])
    kept = ticks[-1:]
    for tick in reversed(ticks[:-1]):
        if (scale(kept[-1]) - scale(tick)) / reach >= 0.07:
            kept.append(tick)
    return kept[::-1]


def _refuse_unless_seeds(points: pd.DataFrame, x: str, at: Any) -> None:
    """Refuse two values on one point of one line, except seeds, which are averaged."""
    there = points[points[x] == at]
    if there["train_seed"].notna().all() and there["train_seed"].is_unique:
        return
    differ = [
        name
        for name in points.columns
        if name not in ("value", "low", "high", "count", "run", "file", "date")
        and there[name].nunique(dropna=False) > 1
    ]
    told = ", ".join(f"{name} {' and '.join(map(str, there[name].unique()))}" for name in differ)
    files = " and ".join(dict.fromkeys(map(str, there["file"].dropna())))
    raise ValueError(
        f"two values at {words.axis(x)} {at:g} of {there['label'].iloc[0]} (they differ in "
        f"{told or 'nothing'}; {files or 'the paper'}), expected one: leave one run out, or give "
        "them labels (--model_args label=…)"
    )


def _legend(canvas: Canvas, panels: Sequence[Axes], labels: dict[str, Any], inside: bool) -> None:
    if len(labels) < 2:
        return
    if inside and len(labels) <= MANY and len(panels) == 1:
        panels[0].legend(list(labels.values()), list(labels))
    else:
        legend_beside(canvas, labels)

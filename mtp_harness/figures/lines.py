"""Lines over an axis, in a grid of panels: most of the paper's figures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from mtp_harness.figures import words
from mtp_harness.figures.series import Series, is_paper, series_of
from mtp_harness.figures.style import Style, legend_beside, make_room_for_titles, set_title
from mtp_harness.results.sizes import in_short, rounded

MANY = 4
"""With more series than this the legend stands beside the panels."""

DENSE = 25
"""With more points than this a line has no markers, and a band for its intervals."""

BAND: dict[str, Any] = {"alpha": 0.15, "linewidth": 0}


@dataclass(frozen=True)
class Lines:
    """How a table becomes lines; `colour` and others name its columns."""

    x: str  # on the horizontal axis
    colour: str = "n"  # sets colour and dashes
    told: tuple[str, ...] = ("label",)  # keep series apart, too
    dashed: str | None = None  # sets dashes and markers, instead of `colour`
    rows: str | None = None  # its entries are rows of panels
    columns: str | None = None  # the same side by side
    order: tuple[Any, ...] = ()  # of panels; what is not in it follows, sorted
    wrap: int | None = None  # most panels side by side, where there is one row of them
    panel_words: Callable[[Any], str] | None = None  # what a panel is called, not its entry
    size: tuple[float, float] = (2.6, 2.0)  # of a panel, inches
    log_x: bool = False
    log_y: bool = False
    percent: bool = False  # whether shares are shown as percentages
    ylabel: str | None = None  # instead of the metric's name
    ylim: tuple[float, float] | None = None  # of all panels, in the unit shown
    from_zero: bool = False  # whether vertical axes begin at 0
    share_y: bool = False  # whether panels of a row share their vertical axis
    ticks: tuple[float, ...] = ()  # on the horizontal axis, instead of all values
    solid: bool = False  # whether all lines are, as in the paper's figure S13
    paper_points: bool = False  # whether the paper's are not joined: others lie between them
    decorate: Callable[[Axes], None] | None = None  # draws what else a panel needs

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table.

        Raises:
            ValueError: Two values fall on one point of one line.
        """
        shares = pd.Series(self.percent, shown.index)
        if "metric" in (self.rows, self.columns):  # panels of several units
            shares |= shown["metric"].map(lambda name: words.metric(name).endswith("(%)"))
        shown = in_percent(shown, shares)
        down, across = self._entries(shown, self.rows), self._entries(shown, self.columns)
        panels = [(row, column) for row in down for column in across]
        wide = min(len(across), self.wrap or len(across))
        tall = len(down) * -(-len(across) // wide)
        canvas.set_size_inches(self.size[0] * wide, self.size[1] * tall)
        grid = canvas.subplots(tall, wide, squeeze=False, sharey="row" if self.share_y else "none")
        labels: dict[str, Any] = {}
        every = list(series_of(shown, self.colour, self.told, style, self.dashed))
        for axes, entries in zip(grid.flat, panels, strict=False):
            panel = shown
            for name, entry in zip((self.rows, self.columns), entries, strict=True):
                panel = panel if name is None else panel[panel[name] == entry]
            for one in every:
                here = one.rows[one.rows.index.isin(panel.index)]
                if len(here):
                    labels.setdefault(one.label, self._line(axes, one, here))
            self._set_y(axes, panel)
            self._set_x(axes, sorted({float(x) for x in panel[self.x].dropna()}))
            if len(panels) > 1:
                set_title(axes, self._title(entries), self.size[0] - (0.4 if wide == 1 else 0.15))
            if self.decorate:
                self.decorate(axes)
        make_room_for_titles(canvas, grid)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel(self._ylabel(shown))
        for axes in grid.flat[max(0, len(panels) - wide) : len(panels)]:
            axes.set_xlabel(words.axis(self.x))
        _legend(canvas, list(grid.flat), labels, inside=bool(is_paper(shown).all()))

    def _entries(self, shown: pd.DataFrame, column: str | None) -> list[Any]:
        """Return the panels of a column: models by size, others sorted, `order` first."""
        if column is None:
            return [None]
        size = shown["parameters"].map(rounded, na_action="ignore") if column == "label" else 0
        ordered = shown.assign(_size=size).sort_values(["_size", column], kind="stable")
        there = list(dict.fromkeys(ordered[column].dropna()))
        return [one for one in self.order if one in there] + [
            one for one in there if one not in self.order
        ]

    def _title(self, entries: tuple[Any, Any]) -> str:
        return ", ".join(
            self.panel_words(entry) if self.panel_words else words.entry(name, entry)
            for name, entry in zip((self.rows, self.columns), entries, strict=True)
            if name is not None
        )

    def _ylabel(self, shown: pd.DataFrame) -> str:
        if self.ylabel is not None:
            return self.ylabel
        metrics = list(dict.fromkeys(shown["metric"]))
        return words.metric(metrics[0]) if len(metrics) == 1 else ""

    def _line(self, axes: Axes, one: Series, rows: pd.DataFrame) -> Any:
        points = rows.dropna(subset=[self.x]).sort_values(self.x, kind="stable")
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
        if self.from_zero and len(panel):
            axes.set_ylim(0, 1.05 * float(panel["high"].fillna(panel["value"]).max()))
        elif self.percent and len(panel) and not panel["value"].any():
            axes.set_ylim(-0.1, 5)  # nothing but zeros: a scale of their own would magnify nothing
        if self.ylim:
            low, high = self.ylim
            axes.set_ylim(low, max(high, 1.05 * float(panel["value"].max())))

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
        elif self.x == "train_tokens" or (ticks and ticks[-1] >= 10_000):
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: in_short(x)))
        elif self.log_x:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def in_percent(shown: pd.DataFrame, which: "pd.Series[bool]") -> pd.DataFrame:
    """Return some rows as percentages."""
    ends = ("value", "low", "high")
    return shown.assign(**{end: shown[end].where(~which, 100 * shown[end]) for end in ends})


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
    """Refuse two values on one point of one line: only seeds of one training are averaged."""
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

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
from mtp_harness.figures.series import Series, is_mixed, is_paper, series_of
from mtp_harness.figures.style import Style, legend_beside, make_room_for_titles, set_title
from mtp_harness.results.sizes import in_short, rounded

MANY = 4
"""With more series than this the legend stands beside the panels."""

DENSE = 25
"""With more points than this a line has no markers, and a band for its intervals."""

BAND: dict[str, Any] = {"alpha": 0.15, "linewidth": 0}


@dataclass(frozen=True)
class Lines:
    """How a table becomes lines.

    Attributes:
        x: Column on the horizontal axis.
        colour: Column that sets colour and dashes.
        told: Further columns that keep series apart.
        rows, columns: Columns of the table whose entries are rows and columns of panels.
        order: Of the entries of `rows` or `columns`; what is not in it follows, sorted.
        log_x, log_y: Logarithmic axes.
        percent: Whether shares are shown as percentages.
        ylabel: Instead of the metric's name.
        ylim: Of all panels, in the unit shown.
        size: Of one panel, inches.
        panel_words: What a panel is called, instead of its entry.
        ticks: On the horizontal axis, all values where it is empty.
        decorate: Draws what else a panel needs.
        share_y: Whether panels of a row share their vertical axis.
        dashed: Column that sets dashes and markers, instead of `colour`.
        from_zero: Whether vertical axes begin at 0.
        solid: Whether all lines are, as in the paper's figure S13.
        wrap: Most panels side by side, where there is one row of them.
        paper_points: Whether no line joins the paper's points, because others lie between them.
    """

    x: str
    colour: str = "n"
    told: tuple[str, ...] = ("label",)
    rows: str | None = None
    columns: str | None = None
    order: tuple[Any, ...] = ()
    log_x: bool = False
    log_y: bool = False
    percent: bool = False
    ylabel: str | None = None
    ylim: tuple[float, float] | None = None
    size: tuple[float, float] = (2.6, 2.0)
    panel_words: Callable[[Any], str] | None = None
    ticks: tuple[float, ...] = ()
    decorate: Callable[[Axes, pd.DataFrame], None] | None = None
    share_y: bool = False
    dashed: str | None = None
    from_zero: bool = False
    wrap: int | None = None
    solid: bool = False
    paper_points: bool = False

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table.

        Raises:
            ValueError: Two values fall on one point of one line.
        """
        down, across = self._entries(shown, self.rows), self._entries(shown, self.columns)
        wide = min(len(across), self.wrap or len(across))
        tall = len(down) * -(-len(across) // wide)
        canvas.set_size_inches(self.size[0] * wide, self.size[1] * tall)
        grid = canvas.subplots(tall, wide, squeeze=False, sharey="row" if self.share_y else "none")
        paper = is_paper(shown)
        mixed = is_mixed(shown)
        labels: dict[str, Any] = {}
        if "metric" in (self.rows, self.columns):  # panels of several units
            shares = shown["metric"].map(lambda name: words.metric(name).endswith("(%)"))
            shown = in_percent(shown, shares)
        every = list(series_of(shown, self.colour, self.told, style, mixed, self.dashed))
        panels = [(row, column) for row in down for column in across]
        for axes, (row, column) in zip(grid.flat, panels, strict=False):
            panel = _only(_only(shown, self.rows, row), self.columns, column)
            for one in every:
                here = one.rows[one.rows.index.isin(panel.index)]
                if len(here):
                    labels.setdefault(one.label, self._line(axes, one, here))
            self._finish(axes, panel, row, column, len(panels) > 1, alone=wide == 1)
        make_room_for_titles(canvas, grid)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes_row in grid:
            axes_row[0].set_ylabel(self._ylabel(shown))
        for place in range(max(0, len(panels) - wide), len(panels)):
            grid.flat[place].set_xlabel(words.axis(self.x))
        _legend(canvas, list(grid.flat), labels, inside=bool(paper.all()))

    def _entries(self, shown: pd.DataFrame, column: str | None) -> list[Any]:
        if column is None:
            return [None]
        size = shown["parameters"].map(rounded, na_action="ignore") if column == "label" else 0
        ordered = shown.assign(_size=size).sort_values(["_size", column], kind="stable")
        there = list(dict.fromkeys(ordered[column].dropna()))
        return sorted(
            there,
            key=lambda entry: (
                self.order.index(entry) if entry in self.order else len(self.order),
                there.index(entry),
            ),
        )

    def _line(self, axes: Axes, one: Series, rows: pd.DataFrame) -> Any:
        scale = 100 if self.percent else 1
        points = rows.dropna(subset=[self.x]).sort_values(self.x, kind="stable")
        groups = points.groupby(self.x)
        if (doubled := groups.size() > 1).any():
            _refuse_unless_seeds(points, self.x, doubled.index[doubled][0])
        means = groups["value"].mean() * scale
        xs, ys = [float(x) for x in means.index], [float(y) for y in means]
        look: dict[str, Any] = {"color": one.colour, "alpha": one.alpha, "linewidth": one.width}
        several = bool(doubled.any())
        marker = "" if several or self.x == "at" or len(xs) > DENSE else one.marker
        (line,) = axes.plot(
            xs,
            ys,
            linestyle=self._linestyle(one),
            marker=marker,
            label=one.label,
            **look,
        )
        if several:
            axes.plot(
                points[self.x].astype(float),
                points["value"].astype(float) * scale,
                linestyle="",
                marker=one.marker,
                color=one.colour,
                alpha=one.alpha,
                markersize=3,
            )
        elif points["low"].notna().any():
            known = points.dropna(subset=["low", "high"])
            at, low, high = (known[name].astype(float) for name in (self.x, "low", "high"))
            if len(xs) <= DENSE:
                axes.vlines(at, low * scale, high * scale, **(look | {"linewidth": 0.7}))
            else:
                axes.fill_between(at, low * scale, high * scale, color=one.colour, **BAND)
        return line

    def _linestyle(self, one: Series) -> Any:
        if self.paper_points and one.from_paper:
            return ""
        return "-" if self.solid else one.dashes

    def _finish(
        self, axes: Axes, panel: pd.DataFrame, row: Any, column: Any, titled: bool, alone: bool
    ) -> None:
        if self.log_x:
            axes.set_xscale("log")
        if self.log_y:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: in_short(y)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        if self.from_zero and len(panel):
            top = float((panel["high"].fillna(panel["value"])).max())
            axes.set_ylim(0, 1.05 * top * (100 if self.percent else 1))
        elif self.percent and len(panel) and not panel["value"].any():
            axes.set_ylim(-0.1, 5)  # nothing but zeros: a scale of their own would magnify nothing
        if self.ylim:
            top = float(panel["value"].max()) * (100 if self.percent else 1)
            axes.set_ylim(self.ylim[0], max(self.ylim[1], 1.05 * top))
        there = sorted({float(x) for x in panel[self.x].dropna()})
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
        if titled:
            named = [
                self.panel_words(entry) if self.panel_words else words.entry(name, entry)
                for name, entry in ((self.rows, row), (self.columns, column))
                if name is not None
            ]
            set_title(axes, ", ".join(named), self.size[0] - (0.4 if alone else 0.15))
        if self.decorate:
            self.decorate(axes, panel)

    def _ylabel(self, shown: pd.DataFrame) -> str:
        if self.ylabel is not None:
            return self.ylabel
        metrics = list(dict.fromkeys(shown["metric"]))
        return words.metric(metrics[0]) if len(metrics) == 1 else ""


def in_percent(shown: pd.DataFrame, which: "pd.Series[bool]") -> pd.DataFrame:
    """Return some rows as percentages."""
    ends = ("value", "low", "high")
    return shown.assign(**{end: shown[end].where(~which, 100 * shown[end]) for end in ends})


def _thinned(ticks: list[float], limits: tuple[float, float], log: bool) -> list[float]:
    """Return ticks whose labels do not touch."""
    places, ends = ticks, list(limits)
    if log:
        places, ends = [math.log(tick) for tick in ticks], [math.log(end) for end in limits]
    reach = ends[1] - ends[0]
    kept = [len(ticks) - 1]
    for i in reversed(range(len(ticks) - 1)):
        if (places[kept[-1]] - places[i]) / reach >= 0.07:
            kept.append(i)
    return [ticks[i] for i in reversed(kept)]


def _only(frame: pd.DataFrame, column: str | None, entry: Any) -> pd.DataFrame:
    return frame if column is None else frame[frame[column] == entry]


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

"""Bars: gains over n = 1, groups of scores, histograms."""

from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MultipleLocator

from mtp_harness.figures import words
from mtp_harness.figures.series import is_mixed, is_paper, refuse_doubled, series_of
from mtp_harness.figures.style import GREY, PAPER_ALPHA, RULE, Style, legend_beside
from mtp_harness.results.sizes import in_short

INTERVAL = "#3D405B"


@dataclass(frozen=True)
class Gains:
    """Gain bars of one panel per metric and data set, as in the paper's figure 3.

    Attributes:
        n: Number of heads whose gains are shown; None for all, one colour scale each.
        size: Of one panel, inches.
    """

    n: int | None = None
    size: tuple[float, float] = (2.6, 1.5)

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table: rows pass@1, @10, @100; columns data sets."""
        ats = sorted(set(shown["at"].dropna()))
        sets = _in_paper_order(shown)
        most = max(
            len(shown[(shown["at"] == a) & (shown["data_set"] == s)]) for a in ats for s in sets
        )
        width = max(self.size[0], 0.36 * most + 0.5)
        canvas.set_size_inches(width * len(sets), self.size[1] * len(ats))
        grid = canvas.subplots(len(ats), len(sets), squeeze=False)
        mixed = is_mixed(shown)
        for row, (axes_row, at) in enumerate(zip(grid, ats, strict=True)):
            for axes, name in zip(axes_row, sets, strict=True):
                panel = shown[(shown["at"] == at) & (shown["data_set"] == name)]
                vertical(axes, panel, style, mixed)
                if row == 0:
                    axes.set_title(words.entry("data_set", name))
            axes_row[0].set_ylabel(f"pass@{at}")


def _in_paper_order(shown: pd.DataFrame) -> list[Any]:
    order = ("mbpp", "humaneval", "apps")
    there = set(shown["data_set"].dropna())
    return [name for name in order if name in there] + sorted(there - set(order))


def sizes(panel: pd.DataFrame, mixed: bool) -> list[tuple[Any, str]]:
    """Return the bars' places by size: (row index, what the axis calls it)."""
    ordered = panel.sort_values(["parameters", "n", "source"], kind="stable")
    paper = is_paper(panel)
    names = []
    for place, row in ordered.iterrows():
        parts = [str(row["label"]) if paper[place] else in_short(row["parameters"])]
        parts += [f"n={row['n']}"] if panel["n"].nunique() > 1 else []
        parts += ["paper"] if mixed and paper[place] else []
        names.append((place, "\n".join(parts)))
    return names


def _ticks(values: list[float], ends: list[float], room: float) -> list[float]:
    """Return 0 and the largest loss and gain, without those that would stand on the 0.

    Args:
        values: Of the bars.
        ends: Of everything that is drawn.
        room: Share of the axis that a label needs.
    """
    largest = [round(min(*values, 0.0), 2), round(max(*values, 0.0), 2)]
    reach = (max(*ends, 0.0) - min(*ends, 0.0)) or 1.0
    return sorted({0.0, *(one for one in largest if abs(one) > room * reach)})


def vertical(axes: Axes, panel: pd.DataFrame, style: Style, mixed: bool) -> None:
    """Draw gain bars over model sizes; the baseline's score stands at each."""
    places = sizes(panel, mixed)
    colours = _diverging(panel, style)
    paper = is_paper(panel)
    ends = []
    for x, (place, _) in enumerate(places):
        row = panel.loc[place]
        value = 100 * float(row["value"])
        alpha = PAPER_ALPHA if mixed and paper[place] else 1.0
        axes.bar(x, value, width=0.72, color=colours[place], alpha=alpha)
        low, high = (_percent(row[name], value) for name in ("low", "high"))
        axes.vlines(x, low, high, color=INTERVAL, linewidth=0.9, alpha=alpha)
        if not pd.isna(row["baseline_value"]):
            axes.annotate(
                f"{100 * row['baseline_value']:.0f}",
                (x, max(0.0, high)),
                xytext=(0, 1.5),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=5.5,
                color=GREY,
            )
        ends += [value, low, high]
    axes.axhline(0, color=RULE, linewidth=0.6)
    values = [100 * float(value) for value in panel["value"]]
    if values:
        ticks = _ticks(values, ends, 0.1)
        axes.set_yticks(ticks, [f"{tick:+.1f}" if tick else "0" for tick in ticks])
        room = 0.16 * ((max(ends) - min(ends)) or 1)
        axes.set_ylim(min(*ends, 0) - room / 2, max(*ends, 0) + room)
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=GREY)
    axes.set_xticks(range(len(places)), [name for _, name in places])


def horizontal(axes: Axes, panel: pd.DataFrame, style: Style, mixed: bool) -> None:
    """Draw gain bars as below the paper's figure 1: sizes upwards, the baseline's score beside."""
    places = sizes(panel, mixed)
    colours = _diverging(panel, style)
    values = [100 * float(panel.loc[place, "value"]) for place, _ in places]
    paper = is_paper(panel)
    ends = list(values)
    for y, ((place, _), value) in enumerate(zip(places, values, strict=True)):
        row = panel.loc[place]
        alpha = PAPER_ALPHA if mixed and paper[place] else 1.0
        axes.barh(y, value, height=0.78, color=colours[place], alpha=alpha)
        low, high = (_percent(row[name], value) for name in ("low", "high"))
        axes.hlines(y, low, high, color=INTERVAL, linewidth=1.0, alpha=alpha)
        ends += [low, high]
        if not pd.isna(row["baseline_value"]):
            side = -1 if value >= 0 else 1
            beside = min(0.0, low) if value >= 0 else max(0.0, high)
            axes.annotate(
                f"{100 * row['baseline_value']:.1f}",
                (beside, y),
                xytext=(4 * side, 0),
                textcoords="offset points",
                ha="right" if side < 0 else "left",
                va="center",
                fontsize=6,
                color=GREY,
            )
    axes.margins(x=0.12)
    axes.axvline(0, color=RULE, linewidth=0.7)
    axes.set_yticks(range(len(places)), [name.replace("\n", ", ") for _, name in places])
    ticks = _ticks(values, ends, 0.2)
    axes.set_xticks(ticks, [f"{t:+.1f}" if t else "Baseline" for t in ticks])
    axes.set_ylabel("model size")


def _percent(end: Any, value: float) -> float:
    return value if pd.isna(end) else 100 * float(end)


def _diverging(panel: pd.DataFrame, style: Style) -> dict[Any, Any]:
    """Return a colour for each gain: from loss to gain, as strong as the panel's largest."""
    values = 100 * panel["value"].astype(float)
    most = max(values.abs().max() if len(values) else 0.0, 1e-9)
    norm = TwoSlopeNorm(0, -most, most)
    scale = matplotlib.colormaps[style.diverging]
    return {place: scale(0.5 + 0.82 * (norm(value) - 0.5)) for place, value in values.items()}


@dataclass(frozen=True)
class Groups:
    """Bars side by side: a group for each entry of `x`, a bar for each series.

    Attributes:
        x: Column of the groups.
        colour: Column of the colours.
        told: Further columns that keep series apart.
        columns: Column whose entries are panels.
        percent: Whether shares are shown as percentages.
        ylabel: Of the vertical axis.
        from_zero: Whether the axis begins at 0.
        size: Of one panel, inches.
        xlabel: Of the horizontal axis.
        share_y: Whether panels share their vertical axis.
    """

    x: str
    colour: str = "n"
    told: tuple[str, ...] = ("label",)
    columns: str | None = None
    percent: bool = True
    ylabel: str = ""
    from_zero: bool = True
    size: tuple[float, float] = (2.6, 2.0)
    xlabel: str = ""
    share_y: bool = True

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table."""
        panels = [None] if self.columns is None else sorted(set(shown[self.columns].dropna()))
        canvas.set_size_inches(self.size[0] * len(panels), self.size[1])
        grid = canvas.subplots(1, len(panels), squeeze=False, sharey=self.share_y)[0]
        mixed = is_mixed(shown)
        places = [name for name in (self.columns, self.x, self.colour, *self.told) if name]
        refuse_doubled(shown.assign(paper=is_paper(shown)), [*places, "acceptance", "paper"])
        every = list(series_of(shown, self.colour, self.told, style, mixed))
        scale = 100 if self.percent else 1
        handles: dict[str, Any] = {}
        for axes, panel in zip(grid, panels, strict=True):
            here = shown if panel is None else shown[shown[self.columns] == panel]
            entries = here[self.x].astype(object).where(here[self.x].notna(), None)
            groups = sorted(set(entries), key=lambda entry: (entry is None, entry))
            drawn = [one for one in every if one.rows.index.isin(here.index).any()]
            width = 0.8 / max(len(drawn), 1)
            for place, one in enumerate(drawn):
                rows = one.rows[one.rows.index.isin(here.index)]
                for index, row in rows.iterrows():
                    x = groups.index(entries[index]) + (place - (len(drawn) - 1) / 2) * width
                    value = scale * float(row["value"])
                    bar = axes.bar(x, value, width * 0.94, color=one.colour, alpha=one.alpha)
                    handles.setdefault(one.label, bar)
                    if not pd.isna(row["low"]):
                        ends = scale * float(row["low"]), scale * float(row["high"])
                        axes.vlines(x, *ends, color=RULE, linewidth=0.7)
            unknown = f"{words.axis(self.x)} not told"
            named = [unknown if one is None else words.entry(self.x, one) for one in groups]
            axes.set_xticks(range(len(groups)), named)
            axes.set_xlabel(self.xlabel)
            if panel is not None:
                axes.set_title(words.entry(str(self.columns), panel))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            if not self.from_zero:
                ends = pd.concat([here[end] for end in ("value", "low", "high")]).dropna()
                _zoom(axes, scale * ends.astype(float))
        grid[0].set_ylabel(self.ylabel)
        if len(handles) > 1:
            legend_beside(canvas, handles)


def _zoom(axes: Axes, values: "pd.Series[float]") -> None:
    """Begin the axis a little below the lowest bar or interval, at a round number."""
    step = 0.5 if values.max() - values.min() < 4 else 5.0
    low = max(0.0, (values.min() // step) * step - 2 * step)
    axes.set_ylim(low, (values.max() // step + 1) * step)
    axes.yaxis.set_major_locator(MultipleLocator(step))

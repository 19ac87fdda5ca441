"""Bars: gains over n = 1, and groups of scores."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

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
BENCHMARKS = ("mbpp", "humaneval", "apps")
"""In the paper's order."""


def gains(canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
    """Draw gain bars as in the paper's figure 3: rows pass@1, @10, @100; columns data sets."""
    ats, there = sorted(set(shown["at"].dropna())), set(shown["data_set"].dropna())
    sets = [name for name in BENCHMARKS if name in there] + sorted(there - set(BENCHMARKS))
    panels = {
        (at, name): shown[(shown["at"] == at) & (shown["data_set"] == name)]
        for at in ats
        for name in sets
    }
    width = max(2.6, 0.36 * max(map(len, panels.values())) + 0.5)
    canvas.set_size_inches(width * len(sets), 1.5 * len(ats))
    grid = canvas.subplots(len(ats), len(sets), squeeze=False)
    for axes, panel in zip(grid.flat, panels.values(), strict=True):
        vertical(axes, panel, style, is_mixed(shown))
    for axes, name in zip(grid[0], sets, strict=True):
        axes.set_title(words.entry("data_set", name))
    for axes, at in zip(grid[:, 0], ats, strict=True):
        axes.set_ylabel(f"pass@{at} (points)")


_SCORE: dict[str, Any] = {"textcoords": "offset points", "color": GREY}


def vertical(axes: Axes, panel: pd.DataFrame, style: Style, mixed: bool) -> None:
    """Draw gain bars over model sizes; each has the baseline's score beside it."""
    bars = list(_gains(panel, style, mixed))
    for x, bar in enumerate(bars):
        axes.bar(x, bar.value, width=0.72, color=bar.colour, alpha=bar.alpha)
        axes.vlines(x, bar.low, bar.high, color=INTERVAL, linewidth=0.9, alpha=bar.alpha)
        if not math.isnan(bar.baseline):
            place = (x, max(0.0, bar.high))
            above: dict[str, Any] = {"xytext": (0, 1.5), "ha": "center", "va": "bottom"}
            axes.annotate(f"{bar.baseline:.0f}", place, fontsize=5.5, **above, **_SCORE)
    axes.axhline(0, color=RULE, linewidth=0.6)
    if bars:
        ticks, low, high = _ticks(bars, 0.1)
        axes.set_yticks(ticks, [words.signed(tick) for tick in ticks])
        room = 0.16 * ((high - low) or 1)
        axes.set_ylim(min(low, 0) - room / 2, max(high, 0) + room)
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=GREY)
    axes.set_xticks(range(len(bars)), ["\n".join(bar.named) for bar in bars])


def horizontal(axes: Axes, panel: pd.DataFrame, style: Style, mixed: bool) -> None:
    """Draw gain bars as below the paper's figure 1: sizes upwards, the baseline's score beside."""
    bars = list(_gains(panel, style, mixed))
    for y, bar in enumerate(bars):
        axes.barh(y, bar.value, height=0.78, color=bar.colour, alpha=bar.alpha)
        axes.hlines(y, bar.low, bar.high, color=INTERVAL, linewidth=1.0, alpha=bar.alpha)
        if not math.isnan(bar.baseline):
            left = bar.value >= 0
            place = (min(0.0, bar.low) if left else max(0.0, bar.high), y)
            beside: dict[str, Any] = {"xytext": (4, 0), "ha": "left"}
            if left:
                beside = {"xytext": (-4, 0), "ha": "right"}
            axes.annotate(f"{bar.baseline:.1f}", place, va="center", fontsize=6, **beside, **_SCORE)
    axes.margins(x=0.12)
    axes.axvline(0, color=RULE, linewidth=0.7)
    axes.set_yticks(range(len(bars)), [", ".join(bar.named) for bar in bars])
    ticks, _, _ = _ticks(bars, 0.2)
    axes.set_xticks(ticks, [words.signed(t) if t else "n = 1" for t in ticks])
    axes.set_ylabel("model size")
    axes.set_xlabel("gain over n = 1 (points)")


class _Gain(NamedTuple):
    """A bar, in points: its label on the axis, its interval, and the score of n = 1 or NaN."""

    named: list[str]
    value: float
    low: float
    high: float
    baseline: float
    colour: Any
    alpha: float


def _gains(panel: pd.DataFrame, style: Style, mixed: bool) -> Iterator[_Gain]:
    """Yield bars by size, coloured from loss to gain, strongest for the panel's largest."""
    numbers = 100 * panel[["value", "low", "high", "baseline_value"]].astype(float)
    ends = numbers[["low", "high"]].apply(lambda end: end.fillna(numbers["value"]))
    most = max(numbers["value"].abs().max() if len(panel) else 0.0, 1e-9)
    norm, scale = TwoSlopeNorm(0, -most, most), matplotlib.colormaps[style.diverging]
    for place, row in panel.sort_values(["parameters", "n", "source"], kind="stable").iterrows():
        paper = row["source"] != "run"
        named = [str(row["label"]) if paper else in_short(row["parameters"])]
        named += [f"n={row['n']}"] if panel["n"].nunique() > 1 else []
        named += ["paper"] if mixed and paper else []
        value, baseline = map(float, numbers.loc[place, ["value", "baseline_value"]])
        low, high = map(float, ends.loc[place])
        colour = scale(0.5 + 0.82 * (norm(value) - 0.5))
        alpha = PAPER_ALPHA if mixed and paper else 1.0
        yield _Gain(named, value, low, high, baseline, colour, alpha)


def _ticks(bars: list[_Gain], room: float) -> tuple[list[float], float, float]:
    """Return 0, the largest loss and gain, and the ends of everything drawn.

    Args:
        bars: All bars of a panel.
        room: Share of the axis that a label needs; closer to 0 there is no label.
    """
    values = [bar.value for bar in bars]
    low, high = min(bar.low for bar in bars), max(bar.high for bar in bars)
    low, high = min(low, *values), max(high, *values)
    largest = round(min(*values, 0.0), 2), round(max(*values, 0.0), 2)
    reach = (max(high, 0.0) - min(low, 0.0)) or 1.0
    return sorted({0.0, *(one for one in largest if abs(one) > room * reach)}), low, high


@dataclass(frozen=True)
class Groups:
    """Shares as bars side by side: a group for each entry of `x`, a bar for each n and label."""

    x: str
    columns: str  # column whose entries are panels
    ylabel: str
    xlabel: str = ""
    zoomed: bool = False  # whether each panel's axis begins near its lowest bar instead of at 0

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table."""
        panels = sorted(set(shown[self.columns].dropna()))
        canvas.set_size_inches(2.6 * len(panels), 2.0)
        grid = canvas.subplots(1, len(panels), squeeze=False, sharey=not self.zoomed)[0]
        place = [self.columns, self.x, "n", "label", "acceptance", "paper"]
        refuse_doubled(shown.assign(paper=is_paper(shown)), place)
        every = list(series_of(shown, "n", ("label",), style))
        handles: dict[str, Any] = {}
        for axes, panel in zip(grid, panels, strict=True):
            here = shown[shown[self.columns] == panel]
            entries = here[self.x].astype(object).where(here[self.x].notna(), None)
            groups = sorted(set(entries), key=lambda entry: (entry is None, entry))
            drawn = [one for one in every if one.rows.index.isin(here.index).any()]
            width = 0.8 / max(len(drawn), 1)
            for number, one in enumerate(drawn):
                for index, row in one.rows[one.rows.index.isin(here.index)].iterrows():
                    x = groups.index(entries[index]) + (number - (len(drawn) - 1) / 2) * width
                    look: dict[str, Any] = {"color": one.colour, "alpha": one.alpha}
                    bar = axes.bar(x, 100 * float(row["value"]), width * 0.94, **look)
                    handles.setdefault(one.label, bar)
                    if not pd.isna(row["low"]):
                        ends = 100 * float(row["low"]), 100 * float(row["high"])
                        axes.vlines(x, *ends, color=RULE, linewidth=0.7)
            unknown = f"{words.axis(self.x)} unknown"
            named = [unknown if one is None else self._named(one) for one in groups]
            axes.set_xticks(range(len(groups)), named)
            axes.set_xlabel(self.xlabel)
            axes.set_title(words.entry(self.columns, panel))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            if self.zoomed:
                _zoom(axes, 100 * here[["value", "low", "high"]].astype(float).stack())
        grid[0].set_ylabel(self.ylabel)
        if len(handles) > 1:
            legend_beside(canvas, handles)

    def _named(self, entry: Any) -> str:
        """Return a group's name; its unit is on the axis."""
        return in_short(entry) if self.x == "train_tokens" else words.entry(self.x, entry)


def _zoom(axes: Axes, values: "pd.Series[float]") -> None:
    """Begin the axis a little below the lowest bar or interval, at a round number."""
    step = 0.5 if values.max() - values.min() < 4 else 5.0
    low = max(0.0, (values.min() // step) * step - 2 * step)
    axes.set_ylim(low, (values.max() // step + 1) * step)
    axes.yaxis.set_major_locator(MultipleLocator(step))

"""The paper's diagrams: its architecture (figure 1) and the orders of training (figures 2, S11)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from mtp_harness.figures import bars, words
from mtp_harness.figures.series import is_mixed
from mtp_harness.figures.style import GREY, RULE, Style, make_room_for_titles, set_title

Place = tuple[float, float]

PARALLEL: Mapping[str, Place] = {
    "input": (1.5, 0.0),
    "trunk": (1.5, 1.0),
    "head 1": (0.6, 2.0),
    "head 2": (2.4, 2.0),
    "loss 1": (0.6, 3.0),
    "loss 2": (2.4, 3.0),
}
CAUSAL: Mapping[str, Place] = {
    "input": (0.6, 0.0),
    "trunk": (0.6, 1.0),
    "head 1": (0.6, 2.0),
    "head 2": (2.4, 2.0),
    "loss 1": (0.6, 3.0),
    "loss 2": (2.4, 3.0),
}
_ARROW = re.compile(r"(forward|backward): (.+) to (.+)")


@dataclass(frozen=True)
class Order:
    """The numbered forwards and backwards of one training step.

    Attributes:
        places: Where each box stands.
    """

    places: Mapping[str, Place]

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table: one arrow a row, its number is its value."""
        canvas.set_size_inches(3.1, 3.3)
        axes = canvas.subplots()
        axes.set_xlim(-0.15, 3.3)
        axes.set_ylim(-0.35, 3.75)
        axes.set_aspect("equal")
        axes.axis("off")
        colours = {"forward": style.series[2], "backward": style.series[1]}
        for name, (x, y) in self.places.items():
            _box(axes, name, x, y, _fill(name, style))
        for _, row in shown.iterrows():
            found = _ARROW.fullmatch(row["metric"])
            assert found, row["metric"]
            way, start, end = found.groups()
            self._arrow(axes, start, end, int(row["value"]), way == "forward", colours[way])
        for x, (way, colour) in zip((0.55, 1.95), colours.items(), strict=True):
            axes.plot([x - 0.5, x - 0.2], [3.6, 3.6], color=colour, linewidth=1.4)
            axes.text(x - 0.12, 3.6, way, va="center", fontsize=6.5)

    def _arrow(
        self, axes: Axes, start: str, end: str, number: int, forward: bool, colour: str
    ) -> None:
        (x0, y0), (x1, y1) = self.places[start], self.places[end]
        level = y0 == y1
        side = 0.13 if forward else -0.13
        if level:  # between boxes side by side
            y0 = y1 = y0 + side
            x0, x1 = (x0 + 0.47, x1 - 0.47) if x1 > x0 else (x0 - 0.47, x1 + 0.47)
        else:
            lean = 0.3 * (max(self.places[start], self.places[end], key=_height)[0] - 1.5)
            if "trunk" in (start, end) and x0 != x1:  # arrows to both heads leave side by side
                x0, x1 = (x0 + lean, x1) if start == "trunk" else (x0, x1 + lean)
            x0, x1 = x0 - side, x1 - side
            up = 0.23 if y1 > y0 else -0.23
            y0, y1 = y0 + up, y1 - up
        axes.add_patch(
            FancyArrowPatch(
                (x0, y0),
                (x1, y1),
                arrowstyle="-|>",
                mutation_scale=8,
                color=colour,
                linewidth=1.3,
                shrinkA=0,
                shrinkB=0,
            )
        )
        away = 0.14 if forward else -0.14
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        x, y = (x, y + away) if level else (x - away, y)
        axes.text(x, y, str(number), color=colour, fontsize=7, ha="center", va="center")


def _height(place: Place) -> float:
    return place[1]


def _fill(name: str, style: Style) -> str:
    if name == "trunk":
        return style.series[2]
    if name.startswith("head"):
        return style.series[4]
    return "white"


def _box(axes: Axes, name: str, x: float, y: float, colour: str) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x - 0.43, y - 0.19),
            0.86,
            0.38,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=colour,
            edgecolor=RULE,
            linewidth=0.7,
        )
    )
    ink = "white" if name == "trunk" else RULE
    axes.text(x, y, name, ha="center", va="center", fontsize=7.5, color=ink)


POSITIONS = 4
WIDTH = 3.5
"""Of figure 1, inches."""

SHOWN_HEADS = 8
"""More heads than this are drawn as the first ones, three dots and the last."""


def overview(canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
    """Draw figure 1: the architecture above, the gains of n heads below."""
    parts = shown[shown["metric"].isin(("trunk blocks", "head blocks"))]
    gains = shown[shown["metric"].str.startswith("pass@")]
    heads = int(parts["n"].max())
    below = 0.0 if gains.empty else 0.24 * len(gains) + 0.75
    tall = 1.9 + 0.19 * min(heads, SHOWN_HEADS)
    canvas.set_size_inches(WIDTH, tall + below)
    if gains.empty:
        axes = canvas.subplots()
        _architecture(axes, parts, heads, style)
        make_room_for_titles(canvas, [[axes]])
        return
    above, under = canvas.subplots(2, 1, height_ratios=[tall, below])
    _architecture(above, parts, heads, style)
    make_room_for_titles(canvas, [[above]])
    name = words.entry("data_set", gains["data_set"].iloc[0])
    number = gains["n"].iloc[0]
    under.set_title(f"{name} pass@1 gains with {number}-token prediction", fontsize=7)
    bars.horizontal(under, gains, style, is_mixed(shown))


def _architecture(axes: Axes, parts: pd.DataFrame, n: int, style: Style) -> None:
    blocks = dict(zip(parts["metric"], parts["value"], strict=True))
    label = parts["label"].iloc[0]
    drawn = list(range(1, n + 1))
    if n > SHOWN_HEADS:
        drawn = [*range(1, SHOWN_HEADS), n]
    top = 2.75 + 0.42 * (len(drawn) - 1)
    axes.set_xlim(-1.25, POSITIONS + 1.15)
    axes.set_ylim(-0.3, top + 0.3)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.text(-1.15, 0.0, "inputs", fontsize=6.5, va="center")
    for x in range(POSITIONS):
        _token(axes, x, 0.0, x + 1, "white", 1.0)
        axes.annotate(
            "", (x, 0.78), (x, 0.24), arrowprops={"arrowstyle": "-|>", "lw": 0.8, "color": RULE}
        )
    _bar(axes, 1.05, style.series[2], f"Shared: {blocks['trunk blocks']:.0f} blocks", "white")
    for place, head in reversed(list(enumerate(drawn))):
        _head(axes, place, head, n > SHOWN_HEADS and place == len(drawn) - 1, style)
    each = blocks["head blocks"] / n
    said = f"{n} heads of {each:g} block{'s' if each != 1 else ''}" if n > 1 else "1 head"
    axes.text(1.5, 1.72, said, ha="center", va="center", fontsize=7, color=RULE, zorder=9)
    if n > 1:
        axes.text(
            POSITIONS - 0.62,
            2.75 + 0.42 * len(drawn) / 2,
            "offsets 2 and on:\ndropped, or used\nto draft",
            fontsize=5.8,
            va="center",
            color=GREY,
        )
    set_title(axes, f"{label}: n = {n}, {sum(blocks.values()):.0f} blocks", WIDTH - 0.6)


def _head(axes: Axes, place: int, head: int, skipped: bool, style: Style) -> None:
    """Draw a head's block behind those before it, and what it predicts at each position."""
    shift = 0.13 * place
    alpha = 0.55 + 0.45 / (place + 1)
    _bar(axes, 1.72 + shift * 1.15, style.series[4], "", RULE, shift * 0.6, alpha)
    y, faded = 2.75 + 0.42 * place, 1.0 if head == 1 else 0.35
    name = f"head {head}" + (" (…)" if skipped else "")
    axes.text(-1.15, y, name, fontsize=6.5, va="center", alpha=max(faded, 0.6))
    for x in range(POSITIONS):
        _token(axes, x, y, x + 1 + head, style.series[4], faded)


def _bar(
    axes: Axes,
    y: float,
    colour: str,
    text: str,
    ink: str,
    shift: float = 0.0,
    alpha: float = 1.0,
) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (-0.38 + shift, y - 0.23),
            POSITIONS - 0.24,
            0.46,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=colour,
            edgecolor=RULE,
            linewidth=0.6,
            alpha=alpha,
        )
    )
    axes.text(1.5 + shift, y, text, ha="center", va="center", fontsize=7.5, color=ink)


def _token(axes: Axes, x: float, y: float, token: int, colour: str, alpha: float) -> None:
    axes.add_patch(
        Circle((x, y), 0.17, facecolor=colour, edgecolor=RULE, linewidth=0.6, alpha=alpha)
    )
    axes.text(x, y, str(token), ha="center", va="center", fontsize=6.5, alpha=max(alpha, 0.5))

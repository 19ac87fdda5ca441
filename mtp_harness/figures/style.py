"""Colours, line styles and sizes of the paper's figures, and a palette for colour-blind readers.

Source: the vector figures of Gloeckle et al. 2024. n = 1 terracotta and solid, n = 2 navy and
dashed, n = 4 green and dotted; for heads used, k = 3 is sand and dash-dotted. The second palette
remains distinguishable under each of the three dichromacies (a test simulates them).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import FancyBboxPatch

MPLSTYLE = Path(__file__).with_name("paper.mplstyle")

GREY = "#6B6B6B"
RULE = "#222222"
PAPER_ALPHA = 0.42
"""The style that distinguishes the paper's values from a run's, in every figure."""

LOOKS: dict[int, tuple[str, str, Any]] = {
    1: ("#E07A5F", "#D55E00", "-"),
    2: ("#3D405B", "#1F2A5C", (0, (4.2, 1.8))),
    3: ("#F2CC8F", "#F0C24B", (0, (4.2, 1.6, 1.0, 1.6))),
    4: ("#81B29A", "#2FA58E", (0, (1.0, 1.6))),
    6: ("#9C6B98", "#CC79A7", (0, (6.0, 1.4, 1.0, 1.4, 1.0, 1.4))),
    8: ("#5B8DB8", "#56B4E9", (0, (2.4, 1.2))),
    16: ("#B5838D", "#000000", (0, (5.0, 1.2, 2.0, 1.2))),
    32: ("#7A6C5D", "#999999", (0, (0.8, 0.8))),
}
"""By n or k: its colour in the paper, the one for colour-blind readers, and dashes."""

DASHES = {number: dashes for number, (_, _, dashes) in LOOKS.items()}
MARKERS = ("o", "s", "^", "D", "v", "P", "*", "<", ">", "h")

TITLE_LINE = 0.13
"""Height of a line of a title, inches."""


def set_title(axes: Axes, text: str, inches: float) -> None:
    """Set a title in lines no wider than its panel."""
    whole = text.replace(" = ", "\xa0=\xa0")  # which no line ends in
    width = max(14, int(17 * inches))
    lines = fill(whole, width, break_on_hyphens=max(map(len, whole.split()), default=0) > width)
    axes.set_title(lines.replace("\xa0", " "))


def make_room_for_titles(canvas: Canvas, rows: Iterable[Iterable[Axes]]) -> None:
    """Enlarge a figure by the extra title lines of its rows of panels."""
    lines = sum(max(axes.get_title().count("\n") for axes in row) for row in rows)
    width, height = canvas.get_size_inches()
    canvas.set_size_inches(width, height + TITLE_LINE * lines)


def rounded_box(axes: Axes, box: tuple[float, float, float, float], **look: Any) -> None:
    """Draw a box: its left and lower edge, width and height."""
    left, low, width, height = box
    corners = "round,pad=0,rounding_size=0.08"
    axes.add_patch(
        FancyBboxPatch((left, low), width, height, boxstyle=corners, edgecolor=RULE, **look)
    )


LEGEND_LINE = 0.15
"""Height of a line of a legend, inches."""


def legend_beside(canvas: Canvas, handles: Mapping[str, Any]) -> None:
    """Write a legend to the right of all panels, and enlarge the figure to fit it."""
    labels = [fill(label, 48, break_on_hyphens=False) for label in handles]
    lines = [line for label in labels for line in label.split("\n")]
    width, height = canvas.get_size_inches()
    canvas.set_size_inches(
        width + 0.35 + 0.055 * max(map(len, lines)), max(height, 0.2 + LEGEND_LINE * len(lines))
    )
    canvas.legend(list(handles.values()), labels, loc="outside right center")


@dataclass(frozen=True)
class Style:
    """A palette."""

    series: Mapping[int, str]  # by n, or by k
    others: tuple[str, ...]  # for series without a number, in order
    diverging: str  # matplotlib's name of the scale from loss to gain
    sequential: str  # the same, from little to much

    def colour(self, number: int) -> str:
        """Return the colour of n or k."""
        return self.series.get(number, self.others[number % len(self.others)])


PAPER = Style(
    series={number: colour for number, (colour, _, _) in LOOKS.items()},
    others=("#E07A5F", "#3D405B", "#81B29A", "#F2CC8F", "#9C6B98", "#5B8DB8", "#7A6C5D"),
    diverging="RdYlGn",
    sequential="YlGn",
)

COLOUR_BLIND = Style(
    series={number: colour for number, (_, colour, _) in LOOKS.items()},
    others=("#D55E00", "#1F2A5C", "#2FA58E", "#F0C24B", "#CC79A7", "#56B4E9", "#000000"),
    diverging="PuOr",
    sequential="cividis",
)

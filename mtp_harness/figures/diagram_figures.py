"""Diagrams: the architecture (figure 1), and the orders of training (figures 2 and S11)."""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Circle, FancyArrowPatch

from mtp_harness.figures import bars, code_figures, words
from mtp_harness.figures.figure import ARCHITECTURE, Figure, Withheld
from mtp_harness.figures.rows import nothing
from mtp_harness.figures.scored import gains
from mtp_harness.figures.series import is_mixed, is_paper
from mtp_harness.figures.style import (
    GREY,
    RULE,
    Style,
    make_room_for_titles,
    rounded_box,
    set_title,
)
from mtp_harness.files import user_path
from mtp_harness.results.result_file import ResultFile
from mtp_harness.results.tidy import Results, frame

SHIPPED = Path(__file__).parents[1] / "models" / "reference"


class Architecture(NamedTuple):
    """Blocks of a model: of its n heads together, and of the trunk."""

    n: int
    trunk: int
    heads: int

    def rows(self, **source: str) -> list[dict[str, object]]:
        """Return the numbers as rows of the tidy table."""
        shared = source | {"n": self.n, "task": ARCHITECTURE}
        return [
            shared | {"metric": "trunk blocks", "value": self.trunk},
            shared | {"metric": "head blocks", "value": self.heads},
        ]


PAPER_7B = Architecture(n=4, trunk=28, heads=4)
"""Section 3 and table S14: 32 blocks, of which four are heads."""


def architecture_of(file: ResultFile) -> Architecture | None:
    """Return the architecture of a run's model; None if its configuration cannot be read."""
    pretrained = file.mtp.get("pretrained")
    if not isinstance(pretrained, str) or not pretrained:
        return None
    for folder in (SHIPPED / Path(pretrained).name, user_path(pretrained)):
        for name, layers in (("config.json", "num_hidden_layers"), ("params.json", "n_layers")):
            if (path := folder / name).is_file():
                return _read(path, layers)
    return None


def _read(path: Path, layers: str) -> Architecture | None:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        n, blocks = int(told.get("n_future_tokens", 1)), int(told[layers])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Architecture(n, blocks - n, n) if 1 <= n <= blocks else None


def overview(results: Results) -> pd.DataFrame:
    """Return the blocks of the model with the most parallel heads, and its gains at pass@1.

    Raises:
        Withheld: All heads are sequential modules.
    """
    files = list(results.files.values())
    sequential = [file for file in files if file.mtp.get("heads") == "sequential"]
    described = [(architecture_of(file), file) for file in files if file not in sequential]
    models = [(parts, file) for parts, file in described if parts is not None]
    if not models and sequential:
        named = words.listed(file.label for file in sequential)
        raise Withheld(f"the heads of {named} are sequential modules, and it draws parallel ones")
    if not models:
        return frame([])
    parts, file = max(models, key=lambda one: (one[0].n, one[1].name))
    blocks = frame(parts.rows(source="run", file=file.name, run=file.sha256, label=file.label))
    own = gains(results, code_figures.CODE[:2])
    own = own[(own["at"] == 1) & (own["n"] == parts.n)]
    for name in bars.BENCHMARKS:
        if (chosen := own[own["data_set"] == name]).size:
            return pd.concat([blocks, chosen], ignore_index=True)
    return blocks


def paper_overview(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the blocks of the paper's 7B model, and figure 3's gains at pass@1."""
    blocks = frame(PAPER_7B.rows(source="Table S14", label="7B"))
    own = code_figures.with_baselines(rows[rows["at"] == 1])
    return pd.concat([blocks, own], ignore_index=True)


def one_of_each(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep one diagram, that of the runs, and the gains on one benchmark: theirs, or MBPP."""
    own, blocks = rows["source"] == "run", rows["task"] == ARCHITECTURE
    measured = rows.loc[own, "data_set"].dropna()
    name = "mbpp" if measured.empty else measured.iloc[0]
    if (own & blocks).any():
        rows = rows[own | ~blocks]
    return rows[rows["data_set"].isna() | (rows["data_set"] == name)]


POSITIONS = 4
WIDTH = 3.5
"""Width of the figure, inches."""

SHOWN_HEADS = 8
"""With more heads than this, only the first ones, three dots and the last are drawn."""


def _draw(canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
    is_block = shown["task"] == ARCHITECTURE
    parts, measured = shown[is_block], shown[~is_block]
    below = 0.0 if measured.empty else 0.24 * len(measured) + 0.75
    tall = 1.9 + 0.19 * min(int(parts["n"].max()), SHOWN_HEADS)
    canvas.set_size_inches(WIDTH, tall + below)
    ratios = [tall] if measured.empty else [tall, below]
    above, *under = canvas.subplots(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
    _diagram(above, parts, style)
    make_room_for_titles(canvas, [[above]])
    for axes in under:
        name = words.entry("data_set", measured["data_set"].iloc[0])
        number = measured["n"].iloc[0]
        whose = " (paper)" if is_paper(measured).all() else ""
        axes.set_title(f"{name}, pass@1: gains with n = {number}{whose}", fontsize=7)
        bars.horizontal(axes, measured, style, is_mixed(shown))


def _diagram(axes: Axes, parts: pd.DataFrame, style: Style) -> None:
    blocks = dict(zip(parts["metric"], parts["value"], strict=True))
    n = int(parts["n"].max())
    drawn = list(range(1, n + 1)) if n <= SHOWN_HEADS else [*range(1, SHOWN_HEADS), n]
    axes.set_xlim(-1.25, POSITIONS + 1.15)
    axes.set_ylim(-0.3, 2.75 + 0.42 * (len(drawn) - 1) + 0.3)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.text(-1.15, 0.0, "inputs", fontsize=6.5, va="center")
    arrow = {"arrowstyle": "-|>", "lw": 0.8, "color": RULE}
    for x in range(POSITIONS):
        _token(axes, x, 0.0, x + 1, "white", 1.0)
        axes.annotate("", (x, 0.78), (x, 0.24), arrowprops=arrow)
    _bar(axes, 1.05, style.series[2])
    trunk = f"Shared: {blocks['trunk blocks']:.0f} blocks"
    axes.text(1.5, 1.05, trunk, ha="center", va="center", fontsize=7.5, color="white")
    for place, head in reversed(list(enumerate(drawn))):
        _head(axes, place, head, n > SHOWN_HEADS and place == len(drawn) - 1, style)
    each = blocks["head blocks"] / n
    said = f"{n} heads of {each:g} block{'s' if each != 1 else ''}" if n > 1 else "1 head"
    axes.text(1.5, 1.72, said, ha="center", va="center", fontsize=7, color=RULE, zorder=9)
    if n > 1:
        axes.text(
            POSITIONS - 0.62,
            2.75 + 0.42 * len(drawn) / 2,
            "heads 2 and on:\ndropped, or used\nto draft",
            fontsize=5.8,
            va="center",
            color=GREY,
        )
    title = f"{parts['label'].iloc[0]}: n = {n}, {sum(blocks.values()):.0f} blocks"
    set_title(axes, title, WIDTH - 0.6)


def _head(axes: Axes, place: int, head: int, skipped: bool, style: Style) -> None:
    """Draw a head's block after those before it, and its predictions at each position."""
    shift = 0.13 * place
    _bar(axes, 1.72 + shift * 1.15, style.series[4], shift * 0.6, 0.55 + 0.45 / (place + 1))
    y, faded = 2.75 + 0.42 * place, 1.0 if head == 1 else 0.35
    name = f"head {head}" + (" (…)" if skipped else "")
    axes.text(-1.15, y, name, fontsize=6.5, va="center", alpha=max(faded, 0.6))
    for x in range(POSITIONS):
        _token(axes, x, y, x + 1 + head, style.series[4], faded)


def _bar(axes: Axes, y: float, colour: str, shift: float = 0.0, alpha: float = 1.0) -> None:
    box = (-0.38 + shift, y - 0.23, POSITIONS - 0.24, 0.46)
    rounded_box(axes, box, facecolor=colour, linewidth=0.6, alpha=alpha)


def _token(axes: Axes, x: float, y: float, token: int, colour: str, alpha: float) -> None:
    look: dict[str, Any] = {"facecolor": colour, "edgecolor": RULE, "alpha": alpha}
    axes.add_patch(Circle((x, y), 0.17, linewidth=0.6, **look))
    axes.text(x, y, str(token), ha="center", va="center", fontsize=6.5, alpha=max(alpha, 0.5))


Place = tuple[float, float]
Places = Mapping[str, Place]
"""Positions of the boxes."""

CAUSAL: Places = {
    "input": (0.6, 0.0),
    "trunk": (0.6, 1.0),
    "head 1": (0.6, 2.0),
    "head 2": (2.4, 2.0),
    "loss 1": (0.6, 3.0),
    "loss 2": (2.4, 3.0),
}
PARALLEL: Places = {**CAUSAL, "input": (1.5, 0.0), "trunk": (1.5, 1.0)}
_ARROW = re.compile(r"(forward|backward): (.+) to (.+)")


def _draw_order(canvas: Canvas, shown: pd.DataFrame, style: Style, places: Places) -> None:
    """Draw one arrow a row, its number is its value."""
    canvas.set_size_inches(3.1, 3.3)
    axes = canvas.subplots()
    axes.set_xlim(-0.15, 3.3)
    axes.set_ylim(-0.35, 3.75)
    axes.set_aspect("equal")
    axes.axis("off")
    colours = {"forward": style.series[2], "backward": style.series[1]}
    filled = {"trunk": style.series[2], "head 1": style.series[4], "head 2": style.series[4]}
    for name, (x, y) in places.items():
        box = (x - 0.43, y - 0.19, 0.86, 0.38)
        rounded_box(axes, box, facecolor=filled.get(name, "white"), linewidth=0.7)
        ink = "white" if name == "trunk" else RULE
        axes.text(x, y, name, ha="center", va="center", fontsize=7.5, color=ink)
    for metric, value in zip(shown["metric"], shown["value"], strict=True):
        found = _ARROW.fullmatch(metric)
        assert found, metric
        way, start, end = found.groups()
        _arrow(axes, places[start], places[end], int(value), colours[way], way == "forward")
    for x, (way, colour) in zip((0.55, 1.95), colours.items(), strict=True):
        axes.plot([x - 0.5, x - 0.2], [3.6, 3.6], color=colour, linewidth=1.4)
        axes.text(x - 0.12, 3.6, way, va="center", fontsize=6.5)


def _arrow(axes: Axes, start: Place, end: Place, number: int, colour: str, forward: bool) -> None:
    (x0, y0), (x1, y1) = start, end
    level = y0 == y1
    side = 0.13 if forward else -0.13
    if level:  # between boxes side by side
        y0 = y1 = y0 + side
        x0, x1 = (x0 + 0.47, x1 - 0.47) if x1 > x0 else (x0 - 0.47, x1 + 0.47)
    else:
        up = 0.23 if y1 > y0 else -0.23
        if x0 != x1:  # arrows of the trunk to and from both heads stand side by side
            lean = 0.3 * ((x1 if up > 0 else x0) - 1.5)
            x0, x1 = (x0 + lean, x1) if up > 0 else (x0, x1 + lean)
        x0, x1 = x0 - side, x1 - side
        y0, y1 = y0 + up, y1 - up
    tip: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 8, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch((x0, y0), (x1, y1), color=colour, linewidth=1.3, **tip))
    away = 0.14 if forward else -0.14
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    x, y = (x, y + away) if level else (x - away, y)
    axes.text(x, y, str(number), color=colour, fontsize=7, ha="center", va="center")


def _order(name: str, heads: str, places: Places) -> Figure:
    caption = (
        f"Order of the passes in one training step, two {heads} heads. Numbers: the order in time; "
        "arrows with the same number belong to one pass."
    )
    return Figure(name, caption, nothing, partial(_draw_order, places=places), "", is_diagram=True)


FIGURES = (
    Figure(
        "fig_1",
        "The architecture, and what n heads gain. Blocks are those of the model's configuration; "
        "the grey number at a bar is the score of n = 1 (%).",
        overview,
        _draw,
        "`lm_eval --model mtp --model_args pretrained=FOLDER --tasks mbpp_mtp -o RESULTS` and draw "
        "where FOLDER's config.json or params.json can be read; for gains, with n = 1, too",
        ("fig_3",),
        paper_overview,
        one_of_each,
        least=2,
    ),
    _order("fig_2", "parallel", PARALLEL),
    _order("fig_s11", "causal", CAUSAL),
)

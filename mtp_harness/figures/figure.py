"""What a figure is, and how it is drawn: rows → the table it shows → a picture and that table."""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.figure import Figure as Canvas

from mtp_harness.figures import paper_data
from mtp_harness.figures.series import is_paper
from mtp_harness.figures.style import GREY, MPLSTYLE, PAPER, Style
from mtp_harness.figures.tables import Results, to_csv

Draw = Callable[[Canvas, pd.DataFrame, Style], None]
FORMATS = ("png", "pdf", "svg")


class NoData(ValueError):
    """A figure that cannot be drawn; the message says what is missing and what produces it."""


@dataclass(frozen=True)
class Figure:
    """A figure or table.

    Attributes:
        name: Such as `fig_s10`; of its files, too.
        caption: What it shows.
        select: Picks and derives from runs what it shows; no rows where they have none.
        draw: Draws that table on a canvas.
        command: Produces the runs that it needs.
        paper: Files of the paper's data that it shows.
        from_paper: Derives from those files what it shows.
    """

    name: str
    caption: str
    select: Callable[[Results], pd.DataFrame]
    draw: Draw
    command: str
    paper: tuple[str, ...] = ()
    from_paper: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows

    def table(self, results: Results | None, paper: bool) -> pd.DataFrame:
        """Return what the figure shows.

        Args:
            results: The runs; None for the paper alone.
            paper: Whether to add the paper's numbers, where it has them.

        Raises:
            NoData: There is nothing to show.
        """
        own = None if results is None else self.select(results)
        if own is not None and own.empty:
            hint = " (the paper's own: --paper-only)" if self.paper else ""
            raise NoData(f"{self.name} is not drawn: no run measured it. Run {self.command}{hint}")
        if own is None and not self.paper:
            raise NoData(f"{self.name} is not drawn: the paper has none. Run {self.command}")
        parts = [] if own is None else [own]
        if self.paper and (paper or own is None):
            parts.append(self.from_paper(paper_data.read(*self.paper)))
        return pd.concat(parts, ignore_index=True)


class Drawn(NamedTuple):
    """A figure that was drawn.

    Attributes:
        figure: Which.
        shown: The table behind it.
        pictures: Its bytes by format.
        sources: Hash of the results files and of the paper's data that it shows.
    """

    figure: Figure
    shown: pd.DataFrame
    pictures: dict[str, bytes]
    sources: str

    @property
    def csv(self) -> str:
        """The table as text."""
        return to_csv(self.shown)


def draw(
    figure: Figure,
    results: Results | None,
    paper: bool = False,
    style: Style = PAPER,
    formats: Sequence[str] = ("png",),
) -> Drawn:
    """Draw a figure.

    Args:
        figure: Which.
        results: The runs; None for the paper alone.
        paper: Whether to add the paper's numbers.
        style: Palette.
        formats: Of the pictures.

    Raises:
        NoData: There is nothing to show.
        ValueError: The runs do not make one figure.
    """
    shown = figure.table(results, paper)
    sources = _sources(shown)
    with matplotlib.rc_context(fname=MPLSTYLE):
        canvas = Canvas(layout="constrained")
        figure.draw(canvas, shown, style)
        _footer(canvas, shown)
        pictures = {kind: _picture(canvas, kind, figure, sources) for kind in formats}
    return Drawn(figure, shown, pictures, sources)


def _sources(shown: pd.DataFrame) -> str:
    hashes = sorted(set(shown["run"].dropna()))
    if is_paper(shown).any():
        hashes.append(hashlib.sha256(to_csv(shown[is_paper(shown)]).encode()).hexdigest())
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _picture(canvas: Canvas, kind: str, figure: Figure, sources: str) -> bytes:
    told = f"sources sha256 {sources}"
    metadata: Mapping[str, Any] = {
        "png": {"Software": None, "Title": figure.name, "Source": told},
        "pdf": {"CreationDate": None, "Title": figure.name, "Keywords": told},
        "svg": {"Date": None, "Title": figure.name, "Source": told},
    }[kind]
    held = io.BytesIO()
    canvas.savefig(held, format=kind, metadata=metadata)
    return held.getvalue()


def _footer(canvas: Canvas, shown: pd.DataFrame) -> None:
    """Say on the figure where its numbers come from."""
    paper = is_paper(shown)
    parts = []
    if not paper.all():
        labels = list(dict.fromkeys(shown.loc[~paper, "label"].dropna()))
        more = f" and {len(labels) - 4} more" if len(labels) > 4 else ""
        hardware = list(dict.fromkeys(shown.loc[~paper, "hardware"].dropna()))
        parts.append(f"Runs: {', '.join(labels[:4])}{more}; {', '.join(hardware)}".rstrip("; "))
    if paper.any():
        printed = ", ".join(dict.fromkeys(shown.loc[paper, "source"]))
        parts.append(f"Paper: {printed}, Gloeckle et al. 2024")
    width = canvas.get_size_inches()[0]
    text = "\n".join(fill(part, max(30, int(width * 22))) for part in parts)
    canvas.supxlabel(text, x=0.01, ha="left", fontsize=5, color=GREY)

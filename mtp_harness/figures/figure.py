"""What a figure is, and how it is drawn: rows → the table it shows → a picture and that table."""

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.figure import Figure as Canvas

from mtp_harness.figures import alike, footer, paper_data
from mtp_harness.figures.result_file import ResultFile
from mtp_harness.figures.series import is_paper
from mtp_harness.figures.style import MPLSTYLE, PAPER, Style
from mtp_harness.figures.tables import Results, to_csv

_LACKS = r"Glyph (\d+) .* missing from"
"""How matplotlib says that a font has no picture of a character."""

Draw = Callable[[Canvas, pd.DataFrame, Style], None]


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
        together: Drops from runs and the paper side by side what does not compare.
        paper_protocol: What the paper did, where runs are asked in another way.
        is_diagram: Whether it shows no measurement, and so needs no run.
    """

    name: str
    caption: str
    select: Callable[[Results], pd.DataFrame]
    draw: Draw
    command: str
    paper: tuple[str, ...] = ()
    from_paper: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
    together: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
    paper_protocol: str = ""
    is_diagram: bool = False

    def table(self, results: Results | None, paper: bool) -> pd.DataFrame:
        """Return what the figure shows.

        Args:
            results: The runs; None for the paper alone.
            paper: Whether to add the paper's numbers, where it has them.

        Raises:
            NoData: There is nothing to show.
        """
        own = None if results is None or self.is_diagram else self.select(results)
        if own is not None and own.empty:
            hint = " (the paper's own: --paper-only)" if self.paper else ""
            raise NoData(f"{self.name} is not drawn: no run measured it. Run {self.command}{hint}")
        if own is None and not self.paper:
            raise NoData(f"{self.name} is not drawn: the paper has none. Run {self.command}")
        if own is not None:
            alike.refuse_other_documents(own)
        parts = [] if own is None else [own]
        if self.paper and (paper or own is None):
            parts.append(self.from_paper(paper_data.read(*self.paper)))
        return self.together(pd.concat(parts, ignore_index=True)).reset_index(drop=True)


class Drawn(NamedTuple):
    """A figure that was drawn.

    Attributes:
        figure: Which.
        shown: The table behind it.
        pictures: Its bytes by format.
        sources: Hash of the results files and of the paper's data that it shows.
        unknown_signs: Those of its texts that the font lacks; boxes stand in their place.
    """

    figure: Figure
    shown: pd.DataFrame
    pictures: dict[str, bytes]
    sources: str
    unknown_signs: frozenset[str]

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
        canvas = paint(figure, shown, results.files if results else {}, style)
        with warnings.catch_warnings(record=True) as said:
            warnings.filterwarnings("always", _LACKS)
            pictures = {kind: _picture(canvas, kind, figure, sources) for kind in formats}
    return Drawn(figure, shown, pictures, sources, frozenset(_unknown_signs(said)))


def paint(
    figure: Figure, shown: pd.DataFrame, files: Mapping[str, ResultFile], style: Style
) -> Canvas:
    """Return the canvas of a figure with all that is on it; to be called in the paper's look."""
    canvas = Canvas(layout="constrained")
    figure.draw(canvas, shown, style)
    if figure.name.startswith("table_"):
        _heading(canvas, figure.caption)
    footer.write(canvas, shown, files, figure.paper_protocol)
    return canvas


def _unknown_signs(said: Sequence[warnings.WarningMessage]) -> Iterator[str]:
    """Yield the characters that warnings are about, and warn again of everything else."""
    for one in said:
        if found := re.match(_LACKS, str(one.message)):
            yield chr(int(found[1]))
        else:
            warnings.warn(one.message, one.category, stacklevel=2)


def _sources(shown: pd.DataFrame) -> str:
    hashes = sorted({one for runs in shown["run"].dropna() for one in runs.split()})
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


def _heading(canvas: Canvas, caption: str) -> None:
    """Say above a table what it shows and in which unit: it has no axes that could."""
    width, height = canvas.get_size_inches()
    text = fill(
        caption.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"), max(24, int(width * 17))
    )
    canvas.set_size_inches(width, height + 0.13 * (1 + text.count("\n")) + 0.05)
    canvas.suptitle(text, x=0.01, ha="left", fontsize=6.5)

"""A figure, and how it is drawn: rows → the table it shows → a picture and that table."""

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from types import MappingProxyType
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text

from mtp_harness.figures import footer, paper_data, reading, words
from mtp_harness.figures.rows import Select
from mtp_harness.figures.series import is_paper
from mtp_harness.figures.style import MPLSTYLE, PAPER, Style
from mtp_harness.results import alike
from mtp_harness.results.result_file import ResultFile
from mtp_harness.results.tidy import Results, frame, to_csv

_LACKS = r"Glyph (\d+) .* missing from"
"""matplotlib's message about a character that a font lacks."""

ARCHITECTURE = "architecture"
"""Task of rows that describe a model's architecture, and measure nothing."""


class NoData(ValueError):
    """There is nothing to draw; the message says why, and what would measure it."""

    measured = False


class Withheld(NoData):
    """Runs measured it, but their numbers show nothing; the message says why."""

    measured = True


@dataclass(frozen=True)
class Figure:
    """A figure or table.

    Attributes:
        select: Picks and derives the rows to show from runs; no rows if they have none, `Withheld`
            if the rows show nothing.
        protocols: How runs were evaluated if their rows do not say it, and how the paper evaluated,
            if that differs.
    """

    name: str  # such as fig_s10, also of its files
    caption: str  # its first sentence is above the figure, the rest below it
    select: Select
    draw: Callable[[Canvas, pd.DataFrame, Style], None]
    command: str  # produces the runs that it needs
    paper: tuple[str, ...] = ()  # files of the paper's data; default: the file of its own name
    from_paper: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows  # derives rows from them
    together: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows  # drops unlike rows
    protocols: tuple[str, str] = ("", "")
    is_diagram: bool = False  # shows no measurement, and so needs no run
    least: int = 1  # fewest numbers of runs to draw it from

    def __post_init__(self) -> None:
        """Find the paper's data of the figure's own name."""
        if not self.paper and (paper_data.FOLDER / f"{self.name}.csv").is_file():
            object.__setattr__(self, "paper", (self.name,))

    def show(self, results: Results | None, paper: bool) -> "Shown":
        """Return what the figure shows, not yet drawn.

        Args:
            results: The runs; None for the paper alone.
            paper: Whether to add the paper's numbers, if there are any.

        Raises:
            NoData: There is nothing to show.
        """
        own, left_out, measured = frame([]), "", True
        if results is not None and not self.is_diagram:
            own, left_out, measured = self._of_runs(results)
        paper = self.paper != () and (paper or results is None or self.is_diagram)
        if own.empty and not paper:
            said = left_out or f"the paper has none. Run {self.command}"
            hint = " (the paper's own: --paper-only)" if self.paper else ""
            kind = Withheld if measured and left_out else NoData
            raise kind(f"{self.name} is not drawn: {said}{hint}")
        parts = [] if own.empty else [own]
        if paper:
            parts.append(self.from_paper(paper_data.read(*self.paper)))
        table = self.together(pd.concat(parts, ignore_index=True)).reset_index(drop=True)
        return Shown(self, table, left_out, measured)

    def _of_runs(self, results: Results) -> tuple[pd.DataFrame, str, bool]:
        """Return the rows of runs, why some are not drawn, and whether any run measured them."""
        try:
            own = self.select(results)
        except Withheld as error:
            return frame([]), str(error), True
        if own.empty:
            return own, f"no run measured it. Run {self.command}", False
        alike.refuse_differences(own, results)
        scores = own["task"] != ARCHITECTURE
        said = _shows_nothing(own[scores], self.least)
        return own[~scores] if said else own, said, True


def _shows_nothing(scores: pd.DataFrame, least: int) -> str:
    """Return why numbers of runs are not drawn; an empty text if they are."""
    named = words.listed(pd.concat([scores["baseline"], scores["label"]]).dropna())
    if len(scores) and not (scores["value"].any() or scores["baseline_value"].fillna(0).any()):
        return f"every score of {named} is 0"
    if 0 < len(scores) < least:
        return f"{named} would give a single bar, which compares nothing"
    return ""


class Shown(NamedTuple):
    """The content of a figure."""

    figure: Figure
    table: pd.DataFrame  # the numbers
    left_out: str  # why numbers of runs are missing; empty if none are
    measured: bool  # whether a run measured the figure
    pictures: Mapping[str, bytes] = MappingProxyType({})  # the drawn picture as bytes, by format
    unknown_signs: frozenset[str] = frozenset()  # characters that the font lacks, shown as boxes

    @property
    def csv(self) -> str:
        """The table as text."""
        return to_csv(self.table)

    @property
    def sources(self) -> str:
        """Hash of the results files and of the paper's data behind the table."""
        hashes = sorted({one for runs in self.table["run"].dropna() for one in runs.split()})
        paper = self.table[is_paper(self.table)]
        if len(paper):
            hashes.append(hashlib.sha256(to_csv(paper).encode()).hexdigest())
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def draw(
    figure: Figure,
    results: Results | None,
    paper: bool = False,
    style: Style = PAPER,
    formats: Sequence[str] = ("png",),
) -> Shown:
    """Draw a figure; the arguments are those of `catalogue.draw_all`.

    Raises:
        NoData: There is nothing to show.
        ValueError: The runs do not make one figure.
    """
    shown = figure.show(results, paper)
    with matplotlib.rc_context(fname=MPLSTYLE):
        canvas = paint(shown, results.files if results else {}, style)
        with warnings.catch_warnings(record=True) as said:
            warnings.filterwarnings("always", _LACKS)
            pictures = {kind: _picture(canvas, kind, figure, shown.sources) for kind in formats}
    return shown._replace(pictures=pictures, unknown_signs=frozenset(_unknown_signs(said)))


def paint(shown: Shown, files: Mapping[str, ResultFile], style: Style) -> Canvas:
    """Return the canvas of a figure with everything on it; to be called in the paper's style."""
    canvas, figure = Canvas(layout="constrained"), shown.figure
    figure.draw(canvas, shown.table, style)
    title, _, more = figure.caption.partition(". ")
    _heading(canvas, title.removesuffix("."))
    footer.write(canvas, shown.table, files, figure.protocols, shown.left_out, more)
    own = shown.table[~is_paper(shown.table)]
    if len(own) == len(shown.table) and reading.counts_bytes(own, files):
        for text in canvas.findobj(Text):
            text.set_text(words.in_bytes(text.get_text()))
    return canvas


def _unknown_signs(said: Sequence[warnings.WarningMessage]) -> Iterator[str]:
    """Yield the characters in warnings about the font, and repeat all other warnings."""
    for one in said:
        if found := re.match(_LACKS, str(one.message)):
            yield chr(int(found[1]))
        else:
            warnings.warn(one.message, one.category, stacklevel=2)


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


def _heading(canvas: Canvas, title: str) -> None:
    """Write the first sentence of its caption above a figure."""
    width, height = canvas.get_size_inches()
    whole = title.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    text = fill(whole, max(24, int(width * 12.5)), break_on_hyphens=False)
    canvas.set_size_inches(width, height + 0.15 * (1 + text.count("\n")) + 0.07)
    canvas.suptitle(text, x=0.01, ha="left", fontsize=8, fontweight="bold")

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

from mtp_harness.figures import footer, paper_data, words
from mtp_harness.figures.series import is_paper
from mtp_harness.figures.style import MPLSTYLE, PAPER, Style
from mtp_harness.results import alike
from mtp_harness.results.result_file import ResultFile
from mtp_harness.results.tidy import Results, frame, to_csv

_LACKS = r"Glyph (\d+) .* missing from"
"""How matplotlib says that a font has no picture of a character."""

ARCHITECTURE = "architecture"
"""Task of the rows that say what a model is made of, and measure nothing."""

Draw = Callable[[Canvas, pd.DataFrame, Style], None]


class NoData(ValueError):
    """A figure that cannot be drawn; the message says what is missing and what produces it."""


class Withheld(ValueError):
    """Runs measured a figure, but their numbers show nothing; the message says why."""


class Shown(NamedTuple):
    """What a figure shows.

    Attributes:
        table: The numbers.
        left_out: Why numbers of the runs are not among them; empty where all are.
        measured: Whether a run measured the figure.
    """

    table: pd.DataFrame
    left_out: str
    measured: bool


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
        protocols: How runs are asked where their rows do not say it, and how the paper asked,
            where that is not the same.
        is_diagram: Whether it shows no measurement, and so needs no run.
        least: Fewest numbers of runs that it is drawn from.
    """

    name: str
    caption: str
    select: Callable[[Results], pd.DataFrame]
    draw: Draw
    command: str
    paper: tuple[str, ...] = ()
    from_paper: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
    together: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
    protocols: tuple[str, str] = ("", "")
    is_diagram: bool = False
    least: int = 1

    def table(self, results: Results | None, paper: bool) -> pd.DataFrame:
        """Return the numbers that the figure shows; see `show`."""
        return self.show(results, paper).table

    def show(self, results: Results | None, paper: bool) -> Shown:
        """Return what the figure shows.

        Args:
            results: The runs; None for the paper alone.
            paper: Whether to add the paper's numbers, where it has them.

        Raises:
            NoData: There is nothing to show, and no run measured it.
            Withheld: Runs measured it, but what they give shows nothing.
        """
        hint = " (the paper's own: --paper-only)" if self.paper else ""
        own, left_out, measured = frame([]), "", True
        if results is not None and not self.is_diagram:
            own, left_out, measured = self._of_runs(results)
        paper = self.paper != () and (paper or results is None or self.is_diagram)
        if own.empty and not paper and measured and left_out:
            raise Withheld(f"{left_out}{hint}")
        if own.empty and not paper:
            lacking = "the paper has none" if results is None else "no run measured it"
            raise NoData(f"{self.name} is not drawn: {lacking}. Run {self.command}{hint}")
        parts = [] if own.empty else [own]
        if paper:
            parts.append(self.from_paper(paper_data.read(*self.paper)))
        table = self.together(pd.concat(parts, ignore_index=True)).reset_index(drop=True)
        return Shown(table, left_out, measured)

    def _of_runs(self, results: Results) -> tuple[pd.DataFrame, str, bool]:
        """Return what runs give, why some of it is not drawn, and whether any measured it."""
        try:
            own = self.select(results)
        except Withheld as error:
            return frame([]), str(error), True
        if own.empty:
            return own, f"no run measured it. Run {self.command}", False
        alike.refuse_other_documents(own)
        scores = own["task"] != ARCHITECTURE
        if said := _shows_nothing(own[scores], self.least):
            return own[~scores].reset_index(drop=True), said, True
        return own, "", True


def _shows_nothing(scores: pd.DataFrame, least: int) -> str:
    """Return why numbers of runs are not drawn; an empty text where they are."""
    models = pd.concat([scores["baseline"], scores["label"]]).dropna()
    named = words.listed(list(dict.fromkeys(models)))
    if len(scores) and not (scores["value"].any() or scores["baseline_value"].fillna(0).any()):
        return f"every score of {named} is 0"
    if 0 < len(scores) < least:
        return f"{named} would give a single bar, which compares nothing"
    return ""


class Drawn(NamedTuple):
    """A figure that was drawn.

    Attributes:
        figure: Which.
        shown: The table behind it.
        left_out: Why numbers of the runs are not in it; empty where all are.
        measured: Whether a run measured it.
        pictures: Its bytes by format.
        sources: Hash of the results files and of the paper's data that it shows.
        unknown_signs: Those of its texts that the font lacks; boxes stand in their place.
    """

    figure: Figure
    shown: pd.DataFrame
    left_out: str
    measured: bool
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
    shown, left_out, measured = figure.show(results, paper)
    sources = _sources(shown)
    with matplotlib.rc_context(fname=MPLSTYLE):
        canvas = paint(figure, shown, results.files if results else {}, style, left_out)
        with warnings.catch_warnings(record=True) as said:
            warnings.filterwarnings("always", _LACKS)
            pictures = {kind: _picture(canvas, kind, figure, sources) for kind in formats}
    signs = frozenset(_unknown_signs(said))
    return Drawn(figure, shown, left_out, measured, pictures, sources, signs)


def paint(
    figure: Figure,
    shown: pd.DataFrame,
    files: Mapping[str, ResultFile],
    style: Style,
    left_out: str = "",
) -> Canvas:
    """Return the canvas of a figure with all that is on it; to be called in the paper's look."""
    canvas = Canvas(layout="constrained")
    figure.draw(canvas, shown, style)
    if figure.name.startswith("table_"):
        _heading(canvas, figure.caption)
    footer.write(canvas, shown, files, figure.protocols, left_out)
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

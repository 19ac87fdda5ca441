"""All figures and tables, in the order of the paper; those that are not in it come last."""

import difflib
import re
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from mtp_harness.figures.figure import Figure, NoData, Shown, draw
from mtp_harness.figures.style import PAPER, Style
from mtp_harness.results.tidy import Results

MODULES = (
    "mtp_harness.figures.code_figures",
    "mtp_harness.figures.diagram_figures",
    "mtp_harness.figures.draft_figures",
    "mtp_harness.figures.head_figures",
    "mtp_harness.figures.reasoning_figures",
    "mtp_harness.figures.speed_figures",
    "mtp_harness.figures.summary_figures",
    "mtp_harness.figures.training_figures",
)
"""Modules with `FIGURES`. A new one is a line here; figures beyond the paper keep this order."""


def _order(figure: Figure) -> tuple[str, str, int]:
    """Sort `fig_3` before `fig_s10`, both before tables, and what the paper lacks after all."""
    found = re.fullmatch(r"(fig|table)_(s?)(\d+)", figure.name)
    return (found[1], found[2], int(found[3])) if found else ("without a number", "", 0)


FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in sorted(
        (figure for name in MODULES for figure in import_module(name).FIGURES), key=_order
    )
}


class Gallery(NamedTuple):
    """Figures that were drawn, and why others were not."""

    drawn: list[Shown]  # in the order of `FIGURES`
    refused: dict[str, str]  # one sentence for each figure that could not be drawn, by its name
    missing: list[str]  # those that no run measured; the paper's numbers can stand in for runs

    def objections(self) -> list[str]:
        """Return why figures that runs measured were not drawn, or not with all runs."""
        said = [said for name, said in self.refused.items() if name not in self.missing]
        return said + [
            f"{drawn.figure.name} leaves out numbers of the runs: {drawn.left_out}"
            for drawn in self.drawn
            if drawn.measured and drawn.left_out
        ]

    def remarks(self) -> list[str]:
        """Return warnings about the drawn figures."""
        signs = sorted(set().union(*(drawn.unknown_signs for drawn in self.drawn)))
        if not signs:
            return []
        named = ", ".join(sign if sign.isprintable() else ascii(sign) for sign in signs)
        return [f"the font of the figures lacks {named}: boxes are shown instead"]

    def commands(self, drawn: bool = False) -> dict[str, list[str]]:
        """Return the commands that would measure the missing figures, each with their names.

        Args:
            drawn: Whether to return those drawn from the paper's numbers, or the others.
        """
        names: dict[str, list[str]] = {}
        for name in self.missing:
            if (name in self.refused) != drawn:
                names.setdefault(FIGURES[name].command, []).append(name)
        return names

    def paper_has(self) -> bool:
        """Return whether the paper has numbers of a missing figure that was not drawn."""
        return any(FIGURES[name].paper for name in self.missing if name in self.refused)


def draw_all(
    results: Results | None,
    only: Sequence[str] = (),
    paper: bool = False,
    style: Style = PAPER,
    formats: Sequence[str] = ("png",),
) -> Gallery:
    """Draw all figures, or some.

    Args:
        results: What `tidy.read_runs` returns; None for the paper's own figures.
        only: Names of the figures to draw; empty: all of them.
        paper: Whether to add the paper's numbers.
        style: `style.PAPER` or `style.COLOUR_BLIND`.
        formats: Of the pictures: png, pdf, svg.

    Raises:
        ValueError: `only` has a name that no figure has.
    """
    for name in only:
        if name not in FIGURES:
            near = difflib.get_close_matches(name, FIGURES, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FIGURES)}."
            raise ValueError(f"no figure is called {name}: {hint}")
    gallery = Gallery([], {}, [])
    for name, figure in FIGURES.items():
        if only and name not in only:
            continue
        measured = True
        try:
            drawn = draw(figure, results, paper, style, formats)
            gallery.drawn.append(drawn)
            measured = drawn.measured
        except NoData as error:
            gallery.refused[name] = str(error)
            measured = error.measured
        except ValueError as error:  # damaged samples, two values for one point
            gallery.refused[name] = f"{name} is not drawn: {error}"
        gallery.missing.extend([] if measured else [name])
    return gallery

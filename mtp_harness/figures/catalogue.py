"""All figures and tables, in the order of the paper; what only we show comes last."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from mtp_harness.figures import (
    code_figures,
    probe_figures,
    speed_figures,
    summary_figures,
    training_figures,
)
from mtp_harness.figures.figure import Drawn, Figure, NoData, draw
from mtp_harness.figures.style import PAPER, Style
from mtp_harness.results.tidy import Results

_ORDER = (
    "fig_1 fig_2 fig_3 fig_4 fig_5 fig_6 fig_7 fig_8 fig_s10 fig_s11 fig_s12 fig_s13 fig_s14 "
    "fig_s15 fig_s16 table_1 table_s2 table_s3 table_s4 table_s5 table_s6 table_s7 table_s8 "
    "table_s9 table_s10 table_s11 table_s12 fig_heads fig_positions fig_perplexity fig_acceptance "
    "fig_speed fig_speed_by_size fig_sample_efficiency"
).split()

_MODULES = (code_figures, training_figures, summary_figures, probe_figures, speed_figures)

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in sorted(
        (figure for module in _MODULES for figure in module.FIGURES),
        key=lambda figure: _ORDER.index(figure.name),
    )
}


class Gallery(NamedTuple):
    """Figures that were drawn, and why others were not.

    Attributes:
        drawn: In the order of `FIGURES`.
        refused: One sentence for each figure that could not be drawn, by its name.
        missing: Those that no run measured; with the paper's numbers they are drawn from those.
    """

    drawn: list[Drawn]
    refused: dict[str, str]
    missing: list[str]

    def objections(self) -> list[str]:
        """Return why figures that runs did measure were not drawn, or not with all of them."""
        said = [said for name, said in self.refused.items() if name not in self.missing]
        return said + [
            f"{drawn.figure.name} leaves out numbers of the runs: {drawn.left_out}"
            for drawn in self.drawn
            if drawn.measured and drawn.left_out
        ]

    def remarks(self) -> list[str]:
        """Return what is to be said of those that were drawn."""
        signs = sorted(set().union(*(drawn.unknown_signs for drawn in self.drawn)))
        if not signs:
            return []
        named = ", ".join(sign if sign.isprintable() else ascii(sign) for sign in signs)
        return [f"the font of the figures lacks {named}: boxes stand in their place"]

    def commands(self, drawn: bool = False) -> dict[str, list[str]]:
        """Return what would measure those that are missing: their names, by command.

        Args:
            drawn: Whether to return those that the paper's numbers stand in for, or the others.
        """
        names: dict[str, list[str]] = {}
        for name in self.missing:
            if (name in self.refused) == drawn:
                continue
            names.setdefault(FIGURES[name].command, []).append(name)
        return names


def draw_all(
    results: Results | None,
    only: Sequence[str] = (),
    paper: bool = False,
    style: Style = PAPER,
    formats: Sequence[str] = ("png",),
) -> Gallery:
    """Draw all figures, or some.

    Args:
        results: What `tables.read_runs` returns; None for the paper's own figures.
        only: Names of those that are wanted; all of them where it is empty.
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
        try:
            drawn = draw(figure, results, paper, style, formats)
            gallery.drawn.append(drawn)
            gallery.missing.extend([] if drawn.measured else [name])
        except NoData as error:
            gallery.refused[name] = str(error)
            gallery.missing.append(name)
        except ValueError as error:  # it shows nothing, damaged samples, two values for one point
            gallery.refused[name] = f"{name} is not drawn: {error}"
    return gallery

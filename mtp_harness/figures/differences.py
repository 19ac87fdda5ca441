"""Paired differences of two runs as a figure: a panel for each measure, a row for each place."""

import io
from collections.abc import Sequence
from itertools import groupby
from textwrap import fill
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure as Canvas

from mtp_harness.figures import words
from mtp_harness.figures.style import GREY, LOOKS, MPLSTYLE

ROW, REST = 0.16, 0.62
"""Height of a row, and of a panel beside its rows, inches."""


class Difference(NamedTuple):
    """One difference, in the measure's own unit; shares are not percentages."""

    measure: str
    place: str  # task, category and offset
    value: float
    low: float
    high: float


def draw(differences: Sequence[Difference], title: str, kind: str) -> bytes:
    """Return the figure as a file of a kind, such as png."""
    ordered = sorted(differences, key=lambda one: one.measure)
    panels = [(name, list(own)) for name, own in groupby(ordered, lambda one: one.measure)]
    with matplotlib.rc_context(fname=MPLSTYLE):
        tall = [REST + ROW * len(own) for _, own in panels]
        canvas = Canvas(figsize=(5.5, sum(tall) + 0.4), layout="constrained")
        canvas.suptitle(fill(title, 90), fontsize=6.5)
        grid = canvas.subplots(len(panels), 1, squeeze=False, height_ratios=tall)
        for axes, (measure, own) in zip(grid[:, 0], panels, strict=True):
            places = range(len(own), 0, -1)
            for place, one in zip(places, own, strict=True):
                axes.plot([one.low, one.high], [place, place], color=LOOKS[2][0], linewidth=1)
                axes.plot([one.value], [place], "o", color=LOOKS[2][0], markersize=3)
            axes.axvline(0, color=GREY, linewidth=0.6)
            axes.set_yticks(list(places), [one.place for one in own])
            axes.set_ylim(0.4, len(own) + 0.6)
            axes.set_xlabel(f"{words.metric(measure).replace(' (%)', '')}: candidate minus base")
        held = io.BytesIO()
        canvas.savefig(held, format=kind)
    return held.getvalue()

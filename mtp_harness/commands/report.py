"""`mtp-harness report RESULTS -o report.html`: one page with everything in it."""

import base64
import csv
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtp_harness.commands.arguments import Parser
from mtp_harness.files import write_whole

if TYPE_CHECKING:
    from mtp_harness.report.page import Figure


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status.

    Raises:
        ValueError: A file cannot be read.
    """
    given = _parser().parse_args(argv)
    if given.documents < 1:
        raise ValueError(f"--documents {given.documents}, expected a whole number from 1")
    from mtp_harness.leaderboard.table import build
    from mtp_harness.report import drafts, page
    from mtp_harness.results import run

    found = run.find(given.results)
    board = build(found, given.baseline)
    figures, refused = _figures(given.results)
    output = given.output
    beside = output.with_name(f"{output.stem}-drafts{output.suffix}")
    of_drafts = drafts.render(board, figures, output.name)
    named = None if of_drafts is None else beside.name
    whole = page.render(found, board, figures, refused, given.title, given.documents, named)
    for place, text in ((output, whole), (beside, of_drafts)):
        if text is not None:
            written = text.encode("utf-8", "replace")  # a label may hold half a character
            write_whole(place, written)
            runs = f"{len(found)} run{'s' * (len(found) != 1)}"
            sys.stdout.write(f"{place}: {runs}, {len(written) / 1e6:.1f} MB\n")
    return 0


def _figures(results: Sequence[str]) -> tuple[list["Figure"], list[str]]:
    """Return the figures that these results give, and why the others are missing."""
    from mtp_harness.figures.catalogue import draw_all  # with pandas and matplotlib
    from mtp_harness.report.page import Figure
    from mtp_harness.results.tidy import read_runs

    gallery = draw_all(read_runs(results), formats=["svg"])
    figures = []
    for drawn in gallery.drawn:
        if drawn.figure.is_diagram:
            continue  # it shows nothing of these runs
        picture = base64.b64encode(drawn.pictures["svg"]).decode()
        columns, *rows = csv.reader(drawn.csv.splitlines())
        uri = f"data:image/svg+xml;base64,{picture}"
        figures.append(Figure(drawn.figure.name, uri, drawn.figure.caption, columns, rows))
    commands = gallery.commands().items()
    return figures, [
        *gallery.objections(),
        *gallery.remarks(),
        *(f"{', '.join(names)}: run {command}" for command, names in commands),
    ]


def _parser() -> Parser:
    parser = Parser(
        "report",
        "Make one page of results: scores, every document's answers coloured by head, figures with "
        "their tables, the paper's claims, provenance. It opens from a file and needs no network; "
        "text that models wrote is shown as text and never runs.",
        "results/ -o report.html",
    )
    parser.results()
    about = "file to write (default: %(default)s)"
    parser.path("-o", "--output", default="report.html", about=about)
    parser.baseline()
    parser.add_argument("--title", help="title of the page (default: its models and tasks)")
    about = "documents of each task to show; the others are only counted"
    parser.number("--documents", 200, about, metavar="N")
    return parser

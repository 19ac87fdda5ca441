"""`mtp-harness figures RESULTS -o OUT`: the paper's figures with your numbers.

mtp-harness figures results/ -o figures/
mtp-harness figures results/ -o figures/ --paper --only fig_s10,table_1 --format png,pdf
mtp-harness figures --paper-only -o paper/
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtp_harness.commands.arguments import Parser
from mtp_harness.files import write_whole

if TYPE_CHECKING:
    from mtp_harness.figures.catalogue import Gallery

FORMATS = ("png", "pdf", "svg")


def _parser() -> Parser:
    parser = Parser(
        "figures",
        "Draw the paper's figures and tables, and some of our own, from results of lm_eval, each "
        "with its data as CSV. A figure without data is left out, or shows the paper's numbers "
        "alone, and the command that measures it is named.",
        "results/ -o figures/ --paper --only fig_s10,table_1",
    )
    parser.results(nargs="*")
    parser.path("-o", "--out", required=True, about="folder for the figures")
    about = "figures to draw, by name (default: all)"
    parser.add_argument("--only", default="", metavar="NAME,…", help=about)
    parser.add_argument("--format", default="png", help="png, pdf, svg (default: png at 300 dpi)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--paper",
        action="store_true",
        help="add the paper's numbers, in a paler colour; a figure without data of yours shows "
        "them alone (default: your numbers only)",
    )
    which.add_argument(
        "--paper-only",
        action="store_true",
        help="draw the paper's numbers, without results (default: draw results)",
    )
    about = "colours that colour-blind readers can tell apart (default: the paper's colours)"
    parser.switch("--colour-blind", about)
    about = "also log the runs and figures in MLflow (default: no)"
    parser.add_argument("--mlflow", metavar="URI", help=about)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; return 1 if nothing was drawn, or a figure that --only names was not.

    Raises:
        FileNotFoundError: There are no results.
        ValueError: An argument is invalid.
    """
    given = _parser().parse_args(argv)
    formats, only = _listed(given.format), _listed(given.only)
    if unknown := [kind for kind in formats if kind not in FORMATS]:
        raise ValueError(f"--format {unknown[0]}, expected png, pdf or svg, with commas between")
    if not formats:
        raise ValueError("--format is empty, expected png, pdf or svg, with commas between")
    if not given.results and not given.paper_only:
        raise ValueError("no results: name results_….json or folders of them, or use --paper-only")
    if given.results and given.paper_only:
        raise ValueError("--paper-only draws no results: leave them out, or use --paper")
    if given.only and not only:
        raise ValueError(f"--only {given.only} names no figure: name some, or leave it out")

    from mtp_harness.figures import style
    from mtp_harness.figures.catalogue import draw_all
    from mtp_harness.results.tidy import read_runs
    from mtp_harness.results.tracking import log_run

    results = None if given.paper_only else read_runs(given.results)
    palette = style.COLOUR_BLIND if given.colour_blind else style.PAPER
    gallery = draw_all(results, only, given.paper, palette, formats)
    written = write(gallery, given.out)
    sys.stdout.write(summary(gallery, given.out))
    for problem in [*(results.problems if results else ()), *gallery.remarks()]:
        sys.stderr.write(f"{problem}\n")
    if given.mlflow and written:
        files = [file.path for file in results.files.values()] if results else []
        ids = log_run(given.mlflow, files, written)
        sys.stdout.write(f"logged as {len(ids)} runs in {given.mlflow}\n")
    return 1 if not gallery.drawn or (only and gallery.refused) else 0


def _listed(given: str) -> list[str]:
    """Return the names between commas, each once."""
    return list(dict.fromkeys(name for name in map(str.strip, given.split(",")) if name))


def write(gallery: Gallery, folder: Path) -> list[Path]:
    """Write each figure and the table that it shows, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for drawn in gallery.drawn:
        for kind, content in {"csv": drawn.csv.encode(), **drawn.pictures}.items():
            written.append(folder / f"{drawn.figure.name}.{kind}")
            write_whole(written[-1], content)
    return written


def summary(gallery: Gallery, folder: Path) -> str:
    """Return what was drawn and what was not, with the commands that measure it."""
    names = [drawn.figure.name for drawn in gallery.drawn]
    lines = [f"{len(names)} drawn into {folder}: {', '.join(names) or 'none'}"]
    lines += gallery.objections()
    for drawn, what in ((True, "show the paper alone"), (False, "not drawn")):
        commands = gallery.commands(drawn)
        if missing := sum(map(len, commands.values())):
            lines.append(f"{missing} {what}, because no run measured them:")
        lines += [f"  {', '.join(own)}: run {command}" for command, own in commands.items()]
    if gallery.paper_has():
        lines.append("  --paper-only draws those of the paper from its own numbers.")
    return "\n".join(lines) + "\n"

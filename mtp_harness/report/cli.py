"""`mtp-harness report RESULTS -o report.html`: one page with everything in it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mtp_harness.leaderboard import runs
from mtp_harness.leaderboard.table import build
from mtp_harness.report.page import render

DOCUMENTS = 200


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Its arguments.

    Raises:
        ValueError: A file cannot be read.
    """
    given = _parser().parse_args(argv)
    found = runs.find(given.results)
    page = render(found, build(found, given.baseline), [], [], given.title, given.documents)
    written = page.encode("utf-8", "replace")  # a label may hold half a character
    Path(given.output).write_bytes(written)
    sys.stdout.write(f"{given.output}: {len(found)} runs, {len(written) / 1e6:.1f} MB\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtp-harness report",
        description="Make one page of results: leaderboard, claims, figures with their tables, "
        "every document's answers coloured by head, provenance. It needs no network and opens from "
        "a file; what models wrote is shown as text and cannot run.",
    )
    parser.add_argument("results", nargs="+", help="results_….json files, or folders of them")
    parser.add_argument("-o", "--output", default="report.html", help="default: report.html")
    parser.add_argument("--baseline", help="row to show paired differences to, by label or name")
    parser.add_argument("--title", default="Multi-token prediction, evaluated")
    parser.add_argument(
        "--documents",
        type=int,
        default=DOCUMENTS,
        metavar="N",
        help=f"documents of each task in the page, the others are counted (default: {DOCUMENTS})",
    )
    return parser

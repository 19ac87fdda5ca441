"""`mtp-harness compare BASE CANDIDATE`: what changed between two runs, paired by document.

mtp-harness compare base/ tuned/
mtp-harness compare base/ tuned/ --require "code accuracy 2 >= -0.01" -o changes.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtp_harness.commands.arguments import Parser
from mtp_harness.files import write_whole

if TYPE_CHECKING:
    from mtp_harness.leaderboard.compare import Comparison, Requirement

KINDS = (".png", ".pdf", ".svg")


def main(argv: Sequence[str]) -> int:
    """Run the command; return 1 if a required difference is not reached.

    Raises:
        FileNotFoundError: A folder holds no results.
        ValueError: The runs cannot be compared, or an argument is invalid.
    """
    given = _parser().parse_args(argv)
    if given.figure and given.figure.suffix not in KINDS:
        raise ValueError(
            f"--figure {given.figure}, expected a name that ends in {', '.join(KINDS)}"
        )
    from mtp_harness.leaderboard.compare import compare, lines, require
    from mtp_harness.results import run

    found = compare(run.find([given.base]), run.find([given.candidate]))
    required = [one for text in given.require for one in require(found, text)]
    sys.stdout.write("".join(f"{line}\n" for line in lines(found, required)))
    if given.output:
        write_whole(given.output, _json(found, required))
    if given.figure:
        _draw(found, given.figure)
    return 0 if all(one.holds for one in required) else 1


def _json(found: "Comparison", required: Sequence["Requirement"]) -> str:
    rows = [
        {**row._asdict(), "difference": row.difference, "change": row.change} for row in found.rows
    ]
    asked = [
        {"require": one.text, "holds": one.holds, "end": one.end, "names": one.row.names}
        for one in required
    ]
    content = found._asdict() | {"rows": rows, "required": asked}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _draw(found: "Comparison", path: Path) -> None:
    from mtp_harness.figures.differences import Difference, draw

    differences = [
        Difference(
            row.measure,
            " ".join(name for name in row.names if name not in ("", row.measure)),
            row.difference,
            row.low,
            row.high,
        )
        for row in found.rows
        if row.low is not None and row.high is not None
    ]
    if not differences:
        raise ValueError("--figure: no difference has an interval: run both with --log_samples")
    title = (
        f"{found.candidate} minus {found.base}: paired differences, 90 % intervals over documents"
    )
    write_whole(path, draw(differences, title, path.suffix[1:]))


def _parser() -> Parser:
    parser = Parser(
        "compare",
        "Compare two runs of the same tasks, such as a checkpoint before and after training: the "
        "difference of every score by task, category and offset, with 90 % intervals by bootstrap "
        "over documents, paired. Both need --log_samples.",
        'base/ tuned/ --require "code accuracy 2 >= -0.01"',
    )
    parser.add_argument("base", help="results_….json of the run to compare with, or its folder")
    parser.add_argument("candidate", help="the same of the run that should be better")
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="'NAMES >= NUMBER'",
        help="exit with status 1 unless the interval's lower end (with <=: its upper end) reaches "
        "the number; may be given several times (default: nothing is required)",
    )
    about = "write all of it into this JSON file (default: the table alone)"
    parser.path("-o", "--output", about=about)
    about = "draw the differences: .png, .pdf or .svg (default: no figure)"
    parser.path("--figure", about=about)
    return parser

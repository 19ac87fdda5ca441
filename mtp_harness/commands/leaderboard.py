"""`mtp-harness leaderboard RESULTS`: models and tasks in one table, from result files."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mtp_harness.commands.arguments import Parser
from mtp_harness.files import write_whole

FORMATS = ("terminal", "markdown", "csv", "json", "latex")


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status.

    Raises:
        ValueError: Runs cannot be compared, or a file cannot be read.
    """
    given = _parser().parse_args(argv)
    from mtp_harness.leaderboard.claims import judge
    from mtp_harness.leaderboard.render import FORMATS, plain_json
    from mtp_harness.leaderboard.table import build
    from mtp_harness.results import run

    found = run.find(given.results)
    board = build(found, given.baseline)
    if conflicts := board.conflicts():
        raise ValueError(
            f"{'; '.join(conflicts)}. Expected runs that differ in their models alone: name the "
            "files or folders that belong together"
        )
    claims = judge(board) if given.claims else []
    written = FORMATS[given.format](board, claims)
    if given.output:
        write_whole(given.output, written)
    else:
        sys.stdout.write(written)
    if given.mlflow:
        from mtp_harness.results.tracking import log_run

        with tempfile.TemporaryDirectory() as folder:
            artifact = Path(folder) / "leaderboard.json"
            write_whole(artifact, plain_json(board, claims))
            log_run(given.mlflow, [run.path for run in found], [artifact])
    return 0


def _parser() -> Parser:
    parser = Parser(
        "leaderboard",
        "Show models and tasks in one table, with 90 % intervals by bootstrap over documents, and "
        "speed beside quality. A task at several temperatures has one table for each. Runs that "
        "differ in task version, documents, prompts, number of samples, top-p, stops, budget, "
        "draft rule or dtype are refused.",
        "results/ --baseline n1 --format markdown",
    )
    parser.results()
    parser.baseline()
    parser.switch(
        "--claims",
        "add the paper's claims, and whether these runs agree, disagree, are inconclusive or "
        "cannot be compared with the paper's models or machines (default: no claims)",
    )
    about = "of the table (default: terminal)"
    parser.add_argument("--format", choices=FORMATS, default="terminal", help=about)
    parser.path("-o", "--output", about="file for the table (default: the terminal)")
    about = "also log runs and leaderboard in MLflow (default: no)"
    parser.add_argument("--mlflow", metavar="URI", help=about)
    return parser

"""`mtp-harness choice RESULTS`: the plain mean over the seven tasks of figure 5."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtp_harness.commands import view
from mtp_harness.scoring.choice_metrics import METRICS

if TYPE_CHECKING:
    from mtp_harness.leaderboard.choice import Row


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Its arguments.
    """
    about = "Print the plain mean over the seven tasks of mtp_choice (figure 5)."
    given = view.parse(argv, "choice", about, "results_….json")
    from mtp_harness.leaderboard.choice import table

    rows = table(given.results)
    view.show(map(_line, rows), rows, given.json)
    return 0


def _line(row: "Row") -> str:
    step = "" if row.train_step is None else f" step {row.train_step}"
    scores = "  ".join(f"{task} {row.scores[task]:.2%}" for task in METRICS if task in row.scores)
    mean = f"no mean of 7: {', '.join(row.missing)} missing"
    if row.mean is not None:
        mean = f"mean of 7 {row.mean:.2%}"
    limited = f"  run with --limit: {', '.join(row.limited)}" if row.limited else ""
    return f"{row.model}{step}  {mean}  ({scores}; head 1 only){limited}"

"""`mtp-harness choice RESULTS`: the plain mean over the seven tasks of figure 5."""

from collections.abc import Sequence

from mtp_harness.commands import view


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    about = "Print the plain mean over the seven tasks of mtp_choice (figure 5)."
    given = view.parse(argv, "choice", about, "results_….json", "results/")
    from mtp_harness.leaderboard.choice import lines, table

    rows = table(given.results)
    view.show(lines(rows), rows, given.json)
    return 0

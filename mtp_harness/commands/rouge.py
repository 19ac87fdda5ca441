"""`mtp-harness rouge RESULTS`: all ROUGE scores with their intervals, from samples files."""

from collections.abc import Sequence

from mtp_harness.commands import view


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    about = "Print ROUGE with 90 % intervals over documents."
    given = view.parse(argv, "rouge", about, "samples_….jsonl", "results/ --json rouge.json")
    from mtp_harness.data.summarization import BENCHMARKS
    from mtp_harness.leaderboard.summaries import lines, table
    from mtp_harness.results import samples

    rows = table(samples.find(given.results), [f"{name}_mtp" for name in BENCHMARKS])
    view.show(lines(rows), rows, given.json)
    return 0

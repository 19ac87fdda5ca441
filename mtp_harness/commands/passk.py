"""`mtp-harness passk RESULTS`: pass@k over several temperatures, from samples files."""

from collections.abc import Sequence

from mtp_harness.commands import view


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    given = view.parse(
        argv,
        "passk",
        "Score pass@k over several temperatures.",
        "samples_….jsonl",
        "results/ --k 1,10,100 --baseline 7B_n1",
        k="samples per problem, such as 1,10,100 (default: those that the runs asked for)",
        baseline="label of the model that gains are counted from (default: no gains)",
    )
    from mtp_harness.leaderboard.temperatures import lines, read_answers, score
    from mtp_harness.results import samples
    from mtp_harness.scoring.pass_at_k import KS, read_ks

    asked = read_ks(given.k) if given.k is not None else ()
    found = read_answers(samples.find(given.results))
    ks = asked or sorted(frozenset().union(*(one.ks for one in found))) or KS
    rows = score(found, ks, given.baseline)
    left_out = [
        f"pass@{k} is left out: no task has {k} judged answers per problem"
        for k in sorted({*ks} - {row.k for row in rows})
    ]
    view.show([*lines(rows), *left_out], rows, given.json)
    return 0

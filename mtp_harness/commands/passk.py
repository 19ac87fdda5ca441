"""`mtp-harness passk RESULTS`: pass@k over several temperatures, from samples files."""

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

from mtp_harness.commands import view

if TYPE_CHECKING:
    from mtp_harness.leaderboard.temperatures import Row


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Its arguments.
    """
    given = view.parse(
        argv,
        "passk",
        "Score pass@k over several temperatures.",
        "samples_….jsonl",
        k="such as 1,10,100; by default those of the samples",
        baseline="model (folder name) that gains are over",
    )
    from mtp_harness.leaderboard.temperatures import read_answers, score
    from mtp_harness.results import samples
    from mtp_harness.scoring.pass_at_k import KS, read_ks

    asked = read_ks(given.k) if given.k is not None else ()
    found = read_answers(samples.find(given.results))
    ks = asked or sorted(frozenset().union(*(one.ks for one in found))) or KS
    rows = score(found, ks, given.baseline)
    lines = [_line(row) for row in rows]
    lines += [
        f"pass@{k} is left out: no task has {k} judged answers per problem"
        for k in sorted({*ks} - {row.k for row in rows})
    ]
    view.show(lines, rows, given.json)
    return 0


def _line(row: "Row") -> str:
    from mtp_harness.leaderboard.text import spanned

    tried = ", ".join(f"{t:g}" for t in row.temperatures)
    if row.best is None:
        at = f"at the best of T={tried}, which several temperatures share"
    elif len(row.temperatures) == 1:
        at = f"at T={tried}"
    else:
        at = f"at T={row.best:g} (oracle of {tried})"
    score = spanned(row.score, "{:.2%}".format)
    text = f"{row.model}  {row.task}  pass@{row.k}  {score} {at}"
    if not isnan(row.honest):
        text += f"  honest {row.honest:.2%}"
    if row.gain is not None:
        text += f"  gain {spanned(row.gain, '{:.2%}'.format)}"
    return f"{text}  n={row.n_samples}, {row.n_problems} problems"

"""`mtp-harness rouge RESULTS`: all ROUGE scores with their intervals, from samples files.

Source: Gloeckle et al. 2024, tables S8 to S10. Those models were finetuned on each benchmark.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mtp_harness.commands import view

if TYPE_CHECKING:
    from mtp_harness.leaderboard.summaries import Row


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Its arguments.
    """
    about = "Print ROUGE with 90 % intervals over documents."
    given = view.parse(argv, "rouge", about, "samples_….jsonl")
    from mtp_harness.data.summarization import BENCHMARKS
    from mtp_harness.leaderboard.summaries import table
    from mtp_harness.results import samples

    rows = table(samples.find(given.results), [f"{name}_mtp" for name in BENCHMARKS])
    view.show(_lines(rows), rows, given.json)
    return 0


def _lines(rows: "Sequence[Row]") -> Iterator[str]:
    """Yield the table; scores in percent, as the paper has them."""
    from mtp_harness.leaderboard.text import aligned, spanned
    from mtp_harness.scoring.rouge import ASCII, ASPECTS, SCORES, TYPES, UNICODE

    labels = {ASCII: "ASCII tokens, the paper's reading", UNICODE: "Unicode tokens"}
    found = {row[:3]: row for row in rows}
    for model, task in dict.fromkeys(row[:2] for row in rows):
        for suffix, label in labels.items():
            first = found[model, task, SCORES[0]]
            yield f"{model}  {task}  {first.n_documents} documents, {label}"
            cells = [["", *ASPECTS]]
            for kind in TYPES:
                scores = [
                    found[model, task, f"{kind}_{aspect}{suffix}"].score for aspect in ASPECTS
                ]
                cells.append([f"  {kind}", *(spanned(score, _percent) for score in scores)])
            yield aligned(cells, gap="", least=(12, 22, 22, 22))
            yield ""
    yield "in percent, with 90 % intervals; the paper finetuned its models on each benchmark:"
    yield "beside its tables S8 to S10, zero- and few-shot results are another protocol"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"

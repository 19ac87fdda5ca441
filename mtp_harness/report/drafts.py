"""The page of drafts: its figures, and the documents in which most drafts were rejected."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtp_harness import __version__
from mtp_harness.leaderboard.table import Leaderboard
from mtp_harness.report.page import Figure, environment, hash_of, style_sheet
from mtp_harness.results.run import Run
from mtp_harness.results.samples import arguments_of, read

TASK = "mtp_drafts"
FIGURES = ("fig_drafts_fail", "fig_calibration", "fig_threshold")

MOST = 20
"""Documents shown of a run."""

LEAST = 16
"""Tokens of an answer that is shown: those of shorter ones say little."""


def render(board: Leaderboard, figures: Sequence[Figure], report: str) -> str | None:
    """Return the page, or None where no run measured drafts.

    Args:
        board: Of the report; its runs whose samples are damaged are not in it.
        figures: All of the report; it has those of drafts.
        report: Name of the report's file beside it.

    Raises:
        ValueError: Samples are damaged.
    """
    runs = [run for (task, _), one in board.boards.items() if task == TASK for run in one.runs]
    if not runs:
        return None
    style = style_sheet()
    names = dict.fromkeys(run.model.name for run in runs)
    return (
        environment()
        .get_template("drafts.html.j2")
        .render(
            title=", ".join(names),
            version=__version__,
            style=style,
            style_hash=hash_of(style),
            report=report,
            figures=[figure for figure in figures if figure.name in FIGURES],
            runs=[_shown(run) for run in runs],
            most=MOST,
            least=LEAST,
        )
    )


def _shown(run: Run) -> dict[str, Any]:
    path = run.samples(TASK)
    found = [] if path is None else worst(_documents(path, read(path)))
    told = "Its samples hold no texts."
    if path is None:
        told = "It saved no answers: run it again with --log_samples to see them here."
    return {"model": run.model.name, "documents": found, "without": told}


def worst(documents: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the documents with the fewest tokens per forward, the worst first."""
    long = [one for one in documents if one["n_tokens"] >= LEAST]
    return sorted(long, key=lambda one: (one["tokens_per_forward"], one["name"]))[:MOST]


def _documents(path: Any, samples: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what is shown of each document; nothing of those whose texts were left out."""
    for sample in samples:
        told = sample.get("n_documents")
        if not isinstance(told, Mapping):
            continue
        try:
            pieces = [(int(head), str(text)) for head, text in told["pieces"]]
            kept, n_steps = told["kept"], told["walks"][-1][0][0]
            yield {
                "name": str(told["name"]),
                "category": str(told["data_set"]),
                "n_tokens": kept + 1,
                "tokens_per_forward": kept / n_steps if n_steps else 0.0,
                "looping": bool(told["looping"]),
                "prompt": str(arguments_of(sample)[0] or ""),
                "pieces": pieces,
            }
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(
                f"{path} has a document that mtp_drafts does not write ({error}), expected its "
                "samples: run again"
            ) from None

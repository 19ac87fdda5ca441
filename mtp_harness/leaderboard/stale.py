"""Did finetuning make the heads stale? Two checkpoints of `mtp_heads`, head by head.

A head is stale where it agrees less than before with what head 1 would say (`tf_agree`): its drafts
no longer pass. With [low, high] the 90 % intervals over documents that the task writes,

    stale    the tuned model's high lies below the baseline's low
    fresh    its low lies above the baseline's high
    alike    the two intervals meet
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from mtp_harness.leaderboard.runs import Run
from mtp_harness.leaderboard.table import Leaderboard

TASK, TABLE = "mtp_heads", "by_offset"
AGREEMENT = "tf_agree"


class Head(NamedTuple):
    """One head of a tuned model beside the baseline's.

    Attributes:
        model: The tuned model.
        data_set: What both read.
        offset: The head, from 2 on.
        before: The baseline's agreement with its own head 1.
        after: The tuned model's.
        verdict: `stale`, `fresh` or `alike`.
    """

    model: str
    data_set: str
    offset: int
    before: float
    after: float
    verdict: str

    def __str__(self) -> str:
        """Return the line that is printed."""
        return (
            f"{self.model}, head {self.offset} on {self.data_set}: agrees with head 1 on "
            f"{self.after:.3f} of tokens, {self.before:.3f} before: {self.verdict}"
        )


def heads(board: Leaderboard) -> list[Head]:
    """Return every head of the models beside the baseline; none without a baseline."""
    found: list[Head] = []
    for (task, _), one in board.boards.items():
        base = next((run for run, _ in one.runs if run.model == board.baseline), None)
        if task == TASK and base is not None:
            before = dict(_agreements(base))
            for run, _ in one.runs:
                if run is not base:
                    found += _beside(run, before)
    return found


def _beside(run: Run, before: dict[tuple[str, int], dict[str, Any]]) -> Iterator[Head]:
    for (data_set, offset), row in _agreements(run):
        old = before.get((data_set, offset))
        if old is None:
            continue
        stale, fresh = row["high"] < old["low"], row["low"] > old["high"]
        verdict = "stale" if stale else "fresh" if fresh else "alike"
        yield Head(run.model.name, data_set, offset, old["value"], row["value"], verdict)


def _agreements(run: Run) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
    for row in run.table(TASK, TABLE):
        known = None not in (row["offset"], row["value"], row["low"], row["high"])
        if row["metric"] == AGREEMENT and known and row["offset"] > 1:
            yield (str(row["data_set"]), int(row["offset"])), row

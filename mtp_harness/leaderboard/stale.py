"""Did finetuning make the heads stale? Two checkpoints of `mtp_heads`, head by head.

A head is stale where it agrees less than before with what head 1 would say (`tf_agree`): its drafts
no longer pass. The difference is paired by document; with [low, high] its 90 % interval,

    stale    high lies below 0
    fresh    low lies above 0
    alike    the interval holds 0
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from mtp_harness.leaderboard.board import Board
from mtp_harness.leaderboard.table import Leaderboard

TASK = "mtp_heads"
AGREEMENT = re.compile(r"(?P<data_set>.+)_tf_agree_(?P<offset>\d+)")


class Head(NamedTuple):
    """One head of a tuned model beside the baseline's."""

    model: str  # the tuned one
    data_set: str  # what both read
    offset: int  # the head, from 2 on
    before: float  # the baseline's agreement with its own head 1
    after: float  # the tuned model's
    low: float  # of the 90 % interval of after - before
    high: float
    verdict: str  # `stale`, `fresh` or `alike`

    def __str__(self) -> str:
        """Return the line that is printed."""
        return (
            f"{self.model}, head {self.offset} on {self.data_set}: agrees with head 1 on "
            f"{self.after:.3f} of tokens, {self.before:.3f} before "
            f"({self.after - self.before:+.3f} [{self.low:+.3f}, {self.high:+.3f}]): {self.verdict}"
        )


def heads(board: Leaderboard) -> list[Head]:
    """Return every head of the models beside the baseline; none without a baseline."""
    found: list[Head] = []
    for (task, _), one in board.boards.items():
        models = [run.model for run in one.runs]
        if task == TASK and board.baseline in models:
            base = models.index(board.baseline)
            for place in range(len(models)):
                found += _beside(one, place, base) if place != base else ()
    return found


def _beside(board: Board, place: int, base: int) -> Iterator[Head]:
    model, before = board.runs[place].model.name, board.metrics(base)
    for name, after in board.metrics(place).items():
        named = AGREEMENT.fullmatch(name[0])
        change = board.difference((place, *name), base) if named else None
        if named and change:
            of = (model, named["data_set"], int(named["offset"]))
            verdict = "stale" if change.high < 0 else "fresh" if change.low > 0 else "alike"
            yield Head(*of, before[name], after, change.low, change.high, verdict)

"""Removes what a reasoning model thinks before it answers.

    <think>A draft.</think>The answer.     →  The answer.
    A draft.</think>The answer.            →  The answer.    (the prompt opened the block)
    <think>A draft                         →  empty, and counted as truncated
    A draft                                →  the same, after a prompt that ends in <think>

Everything up to the last `</think>` is removed, with the empty lines after it. A model of the
harness with `think_end_token` has done so already; its answers are truncated if they still have an
opening tag, or if the token budget ended them inside a block that the prompt opened and the decode
record shows that nothing was removed.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self

from mtp_harness.decode.records import DecodeRecord
from mtp_harness.results.samples import arguments_of

TRUNCATED = "n_truncated_answers"
"""The metric: answers that end inside their thinking. They count as empty."""

_OPEN, _CLOSE = "<think>", "</think>"
_OPENING = re.compile(rf"^[^\"'`\n]*{_OPEN}", re.MULTILINE)  # but not one in a string of code
_EMPTY_LINES = re.compile(r"\A(?:[ \t]*\r?\n)+")


class Judgement(Protocol):
    """The outcome of one answer: the sandbox's `Verdict`, or another task's own."""

    @property
    def outcome(self) -> str:
        """`pass`, `fail`, or `error` if it could not be judged."""

    def _asdict(self) -> dict[str, Any]: ...


class FinalText(str):
    """An answer without the thinking before it."""

    truncated: bool  # whether the thinking never ended; then the answer is empty
    record: DecodeRecord | None  # how it was decoded; None if nothing was recorded
    verdict: Judgement | None = None  # None if it was not judged

    def __new__(cls, text: str, truncated: bool, record: DecodeRecord | None) -> Self:
        """Return the text with its record and verdict."""
        self = super().__new__(cls, text)
        self.truncated, self.record = truncated, record
        return self

    def described(self) -> dict[str, Any]:
        """Return how it was decoded, as plain JSON values."""
        return {"decode": None if self.record is None else self.record.as_dict()}

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Pickle as a plain string: ranks exchange answers after they have been scored."""
        return str, (str.__str__(self),)


def without_thinking(answer: str, opened: bool) -> FinalText:
    """Return an answer's final text, with its decode record.

    Args:
        answer: What the model wrote.
        opened: Whether it began inside a block that the prompt had opened.
    """
    record = getattr(answer, "record", None)
    _, closed, rest = answer.rpartition(_CLOSE)
    if (opened and not closed) or (_OPEN in rest and _OPENING.search(rest)):
        return FinalText("", True, record)
    return FinalText(_EMPTY_LINES.sub("", rest) if closed else rest, False, record)


def opens_thinking(prompt: object) -> bool:
    """Return whether a prompt ends in an opening tag, as some chat templates do."""
    return isinstance(prompt, str) and prompt.rstrip().endswith(_OPEN)


def cut_off_by_budget(answer: str) -> bool:
    """Return whether the budget ended an answer that `think_end_token` has not cut."""
    record = getattr(answer, "record", None)
    return record is not None and record.ended_by == "length" and record.n_characters is not None


def n_truncated(results: Iterable[Iterable[str]]) -> int:
    """Return how many of a document's answers, as the harness gives them, are truncated."""
    return sum(getattr(answer, "truncated", False) for answers in results for answer in answers)


def final_texts(sample: Mapping[str, Any], answers: list[str]) -> list[FinalText]:
    """Return a sample's answers without their thinking.

    A run that counted truncated answers knew whether its model had removed the thinking: the text
    that is left is then no thinking, even if the prompt opened a block.
    """
    opened = "arguments" in sample and opens_thinking(arguments_of(sample)[0])
    counted = sample["filtered_resps"] if TRUNCATED in sample else []
    kept = iter([answer for some in counted for answer in some])
    return [without_thinking(answer, opened and not next(kept, "")) for answer in answers]

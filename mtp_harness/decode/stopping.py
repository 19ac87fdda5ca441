"""Where an answer ends: EOS, stop strings and the token budget, token by token.

A step may emit several tokens; the answer ends at the same token as in plain decoding, even if that
token is inside the step.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Ending(NamedTuple):
    """How many of the new tokens belong to the answer, and what ended it."""

    n_kept: int
    """All new tokens if nothing ended it."""
    ended_by: str
    """`eos`, `stop`, `length`, or empty if the answer continues."""


class Stopping:
    """Decides where one answer ends.

    Stop strings are searched in a window of the last tokens: long enough for the longest stop
    string (a token has at least one byte, special tokens aside), and the new ones.
    """

    def __init__(
        self,
        eos: Sequence[int],
        until: Sequence[str],
        max_new_tokens: int,
        to_text: Callable[[list[int]], str],
        last_prompt_token: int | None = None,
    ) -> None:
        """Store the rules; empty stop strings are ignored.

        `last_prompt_token` is the token before the answer, see `continuation_text`.
        """
        self.eos = frozenset(eos)
        self.until = [stop for stop in until if stop]
        self.budget = max_new_tokens
        self.to_text = to_text
        self.last_prompt_token = last_prompt_token
        # Four more tokens: the window may begin inside a character.
        self.look_back = max((len(stop.encode()) for stop in self.until), default=0) + 4

    def end(self, before: list[int], new: list[int]) -> Ending:
        """Return how much of `new` belongs to the answer, given its tokens `before`."""
        limit = min(len(new), self.budget - len(before))
        n_eos = next((i + 1 for i in range(limit) if new[i] in self.eos), limit + 1)
        n_stop = self._first_stop(before, new[: min(limit, n_eos)])
        if n_stop <= min(limit, n_eos):
            return Ending(n_stop, "eos" if n_stop == n_eos else "stop")
        if n_eos <= limit:
            return Ending(n_eos, "eos")
        return Ending(limit, "length" if len(before) + limit == self.budget else "")

    def _first_stop(self, before: list[int], new: list[int]) -> int:
        """Return how many of `new` complete a stop string; len + 1 if none does."""
        start = max(0, len(before) - self.look_back)
        previous = before[start - 1] if start else self.last_prompt_token
        tail = before[start:]
        if self.until and self._has_stop(previous, tail + new):
            for count in range(1, len(new) + 1):
                if self._has_stop(previous, tail + new[:count]):
                    return count
        return len(new) + 1

    def _has_stop(self, previous: int | None, tokens: list[int]) -> bool:
        text = continuation_text(self.to_text, previous, tokens)
        return any(stop in text for stop in self.until)


def continuation_text(
    to_text: Callable[[list[int]], str], previous: int | None, tokens: list[int]
) -> str:
    """Return the text of `tokens` as the continuation of the token before them, if there is one.

    Decoded alone, SentencePiece tokens lose their leading space: an indented line would have one
    space too few.
    """
    if previous is None:
        return to_text(tokens)
    before = to_text([previous])
    both = to_text([previous, *tokens])
    return both[len(before) :] if both.startswith(before) else to_text(tokens)

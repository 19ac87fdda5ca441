"""Which characters of an answer's text each of its tokens wrote."""

from collections.abc import Callable
from itertools import pairwise
from os.path import commonprefix

from mtp_harness.decode.stopping import continuation_text


class TokenLengths:
    """Counts the characters that each token of an answer adds to its text.

    A character that several tokens write together belongs to the last of them.
    """

    def __init__(self, to_text: Callable[[list[int]], str]) -> None:
        self.to_text = to_text
        self._alone: dict[tuple[int, int], str] = {}

    def __call__(self, previous: int, tokens: list[int]) -> tuple[int, ...] | None:
        """Return one count per token, or None where they do not sum to the text's length.

        `previous` is the last token of the prompt.
        """
        text = continuation_text(self.to_text, previous, tokens)
        pieces = [self.text_alone(previous, token) for token in tokens]
        if "".join(pieces) == text:  # nearly always, and it decodes each token once
            return tuple(map(len, pieces))
        ends = self._ends(text, previous, tokens)
        if ends[-1] != len(text):
            return None
        return tuple(end - start for start, end in pairwise(ends))

    def text_alone(self, previous: int, token: int) -> str:
        """Return a token's text behind another token; half a character shows as U+FFFD."""
        if (previous, token) not in self._alone:
            self._alone[previous, token] = continuation_text(self.to_text, previous, [token])
        return self._alone[previous, token]

    def _ends(self, text: str, previous: int, tokens: list[int]) -> list[int]:
        """Return where the text of each prefix ends, starting with the empty one.

        Half a character shows as U+FFFD, which differs from `text`: from the last place where both
        agreed, tokens are decoded together until they agree again.
        """
        ends, first, start = [0], 0, 0
        for count in range(1, len(tokens) + 1):
            before = tokens[first - 1] if first else previous
            shown = continuation_text(self.to_text, before, tokens[first:count])
            rest = text[start : start + len(shown)]
            if shown == rest:
                first, start = count, start + len(shown)
                ends.append(start)
            else:
                ends.append(max(ends[-1], start + len(commonprefix([shown, rest]))))
        return ends

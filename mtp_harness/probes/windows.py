"""Windows and prompts of tokens from a corpus: the same ones on every run over the same corpus."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mtp_harness.data.corpus import Corpus

Encode = Callable[[str], list[int]]
"""Text to token ids, without special tokens."""


class Span(NamedTuple):
    """One window of a text: states `start`..`end`-1 are read, those from `first` on are scored."""

    start: int
    first: int
    end: int


def spans(n_states: int, window: int, stride: int) -> Iterator[Span]:
    """Yield windows that score every state of a text once, as lm_eval's rolling windows do.

        states       0 1 2 3 4 5 6 7 8 9         window 4, stride 2
        first        S S S S
        then             r r S S                 every later window scores `stride` states
                             r r S S             and reads what fits before them
                                 r r S S

    A text has one state less than tokens: no state reads the last token.
    """
    done = 0
    while done < n_states:
        end = min(n_states, done + (stride if done else window))
        yield Span(max(0, end - window), done, end)
        done = end


def windows(
    corpus: Corpus, encode: Encode, bos: int | None, length: int, count: int | None
) -> Tensor:
    """Return windows over the documents in sequence, each document after a BOS (None: nothing).

    Windows do not overlap; tokens after the last whole window are left out.

    Returns:
        int64 [count, length]: `count` evenly spread over the corpus, None means all.
    """
    tokens: list[int] = []
    for document in corpus.documents:
        tokens += [*([] if bos is None else [bos]), *encode(document.text)]
    n_all = len(tokens) // length
    if not n_all:
        raise ValueError(f"the corpus has {len(tokens)} tokens, fewer than one window of {length}")
    table = torch.tensor(tokens[: n_all * length]).view(n_all, length)
    if count is None or count >= n_all:
        return table
    return table[torch.arange(count) * n_all // count]


def prompts(corpus: Corpus, encode: Encode, length: int, count: int, room: int) -> list[list[int]]:
    """Return prompts from the middle of documents, each from a different one.

    Args:
        corpus: the documents.
        encode: see `Encode`.
        length: tokens per prompt.
        count: how many, evenly spread over the documents that are long enough.
        room: tokens of the document that must follow the prompt.

    Raises:
        ValueError: too few documents are long enough.
    """
    long_enough = []
    for document in corpus.documents:
        tokens = encode(document.text)
        if len(tokens) >= length + room:
            long_enough.append(tokens)
    if len(long_enough) < count:
        raise ValueError(
            f"only {len(long_enough)} documents have {length + room} tokens, expected {count}; "
            "ask for fewer or shorter prompts"
        )
    chosen = [long_enough[i * len(long_enough) // count] for i in range(count)]
    middles = [(len(tokens) - room - length) // 2 for tokens in chosen]
    return [tokens[m : m + length] for m, tokens in zip(middles, chosen, strict=True)]

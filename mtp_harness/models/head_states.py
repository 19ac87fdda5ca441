"""The states of every head at all positions of a text (teacher-forced).

Parallel heads read the trunk; chained modules read the state of the module before at the same
position. A single module that drafts repeatedly is read as it decodes (`reused`).

Decoding from position t, that module first reads (state t, token t+1) at position t, as at every
position before; then its own state and the next token at position t+1, and so on. It sees its own
entries after t, in addition to those of the text:

    offset     reads at position     sees entries of
    2          t                     the first pass at 0..t
    3          t+1                   the first pass at 0..t, the second at t
    4          t+2                   the first pass at 0..t, the second and third at t

So pass j runs all t at once, and its queries see the first pass causally, and later passes only at
their own t. Teacher-forced: the tokens are the text's.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from mtp_harness.models.interface import MultiHeadModel


def head_states(
    model: MultiHeadModel,
    tokens: Tensor,
    heads: int | None = None,
    following: Tensor | None = None,
    chained: bool = False,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (offset, state [B, T, D]) for heads 1..`heads`, teacher-forced on `tokens` [B, T].

    Sequential heads read the true tokens in between. If the token at t+offset-1 is not given (at
    the last offset-1 positions), they read token 0. A single module is read as it decodes
    (`reused_states`).

    Args:
        model: any `MultiHeadModel`.
        tokens: int64 [B, T].
        heads: k, 1..n; default n.
        following: the tokens after each row, int64 [B, any number].
        chained: read a single module like several modules: state k-1 at the same position, as its
            training losses do.
    """
    k, ahead = heads or model.n_future_tokens, tokens_ahead(tokens, following)
    trunk = model.trunk(tokens)
    state = model.head(1, trunk)
    yield 1, state
    if model.reused and not chained:
        yield from reused_states(model, state, ahead, k)
        return
    if model.sequential:
        yield from chained_states(model, state, ahead, range(2, k + 1))
        return
    for offset in range(2, k + 1):
        yield offset, model.head(offset, trunk)


def tokens_ahead(tokens: Tensor, following: Tensor | None) -> Callable[[int], Tensor]:
    """Return a function that gives the tokens at t+offset-1, int64 [B, T], for an offset.

    Arguments and tokens that are not given: as for `head_states`.
    """
    text, length = tokens, tokens.shape[1]
    if following is not None:
        text = torch.cat([tokens, following], 1)

    def ahead(offset: int) -> Tensor:
        found = torch.zeros_like(tokens)
        known = text[:, offset - 1 : offset - 1 + length]  # empty in shorter rows
        found[:, : known.shape[1]] = known
        return found

    return ahead


def chained_states(
    model: MultiHeadModel, before: Tensor, ahead: Callable[[int], Tensor], offsets: Iterable[int]
) -> Iterator[tuple[int, Tensor]]:
    """Yield (offset, state [B, T, D]) for offsets in order, each read at the same positions.

    Args:
        model: a sequential one.
        before: the state of the offset before the first, [B, T, D].
        ahead: the function of `tokens_ahead`.
        offsets: from 2 on.
    """
    state = before
    for offset in offsets:
        state = model.head(offset, state, ahead(offset))
        yield offset, state


PIECE = 512
"""Positions of a later pass that are read at once: memory does not grow with the square of T."""


class Passes:
    """The keys and values of all passes so far: the part of a `KeyValueCache` that blocks need."""

    def __init__(self) -> None:
        # Of positions a..b-1 in pass n + 1, bool [1, 1, b-a, b + n (b-a)]; the first is causal.
        self._mask: Tensor | None = None
        self._done: list[dict[int, tuple[Tensor, Tensor]]] = []  # by layer
        self._pieces: dict[int, list[tuple[Tensor, Tensor]]] = {}

    @property
    def in_prompts(self) -> bool:
        """Whether this is the first pass, whose tokens see each other causally."""
        return self._mask is None

    def next(self) -> None:
        """Begin the next pass."""
        self._done.append({layer: _joined(pieces) for layer, pieces in self._pieces.items()})
        self._pieces = {}

    def at(self, start: int, end: int) -> None:
        """Set the positions of the next call of a later pass; calls are in order."""
        self._start, self._end = start, end
        device = next(iter(self._done[0].values()))[0].device
        here = torch.arange(start, end, device=device)[:, None]
        causal = torch.arange(end, device=device) <= here
        own = torch.arange(start, end, device=device) == here
        self._mask = torch.cat([causal, *[own] * len(self._done)], -1)[None, None]

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Add [B, H, b-a, d] keys and values of this pass; return those that the call may see."""
        self._pieces.setdefault(layer, []).append((key, value))
        if not self._done:
            return key, value
        starts = [0, *[self._start] * (len(self._done) - 1)]
        of_layer = [done[layer] for done in self._done]
        seen = [
            (keys[:, :, start : self._end], values[:, :, start : self._end])
            for start, (keys, values) in zip(starts, of_layer, strict=True)
        ]
        return _joined([*seen, (key, value)])

    def bias(self, dtype: torch.dtype, repeats: int, last: Tensor | None = None) -> Tensor:
        """Return the mask as numbers to add to scores."""
        assert self._mask is not None
        zero = torch.zeros((), dtype=dtype, device=self._mask.device)
        return torch.where(self._mask, zero, torch.finfo(dtype).min)


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return keys and values [B, H, some, d] one after the other."""
    keys, values = zip(*parts, strict=True)
    return torch.cat(keys, 2), torch.cat(values, 2)


def reused_states(
    model: MultiHeadModel, first: Tensor, ahead: Callable[[int], Tensor], heads: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield (offset, state [B, T, D]) for offsets 2..`heads` of one module.

    Args:
        model: its head 2 is the module.
        first: state_1, [B, T, D].
        ahead: the function of `tokens_ahead`.
        heads: k.
    """
    if heads < 2:
        return
    passes: Any = Passes()
    length = first.shape[1]
    here = torch.arange(length, device=first.device).expand(first.shape[:2])
    state = model.head(2, first, ahead(2), here, passes)
    yield 2, state
    for offset in range(3, heads + 1):
        passes.next()
        tokens, pieces = ahead(offset), []
        for start in range(0, length, PIECE):
            some = slice(start, min(start + PIECE, length))
            passes.at(some.start, some.stop)
            positions = here[:, some] + offset - 2
            pieces.append(model.head(2, state[:, some], tokens[:, some], positions, passes))
        state = torch.cat(pieces, 1)
        yield offset, state

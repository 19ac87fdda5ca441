"""Per-head accuracy and loss on real text, and the text walk.

Both read real tokens (teacher-forced), unlike decoding, which reads the model's own text. All heads
are scored on the same states t: those whose targets t+1..t+n all lie in the window.

The text walk follows real text like self-speculative decoding, but emits the true token:

    state t      t    t+1  t+2  t+3  t+4       x[t+1] is pending; heads 2..4 at t draft x[t+2..t+4]
    text         x    x    x    x    x         heads 2 and 3 right, head 4 wrong: the step emits the
                      y0   d1   d2   --        two drafts and head 1's own x[t+4]; next state: t+3

Over the model's own greedy text it reproduces the decoder's counters exactly.
"""

from collections.abc import Iterable
from math import log
from typing import NamedTuple

import torch
from torch import Tensor

from mtp_harness.models.head_states import chained_states, head_states, tokens_ahead
from mtp_harness.models.interface import MultiHeadModel


class HeadScores(NamedTuple):
    """Token-weighted sums over all scored states; index 0 is offset 1."""

    n_correct: Tensor
    """int64 [n]: states whose top-1 prediction is the token at the offset."""
    nats: Tensor
    """float64 [n]: summed cross-entropy of the tokens that the head can predict."""
    n_states: int
    n_right_up_to: Tensor
    """int64 [n]: states where heads 2 up to this one are all right; at offset 1 all states."""
    n_said: Tensor
    """int64 [n]: states whose token the head can predict; see `finite`."""

    def accuracy(self) -> list[float]:
        """Top-1 accuracy per offset."""
        return [float(c) / self.n_states for c in self.n_correct]

    def accuracy_cond(self) -> dict[int, float]:
        """Top-1 accuracy per offset from 2 on where all earlier drafts are right, if any are."""
        counts = self.n_right_up_to.tolist()
        return {i + 1: counts[i] / counts[i - 1] for i in range(1, len(counts)) if counts[i - 1]}

    def bits(self) -> list[float]:
        """Cross-entropy in bits per offset and token that can be predicted; NaN if none can."""
        return (self.nats / self.n_said / log(2)).tolist()

    def unsayable(self) -> list[float]:
        """Share of the tokens per offset that the head cannot predict."""
        return (1 - self.n_said / self.n_states).tolist()


class Walk(NamedTuple):
    """Counters of a text walk."""

    n_kept: int
    n_steps: int

    @property
    def tokens_per_forward(self) -> float:
        """Tokens emitted per step; NaN if there was no step."""
        return self.n_kept / self.n_steps if self.n_steps else float("nan")


class Reading(NamedTuple):
    """Rows of text as read by all heads, [..., k]; entries without a target are False or 0."""

    right: Tensor
    """bool: `right[b, t, i-1]` is whether head i's argmax at t is the token at t+i."""
    nats: Tensor
    """float32: cross-entropy of the token at t+i."""
    rank: Tensor
    """int32: tokens that head i ranks before the token at t+i; of equal ones, those of lower id."""
    confidence: Tensor
    """float32: probability of the argmax."""
    brier: Tensor
    """float32: sum over the vocabulary of (probability - 1 if it is the token at t+i)^2, 0..2."""
    predicted: Tensor
    """int32: the argmax."""

    @classmethod
    def empty(cls, *shape: int, device: torch.device | str = "cpu") -> "Reading":
        """Return an empty reading."""
        number, count = torch.float32, torch.int32
        types = (torch.bool, number, count, number, number, count)
        return cls(*(torch.zeros(shape, dtype=dtype, device=device) for dtype in types))


CHUNK = 2**26
"""Logits in memory at once: [B, T, V] of one head is read in pieces of so many numbers."""


def read(
    model: MultiHeadModel,
    tokens: Tensor,
    heads: int | None = None,
    following: Tensor | None = None,
) -> Reading:
    """Read rows of text with heads 1..k in one forward, [B, T, k].

    A single module is read as it decodes (`models.head_states`).

    Args:
        model: any `MultiHeadModel`.
        tokens: int64 [B, T].
        heads: k, 1..n; default n.
        following: int64 [B, F], the tokens after each row, used as targets only. Without them,
            targets beyond the row's end are absent.
    """
    found, _ = _read(model, tokens, heads or model.n_future_tokens, following, chained=False)
    return found


def read_both(
    model: MultiHeadModel, tokens: Tensor, following: Tensor | None = None
) -> tuple[Reading, Reading]:
    """Return what `read` does, and offsets 3..n of one module chained, [B, T, n-2].

    The second is [B, T, 0] for other models, which have one reading. Offsets 1 and 2 are equal in
    both.
    """
    return _read(model, tokens, model.n_future_tokens, following, chained=model.reused)


@torch.no_grad()
def _read(
    model: MultiHeadModel, tokens: Tensor, k: int, following: Tensor | None, chained: bool
) -> tuple[Reading, Reading]:
    text = torch.cat([tokens, following], 1) if following is not None else tokens
    found = Reading.empty(*tokens.shape, k, device=tokens.device)
    again = Reading.empty(*tokens.shape, max(0, k - 2) * chained, device=tokens.device)
    second = None  # state 2, from which both continue
    for offset, state in head_states(model, tokens, k, following):
        _score(model, offset, state, text, found, offset - 1)
        second = state if offset == 2 else second
    if chained and second is not None:
        rest = range(3, k + 1)
        for offset, state in chained_states(model, second, tokens_ahead(tokens, following), rest):
            _score(model, offset, state, text, again, offset - 3)
    return found, again


def _score(
    model: MultiHeadModel, offset: int, state: Tensor, text: Tensor, found: Reading, column: int
) -> None:
    """Fill in a column of a reading [B, T, k] by the states [B, T, D] of one offset.

    `text`, int64 [B, T or more], begins with the tokens that were read.
    """
    target = text[:, offset : offset + state.shape[1]]  # [B, T or fewer]
    size = state.shape[0] * model.logits(offset, state[:1, :1]).shape[-1]
    for at in range(0, target.shape[1], max(1, CHUNK // size)):
        here = slice(at, min(at + max(1, CHUNK // size), target.shape[1]))
        logits = model.logits(offset, state[:, here])  # [B, chunk, V]
        for whole, part in zip(found, _compare(logits, target[:, here]), strict=True):
            whole[:, here, column] = part


def _compare(logits: Tensor, target: Tensor) -> Reading:
    """Return the readings of logits [B, T, V] for target [B, T], all [B, T]; computed in float32.

    A vocabulary is large, and each pass over it takes time: there are as few passes as possible,
    through one buffer.
    """
    logits = logits.float()
    best, predicted = logits.max(-1)  # [B, T]
    of_target = logits.gather(-1, target[..., None])  # [B, T, 1]
    scaled = (logits - best[..., None]).exp_()  # [B, T, V]: probabilities times a constant
    size = scaled.sum(-1)
    sum_of_squares = torch.linalg.vector_norm(scaled, dim=-1).square() / size.square()
    nats = best - of_target[..., 0] + size.log()
    before = torch.gt(logits, of_target, out=scaled).sum(-1)  # exact: V is far below 2^24
    tied = (torch.eq(logits, of_target, out=scaled).sum(-1) > 1).nonzero(as_tuple=True)
    if len(tied[0]):  # often in bfloat16, hardly ever in float32
        ids = torch.arange(logits.shape[-1], device=logits.device)
        lower = (logits[tied] == of_target[tied]) & (ids < target[tied][:, None])
        before[tied] += lower.sum(-1)
    return Reading(
        right=predicted == target,
        nats=nats,
        rank=before,
        confidence=1 / size,
        brier=sum_of_squares - 2 * (-nats).exp() + 1,
        predicted=predicted,
    )


def finite(nats: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses with 0 for infinite ones, and which are finite, bool; both like `nats`.

    A drafter with a smaller vocabulary gives every other token the probability 0.
    """
    said = ~nats.isposinf()
    return torch.where(said, nats, 0).double(), said


def hits(model: MultiHeadModel, tokens: Tensor, heads: int | None = None) -> Tensor:
    """Return which heads are right where, bool [B, T, k]; see `Reading.right`."""
    return read(model, tokens, heads).right


def right_up_to(right: Tensor) -> list[int]:
    """Return for each head i of bool [N, n] in how many states heads 2..i are all right.

    Head 1's number is that of all states.
    """
    first = torch.ones_like(right[:, :1])
    found: list[int] = torch.cat([first, right[:, 1:]], 1).long().cumprod(-1).sum(0).tolist()
    return found


def walk(right: Tensor, start: int, end: int) -> Walk:
    """Walk one row of text until all of its tokens are emitted.

    Args:
        right: bool [T, k], as `hits` gives it for one row.
        start: the state t whose next token is the first pending one: the prompt's last token.
        end: number of tokens in the row.
    """
    taken = right[:, 1:].long().cumprod(-1).sum(-1).tolist()  # drafts taken from each state
    state, kept, steps = start, 0, 0
    while state < end - 2:
        emitted = min(1 + taken[state], end - 2 - state)
        state += emitted
        kept += emitted
        steps += 1
    return Walk(kept, steps)


def score_heads(readings: Iterable[Reading]) -> HeadScores:
    """Add up readings of windows of T > n tokens, over states for which every head has a target.

    Raises:
        ValueError: there are none.
    """
    sums, n_states = [], 0
    for reading in readings:
        n = reading.right.shape[-1]
        right, nats = (part[:, :-n].flatten(0, 1) for part in (reading.right, reading.nats))
        nats, said = finite(nats)
        sums.append([*(part.sum(0).cpu() for part in (right, nats, said)), right_up_to(right)])
        n_states += len(right)
    if not n_states:
        raise ValueError("no windows to score")
    n_right, summed, n_said, up_to = (
        torch.stack([torch.as_tensor(part) for part in one]).sum(0)
        for one in zip(*sums, strict=True)
    )
    return HeadScores(n_right, summed, n_states, up_to, n_said)

"""Acceptance of drafts by the rule that engines use when they sample (speculative sampling).

This project's own rule gives the same text for every k. It accepts a draft if it is the token that
would have been sampled anyway: the noise g of the position decides both, argmax(log p + g) and
argmax(log q + g). Engines accept a draft d of the distribution q with probability
min(1, p(d) / q(d)), p being head 1's there, and otherwise sample from max(0, p - q). The text then
has the same distribution, though not the same tokens.

    acceptance of the most likely token d       p(d)
    acceptance of a draft sampled from q        sum over tokens of min(p, q)
    given that the text continues with x        min(1, q(x) / p(x)):  it was drafted and accepted
    by our own rule    sum over tokens x of 1 / (sum over tokens y of max(p(y)/p(x), q(y)/q(x)))

The third line needs no drafts: a token x of the text was an accepted draft with probability
min(p(x), q(x)), and was sampled at all with p(x). So the number of steps along a text that the
model sampled has an expected value, summed over where steps may begin:

    begins(t)          probability that a forward is made with state t
    accepted(t, j)     r_2 ... r_{j+1} (1 - r_{j+2}),  r_i = min(1, q_i(x[t+i]) / p(x[t+i]))
    begins(t + 1 + j) += begins(t) accepted(t, j)

Along text that the model did not sample this is an approximation.

Source: Leviathan, Kalman, Matias 2023, "Fast Inference from Transformers via Speculative Decoding",
algorithm 1 and theorem 3.5. The last line is the chance that exponential variables exp(-g) have the
least ratio to p and to q at one token.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from mtp_harness.decode.sampling import Sampling, warp
from mtp_harness.models.head_states import head_states
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.probes.teacher_forced import CHUNK


class StandardReading(NamedTuple):
    """Probabilities of acceptance at the states of a text, float32 [B, T, k-1], from offset 2 on.

    Where the text ends before the token at t+i, they are 0.
    """

    greedy: Tensor
    """Of the most likely draft."""
    sampled: Tensor
    """Of a sampled draft."""
    given_text: Tensor
    """Of a sampled draft, given the text's token."""
    same_noise: Tensor
    """Of a draft sampled with the noise of the token itself: this project's own rule."""

    @classmethod
    def empty(cls, *shape: int) -> "StandardReading":
        """Return an empty reading."""
        return cls(*(torch.zeros(shape) for _ in cls._fields))


class ExpectedWalk(NamedTuple):
    """Expected counts along a sampled text."""

    n_kept: int  # tokens that steps emit; a count
    n_steps: float  # expected number of forwards
    n_drafted: list[float]  # expected drafts at offsets 2, 3, ..., without those beyond the end
    n_accepted: list[float]  # expected number of accepted drafts, likewise


@torch.no_grad()
def read_standard(
    model: MultiHeadModel, tokens: Tensor, sampling: Sampling, following: Tensor | None = None
) -> StandardReading:
    """Read rows of text with all heads in one forward.

    Args:
        model: any `MultiHeadModel`.
        tokens: int64 [B, T].
        sampling: with a temperature above 0; p and q are both warped by it.
        following: int64 [B, F], the tokens after each row, read for the states that need them.
    """
    text = tokens if following is None else torch.cat([tokens, following], 1)  # [B, S]
    k, (rows, length) = model.n_future_tokens, text.shape
    # One row of states for all of the text: head 1's at t+i-1 are compared with head i's at t.
    states = [state for _, state in head_states(model, text, k)]  # k of [B, S, D]
    found = StandardReading.empty(rows, length, k - 1)
    vocabulary = model.logits(1, states[0][:1, :1]).shape[-1]
    step = max(1, CHUNK // (rows * vocabulary))
    for begin in range(0, length - 1, step):
        p = warp(model.logits(1, states[0][:, begin : begin + step + k - 1]), sampling)
        for offset in range(2, k + 1):
            here = min(step, length - offset - begin)  # states whose target is in the text
            if here < 1:
                break
            raw = model.logits(offset, states[offset - 1][:, begin : begin + here])  # [B, here, V]
            own = p[:, offset - 1 : offset - 1 + here]
            target = text[:, begin + offset : begin + offset + here, None]
            for whole, part in zip(found, _accepted(own, raw, target, sampling), strict=True):
                whole[:, begin : begin + here, offset - 2] = part
    return StandardReading(*(part[:, : tokens.shape[1]] for part in found))


def _accepted(p: Tensor, raw: Tensor, target: Tensor, sampling: Sampling) -> tuple[Tensor, ...]:
    """Return those of `StandardReading` [B, T]: log p [B, T, V], logits, tokens [B, T, 1]."""
    q = warp(raw, sampling)
    greedy = p.gather(-1, raw.argmax(-1, keepdim=True)).exp()[..., 0]
    sampled = torch.minimum(p, q).exp().sum(-1)
    p_text, q_text = (part.gather(-1, target)[..., 0] for part in (p, q))
    possible = p_text > -torch.inf  # else the model cannot have sampled it: rejected
    ratio = torch.where(possible, (q_text - p_text).clamp(max=0).exp(), 0.0)
    return greedy, sampled, ratio, _same_noise(p, q)


def _same_noise(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return how often one noise samples the same token of both [B, T]; log [B, T, V] each.

    max(p(y)/p(x), q(y)/q(x)) is the first where p/q is at least as large at y as at x: in the order
    of p/q, sums of the tokens behind and before x are all that is needed.
    """
    order = (log_p - log_q).nan_to_num(0.0).argsort(-1)  # of neither: counts in no sum
    p, q = (part.gather(-1, order).exp() for part in (log_p, log_q))
    behind = p.flip(-1).cumsum(-1).flip(-1)  # x itself among them
    before = q.cumsum(-1) - q
    both = p * q
    return torch.where(both > 0, both / (behind * q + before * p), 0.0).sum(-1)


def expected_walk(given_text: Tensor, start: int, end: int) -> ExpectedWalk:
    """Return the expected counts of sampled drafts along one text, until all tokens are emitted.

    Args:
        given_text: [T, k-1], as `read_standard` gives it for one row.
        start: the state whose next token is the first pending one: the prompt's last token.
        end: number of tokens in the row.
    """
    last = end - 2  # the state after which no token is left to emit
    prefix = given_text.double().cumprod(-1).tolist()  # accepted up to an offset
    begins = [float(state == start) for state in range(max(0, last))]
    drafted, accepted = ([0.0] * given_text.shape[1] for _ in range(2))
    for state in range(start, last):
        useful = prefix[state][: last - state - 1]  # later drafts would lie beyond the end
        for j, (more, less) in enumerate(pairwise([1.0, *useful, 0.0])):
            if state + 1 + j < last:
                begins[state + 1 + j] += begins[state] * (more - less)
        for i, chance in enumerate(useful):
            drafted[i] += begins[state]
            accepted[i] += begins[state] * chance
    return ExpectedWalk(max(0, last - start), sum(begins), drafted, accepted)

"""Draft, verify, accept: one step of self-speculative decoding, in all rows of a batch at once.

A step is one trunk forward over each row's window: its pending token and its drafts. Head 1
verifies the drafts; the drafter writes the next ones after the last accepted token:

    position     p    p+1  p+2  p+3
    window       y0   d1   d2   d3       y0 pending, d1 d2 d3 its drafts (k = 4)
    head 1       t0   t1   t2   t3       d1 = t0, d2 = t1, d3 != t2: 2 verified, t0 t1 t2 emitted
    next         pending t2 at p+3; drafts for p+4, p+5, p+6

Every row has its own position. Columns of rejected drafts are overwritten by the next step before
any query can see them, because its window starts right after the last accepted token.

Source: Stern et al. 2018 (blockwise parallel decoding), as in Gloeckle et al. 2024, section 2. With
sampling, both choices are made with the same noise (`sampling`), and the rule stays the same.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from mtp_harness.decode.acceptance import Rule, count_confident, count_verified
from mtp_harness.decode.cache import SlotCache
from mtp_harness.decode.sampling import Sampling, choose
from mtp_harness.models.interface import MultiHeadModel


class Batch:
    """The rows decoded together, on the device; row b is live while pending[b] < limit[b].

    A row that is not live writes into the cache's trash column; its other values mean nothing.
    """

    def __init__(
        self, model: MultiHeadModel, k: int, rule: Rule, sampling: Sampling, n: int, length: int
    ) -> None:
        """Allocate `n` rows, B, of `length` tokens, for heads 1..k."""
        self.model, self.k, self.rule, self.sampling = model, k, rule, sampling
        self.device = model.device
        self.cache = SlotCache(model.layer_shapes(k), n, length, model.dtype, self.device)
        # Tokens by position; columns behind the trash column take drafts made from there.
        self.text = self._zeros(n, length + 1 + 2 * k)
        self.rows = torch.arange(n, device=self.device)
        self.ahead = torch.arange(k + 1, device=self.device)
        self.pending = self._zeros(n)  # position p of each row's pending token
        self.limit = self._zeros(n)  # where the budget ends
        self.keys = self._zeros(n)  # of each row's noise
        self.n_draft = self._zeros(n)  # drafts behind the pending token, at most k - 1

    def _zeros(self, *size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.int64, device=self.device)

    def given(self, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        """Return the host's numbers as int64, without waiting for the steps in flight."""
        numbers = torch.tensor(values, pin_memory=self.device.type == "cuda")
        return numbers.to(self.device, non_blocking=True)

    def known(self, positions: Tensor) -> Tensor:
        """Return positions that the model accepts, also for padding and drafts beyond the end."""
        return positions.clamp(max=self.model.max_positions - 1)

    def choose_drafts(
        self, logits: Tensor, keys: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return drafts [b, m] for `positions`, and how many precede an unsure one, [b]."""
        drafts = choose(logits, self.sampling, keys, positions)
        if not self.rule.draft_threshold:
            return drafts, torch.full_like(keys, positions.shape[1])
        sure = log_softmax(logits.float(), -1)
        return drafts, count_confident(drafts, sure, self.rule.draft_threshold)


class Prefilled(NamedTuple):
    """The results of a prompt's forward besides keys and values; rows with this prompt share it."""

    logits: Tensor  # of head 1 and of heads that can draft at the prompt's last token, [m, V]
    tail: Tensor | None = None  # states at the last tokens, [t, D], for drafters that need them
    states: Sequence[Tensor] = ()  # of linear layers, for rows that start later


class Drafter(Protocol):
    """How one kind of heads reads prompts, reads a window and drafts; each is a file in `drafters`.

    It runs the trunk itself, because the states that it needs differ: the last layer's for parallel
    and sequential heads, those of several layers for an EAGLE-3 drafter. It keeps no reference to
    the batch, whose cache must be freed with the batch. A CUDA graph holds its steps: what they
    keep for the next step stays in one place, and they do the same whatever the drafts.
    """

    def fill(
        self, batch: Batch, tokens: Tensor, lengths: Tensor, positions: Tensor
    ) -> list[Prefilled]:
        """Run prompts [b, T], padded on the right, through trunk and heads."""

    def start(
        self,
        batch: Batch,
        rows: Tensor,
        prompts: Sequence[Sequence[int]],
        prefilled: Sequence[Prefilled],
    ) -> None:
        """Draft after the first token of `rows` [b], which is in the text already."""

    def read(self, batch: Batch, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return head 1's logits [B, T, V] of a window, and what `draft` needs of this forward."""

    def draft(
        self, batch: Batch, forward: Tensor, positions: Tensor, accepted: Tensor, live: Tensor
    ) -> None:
        """Write drafts after each row's last accepted token, and their number, at most k - 1."""


def step(batch: Batch, drafter: Drafter, n_tokens: int, width: int) -> Tensor:
    """Verify, accept and draft once, in all rows of a batch, which is updated in place.

    Windows have `n_tokens`, T: the pending token and at most T - 1 drafts. `width`: `SlotCache.at`.

    Returns:
        Head 1's T choices, the window's T - 1 drafts, how many of these are accepted, and the
        number of next drafts; int64 [B, 2T + 1].
    """
    live = batch.pending < batch.limit
    window = batch.pending[:, None] + batch.ahead[:n_tokens]
    positions = torch.where(live[:, None], window, batch.cache.trash)  # [B, T]
    batch.cache.at(positions, width)
    tokens = batch.text.gather(1, positions)  # y0 d1 d2 ..

    # Verify: head 1's own choice after the pending token and after each draft.
    logits, forward = drafter.read(batch, tokens, positions)
    choices = choose(logits, batch.sampling, batch.keys, positions + 1)  # t0 t1 t2 .., [B, T]

    # Accept: the agreeing prefix of the drafts, and head 1's token after it, the bonus.
    accepted = batch.n_draft.clamp(max=n_tokens - 1)
    if batch.rule.verify:
        accepted = torch.minimum(count_verified(tokens[:, 1:], choices), accepted)
    else:  # lossy: all drafts are taken unverified
        taken = batch.ahead[: n_tokens - 1] < accepted[:, None]
        unread = torch.where(taken, tokens[:, 1:], choices[:, :-1])
        choices = torch.cat([unread, choices[:, -1:]], 1)
    batch.text.scatter_(1, positions + 1, choices)
    batch.cache.keep(accepted + 1)

    # Draft: after the last accepted token.
    drafter.draft(batch, forward, positions, accepted, live)
    batch.pending.add_(torch.where(live, accepted + 1, 0))
    return torch.cat([choices, tokens[:, 1:], accepted[:, None], batch.n_draft[:, None]], 1)

"""Drafts of one sequential module that drafts repeatedly (as EAGLE; Qwen3.5, MiMo, GLM, ...).

    position              t      t+1        t+2
    the module reads      z[t]   its own    its own     states
                          y0     d1         d2          tokens
    and drafts            d1     d2         d3

Its pass over the window writes its keys at true positions. The keys that it then writes for drafts
are overwritten by the pass over the next window, which begins right after the last accepted token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtp_harness.decode.step import Batch, Prefilled


class ReusedDrafter:
    """See `step.Drafter`."""

    def __init__(self, batch: Batch) -> None:
        self.model, self.k = batch.model, batch.k

    def fill(
        self, batch: Batch, tokens: Tensor, lengths: Tensor, positions: Tensor
    ) -> list[Prefilled]:
        """Run trunk and module; provisional at the last token, whose next token is unknown."""
        cache = batch.cache
        trunk = self.model.trunk(tokens, positions, cache)  # [b, T, D]
        first = self.model.head(1, trunk, None, positions, cache)
        if self.k > 1:
            later = torch.nn.functional.pad(tokens[:, 1:], (0, 1))
            self.model.head(2, first, later, positions, cache)
        rows = torch.arange(len(lengths), device=tokens.device)
        last = first[rows, lengths - 1]  # [b, D]
        logits = self.model.logits(1, last)
        return [Prefilled(*both) for both in zip(logits[:, None], last[:, None], strict=True)]

    def start(
        self,
        batch: Batch,
        rows: Tensor,
        prompts: Sequence[Sequence[int]],
        prefilled: Sequence[Prefilled],
    ) -> None:
        """Draft from the last tokens of prompts, now that the token after them is known."""
        if self.k == 1:
            return
        tails = torch.stack([prompt.tail for prompt in prefilled if prompt.tail is not None])
        states = tails.new_zeros(len(batch.rows), 1, tails.shape[-1])  # [B, 1, D]
        states[rows] = tails
        new = torch.zeros_like(batch.rows, dtype=torch.bool)
        new[rows] = True
        stand = torch.where(new, batch.pending - 1, batch.cache.trash)
        before = batch.n_draft.clone()
        self._draft(batch, states, stand[:, None], torch.zeros_like(stand), new, batch.cache.trash)
        batch.n_draft.copy_(torch.where(new, batch.n_draft, before))

    def read(self, batch: Batch, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Run the trunk and head 1."""
        known, cache = batch.known(positions), batch.cache
        trunk = self.model.trunk(tokens, known, cache)  # [B, T, D]
        first = self.model.head(1, trunk, None, known, cache)
        return self.model.logits(1, first), first

    def draft(
        self, batch: Batch, forward: Tensor, positions: Tensor, accepted: Tensor, live: Tensor
    ) -> None:
        """Run the module over the window, then repeatedly from the last accepted position t."""
        if self.k > 1:
            width = batch.cache.width + self.k
            self._draft(batch, forward, positions, accepted, live, min(width, batch.cache.trash))

    def _draft(
        self,
        batch: Batch,
        states: Tensor,
        positions: Tensor,
        last: Tensor,
        live: Tensor,
        width: int,
    ) -> None:
        """Draft t+2 .. t+k.

        Args:
            batch: gets the drafts.
            states: state 1 of the call's tokens, [B, T, D].
            positions: theirs, int64 [B, T].
            last: index of t within the call, int64 [B].
            live: rows that continue, bool [B].
            width: see `SlotCache.at`.
        """
        cache, model = batch.cache, self.model
        cache.at(positions, width)
        later = batch.text.gather(1, positions + 1)
        read = model.head(2, states, later, batch.known(positions), cache)
        state = read[batch.rows, last][:, None]  # [B, 1, D]
        stand = positions[batch.rows, last][:, None]  # t, [B, 1]
        count, going = torch.zeros_like(last), torch.ones_like(last)
        for offset in range(2, self.k + 1):
            logits = model.logits(offset, state)  # [B, 1, V]
            drafts, sure = batch.choose_drafts(logits, batch.keys, stand + offset)
            batch.text.scatter_(1, stand + offset, drafts)
            going = going * sure
            count = count + going
            if offset < self.k:
                here = torch.where(live[:, None], stand + offset - 1, cache.trash)
                here = here.clamp(max=cache.trash)
                cache.at(here, width)
                state = model.head(offset + 1, state, drafts, batch.known(here), cache)
        batch.n_draft.copy_(count)

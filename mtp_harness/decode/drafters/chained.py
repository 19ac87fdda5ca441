"""Drafts of chained modules: module i reads state i-1 and the token at t+i-1 (DeepSeek-V3, ...).

For the last positions, that token was only a draft; once the true one is known, those positions are
computed again from the states in `tail`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtp_harness.decode.step import Batch, Prefilled


class ChainedDrafter:
    """See `step.Drafter`."""

    def __init__(self, batch: Batch) -> None:
        self.model, self.k = batch.model, batch.k
        self.n_tail = max(0, self.k - 2)
        self.tail = torch.zeros(0)  # states of head 1 at p - n_tail .. p - 1, [B, n_tail, D]
        if self.n_tail:
            token = torch.zeros(1, 1, dtype=torch.int64, device=batch.device)
            first = self.model.head(1, self.model.trunk(token))  # for its width and type
            self.tail = first.new_zeros(len(batch.rows), self.n_tail, first.shape[-1])

    def fill(
        self, batch: Batch, tokens: Tensor, lengths: Tensor, positions: Tensor
    ) -> list[Prefilled]:
        """Run modules over the prompts; provisional where the next tokens are not known yet."""
        cache = batch.cache
        trunk = self.model.trunk(tokens, positions, cache)  # [b, T, D]
        first = states = self.model.head(1, trunk, None, positions, cache)
        for offset in range(2, self.k + 1):
            later = torch.zeros_like(tokens)
            known = tokens[:, offset - 1 :]
            later[:, : known.shape[1]] = known
            states = self.model.head(offset, states, later, positions, cache)
        rows = torch.arange(len(lengths), device=tokens.device)
        logits = self.model.logits(1, first[rows, lengths - 1])[:, None]
        # Positions of a prompt shorter than the tail are negative, and never read.
        back = torch.arange(-self.n_tail, 1, device=tokens.device)
        tails = first[rows[:, None], (lengths[:, None] - 1 + back).clamp(min=0)]
        return [Prefilled(*both) for both in zip(logits, tails, strict=True)]

    def start(
        self,
        batch: Batch,
        rows: Tensor,
        prompts: Sequence[Sequence[int]],
        prefilled: Sequence[Prefilled],
    ) -> None:
        """Draft from the last tokens of prompts, now that the token after them is known."""
        trash = batch.cache.trash
        for row, prompt in zip(rows.tolist(), prompts, strict=True):  # modules read tokens ahead
            batch.text[row, : len(prompt)] = batch.given(prompt)
        states = torch.stack([prompt.tail for prompt in prefilled if prompt.tail is not None])
        if self.n_tail:
            self.tail[rows] = states[:, :-1]
        last = states.new_zeros(len(batch.rows), 1, states.shape[-1])
        last[rows] = states[:, -1:]
        new = torch.zeros_like(batch.rows, dtype=torch.bool)
        new[rows] = True
        stand = torch.where(new, batch.pending - 1, trash)[:, None]
        before = batch.n_draft.clone()
        self._run_modules(batch, last, stand, torch.zeros_like(batch.rows), trash)
        batch.n_draft.copy_(torch.where(new, batch.n_draft, before))
        self._keep_tail(batch, last, torch.ones_like(batch.rows), new)

    def read(self, batch: Batch, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Run the trunk and head 1; return its logits and states."""
        known = batch.known(positions)
        trunk = self.model.trunk(tokens, known, batch.cache)
        first = self.model.head(1, trunk, None, known, batch.cache)
        return self.model.logits(1, first), first

    def draft(
        self, batch: Batch, forward: Tensor, positions: Tensor, accepted: Tensor, live: Tensor
    ) -> None:
        """Draft t+2 .. t+k from the last accepted position t."""
        self._run_modules(batch, forward, positions, accepted, batch.cache.width)
        self._keep_tail(batch, forward, accepted + 1, live)

    def _run_modules(
        self, batch: Batch, first: Tensor, positions: Tensor, last: Tensor, width: int
    ) -> None:
        """Run heads 2..k over the call and the tail before it, each on the draft of the one before.

        Args:
            batch: gets the drafts.
            first: head 1's states, [B, T, D].
            positions: int64 [B, T].
            last: index within the call of the last accepted position, [B].
            width: see `SlotCache.at`.
        """
        states, positions, last = self._with_tail(batch, first, positions, last)
        batch.cache.at(positions, width)
        known = batch.known(positions)
        stand = positions[batch.rows, last]  # t
        count = torch.zeros_like(stand)
        going = torch.ones_like(stand)
        for offset in range(2, self.k + 1):
            later = batch.text.gather(1, positions + offset - 1)
            states = self.model.head(offset, states, later, known, batch.cache)
            logits = self.model.logits(offset, states[batch.rows, last])[:, None]  # [B, 1, V]
            ahead = (stand + offset)[:, None]
            draft, sure = batch.choose_drafts(logits, batch.keys, ahead)
            batch.text.scatter_(1, ahead, draft)
            going = going * sure
            count = count + going
        batch.n_draft.copy_(count)

    def _with_tail(
        self, batch: Batch, first: Tensor, positions: Tensor, last: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Put the `n_tail` positions before the window in front of states and positions."""
        if self.n_tail == 0:
            return first, positions, last
        trash = batch.cache.trash
        back = torch.arange(-self.n_tail, 0, device=positions.device)
        before = positions[:, :1] + back  # [B, n_tail]
        dead = (positions[:, :1] == trash) | (before < 0)
        before = torch.where(dead, trash, before)
        whole = torch.cat([self.tail, first], 1), torch.cat([before, positions], 1)
        return (*whole, last + self.n_tail)

    def _keep_tail(self, batch: Batch, first: Tensor, start: Tensor, which: Tensor) -> None:
        """Remember head 1's states at the `n_tail` positions before the next pending token.

        Args:
            batch: whose rows they are.
            first: [B, T, D], this call's states; the current tail goes before them.
            start: int64 [B], where the new tail begins in tail + call.
            which: bool [B], the rows that continue.
        """
        if self.n_tail == 0:
            return
        states = torch.cat([self.tail, first], 1)
        index = start[:, None] + batch.ahead[: self.n_tail]
        new = states[batch.rows[:, None], index]
        self.tail.copy_(torch.where(which[:, None, None], new, self.tail))

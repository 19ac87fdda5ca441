"""Drafts of parallel heads, which all read the trunk's states (the paper, Medusa)."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mtp_harness.decode.step import Batch, Prefilled

AT_ONCE = 64
"""Most tokens of a step on a GPU, of all rows, for which all heads run on all tokens.

Up to here another reading of the unembedding, as large as a layer or two, costs more than what
tokens that are not accepted cost; beyond, heads 2..k on one token of each row cost less. Measured
on one H200 (7B, n = 4), milliseconds a step of 64, 128, 168 and 256 tokens: at once 6.09, 8.08,
9.48 and 12.8; on the last token alone 6.13, 7.89, 9.31 and 12.3.
"""


class ParallelDrafter:
    """See `step.Drafter`: heads 2..k draft t+2 .. t+k from the trunk's state at t."""

    def __init__(self, batch: Batch) -> None:
        """Decide for how many tokens of a step all heads run on all tokens, at most.

        They then run before it is known which tokens are accepted, and read an unembedding that
        they share only once. A CPU waits for arithmetic, with however few tokens.
        """
        self.model, self.k = batch.model, batch.k
        shared = self.k > 1 and self.model.shared_unembedding
        self.at_once = AT_ONCE if shared and batch.device.type == "cuda" else 0

    def _together(self, positions: Tensor) -> bool:
        """Return whether all heads run on all tokens of a step, whose positions are [B, T]."""
        return positions.numel() <= self.at_once

    def fill(
        self, batch: Batch, tokens: Tensor, lengths: Tensor, positions: Tensor
    ) -> list[Prefilled]:
        """Run prompts; the heads' outputs are needed at the last token alone."""
        trunk = self.model.trunk(tokens, positions, batch.cache)  # [b, T, D]
        logits = self._logits_at(batch, range(1, self.k + 1), trunk, positions, lengths - 1)
        return [Prefilled(of_prompt) for of_prompt in logits]

    def start(
        self,
        batch: Batch,
        rows: Tensor,
        prompts: Sequence[Sequence[int]],
        prefilled: Sequence[Prefilled],
    ) -> None:
        """Draft from the prompts' own logits."""
        logits = torch.stack([prompt.logits for prompt in prefilled])[:, 1:]  # [b, k-1, V]
        positions = batch.pending[rows][:, None] + batch.ahead[1 : self.k]
        drafts, count = batch.choose_drafts(logits, batch.keys[rows], positions)
        batch.text[rows[:, None], positions] = drafts
        batch.n_draft[rows] = count

    def read(self, batch: Batch, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Run the trunk and head 1, or all heads at once."""
        known, cache = batch.known(positions), batch.cache
        trunk = self.model.trunk(tokens, known, cache)  # [B, T, D]
        last = self.k if self._together(positions) else 1
        heads = [self.model.head(i, trunk, None, known, cache) for i in range(1, last + 1)]
        if last == 1:
            return self.model.logits(1, heads[0]), trunk
        logits = self.model.logits(1, torch.stack(heads, 2))  # [B, T, k, V]
        return logits[:, :, 0], logits[:, :, 1:]

    def draft(
        self, batch: Batch, forward: Tensor, positions: Tensor, accepted: Tensor, live: Tensor
    ) -> None:
        """Draft t+2 .. t+k from the last accepted position t."""
        if self.k == 1:
            return
        if self._together(positions):
            logits = forward[batch.rows, accepted]  # [B, k-1, V]
        else:
            offsets = range(2, self.k + 1)
            logits = self._logits_at(batch, offsets, forward, batch.known(positions), accepted)
        ahead = positions[batch.rows, accepted][:, None] + batch.ahead[2:]
        drafts, count = batch.choose_drafts(logits, batch.keys, ahead)
        batch.text.scatter_(1, ahead, drafts)
        batch.n_draft.copy_(count)

    def _logits_at(
        self, batch: Batch, offsets: Iterable[int], trunk: Tensor, positions: Tensor, last: Tensor
    ) -> Tensor:
        """Return logits of heads at one token per row, `last` [B]; [B, heads, V]."""
        states = {
            offset: self.model.head_at(offset, trunk, positions, batch.cache, last)
            for offset in offsets
        }
        if self.model.shared_unembedding:
            return self.model.logits(1, torch.cat([*states.values()], 1))
        return torch.cat([self.model.logits(*head) for head in states.items()], 1)

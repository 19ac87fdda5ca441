"""Greedy self-speculative decoding of a batch (blockwise decoding, Stern et al. 2018).

One step is one forward over the pending token and its drafts. Head 1 verifies the drafts; the heads
at the last accepted position give the next ones:

    position     p    p+1  p+2  p+3
    window       y0   d1   d2   d3       y0 pending, drafts of heads 2, 3, 4 (k = 4)
    head 1       t0   t1   t2   t3       d1 = t0, d2 = t1, d3 != t2: 2 verified, t0 t1 t2 emitted
    next         pending t2 at p+3; head i's states at p+2 draft position p+2+i

Every row stands at its own position. Columns of rejected drafts are overwritten by the next step
before any query can see them, because its window starts right after the last accepted token.

The same code serves parallel heads, which all read the trunk's states, and sequential ones, where
module i reads state i-1 and the token at t+i-1. For the last positions that token was only a draft;
once the true one is known those positions are computed again: `tail` keeps the states this takes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mtp_harness.decode.acceptance import count_verified
from mtp_harness.decode.cache import SlotCache
from mtp_harness.decode.records import DecodeRecord, is_looping
from mtp_harness.decode.stopping import Stopping
from mtp_harness.models.interface import MultiHeadModel

DRAFT_RULE = "greedy: a draft is verified when it equals head 1's argmax"


@dataclass(frozen=True)
class Request:
    """One prompt to continue.

    Attributes:
        prompt: token ids, at least one.
        max_new_tokens: budget, at least 1.
        until: stop strings.
        n_truncated: prompt tokens that were cut off before; reported only.
    """

    prompt: list[int]
    max_new_tokens: int
    until: tuple[str, ...] = ()
    n_truncated: int = 0


class Answer(NamedTuple):
    """The tokens of one answer, the one that ended it included, and how they were decoded."""

    tokens: list[int]
    record: DecodeRecord


class _Row:
    """Host-side state of one answer."""

    def __init__(self, request: Request, stopping: Stopping) -> None:
        self.request = request
        self.stopping = stopping
        self.tokens: list[int] = []
        self.n_verified: list[int] = []
        self.ended_by = ""
        self.decode_s = 0.0

    def take(self, new: list[int]) -> None:
        ending = self.stopping.end(self.tokens, new)
        self.tokens += new[: ending.n_kept]
        self.ended_by = ending.ended_by


class Engine:
    """Decodes batches with heads 1..k of one model."""

    def __init__(
        self,
        model: MultiHeadModel,
        draft_heads: int,
        eos: Sequence[int],
        to_text: Callable[[list[int]], str],
    ) -> None:
        """Bind a model.

        Args:
            model: in eval mode, on its device.
            draft_heads: k, 1..n; 1 is NTP and never runs heads 2..n.
            eos: token ids that end an answer.
            to_text: decodes token ids, for stop strings.

        Raises:
            ValueError: k is not within 1..n.
        """
        n = model.n_future_tokens
        if not 1 <= draft_heads <= n:
            raise ValueError(
                f"draft_heads={draft_heads}, but this checkpoint has {n} "
                f"{'head' if n == 1 else 'heads'}; choose 1{f' to {n}' if n > 1 else ''}."
            )
        self.model = model
        self.k = draft_heads
        self.eos = tuple(eos)
        self.to_text = to_text

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        """Decode the requests as one batch; return their answers in order."""
        rows = [_Row(request, self._stopping(request)) for request in requests]
        started = time.perf_counter()
        batch = _Batch(self.model, self.k, requests)
        for row, token in zip(rows, batch.prefill(), strict=True):
            row.take([token])
        prefilled = time.perf_counter()
        while not all(row.ended_by for row in rows):
            live = [not row.ended_by for row in rows]
            for index, (choices, verified) in enumerate(batch.step(live)):
                row = rows[index]
                if row.ended_by:
                    continue
                row.n_verified.append(verified)
                row.take(choices[: verified + 1])
                row.decode_s = time.perf_counter() - prefilled
        return [self._answer(row, len(rows), prefilled - started) for row in rows]

    def _stopping(self, request: Request) -> Stopping:
        return Stopping(
            self.eos, request.until, request.max_new_tokens, self.to_text, request.prompt[-1]
        )

    def _answer(self, row: _Row, batch_size: int, prefill_s: float) -> Answer:
        record = DecodeRecord(
            n_prompt_tokens=len(row.request.prompt),
            n_truncated=row.request.n_truncated,
            draft_heads=self.k,
            draft_rule=DRAFT_RULE,
            n_kept=len(row.tokens) - 1,
            n_verified=tuple(row.n_verified),
            ended_by=row.ended_by,
            looping=is_looping(row.tokens),
            batch_size=batch_size,
            prefill_s=prefill_s,
            decode_s=row.decode_s,
        )
        return Answer(row.tokens, record)


class _Batch:
    """Device-side state: text, cache and positions of all rows."""

    def __init__(self, model: MultiHeadModel, k: int, requests: Sequence[Request]) -> None:
        self.model, self.k = model, k
        self.prompts = [request.prompt for request in requests]
        length = max(len(r.prompt) + r.max_new_tokens for r in requests) + k
        shapes = model.layer_shapes(k)
        self.cache = SlotCache(shapes, len(requests), length, model.dtype, model.device)
        # Tokens by position; the columns behind the trash column take what is drafted from there.
        width = length + 1 + 2 * k
        self.text = torch.zeros(len(requests), width, dtype=torch.int64, device=model.device)
        self.rows = torch.arange(len(requests), device=model.device)
        self.pending = torch.zeros_like(self.rows)  # position p of each row's pending token, [B]
        self.standing = [len(prompt) for prompt in self.prompts]  # `pending`, known to the host
        self.n_tail = max(0, k - 2) if model.sequential else 0
        self.tail: Tensor | None = None  # states of head 1 at p - n_tail .. p - 1, [B, n_tail, D]

    def prefill(self) -> list[int]:
        """Run the prompts; return each row's first token."""
        longest = max(map(len, self.prompts))
        for row, prompt in enumerate(self.prompts):
            self.text[row, : len(prompt)] = torch.tensor(prompt, device=self.text.device)
        lengths = torch.tensor([len(p) for p in self.prompts], device=self.text.device)
        columns = torch.arange(longest, device=self.text.device)[None]
        positions = torch.where(columns < lengths[:, None], columns, self.cache.trash)
        trunk, first = self._next_token_states(self.text[:, :longest], positions, longest)
        last = lengths - 1
        token = self.model.logits(1, first[self.rows, last]).argmax(-1)  # [B]
        self.text[self.rows, lengths] = token
        self.pending = lengths
        self._draft(trunk, first, positions, last, longest)
        self._keep_tail(first, lengths - self.n_tail)
        tokens: list[int] = token.tolist()
        return tokens

    def step(self, live: list[bool]) -> list[tuple[list[int], int]]:
        """Verify and draft once; return head 1's k choices and the verified count per row."""
        alive = torch.tensor(live, device=self.text.device)[:, None]
        window = self.pending[:, None] + torch.arange(self.k, device=self.text.device)  # [B, k]
        positions = torch.where(alive, window, self.cache.trash)
        tokens = self.text.gather(1, positions)
        width = self.k + max(p for p, on in zip(self.standing, live, strict=True) if on)
        trunk, first = self._next_token_states(tokens, positions, width)
        choices = self.model.logits(1, first).argmax(-1)  # [B, k]
        verified = count_verified(tokens[:, 1:], choices)  # [B]
        self.text.scatter_(1, positions + 1, choices)
        self._draft(trunk, first, positions, verified, width)
        self._keep_tail(first, verified + 1)
        self.pending = torch.where(alive[:, 0], self.pending + verified + 1, self.pending)
        counts: list[int] = verified.tolist()
        self.standing = [p + v + 1 for p, v in zip(self.standing, counts, strict=True)]
        return list(zip(choices.tolist(), counts, strict=True))

    def _next_token_states(
        self, tokens: Tensor, positions: Tensor, width: int
    ) -> tuple[Tensor, Tensor]:
        """Return z and head 1's states, [B, T, D] each, of tokens [B, T] at positions [B, T]."""
        self.cache.at(positions, width)
        trunk = self.model.trunk(tokens, positions, self.cache)
        return trunk, self.model.head(1, trunk, None, positions, self.cache)

    def _draft(
        self, trunk: Tensor, first: Tensor, positions: Tensor, last: Tensor, width: int
    ) -> None:
        """Run heads 2..k over this call's positions and write their drafts into the text.

        Args:
            trunk: z, [B, T, D].
            first: head 1's states, [B, T, D].
            positions: int64 [B, T].
            last: index within the call of the last accepted position, [B].
            width: see `SlotCache.at`.
        """
        states = trunk
        if self.model.sequential:
            states, positions, last = self._with_tail(first, positions, last)
            self.cache.at(positions, width)
        stand = positions[self.rows, last]  # t: drafts go to t+2 .. t+k
        for offset in range(2, self.k + 1):
            ahead = None
            if self.model.sequential:
                ahead = self.text.gather(1, positions + offset - 1)
            out = self.model.head(offset, states, ahead, positions, self.cache)
            draft = self.model.logits(offset, out[self.rows, last]).argmax(-1)  # [B]
            self.text[self.rows, stand + offset] = draft
            if self.model.sequential:
                states = out

    def _with_tail(
        self, first: Tensor, positions: Tensor, last: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Put the `n_tail` positions before the window in front of states and positions."""
        if self.tail is None or self.n_tail == 0:
            return first, positions, last
        back = torch.arange(-self.n_tail, 0, device=positions.device)
        before = self.pending[:, None] + back  # [B, n_tail]
        dead = (positions[:, :1] == self.cache.trash) | (before < 0)
        before = torch.where(dead, self.cache.trash, before)
        return (
            torch.cat([self.tail, first], 1),
            torch.cat([before, positions], 1),
            last + self.n_tail,
        )

    def _keep_tail(self, first: Tensor, start: Tensor) -> None:
        """Remember head 1's states at the `n_tail` positions before the next pending token.

        Args:
            first: [B, T, D], this call's states; in a step the current tail goes before them.
            start: [B], where the new tail begins in tail + call (at the prefill, in the call).
        """
        if self.n_tail == 0:
            return
        states = first if self.tail is None else torch.cat([self.tail, first], 1)
        # A prompt shorter than the tail: those positions are negative and go to the trash column.
        index = (start[:, None] + torch.arange(self.n_tail, device=start.device)).clamp(min=0)
        self.tail = states[self.rows[:, None], index]

"""The rows that are being decoded, on the device: text, positions, cache, and the step.

One step is one forward over the pending token and its drafts. Head 1 verifies the drafts; the heads
at the last accepted position give the next ones:

    position     p    p+1  p+2  p+3
    window       y0   d1   d2   d3       y0 pending, drafts of heads 2, 3, 4 (k = 4)
    head 1       t0   t1   t2   t3       d1 = t0, d2 = t1, d3 != t2: 2 verified, t0 t1 t2 emitted
    next         pending t2 at p+3; head i's states at p+2 draft position p+2+i

Every row stands at its own position. Columns of rejected drafts are overwritten by the next step
before any query can see them, because its window starts right after the last accepted token. A row
lives while `pending < limit`; a row that does not writes into the trash column.

The same code serves parallel heads, which all read the trunk's states, and sequential ones, where
module i reads state i-1 and the token at t+i-1. For the last positions that token was only a draft;
once the true one is known those positions are computed again: `tail` keeps the states this takes.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from mtp_harness.decode.acceptance import Rule, count_confident, count_verified
from mtp_harness.decode.cache import SlotCache
from mtp_harness.decode.graph import StepGraph
from mtp_harness.decode.sampling import Sampling, choose
from mtp_harness.models.interface import MultiHeadModel

_log = logging.getLogger(__name__)


_BUCKET = 64
"""On a GPU prompts are padded to multiples of this many tokens."""


class Prefilled(NamedTuple):
    """What a prompt's forward gave besides its keys and values; rows with this prompt share it.

    Attributes:
        logits: of the heads at the last token, [k, V]; head 1's alone for sequential heads.
        tail: head 1's states at the last `n_tail` + 1 tokens, [n_tail + 1, D]; sequential only.
    """

    logits: Tensor
    tail: Tensor | None


class Slots:
    """`n_slots` rows decoded together with heads 1..k."""

    def __init__(
        self,
        model: MultiHeadModel,
        k: int,
        rule: Rule,
        sampling: Sampling,
        n_slots: int,
        length: int,
    ) -> None:
        """Allocate.

        Args:
            model: in eval mode, on its device.
            k: heads in use.
            rule: how drafts are made and accepted.
            sampling: how tokens are chosen.
            n_slots: rows, B.
            length: the longest prompt with its answer, and k more.
        """
        self.model, self.k, self.rule, self.sampling = model, k, rule, sampling
        self.device = model.device
        self.cache = SlotCache(model.layer_shapes(k), n_slots, length, model.dtype, self.device)
        # Tokens by position; the columns behind the trash column take what is drafted from there.
        self.text = self._zeros(n_slots, length + 1 + 2 * k)
        self.rows = torch.arange(n_slots, device=self.device)
        self.ahead = torch.arange(k + 1, device=self.device)
        self.pending = self._zeros(n_slots)  # position p of each row's pending token
        self.limit = self._zeros(n_slots)  # where the budget ends; rows below it live
        self.keys = self._zeros(n_slots)  # of each row's noise
        self.n_draft = self._zeros(n_slots)
        self.n_tail = max(0, k - 2) if model.sequential else 0
        self.tail: Tensor | None = None  # states of head 1 at p - n_tail .. p - 1, [B, n_tail, D]

    def _zeros(self, *size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.int64, device=self.device)

    def _within(self, positions: Tensor) -> Tensor:
        """Return positions that the model knows: padding, and drafts beyond the end, have none."""
        return positions.clamp(max=self.model.max_positions - 1)

    # Beginning rows -----------------------------------------------------------------------------

    def fill(self, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> list[Prefilled]:
        """Run prompts through trunk and heads, each into its slot's columns."""
        longest = max(map(len, prompts))
        if (
            self.device.type == "cuda"
        ):  # a few lengths, so that kernels are chosen and compiled once
            longest = min(-(-longest // _BUCKET) * _BUCKET, self.cache.trash)
        padded = [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]
        tokens = torch.tensor(padded, device=self.device)  # [b, T]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        columns = torch.arange(longest, device=self.device)
        positions = torch.where(columns < lengths[:, None], columns, self.cache.trash)
        rows = torch.tensor(slots, device=self.device)
        self.cache.fill(rows, positions)
        within = self._within(positions)
        trunk = self.model.trunk(tokens, within, self.cache)  # [b, T, D]
        if self.model.sequential:
            return self._fill_sequential(tokens, lengths, trunk, within)
        last = lengths - 1  # the heads' outputs are needed there alone
        logits = self._logits_at(range(1, self.k + 1), trunk, within, last)
        return [Prefilled(one, None) for one in logits]

    def _fill_sequential(
        self, tokens: Tensor, lengths: Tensor, trunk: Tensor, positions: Tensor
    ) -> list[Prefilled]:
        """Run modules over the prompts; provisional where the next tokens are not known yet."""
        first = states = self.model.head(1, trunk, None, positions, self.cache)
        for offset in range(2, self.k + 1):
            later = torch.zeros_like(tokens)
            known = tokens[:, offset - 1 :]
            later[:, : known.shape[1]] = known
            states = self.model.head(offset, states, later, positions, self.cache)
        every = torch.arange(len(lengths), device=self.device)
        logits = self.model.logits(1, first[every, lengths - 1])[:, None]
        # A prompt shorter than the tail: those positions are negative, and never read.
        back = torch.arange(-self.n_tail, 1, device=self.device)
        tails = first[every[:, None], (lengths[:, None] - 1 + back).clamp(min=0)]
        return [Prefilled(*both) for both in zip(logits, tails, strict=True)]

    def share(self, source: int, targets: Sequence[int], length: int) -> None:
        """Give a prompt's columns, its first `length`, to other slots."""
        self.cache.share(source, torch.tensor(targets, device=self.device), length)

    def start(
        self,
        slots: Sequence[int],
        prompts: Sequence[Sequence[int]],
        prefilled: Sequence[Prefilled],
        budgets: Sequence[int],
        keys: Sequence[int],
    ) -> Tensor:
        """Choose the first token of rows whose prompts stand in their slots, and draft.

        Args:
            slots: where.
            prompts: their prompts.
            prefilled: the forwards of these.
            budgets: of tokens to emit.
            keys: of their noise.

        Returns:
            First token and number of drafts, int64 [b, 2].
        """
        # The budget's last token is emitted, and never fed.
        ends = [len(prompt) + budget - 1 for prompt, budget in zip(prompts, budgets, strict=True)]
        rows, at, limit, key = (
            torch.tensor(values, device=self.device)
            for values in (slots, [len(prompt) for prompt in prompts], ends, keys)
        )
        logits = torch.stack([one.logits for one in prefilled])  # [b, k, V]
        first = choose(logits[:, :1], self.sampling, key, at[:, None])[:, 0]  # [b]
        self.text[rows, at] = first
        self.pending[rows], self.limit[rows], self.keys[rows] = at, limit, key
        if self.model.sequential:
            for slot, prompt in zip(slots, prompts, strict=True):  # modules read tokens ahead
                self.text[slot, : len(prompt)] = torch.tensor(prompt, device=self.device)
            self._start_sequential(rows, [one.tail for one in prefilled])
        else:
            stand = at[:, None] + self.ahead[1 : self.k]  # [b, k-1]
            drafts, count = self._choose_drafts(logits[:, 1:], key, stand)
            self.text[rows[:, None], stand] = drafts
            self.n_draft[rows] = count
        return torch.stack([first, self.n_draft[rows]], 1)

    def _start_sequential(self, rows: Tensor, tails: Sequence[Tensor | None]) -> None:
        """Draft from the last tokens of prompts, now that the token after them is known."""
        states = torch.stack([tail for tail in tails if tail is not None])  # [b, n_tail + 1, D]
        if self.tail is None:
            self.tail = states.new_zeros(len(self.rows), self.n_tail, states.shape[-1])
        self.tail[rows] = states[:, :-1]
        last = states.new_zeros(len(self.rows), 1, states.shape[-1])
        last[rows] = states[:, -1:]
        new = torch.zeros_like(self.rows, dtype=torch.bool)
        new[rows] = True
        base = torch.where(new, self.pending - 1, self.cache.trash)
        zero = torch.zeros_like(self.rows)
        n_draft = self.n_draft.clone()
        self._draft_sequential(last, base[:, None], zero, self.cache.trash)
        self.n_draft.copy_(torch.where(new, self.n_draft, n_draft))
        self._keep_tail(last, zero + 1, new)

    def stop(self, slots: Sequence[int]) -> None:
        """End rows: from here on they write into the trash column."""
        self.limit[torch.tensor(slots, device=self.device)] = 0

    def graph(self) -> StepGraph | None:
        """Return the step of k tokens as a CUDA graph; call it before any row starts.

        None where there is no GPU to capture it for, or several; where heads are sequential (what
        they draft next depends on what they drafted); and, with a warning, where the model's step
        does something that a graph cannot hold.
        """
        n_devices = len({keys.device for keys in self.cache.keys})
        if self.device.type != "cuda" or n_devices > 1 or self.model.sequential:
            return None
        try:
            return StepGraph(lambda: self.step(self.k, self.cache.trash))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            torch.cuda.synchronize()
            reason = str(error).splitlines()[0]
            _log.warning("decoding runs step by step: no CUDA graph of this model (%s)", reason)
            return None

    # The step -----------------------------------------------------------------------------------

    def step(self, n_tokens: int, width: int) -> Tensor:
        """Verify and draft once, in all rows.

        Args:
            n_tokens: T, the pending token and at most T - 1 drafts.
            width: see `SlotCache.at`.

        Returns:
            Head 1's T choices, how many of them are accepted drafts, and how many drafts come next;
            int64 [B, T + 2]. Rows that do not live hold anything.
        """
        live = self.pending < self.limit
        window = self.pending[:, None] + self.ahead[:n_tokens]
        positions = torch.where(live[:, None], window, self.cache.trash)  # [B, T]
        self.cache.at(positions, width)
        tokens = self.text.gather(1, positions)
        within = self._within(positions)
        trunk = self.model.trunk(tokens, within, self.cache)  # [B, T, D]
        first = self.model.head(1, trunk, None, within, self.cache)
        at_once = self._heads_at_once()
        if at_once:
            heads = [
                self.model.head(offset, trunk, None, within, self.cache)
                for offset in range(2, self.k + 1)
            ]
            logits = self.model.logits(1, torch.stack([first, *heads], 2))  # [B, T, k, V]
            target = logits[:, :, 0]
        else:
            target = self.model.logits(1, first)
        choices = choose(target, self.sampling, self.keys, positions + 1)  # [B, T]
        accepted = self._count_accepted(tokens, choices)
        if not self.rule.verify:
            taken = self.ahead[: n_tokens - 1] < accepted[:, None]
            unread = torch.where(taken, tokens[:, 1:], choices[:, :-1])
            choices = torch.cat([unread, choices[:, -1:]], 1)
        self.text.scatter_(1, positions + 1, choices)
        if at_once:
            self._draft(logits[self.rows, accepted, 1:], positions[self.rows, accepted])
        elif self.model.sequential:
            self._draft_sequential(first, positions, accepted, width)
            self._keep_tail(first, accepted + 1, live)
        elif self.k > 1:
            own = self._logits_at(range(2, self.k + 1), trunk, within, accepted)
            self._draft(own, positions[self.rows, accepted])
        self.pending.add_(torch.where(live, accepted + 1, 0))
        return torch.cat([choices, accepted[:, None], self.n_draft[:, None]], 1)

    def _count_accepted(self, tokens: Tensor, choices: Tensor) -> Tensor:
        """Return how many drafts in tokens [B, T] are accepted, [B], given choices [B, T]."""
        drafted = self.n_draft.clamp(max=tokens.shape[1] - 1)
        if not self.rule.verify:
            return drafted
        return torch.minimum(count_verified(tokens[:, 1:], choices), drafted)

    def _logits_at(
        self, offsets: Iterable[int], trunk: Tensor, positions: Tensor, last: Tensor
    ) -> Tensor:
        """Return logits of parallel heads at one token per row, `last` [B]; [B, heads, V]."""
        states = {
            offset: self.model.head_at(offset, trunk, positions, self.cache, last)
            for offset in offsets
        }
        if self.model.shared_unembedding:
            return self.model.logits(1, torch.cat([*states.values()], 1))
        return torch.cat([self.model.logits(*one) for one in states.items()], 1)

    def _heads_at_once(self) -> bool:
        """Return whether all heads run on all tokens, before it is known which are accepted.

        That is more arithmetic, but reads a shared unembedding, as large as a layer or two, once.
        A GPU waits for weights (measured up to 168 tokens of a 7B model), a CPU for arithmetic.
        """
        parallel = self.k > 1 and not self.model.sequential
        return parallel and self.model.shared_unembedding and self.device.type == "cuda"

    def _draft(self, logits: Tensor, stand: Tensor) -> None:
        """Write the drafts of parallel heads that stand at t = `stand` [B]; logits [B, k-1, V]."""
        places = stand[:, None] + self.ahead[2:]  # t+2 .. t+k
        drafts, count = self._choose_drafts(logits, self.keys, places)
        self.text.scatter_(1, places, drafts)
        self.n_draft.copy_(count)

    def _choose_drafts(self, logits: Tensor, keys: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return drafts for the positions `places` [b, k-1], and how many each row makes, [b]."""
        drafts = choose(logits, self.sampling, keys, places)
        if self.rule.draft_threshold:
            sure = log_softmax(logits.float(), -1)
            return drafts, count_confident(drafts, sure, self.rule.draft_threshold)
        return drafts, torch.full_like(keys, self.k - 1)

    # Sequential heads ---------------------------------------------------------------------------

    def _draft_sequential(self, first: Tensor, positions: Tensor, last: Tensor, width: int) -> None:
        """Run heads 2..k over these positions and the tail before them, and write the drafts.

        Args:
            first: head 1's states, [B, T, D].
            positions: int64 [B, T].
            last: index within the call of the last accepted position, [B].
            width: see `SlotCache.at`.
        """
        states, positions, last = self._with_tail(first, positions, last)
        self.cache.at(positions, width)
        within = self._within(positions)
        stand = positions[self.rows, last]  # t: drafts go to t+2 .. t+k
        count = torch.zeros_like(stand)
        going = torch.ones_like(stand)
        for offset in range(2, self.k + 1):
            later = self.text.gather(1, positions + offset - 1)
            states = self.model.head(offset, states, later, within, self.cache)
            logits = self.model.logits(offset, states[self.rows, last])[:, None]  # [B, 1, V]
            place = (stand + offset)[:, None]
            draft = choose(logits, self.sampling, self.keys, place)  # [B, 1]
            self.text.scatter_(1, place, draft)
            if self.rule.draft_threshold:
                sure = log_softmax(logits.float(), -1)
                going = going * count_confident(draft, sure, self.rule.draft_threshold)
            count = count + going
        self.n_draft.copy_(count)

    def _with_tail(
        self, first: Tensor, positions: Tensor, last: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Put the `n_tail` positions before the window in front of states and positions."""
        if self.tail is None or self.n_tail == 0:
            return first, positions, last
        back = torch.arange(-self.n_tail, 0, device=positions.device)
        before = positions[:, :1] + back  # [B, n_tail]
        dead = (positions[:, :1] == self.cache.trash) | (before < 0)
        before = torch.where(dead, self.cache.trash, before)
        return (
            torch.cat([self.tail, first], 1),
            torch.cat([before, positions], 1),
            last + self.n_tail,
        )

    def _keep_tail(self, first: Tensor, start: Tensor, which: Tensor) -> None:
        """Remember head 1's states at the `n_tail` positions before the next pending token.

        Args:
            first: [B, T, D], this call's states; the current tail goes before them.
            start: int64 [B], where the new tail begins in tail + call.
            which: bool [B], the rows that go on.
        """
        if self.tail is None or self.n_tail == 0:
            return
        states = torch.cat([self.tail, first], 1)
        index = start[:, None] + self.ahead[: self.n_tail]
        new = states[self.rows[:, None], index]
        self.tail.copy_(torch.where(which[:, None, None], new, self.tail))

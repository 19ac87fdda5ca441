"""Self-speculative decoding of any number of requests in a fixed number of slots.

The text is what head 1 alone would write, whatever k, the number of slots and the order of the
requests (`acceptance`, `sampling`). `step` is one decoding step; `scheduler` assigns sequences to
slots.
"""

import logging
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import torch

from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.cache import bytes_per_slot
from mtp_harness.decode.records import DecodeRecord, is_looping
from mtp_harness.decode.sampling import Sampling
from mtp_harness.decode.scheduler import Scheduler, Sequence
from mtp_harness.decode.slots import Slots
from mtp_harness.decode.stopping import Stopping
from mtp_harness.decode.threads import threads_for
from mtp_harness.models.gpu.current import current
from mtp_harness.models.interface import MultiHeadModel

_log = logging.getLogger(__name__)

_NO_MEMORY = "can't allocate memory"


@dataclass(frozen=True)
class Request:
    """One prompt to continue."""

    prompt: list[int]  # token ids, at least one
    max_new_tokens: int  # at least 1
    until: tuple[str, ...] = ()  # stop strings
    n_truncated: int = 0  # prompt tokens that were cut off before; reported only
    sampling: Sampling = field(default_factory=Sampling)
    key: int = 0  # of the noise (`sampling.row_key`); unused when greedy


class Answer(NamedTuple):
    """The tokens of one answer, including the one that ended it, and how they were decoded."""

    tokens: list[int]
    record: DecodeRecord


class Memory(NamedTuple):
    """The memory that a run allocates for its rows, known before it starts."""

    slots: int
    length: int
    """Tokens per slot: the longest prompt, its budget, and k more."""
    cache_bytes: int


class OutOfSlots(RuntimeError):
    """There is not enough memory for a single row."""


class Engine:
    """Decodes requests with heads 1..k of one model."""

    def __init__(
        self,
        model: MultiHeadModel,
        draft_heads: int,
        eos: abc.Sequence[int],
        to_text: Callable[[list[int]], str],
        *,
        slots: int | None = None,
        rule: Rule | None = None,
    ) -> None:
        """Bind a model.

        Args:
            model: in eval mode, on its device.
            draft_heads: k, 1..n; 1 is NTP and never runs heads 2..n.
            eos: token ids that end an answer.
            to_text: decodes token ids, for stop strings.
            slots: rows decoded together; None means all requests.
            rule: how drafts are made and accepted; None: exactly.

        Raises:
            ValueError: k is not within 1..n.
        """
        n = model.n_future_tokens
        if not 1 <= draft_heads <= n:
            raise ValueError(
                f"draft_heads={draft_heads}, but this checkpoint has {n} "
                f"{'head' if n == 1 else 'heads'}; choose 1{f' to {n}' if n > 1 else ''}."
            )
        self.model, self.k, self.slots = model, draft_heads, slots
        self.eos, self.to_text, self.rule = tuple(eos), to_text, rule or Rule()

    @cached_property
    @torch.inference_mode()
    def vocabulary(self) -> int:
        """The number of tokens that head 1 can predict, V."""
        token = torch.zeros(1, 1, dtype=torch.int64, device=self.model.device)
        return self.model.next_token_logits(token).shape[-1]

    def memory(self, requests: abc.Sequence[Request], slots: int) -> Memory:
        """Return what decoding these requests in `slots` slots allocates."""
        length = max(len(r.prompt) + r.max_new_tokens for r in requests) + self.k
        shapes = self.model.layer_shapes(self.k)
        return Memory(slots, length, slots * bytes_per_slot(shapes, length, self.model.dtype))

    def generate(
        self,
        requests: abc.Sequence[Request],
        on_answer: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """Decode the requests; return their answers in order.

        `on_answer` is called with an answer's index and the answer, as soon as it is complete.

        Raises:
            OutOfSlots: there is not enough memory for one row.
        """
        begun = [self.sequence(index, request) for index, request in enumerate(requests)]
        # Long prompts first, so that it is known soon if one does not fit; equal prompts together.
        order = sorted(begun, key=lambda s: (-len(s.prompt), s.prompt, s.index))
        slots = self.slots or max(1, len(requests))
        answers: dict[int, Answer] = {}

        def keep(sequence: Sequence) -> None:
            answers[sequence.index] = self._answer(sequence, requests[sequence.index], slots)
            if on_answer is not None:
                on_answer(sequence.index, answers[sequence.index])

        def setting(sequence: Sequence) -> str:
            return repr(requests[sequence.index].sampling)

        for _, group in groupby(sorted(order, key=setting), setting):
            waiting = list(group)
            while waiting:
                if self._decode(waiting, requests, slots, keep):
                    break
                waiting = [sequence for sequence in waiting if sequence.index not in answers]
                slots = self._fewer(slots)
        return [answers[index] for index in range(len(requests))]

    def sequence(self, index: int, request: Request) -> Sequence:
        """Return a request as the scheduler takes it."""
        prompt, until = request.prompt, request.until
        stopping = Stopping(self.eos, until, request.max_new_tokens, self.to_text, prompt[-1])
        return Sequence(index, tuple(prompt), request.max_new_tokens, request.key, stopping)

    @torch.inference_mode()
    def _decode(
        self,
        sequences: list[Sequence],
        requests: abc.Sequence[Request],
        n_slots: int,
        keep: Callable[[Sequence], None],
    ) -> bool:
        """Decode sequences of one setting; False if memory ran out, with the rest reset."""
        asked = [requests[sequence.index] for sequence in sequences]
        length = self.memory(asked, n_slots).length
        try:
            n_rows = min(n_slots, len(sequences))
            slots = Slots(self.model, self.k, self.rule, asked[0].sampling, n_rows, length)
            with threads_for(self.model, n_rows), current(self.model.device):
                for sequence in Scheduler(slots, sequences):
                    keep(sequence)
        except RuntimeError as error:  # the CPU's allocator has no own type of exception
            if not isinstance(error, torch.OutOfMemoryError) and _NO_MEMORY not in str(error):
                raise
        else:
            return True
        for sequence in sequences:
            if not sequence.ended_by:
                sequence.reset()
        return False

    def _fewer(self, slots: int) -> int:
        """Return half the slots, and log it."""
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if slots == 1:
            raise OutOfSlots(
                "there is not enough memory for one row of this length: lower max_gen_toks or "
                "max_length, or use a smaller dtype."
            )
        _log.warning("out of memory with %d slots; continuing with %d", slots, slots // 2)
        return slots // 2

    def _answer(self, sequence: Sequence, request: Request, slots: int) -> Answer:
        every = (self.k - 1,) * len(sequence.n_drafted)
        record = DecodeRecord(
            n_prompt_tokens=len(request.prompt),
            n_truncated=request.n_truncated,
            draft_heads=self.k,
            draft_rule=self.rule.describe(request.sampling),
            n_kept=len(sequence.tokens) - 1,
            n_verified=tuple(sequence.n_verified),
            n_drafted=None if tuple(sequence.n_drafted) == every else tuple(sequence.n_drafted),
            lossless=self.rule.verify,
            rejected=tuple(sequence.rejected),
            ended_by=sequence.ended_by,
            looping=is_looping(sequence.tokens),
            batch_size=slots,
            prefill_s=sequence.began - sequence.admitted,
            decode_s=sequence.ended - sequence.began,
        )
        return Answer(sequence.tokens, record)

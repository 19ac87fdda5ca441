"""Assigns sequences to slots: a sequence enters when a slot is free and leaves when it ends.

Requests wait sorted by prompt, so repeats of a prompt follow each other and share its prefill: a
slot keeps the prompt's columns until another prompt overwrites them, also after its sequence has
ended.

If the step is a CUDA graph, the next one is launched before the results of the previous one are
read, so that the GPU never waits for the host; a sequence that has ended then makes one more step,
which is not counted.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mtp_harness.decode.slots import Slots, StepGraph
from mtp_harness.decode.step import Prefilled
from mtp_harness.decode.stopping import Stopping

PREFILL_TOKENS = 16_384
"""Prompt tokens, padding included, in one forward."""


@dataclass
class Sequence:
    """An unfinished answer, as the host knows it."""

    index: int
    prompt: tuple[int, ...]
    budget: int
    key: int
    stopping: Stopping
    tokens: list[int] = field(default_factory=list)
    n_verified: list[int] = field(default_factory=list)
    n_drafted: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    ended_by: str = ""
    next_draft: int = 0
    admitted: float = 0.0
    began: float = 0.0
    ended: float = 0.0

    def take(self, new: list[int]) -> None:
        """Add tokens up to the one that ends the answer."""
        ending = self.stopping.end(self.tokens, new)
        self.tokens += new[: ending.n_kept]
        self.ended_by = ending.ended_by

    def reset(self) -> None:
        """Reset the answer, to decode it again."""
        self.tokens, self.n_verified, self.n_drafted, self.rejected = [], [], [], []
        self.ended_by = ""


def _fetch(tensor: Tensor) -> Callable[[], list[list[int]]]:
    """Start copying a small tensor to the host; return a function that waits for its numbers."""
    if not tensor.is_cuda:
        return tensor.tolist
    here = torch.empty_like(tensor, device="cpu", pin_memory=True)
    here.copy_(tensor, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def read() -> list[list[int]]:
        arrived.synchronize()
        values: list[list[int]] = here.tolist()
        return values

    return read


class Scheduler:
    """Decodes sequences in slots; iterate over it for those that have ended."""

    def __init__(self, slots: Slots, sequences: Iterable[Sequence]) -> None:
        """Take the work: empty slots, sequences with equal prompts together."""
        self.slots, self.k = slots, slots.k
        self.queue = deque(sequences)
        n_slots = len(slots.rows)
        self.occupants: list[Sequence | None] = [None] * n_slots
        self.held: list[tuple[int, ...] | None] = [None] * n_slots  # prompts in the cache
        self.prefilled: dict[tuple[int, ...], Prefilled] = {}
        # A step reads at least a row's prompt, its first token and its drafts.
        shortest = min((len(sequence.prompt) for sequence in self.queue), default=0)
        self.graphs = slots.graphs(shortest + self.k)
        self.in_flight: deque[Callable[[], list[Sequence]]] = deque()  # launched, not read yet

    def __iter__(self) -> Iterator[Sequence]:
        """Yield sequences as they end."""
        while self.queue or any(self.occupants):
            if self.queue and None in self.occupants:
                self._admit()
                if not self.graphs:
                    yield from self._settle()
            if any(self.occupants):
                self._step()
            yield from self._settle(1 if self.graphs else 0)
            if not any(self.occupants):
                yield from self._settle()

    def _settle(self, leave: int = 0) -> Iterator[Sequence]:
        """Read all results but those of the last `leave` launches; yield sequences that ended."""
        while len(self.in_flight) > leave:
            ended = self.in_flight.popleft()()
            gone = [slot for slot, held in enumerate(self.occupants) if held and held.ended_by]
            if gone:
                self.slots.stop(gone)
            for slot in gone:
                self.occupants[slot] = None
            yield from ended

    # Beginning ----------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Put waiting sequences into the free slots."""
        free = [slot for slot, held in enumerate(self.occupants) if held is None]
        now = time.perf_counter()
        placed: dict[int, Sequence] = {}
        copies: list[tuple[tuple[int, ...], int]] = []
        new: dict[tuple[int, ...], int] = {}
        for _ in range(min(len(free), len(self.queue))):
            sequence = self.queue.popleft()
            slot = next((s for s in free if self.held[s] == sequence.prompt), None)
            if slot is None:
                slot = free[0]
                if sequence.prompt in self.prefilled or sequence.prompt in new:
                    copies.append((sequence.prompt, slot))
                else:
                    new[sequence.prompt] = slot
            free.remove(slot)
            placed[slot] = sequence
            sequence.admitted = now
        self._share([copy for copy in copies if copy[0] in self.prefilled])
        self._prefill(new)
        self._share([copy for copy in copies if copy[0] in new])
        self._start(placed)
        waiting = self.queue[0].prompt if self.queue else None
        if waiting in new:
            self.prefilled[waiting] = self.slots.lasting(self.prefilled[waiting], new[waiting])
        self.prefilled = {
            prompt: done for prompt, done in self.prefilled.items() if prompt == waiting
        }

    def _prefill(self, new: dict[tuple[int, ...], int]) -> None:
        chunk: list[tuple[int, ...]] = []
        for prompt in [*new, None]:
            longest = max(map(len, [*chunk, prompt])) if prompt and chunk else 0
            if chunk and (prompt is None or longest * (len(chunk) + 1) > PREFILL_TOKENS):
                done = self.slots.fill([new[prompt] for prompt in chunk], chunk)
                self.prefilled.update(zip(chunk, done, strict=True))
                chunk = []
            if prompt is not None:
                chunk.append(prompt)
        for prompt, slot in new.items():
            self.held[slot] = prompt

    def _share(self, copies: list[tuple[tuple[int, ...], int]]) -> None:
        for prompt in dict.fromkeys(prompt for prompt, _ in copies):
            targets = [slot for other, slot in copies if other == prompt]
            self.slots.share(self.held.index(prompt), targets, len(prompt))
            for slot in targets:
                self.held[slot] = prompt

    def _start(self, placed: dict[int, Sequence]) -> None:
        sequences = list(placed.values())
        prompts = [sequence.prompt for sequence in sequences]
        first = self.slots.start(
            list(placed),
            prompts,
            [self.prefilled[prompt] for prompt in prompts],
            [sequence.budget for sequence in sequences],
            [sequence.key for sequence in sequences],
        )
        for slot, sequence in placed.items():
            self.occupants[slot] = sequence
        read = _fetch(first)

        def settle() -> list[Sequence]:
            values, now = read(), time.perf_counter()
            for sequence, (token, n_draft) in zip(sequences, values, strict=True):
                sequence.take([token])
                sequence.next_draft, sequence.began, sequence.ended = n_draft, now, now
            return [sequence for sequence in sequences if sequence.ended_by]

        self.in_flight.append(settle)

    # Stepping -----------------------------------------------------------------------------------

    def _graph(self, columns: int) -> StepGraph:
        """Return the graph that reads the fewest columns, but at least these, or else all."""
        enough = [width for width in self.graphs if width >= columns]
        return self.graphs[min(enough, default=max(self.graphs))]

    def _step(self) -> None:
        """Launch one step of all sequences."""
        occupants = list(self.occupants)
        living = [sequence for sequence in occupants if sequence]
        stand = max(len(sequence.prompt) + len(sequence.tokens) - 1 for sequence in living)
        if self.graphs:
            n_tokens = self.k
            farthest = stand + self.k * (1 + len(self.in_flight))  # steps not read yet move rows on
            out = self._graph(farthest).replay()
        else:
            n_tokens = 1 + max(sequence.next_draft for sequence in living)
            out = self.slots.step(n_tokens, stand + n_tokens)
        read = _fetch(out)

        def settle() -> list[Sequence]:
            values, now = read(), time.perf_counter()
            live = [
                (sequence, row)
                for sequence, row in zip(occupants, values, strict=True)
                if sequence and not sequence.ended_by
            ]
            for sequence, (*tokens, verified, n_draft) in live:
                choices, drafts = tokens[:n_tokens], tokens[n_tokens:]
                n_drafted = min(sequence.next_draft, n_tokens - 1)
                sequence.n_verified.append(verified)
                sequence.n_drafted.append(n_drafted)
                sequence.rejected += drafts[verified:n_drafted]
                sequence.take(choices[: verified + 1])
                sequence.next_draft, sequence.ended = n_draft, now
            return [sequence for sequence, _ in live if sequence.ended_by]

        self.in_flight.append(settle)

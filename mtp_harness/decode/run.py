"""Which request is in which slot: rows enter when a slot is free and leave when they end.

Requests wait sorted by prompt, so repeats of one prompt follow each other and share its prefill: a
slot keeps the prompt's columns until another prompt overwrites them, also after its row has ended.

Where the step is a CUDA graph the next one is launched before the results of the one before are
read, so that the GPU never waits for the host; a row that has ended then makes one step more, which
nobody counts.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mtp_harness.decode.slots import Prefilled, Slots
from mtp_harness.decode.stopping import Stopping

PREFILL_TOKENS = 16_384
"""Prompt tokens, padding included, that go through the model in one forward."""


@dataclass
class Row:
    """One answer in the making, as the host knows it."""

    place: int
    prompt: tuple[int, ...]
    budget: int
    key: int
    stopping: Stopping
    tokens: list[int] = field(default_factory=list)
    n_verified: list[int] = field(default_factory=list)
    n_drafted: list[int] = field(default_factory=list)
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
        """Forget what was decoded, to begin again."""
        self.tokens, self.n_verified, self.n_drafted, self.ended_by = [], [], [], ""


class _Fetched:
    """A small tensor on its way to the host."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.arrived: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self.tensor = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self.tensor.copy_(tensor, non_blocking=True)
            self.arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.arrived.record()

    def read(self) -> list[list[int]]:
        """Wait for it, and return the numbers."""
        if self.arrived is not None:
            self.arrived.synchronize()
        values: list[list[int]] = self.tensor.tolist()
        return values


class Run:
    """Decodes rows in the slots they are given; iterate over it to get them as they end."""

    def __init__(self, slots: Slots, rows: Sequence[Row]) -> None:
        """Take the work on.

        Args:
            slots: with nothing in them.
            rows: not begun; equal prompts next to each other.
        """
        self.slots, self.k = slots, slots.k
        self.queue = deque(rows)
        n_slots = len(slots.rows)
        self.occupants: list[Row | None] = [None] * n_slots
        self.held: list[tuple[int, ...] | None] = [None] * n_slots  # prompts in the cache
        self.prefilled: dict[tuple[int, ...], Prefilled] = {}
        self.graph = slots.graph()
        self.in_flight: deque[Callable[[], list[Row]]] = deque()  # launched, and not read yet

    def __iter__(self) -> Iterator[Row]:
        """Yield rows as they end."""
        while self.queue or any(self.occupants):
            if self.queue and None in self.occupants:
                self._admit()
                if self.graph is None:
                    yield from self._settle()
            if any(self.occupants):
                self._step()
            yield from self._settle(0 if self.graph is None else 1)
            if not any(self.occupants):
                yield from self._settle()

    def _settle(self, leave: int = 0) -> Iterator[Row]:
        """Read results, all but those of the last `leave` launches; yield the rows that ended."""
        while len(self.in_flight) > leave:
            ended = self.in_flight.popleft()()
            gone = [slot for slot, row in enumerate(self.occupants) if row and row.ended_by]
            if gone:
                self.slots.stop(gone)
            for slot in gone:
                self.occupants[slot] = None
            yield from ended

    # Beginning ----------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Put waiting rows into the free slots."""
        free = [slot for slot, row in enumerate(self.occupants) if row is None]
        now = time.perf_counter()
        placed: dict[int, Row] = {}
        copies: list[tuple[tuple[int, ...], int]] = []
        new: dict[tuple[int, ...], int] = {}
        for _ in range(min(len(free), len(self.queue))):
            row = self.queue.popleft()
            slot = next((s for s in free if self.held[s] == row.prompt), None)
            if slot is None:
                slot = free[0]
                if row.prompt in self.prefilled or row.prompt in new:
                    copies.append((row.prompt, slot))
                else:
                    new[row.prompt] = slot
            free.remove(slot)
            placed[slot] = row
            row.admitted = now
        self._share([copy for copy in copies if copy[0] in self.prefilled])
        self._prefill(new)
        self._share([copy for copy in copies if copy[0] in new])
        self._start(placed)
        waiting = self.queue[0].prompt if self.queue else None
        self.prefilled = {p: one for p, one in self.prefilled.items() if p == waiting}

    def _prefill(self, new: dict[tuple[int, ...], int]) -> None:
        chunk: list[tuple[int, ...]] = []
        for prompt in [*new, None]:
            longest = max(map(len, [*chunk, prompt])) if prompt and chunk else 0
            if chunk and (prompt is None or longest * (len(chunk) + 1) > PREFILL_TOKENS):
                done = self.slots.fill([new[one] for one in chunk], chunk)
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

    def _start(self, placed: dict[int, Row]) -> None:
        rows = list(placed.values())
        first = self.slots.start(
            list(placed),
            [row.prompt for row in rows],
            [self.prefilled[row.prompt] for row in rows],
            [row.budget for row in rows],
            [row.key for row in rows],
        )
        for slot, row in placed.items():
            self.occupants[slot] = row
        fetched = _Fetched(first)

        def settle() -> list[Row]:
            values, now = fetched.read(), time.perf_counter()
            for row, (token, n_draft) in zip(rows, values, strict=True):
                row.take([token])
                row.next_draft, row.began, row.ended = n_draft, now, now
            return [row for row in rows if row.ended_by]

        self.in_flight.append(settle)

    # Stepping -----------------------------------------------------------------------------------

    def _step(self) -> None:
        """Launch one step of all rows."""
        occupants = list(self.occupants)
        if self.graph is not None:
            n_tokens, out = self.k, self.graph.replay()
        else:
            living = [row for row in occupants if row]
            n_tokens = 1 + max(row.next_draft for row in living)
            stands = [len(row.prompt) + len(row.tokens) - 1 for row in living]
            out = self.slots.step(n_tokens, max(stands) + n_tokens)
        fetched = _Fetched(out)

        def settle() -> list[Row]:
            values, now = fetched.read(), time.perf_counter()
            live = [
                (row, one)
                for row, one in zip(occupants, values, strict=True)
                if row and not row.ended_by
            ]
            for row, (*choices, verified, n_draft) in live:
                row.n_verified.append(verified)
                row.n_drafted.append(min(row.next_draft, n_tokens - 1))
                row.take(choices[: verified + 1])
                row.next_draft, row.ended = n_draft, now
            return [row for row, _ in live if row.ended_by]

        self.in_flight.append(settle)

"""A preallocated key/value cache with one write position per row.

Rows accept different numbers of drafts, so each row writes at its own position; nothing is shifted.

    slot 0   k k k k k . . . | x      positions of this call: 3 4      (2 tokens, T = 2)
    slot 1   k k . . . . . . | x      positions of this call: 0 1
                               ^ the trash column: padding and finished rows write there; no query
                                 of a live row sees it

A call either fills some rows with prompts (`fill`: its tokens see each other, causally) or
continues all rows (`at`: its tokens see their row's stored tokens up to their own position).

Layers of linear attention have no columns: they keep states, which belong to the last kept token of
their row. After a window they move once `keep` has said how many of its tokens stay; of one token,
which always stays in a live row, a layer may move them at once.
"""

import copy
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from mtp_harness.models.interface import LayerShape


class SlotCache:
    """Keys and values of `slots` rows; implements `models.interface.KeyValueCache`."""

    def __init__(
        self,
        shapes: Sequence[LayerShape],
        slots: int,
        length: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Allocate.

        Args:
            shapes: one per cache layer, by layer index.
            slots: rows, B.
            length: tokens per row; position `length` is the trash column.
            dtype: of keys and values.
            device: of keys and values, unless a shape says otherwise, and of positions.
        """
        self.trash = length

        def stored(shape: LayerShape, width: int) -> Tensor:
            # Zeros: in empty memory, a masked NaN would still spread through the softmax's product.
            size = (slots, length + 1, shape.n_kv_heads, width)
            return torch.zeros(size, dtype=dtype, device=shape.device or device)

        self.keys = [stored(shape, shape.widths[0]) for shape in shapes]
        self.values = [stored(shape, shape.widths[1]) for shape in shapes]
        self.states = {
            index: [
                torch.zeros(slots, *size, dtype=states_type(dtype), device=shape.device or device)
                for size in shape.states
            ]
            for index, shape in enumerate(shapes)
            if shape.states
        }
        self.cut = False  # whether a call's attention read the first S columns, and no others
        self._all_rows = torch.arange(slots, device=device)
        self.fill(self._all_rows, self._all_rows[:, None])

    def at(self, positions: Tensor, width: int) -> None:
        """Set the positions of the next call's tokens, in all rows.

        Args:
            positions: int64 [B, T]; `trash` for tokens that must leave no trace.
            width: S, more than any position of a live row; attention reads the first S columns.
        """
        self._stand(self._all_rows, positions)
        self.width, self.in_prompts = width, False

    def fill(self, rows: Tensor, positions: Tensor) -> None:
        """Declare the next call's tokens as prompts, padded on the right.

        Slots `rows` [b] are filled; `positions` [b, T] are 0, 1, ... and `trash` for padding.
        """
        self._stand(rows, positions)
        self.width, self.in_prompts = 0, True

    def keep(self, count: Tensor) -> None:
        """Move states to the last token that stays: the first `count` [B] of a call's tokens do.

        Live rows keep the first at least. Keys and values need no such step: the next call
        overwrites those of the other tokens.
        """
        if self._moves:
            count = torch.where(self.positions[:, 0] == self.trash, 0, count)
        for move in self._moves.values():
            move(count)
        self._moves.clear()

    def held(self, layer_idx: int) -> list[Tensor] | None:
        """Return a layer's states; None while filling prompts, which begin without states."""
        return None if self.in_prompts else self.states[layer_idx]

    def settle(self, layer_idx: int, states: Sequence[Tensor]) -> None:
        """Store a layer's states [b, ...] behind prompts."""
        for held, new in zip(self.states[layer_idx], states, strict=True):
            held[self.rows] = new.to(held)

    def settle_later(self, layer_idx: int, move: Callable[[Tensor], None]) -> None:
        """Call `move` once `keep` is called; see `KeyValueCache`."""
        self._moves[layer_idx] = move

    def _stand(self, rows: Tensor, positions: Tensor) -> None:
        self.rows, self.positions = rows, positions
        self._moves: dict[int, Callable[[Tensor], None]] = {}  # a call that failed leaves none
        self.places = (rows[:, None] * (self.trash + 1) + positions).flatten()  # [B * T]
        self._remembered: dict[Any, Any] = {}

    def remember(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` returned at the first call with `key` for the current positions."""
        if key not in self._remembered:
            self._remembered[key] = make()
        return self._remembered[key]

    def on(self, device: torch.device) -> "SlotCache":
        """Return this cache for layers on another device, with this call's tensors there."""
        if device == self.positions.device:
            return self

        def make() -> SlotCache:
            there = copy.copy(self)
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(there, name, value.to(device))
            there._remembered = {}
            return there

        there: SlotCache = self.remember(("on", device), make)
        return there

    def bias(self, dtype: torch.dtype, repeats: int, last: Tensor | None = None) -> Tensor:
        """Return the mask as numbers; see `KeyValueCache`.

        While filling prompts, whose tokens see this call alone, S is the call's number of tokens.
        """

        def make() -> Tensor:
            at, width = self.positions, self.width  # [B, T]; S
            if self.in_prompts:
                assert last is not None, "a prompt's tokens see each other causally without a mask"
                at, width = last[:, None], self.positions.shape[1]
            elif last is not None:
                at = at.gather(1, last[:, None])
            columns = torch.arange(width, device=at.device)
            zero = torch.zeros((), dtype=dtype, device=at.device)
            seen = columns <= at[:, None, :, None]  # [B, 1, T, S]
            numbers = torch.where(seen, zero, float("-inf"))
            return numbers.repeat(1, 1, repeats, 1) if repeats > 1 else numbers

        bias: Tensor = self.remember(("bias", dtype, repeats, last is None), make)
        return bias

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Write keys and values; return the first S columns, or the given ones for prompts."""
        keys, values = self.stored(layer_idx)
        keys.flatten(0, 1).index_copy_(0, self.places, key.transpose(1, 2).flatten(0, 1))
        values.flatten(0, 1).index_copy_(0, self.places, value.transpose(1, 2).flatten(0, 1))
        if self.in_prompts:
            return key, value
        self.cut = True
        return keys[:, : self.width].transpose(1, 2), values[:, : self.width].transpose(1, 2)

    def stored(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Return all keys and values of a layer, [slots, L + 1, H, d]."""
        return self.keys[layer_idx], self.values[layer_idx]

    def lengths(self) -> Tensor:
        """Return how many columns the call's tokens see, per row, int64 [B]; 0: row not live."""
        return torch.where(self.positions == self.trash, -1, self.positions).amax(1) + 1

    def share(self, source: int, targets: Tensor, length: int) -> None:
        """Copy the first `length` columns and the states of one row to others, int64 [b]."""
        for stored in (*self.keys, *self.values):
            stored[targets.to(stored.device), :length] = stored[source, :length]
        for held in self._states():
            held[targets.to(held.device)] = held[source].clone()

    def states_of(self, row: int) -> list[Tensor]:
        """Return a copy of the states of one row."""
        return [held[row].clone() for held in self._states()]

    def restore(self, row: int, states: Sequence[Tensor]) -> None:
        """Restore one row's states to those of `states_of`."""
        for held, before in zip(self._states(), states, strict=True):
            held[row] = before

    def _states(self) -> list[Tensor]:
        return [held for of_layer in self.states.values() for held in of_layer]


def bytes_per_slot(shapes: Sequence[LayerShape], length: int, dtype: torch.dtype) -> int:
    """Return the memory of one row of `length` tokens in a `SlotCache`."""
    per_token = sum(shape.n_kv_heads * sum(shape.widths) for shape in shapes)
    states = sum(prod(size) for shape in shapes for size in shape.states)
    return per_token * (length + 1) * dtype.itemsize + states * states_type(dtype).itemsize


def states_type(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of states in a model of `dtype`, at least float32: they sum over a text."""
    return torch.promote_types(dtype, torch.float32)

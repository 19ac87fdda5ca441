"""A preallocated key/value cache with one write position per row.

Rows accept different numbers of drafts, so each writes where it stands; nothing is ever shifted.

    slot 0   k k k k k . . . | x      positions of this call: 3 4      (2 tokens, T = 2)
    slot 1   k k . . . . . . | x      positions of this call: 0 1
                               ^ the trash column: padding and finished rows write there; no query
                                 of a live row sees it
"""

from collections.abc import Sequence
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
            device: where they live.
        """
        self.trash = length
        sizes = [(slots, shape.n_kv_heads, length + 1, shape.head_dim) for shape in shapes]
        # Zeros, not empty memory: a masked NaN would still spread through the softmax's product.
        self.keys = [torch.zeros(size, dtype=dtype, device=device) for size in sizes]
        self.values = [torch.zeros(size, dtype=dtype, device=device) for size in sizes]
        self.rows = torch.arange(slots, device=device)[:, None]  # [B, 1]
        self.positions = torch.zeros(slots, 0, dtype=torch.int64, device=device)
        self.width = 0
        self.mask = torch.zeros(slots, 1, 0, 0, dtype=torch.bool, device=device)

    def at(self, positions: Tensor, width: int) -> None:
        """Say where the next call's tokens stand.

        Args:
            positions: int64 [B, T]; `trash` for tokens that must leave no trace.
            width: S, more than any position of a live row; attention reads the first S columns.
        """
        self.positions = positions
        self.width = width
        columns = torch.arange(width, device=positions.device)
        self.mask = columns <= positions[:, None, :, None]  # bool [B, 1, T, S]

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Write [B, H, T, d] keys and values at the positions; return the first S, [B, H, S, d]."""
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[self.rows, :, self.positions] = key.transpose(1, 2)  # [B, T, H, d]
        values[self.rows, :, self.positions] = value.transpose(1, 2)
        return keys[:, :, : self.width], values[:, :, : self.width]

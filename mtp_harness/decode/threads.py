"""How many CPU threads decode."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mtp_harness.models.interface import MultiHeadModel

SMALL = 50_000_000
"""Parameters of a model whose matrices are too small to split between threads."""


@contextmanager
def threads_for(model: MultiHeadModel, rows: int) -> Iterator[None]:
    """Decode with a small model on the CPU on no more threads than there are rows.

    One row's products are too small to split, and threads that wait for each other on a busy
    machine make each of them many times slower; several rows divide well.
    """
    before = torch.get_num_threads()
    if model.device.type == "cpu" and sum(p.numel() for p in model.parameters()) < SMALL:
        torch.set_num_threads(min(before, rows))
    try:
        yield
    finally:
        torch.set_num_threads(before)

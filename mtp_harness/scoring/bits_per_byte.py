"""Bits per byte of documents, which compares models with different tokenizers."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def bits_per_byte(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return bits per byte [...] of the columns nats, scored tokens, tokens, bytes [..., 4].

    A head that cannot reach a text's first tokens scores fewer than all: its nats per token are
    used for all of them.
    """
    nats, scored, tokens, n_bytes = np.moveaxis(means, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_byte: NDArray[np.float64] = nats / scored * tokens / n_bytes / math.log(2)
    return per_byte


def pooled_bits_per_byte(values: Sequence[Sequence[float]]) -> float:
    """Aggregate (nats, scored tokens, tokens, bytes) of documents as bits per byte."""
    return float(bits_per_byte(np.sum(np.array(values, dtype=np.float64), axis=0)))

"""Products of a step's tokens as two halves of their sum, which the next kernel adds.

Where the output is narrow, cuBLAS gives such a product to too few multiprocessors, or sums its
parts in a launch of its own. On an H200, with the kernel that adds them and 1 to 256 tokens, halves
take .80 to 1.02 of the time for attention's output in a model of width 4096 and .89 to .96 for what
its mlp adds; other widths are in `tests/benchmarks/README.md`.

A half is rounded to bfloat16, which loses as much as rounding the whole product does. In float16 a
half could overflow where the sum does not.
"""

import torch
from torch import Tensor

_NARROW = 4096


def splits(states: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether the product of states [N, K] and a weight [O, K] is such a case."""
    n_outputs, n_inputs = weight.shape
    most = 256 if n_outputs <= _NARROW else 128 if n_inputs > 2 * n_outputs else 0
    aligned = n_inputs % 16 == 0
    return len(states) <= most and aligned and bias is None and states.dtype is torch.bfloat16


def halves(states: Tensor, weight: Tensor) -> Tensor:
    """Return two summands [2, N, O] of states [N, K] times weight [O, K]: K in two halves."""
    first = states.view(len(states), 2, -1).transpose(0, 1)  # [2, N, K / 2]
    return torch.bmm(first, weight.view(len(weight), 2, -1).permute(1, 2, 0))

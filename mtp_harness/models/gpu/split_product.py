"""Products of a step's tokens as two halves of their sum, which the next kernel adds.

Where the output is narrow, cuBLAS gives such a product to too few multiprocessors, or sums its
parts in a launch of its own. The halves are rounded to the states' type, as the whole product is.
With the kernel that adds them they take .80 to 1.02 of the time on an H200 with 4096 to 4096
numbers and 1 to 256 tokens, .89 to .96 with 11008 to 4096; with wider outputs or more tokens as
often more as less (`tests/benchmarks/README.md`).
"""

import torch
from torch import Tensor

_MOST_TOKENS = 256
_MOST_OUTPUTS = 4096


def splits(states: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether the product of states [N, K] and a weight [O, K] is such a case."""
    small = len(states) <= _MOST_TOKENS and len(weight) <= _MOST_OUTPUTS
    aligned = weight.shape[1] % 16 == 0
    return small and aligned and bias is None and states.dtype in (torch.bfloat16, torch.float16)


def halves(states: Tensor, weight: Tensor) -> Tensor:
    """Return two summands [2, N, O] of states [N, K] times weight [O, K]: K in two halves."""
    first = states.view(len(states), 2, -1).transpose(0, 1)  # [2, N, K / 2]
    return torch.bmm(first, weight.view(len(weight), 2, -1).permute(1, 2, 0))

"""Products of a few rows with a narrow float32 weight on a GPU, where cuBLAS chooses badly.

For 8 to 16 rows it gives the whole product to one or two multiprocessors: 26 to 54 µs for widths
of 192 to 704 on an H100, where cuBLASLt needs 3. torch uses cuBLASLt if a bias is added, so zeros
are added. With more rows, wider weights or half types cuBLAS is as fast or faster.
"""

import functools

import torch
from torch import Tensor
from torch.nn.functional import linear

_MOST_ROWS = 16
_MOST_WEIGHTS = 2**18


def is_narrow(states: Tensor, weight: Tensor) -> bool:
    """Return whether the product of states [N, D] and a weight [O, D] is such a case."""
    few = 1 < len(states) <= _MOST_ROWS and weight.numel() <= _MOST_WEIGHTS
    return few and states.is_cuda and states.dtype is torch.float32


def product(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return states [N, D] times weight [O, D], with the bias [O] if there is one; [N, O]."""
    if bias is None and is_narrow(states, weight):
        bias = _zeros(len(weight), weight.device)
    return linear(states, weight, bias)


@functools.cache
def _zeros(size: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.zeros(size, device=device)

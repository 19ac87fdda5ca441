"""When causal attention needs a mask, and that mask."""

from typing import Any

import torch
from torch import Tensor


def holds_all_scores(config: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether attention without a mask holds all T * T scores of every head.

    In float32 on a GPU torch's attention does so where heads share keys and values. With a mask,
    transformers repeats these for every head, and torch's attention holds no scores.

    Args:
        config: of a model of transformers.
        device: of the states.
        dtype: of the states.
    """
    shared = config.num_key_value_heads != config.num_attention_heads
    in_float32 = dtype is torch.float32 and not torch.is_autocast_enabled("cuda")
    on_sdpa = config._attn_implementation == "sdpa"
    return shared and on_sdpa and in_float32 and device.type == "cuda"


def causal_mask(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return numbers to add to scores, [1, 1, T, T]: each token sees itself and earlier ones."""
    lowest = torch.finfo(dtype).min
    return torch.full((1, 1, length, length), lowest, dtype=dtype, device=device).triu_(1)

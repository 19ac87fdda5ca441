"""transformers' Llama blocks behind the positions-and-cache contract of `interface.py`."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mtp_harness.models.interface import KeyValueCache


def run_blocks(
    blocks: Iterable[nn.Module],
    states: Tensor,
    rotary: nn.Module,
    positions: Tensor | None,
    cache: KeyValueCache | None,
) -> Tensor:
    """Apply Llama decoder layers one after the other.

    Args:
        blocks: `LlamaDecoderLayer`s, each with the `layer_idx` it has in the cache.
        states: [B, T, D].
        rotary: `LlamaRotaryEmbedding`.
        positions: int64 [B, T]; None means 0..T-1.
        cache: None means causal attention within this call.

    Returns:
        [B, T, D].
    """
    if positions is None:
        positions = torch.arange(states.shape[1], device=states.device)[None]
    embeddings = rotary(states, position_ids=positions)  # cos, sin, each [B, T, head_dim]
    blocks = list(blocks)
    mask = _mask(blocks[0], states, cache) if blocks else None
    for block in blocks:
        states = block(
            states,
            attention_mask=mask,
            position_embeddings=embeddings,
            past_key_values=cache,
        )
    return states


def _mask(block: nn.Module, states: Tensor, cache: KeyValueCache | None) -> Tensor | None:
    """Return the mask in the form that a block's attention function takes.

    sdpa takes bool, and without a mask it is causal by itself. eager adds the mask to the scores,
    and without one every token sees every other.
    """
    attention: Any = block.self_attn
    if attention.config._attn_implementation != "eager":
        return None if cache is None else cache.mask
    length = states.shape[1]
    seen = states.new_ones(length, length, dtype=torch.bool).tril() if cache is None else cache.mask
    lowest = torch.finfo(states.dtype).min
    return torch.zeros_like(seen, dtype=states.dtype).masked_fill(~seen, lowest)

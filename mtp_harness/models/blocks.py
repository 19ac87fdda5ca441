"""transformers' Llama blocks behind the positions-and-cache contract of `interface.py`."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mtp_harness.models.cached_block import rotation, run_cached_block
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
        cache: None means causal attention within this call, by transformers' own code.

    Returns:
        [B, T, D].
    """
    if positions is None:
        positions = torch.arange(states.shape[1], device=states.device)[None]
    blocks = list(blocks)
    if cache is not None:
        # The trunk and every head of one call stand at the same positions.
        rotated_by = cache.remember(rotary, lambda: rotation(rotary, states, positions))
        for block in blocks:
            states = run_cached_block(block, states, rotated_by, cache)
        return states
    embeddings = rotary(states, position_ids=positions)  # cos, sin, each [B, T, head_dim]
    mask = _mask(blocks[0], states) if blocks else None
    for block in blocks:
        states = block(states, attention_mask=mask, position_embeddings=embeddings)
    return states


def run_block_at(
    block: nn.Module,
    states: Tensor,
    rotary: nn.Module,
    positions: Tensor,
    cache: KeyValueCache,
    last: Tensor,
) -> Tensor:
    """Apply one block for its output at one token per row.

    Args:
        block: as above, and so are `states`, `rotary`, `positions` and `cache`, which gets the keys
            and values of all tokens.
        states: [B, T, D].
        rotary: `LlamaRotaryEmbedding`.
        positions: int64 [B, T].
        cache: as above.
        last: int64 [B], index within the call.

    Returns:
        [B, 1, D].
    """
    rotated_by = cache.remember(rotary, lambda: rotation(rotary, states, positions))
    return run_cached_block(block, states, rotated_by, cache, last)


def _mask(block: nn.Module, states: Tensor) -> Tensor | None:
    """Return the mask in the form that a block's attention function takes.

    sdpa is causal by itself where there is none. eager adds the mask to the scores, and without one
    every token sees every other.
    """
    attention: Any = block.self_attn
    if attention.config._attn_implementation != "eager":
        return None
    length = states.shape[1]
    seen = states.new_ones(length, length, dtype=torch.bool).tril()
    lowest = torch.finfo(states.dtype).min
    return torch.zeros_like(seen, dtype=states.dtype).masked_fill(~seen, lowest)

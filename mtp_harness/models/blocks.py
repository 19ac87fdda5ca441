"""transformers' Llama blocks behind the positions-and-cache contract of `interface.py`."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from mtp_harness.models.cached_block import Rotation, rotation, run_cached_block, store_block_keys
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
        blocks: `LlamaDecoderLayer`s, each with the `layer_idx` it has in the cache; they may be
            on several devices.
        states: [B, T, D].
        rotary: `LlamaRotaryEmbedding`.
        positions: int64 [B, T]; None means 0..T-1.
        cache: None means causal attention within this call, by transformers' own code.

    Returns:
        [B, T, D], on the device of `states`.
    """
    if positions is None:
        positions = torch.arange(states.shape[1], device=states.device)[None]
    main = states.device
    if cache is not None:
        # The trunk and every head of one call stand at the same positions.
        rotated_by = cache.remember(rotary, lambda: rotation(rotary, states, positions))
        for block in blocks:
            home = device_of(block)
            there = cache.on(home)
            states = run_cached_block(block, states.to(home), _at(rotated_by, home, there), there)
        return states.to(main)
    embeddings = rotary(states, position_ids=positions)  # cos, sin, each [B, T, head_dim]
    for home, group in groupby(blocks, device_of):
        states, here = states.to(home), _moved(embeddings, home)
        mask = None
        for block in group:
            mask = _mask(block, states) if mask is None else mask
            states = block(states, attention_mask=mask, position_embeddings=here)
    return states.to(main)


def device_of(block: Any) -> torch.device:
    """Return where a `LlamaDecoderLayer` is."""
    device: torch.device = block.input_layernorm.weight.device
    return device


def _at(rotated_by: Rotation, home: torch.device, cache: KeyValueCache) -> Rotation:
    """Return the rotation on another device; moved once a call."""
    made: Rotation = cache.remember(("rotation", home), lambda: _moved(rotated_by, home))
    return made


def _moved(pair: tuple[Tensor, Tensor], home: torch.device) -> tuple[Tensor, Tensor]:
    return pair[0].to(home), pair[1].to(home)


def store_keys(
    block: nn.Module,
    states: Tensor,
    rotary: nn.Module,
    positions: Tensor,
    cache: KeyValueCache,
) -> None:
    """Add a block's keys and values of states [B, T, D] to the cache; arguments as above."""
    rotated_by = cache.remember(rotary, lambda: rotation(rotary, states, positions))
    home = device_of(block)
    there = cache.on(home)
    store_block_keys(block, states.to(home), _at(rotated_by, home, there), there)


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

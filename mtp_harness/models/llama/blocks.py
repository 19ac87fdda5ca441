"""transformers' Llama blocks with the positions and cache of `interface.py`."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from mtp_harness.models.causal_mask import causal_mask, holds_all_scores
from mtp_harness.models.decoding_weights import Rotation, rotation
from mtp_harness.models.interface import KeyValueCache
from mtp_harness.models.llama.cached_block import run_cached_block


def run_blocks(
    blocks: Iterable[nn.Module],
    states: Tensor,
    rotary: nn.Module,
    positions: Tensor | None,
    cache: KeyValueCache | None,
) -> Tensor:
    """Apply Llama decoder layers one after the other; return [B, T, D] on the device of `states`.

    Args:
        blocks: `LlamaDecoderLayer`s, each with the `layer_idx` it has in the cache; they may be
            on several devices.
        states: [B, T, D].
        rotary: `LlamaRotaryEmbedding`.
        positions: int64 [B, T]; None means 0..T-1.
        cache: None means causal attention within this call, by transformers' own code.
    """
    if positions is None:
        positions = torch.arange(states.shape[1], device=states.device)[None]
    main = states.device
    if cache is not None:
        # The trunk and every head of one call have the same positions.
        rotated_by = cache.remember(rotary, lambda: _rotation(rotary, states, positions))
        for block in blocks:
            states = _run_at_home(block, states, rotated_by, cache)
        return states.to(main)
    embeddings = rotary(states, position_ids=positions)  # cos, sin, each [B, T, head_dim]
    for home, group in groupby(blocks, device_of):
        states, here = states.to(home), _moved(embeddings, home)
        mask = None
        for block in group:
            mask = _mask(block, states) if mask is None else mask
            states = block(states, attention_mask=mask, position_embeddings=here)
    return states.to(main)


def _rotation(rotary: nn.Module, states: Tensor, positions: Tensor) -> Rotation:
    """Return cos and sin of positions; on a GPU one kernel makes them, where it knows how."""
    if states.is_cuda:
        from mtp_harness.models.gpu import layer  # here, because Triton may be missing

        if layer.knows_rotary(rotary, states):
            cos, sin = layer.rotated(rotary, states, positions, negated=True)
            return cos[:, :, None], sin[:, :, None]
    return rotation(rotary, states, positions)


def device_of(block: Any) -> torch.device:
    """Return the device of a `LlamaDecoderLayer`."""
    device: torch.device = block.input_layernorm.weight.device
    return device


def _run_at_home(
    block: nn.Module,
    states: Tensor,
    rotated_by: Rotation,
    cache: KeyValueCache,
    last: Tensor | None = None,
) -> Tensor:
    """Apply a block on its own device; arguments as for `run_cached_block`, on any device."""
    home = device_of(block)
    if home == rotated_by[0].device == states.device:
        return _run(block, states, rotated_by, cache, last)
    there = cache.on(home)
    turned = there.remember(("rotation", id(rotated_by)), lambda: _moved(rotated_by, home))
    last = None if last is None else last.to(home)
    return _run(block, states.to(home), turned, there, last)


def _run(
    block: nn.Module,
    states: Tensor,
    rotated_by: Rotation,
    cache: KeyValueCache,
    last: Tensor | None,
) -> Tensor:
    """Apply a block in the faster of the two ways that can run it."""
    # At one token of a prompt: `cached_block` computes no queries of the others, which are many.
    if states.is_cuda and not (cache.in_prompts and last is not None):
        from mtp_harness.models.gpu import layer  # here, because Triton may be missing

        if layer.knows_attention(block.self_attn) and layer.serves(block, states, cache):
            return layer.run(block, states, rotated_by, cache, last)
    return run_cached_block(block, states, rotated_by, cache, last)


def _moved(pair: tuple[Tensor, Tensor], home: torch.device) -> tuple[Tensor, Tensor]:
    return pair[0].to(home), pair[1].to(home)


def run_block_at(
    block: nn.Module,
    states: Tensor,
    rotary: nn.Module,
    positions: Tensor,
    cache: KeyValueCache,
    last: Tensor,
) -> Tensor:
    """Apply one block for its output [B, 1, D] at one token per row, `last` [B] within the call.

    The other arguments are `run_blocks`'s; the cache gets the keys and values of all tokens.
    """
    rotated_by = cache.remember(rotary, lambda: _rotation(rotary, states, positions))
    return _run_at_home(block, states, rotated_by, cache, last).to(states.device)


def _mask(block: nn.Module, states: Tensor) -> Tensor | None:
    """Return the mask that a block's attention function needs; None if it is causal without."""
    attention: Any = block.self_attn
    config, device, dtype = attention.config, states.device, states.dtype
    if config._attn_implementation == "eager" or holds_all_scores(config, device, dtype):
        return causal_mask(states.shape[1], device, dtype)
    return None

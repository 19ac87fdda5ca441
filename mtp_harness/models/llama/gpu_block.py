"""A Llama block for a decoding step on a GPU: `cached_block` in ten launches.

The numbers are `cached_block`'s up to rounding. Prompts, whose products are long, and float64,
which the kernels do not support, use `cached_block`.
"""

from typing import Any

import torch
from torch import Tensor

from mtp_harness.models.interface import KeyValueCache, at_index
from mtp_harness.models.llama.decoding_attention import attend_rows
from mtp_harness.models.llama.kernels import add_norm, rotate_and_store, silu_times
from mtp_harness.models.llama.narrow_product import is_narrow, product
from mtp_harness.models.llama.weights import Rotation, fused

_TYPES = (torch.bfloat16, torch.float16, torch.float32)


def serves(block: Any, states: Tensor, cache: KeyValueCache) -> bool:
    """Return whether the kernels can run this block on these states [B, T, D]."""
    head_dim = block.self_attn.head_dim
    power_of_2 = head_dim >= 16 and head_dim & (head_dim - 1) == 0
    return cache.mask is not None and states.dtype in _TYPES and power_of_2


def run_gpu_block(
    block: Any,
    states: Tensor,
    rotated_by: Rotation,
    cache: KeyValueCache,
    last: Tensor | None = None,
) -> Tensor:
    """Apply one block; arguments and result as for `cached_block.run_cached_block`."""
    weights, attention, mlp = fused(block), block.self_attn, block.mlp
    n_rows, _, width = states.shape
    head_dim, layer = attention.head_dim, attention.layer_idx
    n_heads, n_kv_heads = (p.out_features // head_dim for p in (attention.q_proj, attention.k_proj))
    cos, sin = (part.flatten(0, 2) for part in rotated_by)  # [N, d], N = B * T
    flat = states.reshape(-1, width)  # [N, D]
    keys, values = cache.stored(layer)  # [slots, L + 1, H_kv, d]
    stored = keys.flatten(0, 1), values.flatten(0, 1)
    norm = block.input_layernorm
    _, normed = add_norm(flat, None, norm.weight, norm.variance_epsilon)
    qkv = product(normed, weights.qkv, weights.qkv_bias)
    query = rotate_and_store(qkv, cos, sin, cache.places, *stored, n_heads)  # [N, H, d]
    query = query.view(n_rows, -1, n_heads, head_dim)
    positions = cache.positions
    if last is not None:
        query, positions = at_index(query, last).contiguous(), positions.gather(1, last[:, None])
        flat = at_index(states, last).flatten(0, 1)  # [B, D]
    lengths = cache.remember("lengths", cache.lengths)
    seen = attend_rows(query, keys, values, lengths, positions, attention.scaling)
    norm = block.post_attention_layernorm
    update = product(seen.flatten(0, 1), attention.o_proj.weight, attention.o_proj.bias)
    flat, normed = add_norm(flat, update, norm.weight, norm.variance_epsilon)
    active = silu_times(product(normed, weights.gate_up, weights.gate_up_bias))
    down = mlp.down_proj  # added in place: `add_norm` made these states
    if down.bias is None and not is_narrow(active, down.weight):
        flat.addmm_(active, down.weight.t())
    else:
        flat += product(active, down.weight, down.bias)
    out: Tensor = flat.view(n_rows, -1, width)
    return out

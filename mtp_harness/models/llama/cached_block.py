"""A Llama block for decoding: transformers' weights, with fewer and larger operations.

The numbers are those of `LlamaDecoderLayer`, which is used everywhere else. Here query, key and
value are one product (as are gate and up), and one rotation covers query and key. For one token, an
operation's overhead costs as much as its arithmetic.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

from mtp_harness.models.decoding_weights import Rotation, joined
from mtp_harness.models.interface import KeyValueCache, at_index


def run_cached_block(
    block: Any,
    states: Tensor,
    rotated_by: Rotation,
    cache: KeyValueCache,
    last: Tensor | None = None,
) -> Tensor:
    """Apply one block to states at the cache's positions; return [B, T, D].

    Args:
        block: a `LlamaDecoderLayer`.
        states: [B, T, D].
        rotated_by: from `rotation`.
        cache: has the positions; this block's keys and values are added to it.
        last: int64 [B], index within the call of the only tokens whose output is needed: the result
            is [B, 1, D].
    """
    attention, mlp = block.self_attn, block.mlp
    of_qkv = joined(attention, "q_proj", "k_proj", "v_proj")
    head_dim = attention.head_dim
    n_queries, n_keys = attention.q_proj.out_features, attention.k_proj.out_features
    normed = _norm(block.input_layernorm, states)
    if last is None:
        qkv = _heads(linear(normed, of_qkv.weight, of_qkv.bias), head_dim)
        key_at, value_at = n_queries // head_dim, (n_queries + n_keys) // head_dim
        turned = _turn(qkv[..., :value_at, :], *rotated_by)
        query, key = turned[..., :key_at, :], turned[..., key_at:, :]
        value = qkv[..., value_at:, :]
    else:
        sizes = [n_queries, 2 * n_keys]
        bias: Sequence[Tensor | None] = (None, None)
        if of_qkv.bias is not None:
            bias = torch.split(of_qkv.bias, sizes)
        to_query, to_key_value = torch.split(of_qkv.weight, sizes)
        key, value = _heads(linear(normed, to_key_value, bias[1]), head_dim).chunk(2, -2)
        key = _turn(key, *rotated_by)
        states, normed = at_index(states, last), at_index(normed, last)
        query = _heads(linear(normed, to_query, bias[0]), head_dim)
        query = _turn(query, *(at_index(part, last) for part in rotated_by))
    key, value = key.transpose(1, 2), value.transpose(1, 2)
    stored = cache.update(key, value, attention.layer_idx)
    seen = attend(query, *stored, cache, attention.scaling, last)
    states = states + attention.o_proj(seen)
    normed = _norm(block.post_attention_layernorm, states)
    of_gate_up = joined(mlp, "gate_proj", "up_proj")
    gate, up = linear(normed, of_gate_up.weight, of_gate_up.bias).chunk(2, -1)
    out: Tensor = states + mlp.down_proj(silu(gate) * up)
    return out


def _norm(norm: Any, states: Tensor) -> Tensor:
    """Return the norm of states [..., D]."""
    if states.dtype is torch.float64:  # transformers' own always computes in float32
        normed: Tensor = norm(states)
        return normed
    return rms_norm(states, states.shape[-1:], norm.weight, norm.variance_epsilon)


def _heads(states: Tensor, head_dim: int) -> Tensor:
    """Return [..., H * d] as [..., H, d]."""
    return states.view(*states.shape[:-1], -1, head_dim)


def _turn(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return queries or keys [B, T, H, d] rotated by their positions."""
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    cache: KeyValueCache,
    scale: float,
    last: Tensor | None,
) -> Tensor:
    """Return the attention over a call's own keys, or over the cache's, [B, T, H * d].

    The query heads that share a key/value head become more queries of that head, so keys and values
    are read once: on a CPU that is twice as fast as a copy for every query head.

    Args:
        query: [B, T, H, d], rotated; with `last`, T is 1.
        keys: [B, H_kv, S, d], from `update` of the cache, which has them already.
        values: [B, H_kv, S, d].
        cache: has the positions of this call's tokens.
        scale: factor on the scores.
        last: int64 [B], the only tokens that are queries; None: all tokens.
    """
    n_rows, n_tokens, n_heads, head_dim = query.shape
    n_kv_heads = keys.shape[1]
    if cache.in_prompts and last is None:
        if n_heads != n_kv_heads and query.is_cuda and query.dtype is torch.float32:
            # In float32, torch's only attention of shared heads on a GPU holds all T * T scores.
            keys, values = (
                each.repeat_interleave(n_heads // n_kv_heads, 1) for each in (keys, values)
            )
        seen = scaled_dot_product_attention(
            query.transpose(1, 2),
            keys,
            values,
            is_causal=True,
            scale=scale,
            enable_gqa=n_heads != keys.shape[1],
        )
        return seen.transpose(1, 2).flatten(2)
    group = n_heads // n_kv_heads
    # [B, T, H_kv, G, d] -> [B, H_kv, G * T, d]
    grouped = query.reshape(n_rows, n_tokens, n_kv_heads, group, head_dim)
    folded = grouped.permute(0, 2, 3, 1, 4).flatten(2, 3)
    bias = cache.bias(query.dtype, group, last)
    seen = scaled_dot_product_attention(folded, keys, values, attn_mask=bias, scale=scale)
    seen = seen.view(n_rows, n_kv_heads, group, n_tokens, head_dim)
    return seen.permute(0, 3, 1, 2, 4).flatten(2)

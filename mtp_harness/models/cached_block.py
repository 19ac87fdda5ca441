"""A Llama block as decoding runs it: transformers' weights, fewer and larger operations.

The numbers are those of `LlamaDecoderLayer`, which runs everywhere else; what differs is that
query, key and value (gate and up, likewise) are one product, and that the rotation covers query and
key together. For one token, an operation's overhead costs as much as its arithmetic.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, silu

from mtp_harness.models.attention import attend
from mtp_harness.models.interface import KeyValueCache

Rotation = tuple[Tensor, Tensor]
"""cos and sin, each [B, T, 1, d]; the first half of sin is negated (`rotation`)."""


class FusedWeights:
    """One block's weights in two pieces; the block's own parameters become views of them.

    Nothing is held twice, and a weight changed in place is changed here too. Moving the model to
    another device or type takes the parameters apart again: `fused` notices and joins them anew.
    """

    def __init__(self, block: Any) -> None:
        """Join the weights of a `LlamaDecoderLayer`."""
        attention, mlp = block.self_attn, block.mlp
        self.qkv, self.qkv_bias = _join([attention.q_proj, attention.k_proj, attention.v_proj])
        self.gate_up, self.gate_up_bias = _join([mlp.gate_proj, mlp.up_proj])

    def serve(self, block: Any) -> bool:
        """Return whether the block's parameters still are views of these."""
        first, second = block.self_attn.q_proj.weight, block.mlp.gate_proj.weight
        same: bool = first.data_ptr() == self.qkv.data_ptr()
        return same and bool(second.data_ptr() == self.gate_up.data_ptr())


def _join(layers: list[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    weight = torch.cat([layer.weight.detach() for layer in layers])
    parts = torch.split(weight, [len(layer.weight) for layer in layers])
    for layer, part in zip(layers, parts, strict=True):
        layer.weight.data = part
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    return weight, torch.cat(biases) if biases else None


def fused(block: Any) -> FusedWeights:
    """Return the block's joined weights, made at the first call."""
    weights: FusedWeights | None = block.__dict__.get("_fused_weights")
    if weights is None or not weights.serve(block):
        with torch.inference_mode(False):  # the weights may be trained later
            weights = block.__dict__["_fused_weights"] = FusedWeights(block)
    return weights


def rotation(rotary: nn.Module, states: Tensor, positions: Tensor) -> Rotation:
    """Return cos and sin of int64 positions [B, T], made for `rotate`."""
    cos, sin = rotary(states, position_ids=positions)  # [B, T, d]
    half = sin.shape[-1] // 2
    signed = torch.cat((-sin[..., :half], sin[..., half:]), -1)
    return cos[:, :, None], signed[:, :, None]


def run_cached_block(
    block: Any, states: Tensor, rotated_by: Rotation, cache: KeyValueCache
) -> Tensor:
    """Apply one block to states [B, T, D] at the cache's positions; returns [B, T, D].

    Args:
        block: a `LlamaDecoderLayer`.
        states: [B, T, D].
        rotated_by: from `rotation`.
        cache: knows the positions; this block's keys and values are added to it.
    """
    weights, attention = fused(block), block.self_attn
    normed = _norm(block.input_layernorm, states)
    qkv = linear(normed, weights.qkv, weights.qkv_bias)
    n_kv_heads = attention.k_proj.out_features // attention.head_dim
    query, key, value = rotate(qkv, *rotated_by, n_kv_heads, attention.head_dim)
    seen = attend(query, key, value, attention.layer_idx, cache, attention.scaling)  # [B, T, H*d]
    states = states + attention.o_proj(seen)
    normed = _norm(block.post_attention_layernorm, states)
    gate_up = linear(normed, weights.gate_up, weights.gate_up_bias)
    out: Tensor = states + block.mlp.down_proj(silu_times(gate_up))
    return out


def store_block_keys(
    block: Any, states: Tensor, rotated_by: Rotation, cache: KeyValueCache
) -> None:
    """Add one block's keys and values of states [B, T, D] to the cache; arguments as above."""
    weights, attention = fused(block), block.self_attn
    n_queries = attention.q_proj.out_features
    n_kv_heads = attention.k_proj.out_features // attention.head_dim
    bias = None if weights.qkv_bias is None else weights.qkv_bias[n_queries:]
    kv = linear(_norm(block.input_layernorm, states), weights.qkv[n_queries:], bias)
    _, key, value = rotate(kv, *rotated_by, n_kv_heads, attention.head_dim)
    cache.update(key.transpose(1, 2), value.transpose(1, 2), attention.layer_idx)


def _norm(norm: Any, states: Tensor) -> Tensor:
    """Return the norm of states [..., D]."""
    if states.dtype is torch.float64:  # transformers' own computes in float32, whatever it is given
        normed: Tensor = norm(states)
        return normed
    return rms_norm(states, states.shape[-1:], norm.weight, norm.variance_epsilon)


def rotate(
    qkv: Tensor, cos: Tensor, sin: Tensor, n_kv_heads: int, head_dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Split [B, T, (H + 2 H_kv) d] and rotate query and key; without queries, H is 0.

    Returns:
        Query [B, T, H, d], key and value [B, T, H_kv, d].
    """
    heads = qkv.view(*qkv.shape[:-1], -1, head_dim)
    turned = heads[..., :-n_kv_heads, :]
    turned = torch.addcmul(turned * cos, turned.roll(head_dim // 2, -1), sin)
    return turned[..., :-n_kv_heads, :], turned[..., -n_kv_heads:, :], heads[..., -n_kv_heads:, :]


def silu_times(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up of [..., 2 F]; [..., F]."""
    gate, up = gate_up.chunk(2, -1)
    return silu(gate) * up

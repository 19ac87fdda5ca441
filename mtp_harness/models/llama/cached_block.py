"""A Llama block as decoding runs it: transformers' weights, fewer and larger operations.

The numbers are those of `LlamaDecoderLayer`, which runs everywhere else; what differs is that
query, key and value (gate and up, likewise) are one product, and that the rotation covers query and
key together. For one token, an operation's overhead costs as much as its arithmetic.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, silu

from mtp_harness.models.interface import KeyValueCache, at_index
from mtp_harness.models.llama.attention import attend

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
    """Return cos and sin of int64 positions [B, T], made for `_turn`."""
    cos, sin = rotary(states, position_ids=positions)  # [B, T, d]
    half = sin.shape[-1] // 2
    signed = torch.cat((-sin[..., :half], sin[..., half:]), -1)
    return cos[:, :, None], signed[:, :, None]


def run_cached_block(
    block: Any,
    states: Tensor,
    rotated_by: Rotation,
    cache: KeyValueCache,
    last: Tensor | None = None,
) -> Tensor:
    """Apply one block to states at the cache's positions.

    Args:
        block: a `LlamaDecoderLayer`.
        states: [B, T, D].
        rotated_by: from `rotation`.
        cache: knows the positions; this block's keys and values are added to it.
        last: int64 [B], index within the call of the only tokens whose output is asked for.

    Returns:
        [B, T, D]; with `last`, [B, 1, D].
    """
    weights, attention = fused(block), block.self_attn
    if states.is_cuda:
        from mtp_harness.models.llama import gpu_block

        if gpu_block.serves(block, states, cache):
            return gpu_block.run_gpu_block(block, weights, states, rotated_by, cache, last)
    head_dim = attention.head_dim
    n_queries, n_keys = attention.q_proj.out_features, attention.k_proj.out_features
    normed = _norm(block.input_layernorm, states)
    if last is None:
        qkv = _heads(linear(normed, weights.qkv, weights.qkv_bias), head_dim)
        key_at, value_at = n_queries // head_dim, (n_queries + n_keys) // head_dim
        turned = _turn(qkv[..., :value_at, :], *rotated_by)
        query, key = turned[..., :key_at, :], turned[..., key_at:, :]
        value = qkv[..., value_at:, :]
    else:
        sizes = [n_queries, 2 * n_keys]
        bias: Sequence[Tensor | None] = (None, None)
        if weights.qkv_bias is not None:
            bias = torch.split(weights.qkv_bias, sizes)
        to_query, to_key_value = torch.split(weights.qkv, sizes)
        key, value = _heads(linear(normed, to_key_value, bias[1]), head_dim).chunk(2, -2)
        key = _turn(key, *rotated_by)
        states, normed = at_index(states, last), at_index(normed, last)
        query = _heads(linear(normed, to_query, bias[0]), head_dim)
        query = _turn(query, *(at_index(part, last) for part in rotated_by))
    seen = attend(query, key, value, attention.layer_idx, cache, attention.scaling, last)
    states = states + attention.o_proj(seen)
    normed = _norm(block.post_attention_layernorm, states)
    gate_up = linear(normed, weights.gate_up, weights.gate_up_bias)
    out: Tensor = states + block.mlp.down_proj(silu_times(gate_up))
    return out


def _norm(norm: Any, states: Tensor) -> Tensor:
    """Return the norm of states [..., D]."""
    if states.dtype is torch.float64:  # transformers' own computes in float32, whatever it is given
        normed: Tensor = norm(states)
        return normed
    return rms_norm(states, states.shape[-1:], norm.weight, norm.variance_epsilon)


def _heads(states: Tensor, head_dim: int) -> Tensor:
    """Return [..., H * d] as [..., H, d]."""
    return states.view(*states.shape[:-1], -1, head_dim)


def _turn(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return queries or keys [B, T, H, d] turned by their positions."""
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)


def silu_times(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up of [..., 2 F]; [..., F]."""
    gate, up = gate_up.chunk(2, -1)
    return silu(gate) * up

"""Joined weights and the rotation, for both ways of running a block in decoding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Rotation = tuple[Tensor, Tensor]
"""cos and sin, each [B, T, 1, d]; the first half of sin is negated (`rotation`)."""


class FusedWeights:
    """One block's weights in two pieces; the block's own parameters become views of them.

    Nothing is stored twice, and a weight changed in place is changed here, too. Moving the model to
    another device or type separates the parameters again: `fused` notices and joins them anew.
    """

    def __init__(self, block: Any) -> None:
        """Join the weights of a `LlamaDecoderLayer`."""
        attention, mlp = block.self_attn, block.mlp
        self.qkv, self.qkv_bias = join([attention.q_proj, attention.k_proj, attention.v_proj])
        self.gate_up, self.gate_up_bias = join([mlp.gate_proj, mlp.up_proj])

    def serve(self, block: Any) -> bool:
        """Return whether the block's parameters are still views of these."""
        first, second = block.self_attn.q_proj.weight, block.mlp.gate_proj.weight
        same: bool = first.data_ptr() == self.qkv.data_ptr()
        return same and bool(second.data_ptr() == self.gate_up.data_ptr())


def join(layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Return the weights [O, D] and biases [O] of layers as one; the weights become views of it."""
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
    """Return cos and sin of int64 positions [B, T], made for `cached_block` and `gpu_block`."""
    cos, sin = rotary(states, position_ids=positions)  # [B, T, d]
    half = sin.shape[-1] // 2
    signed = torch.cat((-sin[..., :half], sin[..., half:]), -1)
    return cos[:, :, None], signed[:, :, None]

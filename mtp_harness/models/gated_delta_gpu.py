"""A window of a Gated DeltaNet layer on a GPU: `gated_delta` in five launches.

The numbers are `gated_delta`'s up to rounding. Whatever the kernels do not support runs there.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mtp_harness.models.gated_delta_kernels import Parts, gated_norm, keep_tokens, read_window
from mtp_harness.models.interface import KeyValueCache
from mtp_harness.models.llama.narrow_product import product
from mtp_harness.models.llama.weights import join

_TYPES = (torch.bfloat16, torch.float16, torch.float32)
_MOST_TOKENS = 8
"""The kernels are unrolled over a window's tokens."""


def serves(net: Any, hidden: Tensor, cache: KeyValueCache) -> bool:
    """Return whether the kernels can run this layer on these states [B, T, D]."""
    if cache.mask is None or hidden.shape[1] > _MOST_TOKENS or hidden.dtype not in _TYPES:
        return False
    powers_of_2 = all(width & (width - 1) == 0 for width in (net.head_k_dim, net.head_v_dim))
    joins = all(_joins(layer, hidden) for layer in _projections(net))
    return powers_of_2 and joins and net.activation == "silu"


def run_gpu_window(net: Any, hidden: Tensor, cache: KeyValueCache, epsilon: float) -> Tensor:
    """Run a layer over a window [B, T, D]; `epsilon` is that of the norm of queries and keys."""
    held = cache.held(net.layer_idx)
    assert held is not None
    inputs, matrix = held
    parts = _parts(net, product(hidden.flatten(0, 1), _joined(net), None))
    found, window = read_window(
        parts, inputs, matrix, net.conv1d.weight, net.A_log, net.dt_bias, epsilon
    )
    cache.settle_later(
        net.layer_idx, lambda count: keep_tokens(parts, window, inputs, matrix, count)
    )
    found = gated_norm(found, parts.z, net.norm.weight, net.layer_norm_epsilon)
    out: Tensor = net.out_proj(found.view(*hidden.shape[:2], -1))
    return out


def _projections(net: Any) -> list[nn.Linear]:
    names = ("qkv", "z", "b", "a") if hasattr(net, "in_proj_qkv") else ("qkvz", "ba")
    return [getattr(net, f"in_proj_{name}") for name in names]


def _joins(layer: Any, hidden: Tensor) -> bool:
    """Return whether a projection can be joined: not quantised, offloaded, or with an adapter."""
    if type(layer) is not nn.Linear:
        return False
    return bool(layer.weight.dtype == hidden.dtype and layer.weight.device == hidden.device)


def _joined(net: Any) -> Tensor:
    """Return the projections' weights as one, [O, D], of which they are views; made once."""
    layers = _projections(net)
    joined: Tensor | None = net.__dict__.get("_joined_projections")
    if joined is None or joined.data_ptr() != layers[0].weight.data_ptr():
        with torch.inference_mode(False):  # the weights may be trained later
            joined, _ = join(layers)
        net.__dict__["_joined_projections"] = joined
    return joined


def _parts(net: Any, projected: Tensor) -> Parts:
    """Return views of the joined projections, [N, O]."""
    heads, each = net.num_k_heads, net.num_v_heads // net.num_k_heads
    keys, values = net.head_k_dim, each * net.head_v_dim
    if hasattr(net, "in_proj_qkv"):
        sizes = [heads * size for size in (keys, keys, values, values, each, each)]
        apart = torch.split(projected, sizes, 1)
        return Parts(*(part.view(len(part), heads, -1) for part in apart))
    # Qwen3-Next has them head by head
    both = torch.split(projected, [heads * 2 * (keys + values), heads * 2 * each], 1)
    vectors, gates = (part.view(len(part), heads, -1) for part in both)
    query, key, value, z = torch.split(vectors, [keys, keys, values, values], 2)
    return Parts(query, key, value, z, *torch.split(gates, each, 2))

"""A window of a Gated DeltaNet layer on a GPU: `gated_delta` in six launches, or five for a token.

The numbers are `gated_delta`'s up to rounding. Whatever the kernels do not support runs there.
"""

from typing import Any

import torch
from torch import Tensor

from mtp_harness.models.decoding_weights import are_linear, joined
from mtp_harness.models.gpu.current import on_its_device
from mtp_harness.models.gpu.delta_kernels import Layer, Parts, keep_tokens, read_token, read_window
from mtp_harness.models.gpu.gated_norm import gated_norm
from mtp_harness.models.gpu.kernels import TYPES, is_power_of_2
from mtp_harness.models.gpu.narrow_product import product
from mtp_harness.models.interface import KeyValueCache

_MOST_TOKENS = 8
"""The kernels are unrolled over a window's tokens."""


def serves(net: Any, hidden: Tensor, cache: KeyValueCache) -> bool:
    """Return whether the kernels can run this layer on these states [B, T, D]."""
    if cache.in_prompts or hidden.shape[1] > _MOST_TOKENS or hidden.dtype not in TYPES:
        return False
    powers_of_2 = is_power_of_2(net.head_k_dim) and is_power_of_2(net.head_v_dim)
    names = _projections(net)
    joins = are_linear(net, *names) and all(_fits(getattr(net, name), hidden) for name in names)
    return powers_of_2 and joins and net.activation == "silu"


@on_its_device
def run(net: Any, hidden: Tensor, cache: KeyValueCache, epsilon: float) -> Tensor:
    """Run a layer over a window [B, T, D]; `epsilon` is that of the norm of queries and keys."""
    held = cache.held(net.layer_idx)
    assert held is not None
    inputs, matrix = held
    layer = Layer(inputs, matrix, net.conv1d.weight, net.A_log, net.dt_bias, epsilon)
    parts = _parts(net, product(hidden.flatten(0, 1), joined(net, *_projections(net)).weight, None))
    if hidden.shape[1] == 1:
        found = read_token(parts, layer, cache.remember("lengths", cache.lengths))
    else:
        found, window = read_window(parts, layer)
        cache.settle_later(net.layer_idx, lambda count: keep_tokens(parts, layer, window, count))
    found = gated_norm(found, parts.z, net.norm.weight, net.layer_norm_epsilon)
    out: Tensor = net.out_proj(found.view(*hidden.shape[:2], -1))
    return out


def _projections(net: Any) -> list[str]:
    names = ("qkv", "z", "b", "a") if hasattr(net, "in_proj_qkv") else ("qkvz", "ba")
    return [f"in_proj_{name}" for name in names]


def _fits(layer: Any, hidden: Tensor) -> bool:
    """Return whether a projection can be joined with the others: no bias, not elsewhere."""
    same = (layer.weight.dtype, layer.weight.device) == (hidden.dtype, hidden.device)
    return same and layer.bias is None


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

"""The operations between the matrix products of a block, on a GPU: one kernel each.

Decoding mostly waits for weights to be read. With separate operations, one token through a block
takes some forty launches, which cost as much as the weights; here there are ten. Arithmetic is in
float32, whatever the stored type.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _add_norm(
    states,
    update,
    weight,
    total,
    normed,
    epsilon,
    width: tl.constexpr,
    padded: tl.constexpr,
    add: tl.constexpr,
):
    token = tl.program_id(0)
    lane = tl.arange(0, padded)
    inside = lane < width
    place = token * width + lane
    x = tl.load(states + place, mask=inside, other=0.0)
    if add:
        x = (x.to(tl.float32) + tl.load(update + place, mask=inside, other=0.0)).to(x.dtype)
        tl.store(total + place, x, mask=inside)
    wide = x.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 0) / width + epsilon)
    out = (wide * scale).to(x.dtype) * tl.load(weight + lane, mask=inside, other=0.0)
    tl.store(normed + place, out.to(x.dtype), mask=inside)


def add_norm(
    states: Tensor, update: Tensor | None, weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return states + update and its root-mean-square norm, both [N, D].

    Args:
        states: [N, D], contiguous.
        update: like states; None adds nothing.
        weight: [D].
        epsilon: of the norm.
    """
    n_tokens, width = states.shape
    normed = torch.empty_like(states)
    total = states if update is None else torch.empty_like(states)
    padded = triton.next_power_of_2(width)
    _add_norm[(n_tokens,)](
        states,
        states if update is None else update,
        weight,
        total,
        normed,
        epsilon,
        width=width,
        padded=padded,
        add=update is not None,
        num_warps=min(16, max(1, padded // 256)),
    )
    return total, normed


@triton.jit
def _rotate_and_store(
    projected,
    cos,
    sin,
    places,
    query,
    keys,
    values,
    n_queries: tl.constexpr,
    n_keys: tl.constexpr,
    head_dim: tl.constexpr,
    block: tl.constexpr,
):
    token = tl.program_id(0)
    head = (tl.program_id(1) * block + tl.arange(0, block))[:, None]
    dim = tl.arange(0, head_dim)[None, :]
    is_query = head < n_queries
    is_value = head >= n_queries + n_keys
    inside = head < n_queries + 2 * n_keys
    source = projected + (token * (n_queries + 2 * n_keys) + head) * head_dim
    x = tl.load(source + dim, mask=inside, other=0.0)
    other = tl.load(source + (dim + head_dim // 2) % head_dim, mask=inside, other=0.0)
    by_cos = x.to(tl.float32) * tl.load(cos + token * head_dim + dim)
    turned = by_cos + other.to(tl.float32) * tl.load(sin + token * head_dim + dim)
    turned = turned.to(x.dtype)
    tl.store(query + (token * n_queries + head) * head_dim + dim, turned, mask=is_query)
    column = tl.load(places + token) * n_keys
    is_key = (head >= n_queries) & (head < n_queries + n_keys)
    tl.store(keys + (column + head - n_queries) * head_dim + dim, turned, mask=is_key)
    value_at = (column + head - n_queries - n_keys) * head_dim
    tl.store(values + value_at + dim, x, mask=is_value & inside)


def rotate_and_store(
    projected: Tensor,
    cos: Tensor,
    sin: Tensor,
    places: Tensor,
    keys: Tensor,
    values: Tensor,
    n_queries: int,
) -> Tensor:
    """Write rotated keys, and values, into the cache; return the rotated queries, [N, H, d].

    Args:
        projected: queries, keys and values, [N, (H + 2 H_kv) * d], contiguous; H may be 0.
        cos: [N, d], contiguous.
        sin: like cos, the first half negated.
        places: int64 [N], columns of the cache, counted over all rows.
        keys: [columns, H_kv, d], contiguous.
        values: like keys.
        n_queries: H.
    """
    n_keys, head_dim = keys.shape[-2:]
    query = projected.new_empty(len(projected), n_queries, head_dim)
    block = 8
    _rotate_and_store[(len(projected), triton.cdiv(n_queries + 2 * n_keys, block))](
        projected,
        cos,
        sin,
        places,
        query,
        keys,
        values,
        n_queries=n_queries,
        n_keys=n_keys,
        head_dim=head_dim,
        block=block,
    )
    return query


@triton.jit
def _silu_times(gate_up, out, width, block: tl.constexpr):
    token = tl.program_id(0)
    lane = tl.program_id(1) * block + tl.arange(0, block)
    inside = lane < width
    source = gate_up + token * 2 * width + lane
    gate = tl.load(source, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    shut = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype)
    tl.store(out + token * width + lane, shut * tl.load(source + width, mask=inside), mask=inside)


def silu_times(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up, [N, F], of contiguous [N, 2 F]."""
    n_tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(n_tokens, width)
    block = 1024
    _silu_times[(n_tokens, triton.cdiv(width, block))](gate_up, out, width, block=block)
    return out

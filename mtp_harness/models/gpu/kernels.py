"""The operations between the matrix products of a block, on a GPU: one kernel each.

Decoding mostly waits for weights to be read. With separate operations, one token through a block
takes some forty launches, which cost as much as the weights; here there are ten. Arithmetic is in
float32, whatever the stored type. Tokens are counted in int64: a long prompt has more than 2**31
numbers.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

TYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Of the numbers that kernels read and write."""


def is_power_of_2(width: int) -> bool:
    """Return whether a kernel can hold so many numbers side by side."""
    return width > 0 and width & (width - 1) == 0


@triton.jit
def scaled(wide, weight, dtype: tl.constexpr):
    """Return float32 `wide` times a norm's weight, rounded as transformers rounds it."""
    if weight.dtype != tl.float32:
        wide = wide.to(dtype).to(tl.float32)
    return (wide * weight.to(tl.float32)).to(dtype)


@triton.jit
def plus_parts(x, parts, inside, stride, n_parts: tl.constexpr):
    """Return x plus what is at pointers `parts`, and at those `stride` further on, and so on."""
    wide = x.to(tl.float32)
    for part in tl.static_range(n_parts):
        wide += tl.load(parts + part * stride, mask=inside, other=0.0)
    return wide.to(x.dtype)


@triton.jit
def _add_norm(
    states,
    update,
    weight,
    total,
    normed,
    epsilon,
    part_stride,
    width: tl.constexpr,
    padded: tl.constexpr,
    n_parts: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, padded)
    inside = lane < width
    place = token * width + lane
    x = tl.load(states + place, mask=inside, other=0.0)
    if n_parts > 0:
        x = plus_parts(x, update + place, inside, part_stride, n_parts)
        tl.store(total + place, x, mask=inside)
    wide = x.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 0) / width + epsilon)
    by = tl.load(weight + lane, mask=inside, other=0.0)
    tl.store(normed + place, scaled(wide * scale, by, x.dtype), mask=inside)


def add_norm(
    states: Tensor, updates: Tensor | None, weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return states + the sum of updates and its root-mean-square norm, both [N, D].

    Args:
        states: [N, D], also a view: of one token of several rows, say.
        updates: [S, N, D]; None adds nothing.
        weight: [D]; float32 in a half-precision model where the norm computes with 1 + its weight.
        epsilon: of the norm.
    """
    states, updates = states.contiguous(), None if updates is None else updates.contiguous()
    n_tokens, width = states.shape
    normed = torch.empty_like(states)
    total = states if updates is None else torch.empty_like(states)
    padded = triton.next_power_of_2(width)
    _add_norm[(n_tokens,)](
        states,
        states if updates is None else updates,
        weight,
        total,
        normed,
        epsilon,
        states.numel(),
        width=width,
        padded=padded,
        n_parts=0 if updates is None else len(updates),
        num_warps=min(16, max(1, padded // 256)),
    )
    return total, normed


@triton.jit
def _add_parts(states, parts, size, n_parts: tl.constexpr, block: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = place < size
    x = tl.load(states + place, mask=inside, other=0.0)
    tl.store(states + place, plus_parts(x, parts + place, inside, size, n_parts), mask=inside)


def add_parts(states: Tensor, parts: Tensor) -> Tensor:
    """Add the sum of parts [S, N, D] to states [N, D], in place; both are contiguous."""
    size, block = states.numel(), 2048
    _add_parts[(triton.cdiv(size, block),)](
        states, parts, size, n_parts=len(parts), block=block, num_warps=8
    )
    return states


@triton.jit
def _rotation(
    positions, frequencies, cos, sin, scaling,
    half: tl.constexpr, padded: tl.constexpr, negated: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, padded)
    inside = lane < half
    angle = tl.load(positions + token).to(tl.float32)
    angle *= tl.load(frequencies + lane, mask=inside, other=0.0)
    cosine, sine = tl.cos(angle) * scaling, tl.sin(angle) * scaling
    first = token * 2 * half + lane
    tl.store(cos + first, cosine, mask=inside)
    tl.store(cos + first + half, cosine, mask=inside)
    tl.store(sin + first, -sine if negated else sine, mask=inside)
    tl.store(sin + first + half, sine, mask=inside)


def rotation(
    frequencies: Tensor, scaling: float, positions: Tensor, dtype: torch.dtype, *, negated: bool
) -> tuple[Tensor, Tensor]:
    """Return cos and sin of positions times frequencies, each [B, T, 2 F], twice side by side.

    Args:
        frequencies: float32 [F], in radians a token.
        scaling: factor on cos and sin.
        positions: int64 [B, T].
        dtype: of the results.
        negated: whether the first half of sin is negated (`decoding_weights.signed`).
    """
    half, positions = len(frequencies), positions.contiguous()
    frequencies = frequencies.contiguous()
    cos = torch.empty(*positions.shape, 2 * half, dtype=dtype, device=positions.device)
    sin = torch.empty_like(cos)
    _rotation[(positions.numel(),)](
        positions,
        frequencies,
        cos,
        sin,
        scaling,
        half=half,
        padded=triton.next_power_of_2(half),
        negated=negated,
        num_warps=1,
    )
    return cos, sin


class HeadNorm(NamedTuple):
    """Norms of each query and key head before the rotation (Qwen3, GLM-4.5, ...)."""

    query: Tensor  # weight, [d]
    key: Tensor  # weight, [d]
    epsilon: float


@triton.jit
def turn(x, other, weight, its, cosine, sine, epsilon, head_dim: tl.constexpr, norm: tl.constexpr):
    """Return heads x [n, d], normed if they are, and rotated.

    `other` has the partner of every number; `weight` and `its`, the norm's, belong to both.
    """
    normed = x
    if norm:
        wide = x.to(tl.float32)
        scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 1) / head_dim + epsilon)[:, None]
        normed = scaled(wide * scale, weight, x.dtype)
        other = scaled(other.to(tl.float32) * scale, its, x.dtype)
    return (normed.to(tl.float32) * cosine + other.to(tl.float32) * sine).to(x.dtype)


@triton.jit
def _rotate_and_store(
    projected,
    cos,
    sin,
    places,
    query_weight,
    key_weight,
    query,
    keys,
    values,
    epsilon,
    n_queries: tl.constexpr,
    n_keys: tl.constexpr,
    head_dim: tl.constexpr,
    rotated: tl.constexpr,
    pieces: tl.constexpr,
    norm: tl.constexpr,
    block: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * block + tl.arange(0, block))[:, None]
    dim = tl.arange(0, head_dim)[None, :]
    is_query = head < n_queries
    is_value = head >= n_queries + n_keys
    inside = head < n_queries + 2 * n_keys
    before = tl.where(is_query, head * pieces, head + n_queries * (pieces - 1))
    source = projected + (token * (n_queries * pieces + 2 * n_keys) + before) * head_dim
    turns = dim < rotated
    partner = tl.where(turns, (dim + rotated // 2) % rotated, dim)
    x = tl.load(source + dim, mask=inside, other=0.0)
    other = tl.load(source + partner, mask=inside, other=0.0)
    weight, its = query_weight, key_weight
    if norm:
        weight = tl.where(is_query, tl.load(query_weight + dim), tl.load(key_weight + dim))
        its = tl.where(is_query, tl.load(query_weight + partner), tl.load(key_weight + partner))
    cosine = tl.load(cos + token * rotated + dim, mask=turns, other=1.0)
    sine = tl.load(sin + token * rotated + dim, mask=turns, other=0.0)
    turned = turn(x, other, weight, its, cosine, sine, epsilon, head_dim, norm)
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
    *,
    gated: bool = False,
    norm: HeadNorm | None = None,
) -> Tensor:
    """Write rotated keys, and values, into the cache; return the rotated queries, [N, H, d].

    Args:
        projected: queries, keys and values, [N, (H + 2 H_kv) * d], contiguous; H may be 0. With
            gates [N, (2 H + 2 H_kv) * d].
        cos: [N, r], contiguous; the first r of the d numbers of a head are rotated.
        sin: like cos, the first half negated.
        places: int64 [N], columns of the cache, counted over all rows.
        keys: [columns, H_kv, d], contiguous.
        values: like keys.
        n_queries: H.
        gated: whether behind each query head there are d numbers of a gate in `projected`.
        norm: None: queries and keys are rotated as they are.
    """
    n_keys, head_dim = keys.shape[-2:]
    query = projected.new_empty(len(projected), n_queries, head_dim)
    block = 8
    _rotate_and_store[(len(projected), triton.cdiv(n_queries + 2 * n_keys, block))](
        projected,
        cos,
        sin,
        places,
        projected if norm is None else norm.query,
        projected if norm is None else norm.key,
        query,
        keys,
        values,
        0.0 if norm is None else norm.epsilon,
        n_queries=n_queries,
        n_keys=n_keys,
        head_dim=head_dim,
        rotated=cos.shape[-1],
        pieces=2 if gated else 1,
        norm=norm is not None,
        block=block,
    )
    return query


@triton.jit
def _gate(seen, projected, n_queries: tl.constexpr, head_dim: tl.constexpr, width: tl.constexpr):
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dim = tl.arange(0, head_dim)
    place = seen + (token * n_queries + head) * head_dim + dim
    x = tl.load(place)
    gate = tl.load(projected + token * width + (2 * head + 1) * head_dim + dim).to(tl.float32)
    open_ = (1.0 / (1.0 + tl.exp(-gate))).to(x.dtype).to(tl.float32)  # rounded as transformers does
    tl.store(place, (x.to(tl.float32) * open_).to(x.dtype))


def gate_(seen: Tensor, projected: Tensor) -> None:
    """Multiply attention outputs [N, H, d] by the sigmoid of their gates, in place.

    Args:
        seen: contiguous.
        projected: see `rotate_and_store`; contiguous.
    """
    n_tokens, n_queries, head_dim = seen.shape
    width = projected.shape[-1]
    _gate[(n_tokens, n_queries)](seen, projected, n_queries, head_dim, width, num_warps=1)


@triton.jit
def silu_product(gate, up, dtype: tl.constexpr):
    """Return silu(gate) * up, rounded where transformers rounds."""
    wide = gate.to(tl.float32)
    shut = (wide / (1.0 + tl.exp(-wide))).to(dtype)
    return (shut.to(tl.float32) * up.to(tl.float32)).to(dtype)


@triton.jit
def _silu_times(gate_up, out, width, block: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * block + tl.arange(0, block)
    inside = lane < width
    source = gate_up + token * 2 * width + lane
    gate = tl.load(source, mask=inside, other=0.0)
    up = tl.load(source + width, mask=inside, other=0.0)
    tl.store(out + token * width + lane, silu_product(gate, up, gate.dtype), mask=inside)


def silu_times(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up, [N, F], of contiguous [N, 2 F]."""
    n_tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(n_tokens, width)
    block = 1024
    _silu_times[(n_tokens, triton.cdiv(width, block))](gate_up, out, width, block=block)
    return out

"""A Gated DeltaNet layer between its matrix products, for a window of a few tokens on a GPU.

Three kernels: `read_window` (convolution, norms, gates, recurrence), `gated_norm`, and, once it is
known how many of the window's tokens stay, `keep_tokens`, which moves the states in place. Each
program has some columns of one head's matrix S in its registers and goes through the tokens by the
formula at the top of `gated_delta`. Arithmetic is in float32, whatever the stored type.

Below, N = B * T tokens; H_k key heads, each of which serves r = H / H_k value heads.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_COLUMNS, _WARPS = 32, 4
"""Columns of S in one program, and its warps: 32 numbers per thread for keys 128 wide."""


class Parts(NamedTuple):
    """What the projections give, by key head: views of one tensor, all with its step per token."""

    query: Tensor  # [N, H_k, dk]
    key: Tensor  # [N, H_k, dk]
    value: Tensor  # [N, H_k, r * dv]
    z: Tensor  # [N, H_k, r * dv]
    b: Tensor  # [N, H_k, r]
    a: Tensor  # [N, H_k, r]


class Window(NamedTuple):
    """What `keep_tokens` needs of a window, in float32."""

    keys: Tensor  # normed, [N, H_k, dk]
    written: Tensor  # u, [N, H, dv]
    remains: Tensor  # exp(g), the share of S that remains, [N, H]


@triton.jit
def _convolved(new, old, weight, channel, step, token: tl.constexpr, taps: tl.constexpr):
    """Return silu of the convolution of channels [n] at a token; `new` points at them, [n]."""
    old += channel * (taps - 1)
    weight += channel * taps
    total = tl.zeros(new.shape, tl.float32)
    for tap in tl.static_range(taps):
        if token + tap < taps - 1:
            x = tl.load(old + token + tap).to(tl.float32)
        else:
            x = tl.load(new + (token + tap - taps + 1) * step).to(tl.float32)
        total += x * tl.load(weight + tap).to(tl.float32)
    stored = new.dtype.element_ty
    total = total.to(stored).to(tl.float32)
    return (total / (1.0 + tl.exp(-total))).to(stored).to(tl.float32)


@triton.jit
def _unit(x, epsilon):
    return x / tl.sqrt(tl.sum(x * x, 0) + epsilon)


@triton.jit
def _read_window(
    query,
    key,
    value,
    b,
    a,
    inputs,
    matrix,
    weight,
    a_log,
    dt_bias,
    out,
    keys,
    written,
    remains,
    epsilon,
    step,
    of_keys,
    of_values,
    of_gates,
    n_tokens: tl.constexpr,
    n_key_heads: tl.constexpr,
    group: tl.constexpr,
    key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    taps: tl.constexpr,
    block: tl.constexpr,
):
    split, head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    n_heads: tl.constexpr = n_key_heads * group
    key_head = head // group
    within = head % group
    dim = tl.arange(0, key_dim)
    lane = split * block + tl.arange(0, block)
    first = row * n_tokens * step
    new_q = query + first + key_head * of_keys + dim
    new_k = key + first + key_head * of_keys + dim
    new_v = value + first + key_head * of_values + within * value_dim + lane
    gate = first + key_head * of_gates + within
    q_at = key_head * key_dim + dim  # the convolution's channels
    k_at = n_key_heads * key_dim + q_at
    v_at = 2 * n_key_heads * key_dim + head * value_dim + lane
    old = inputs + row * (2 * n_key_heads * key_dim + n_heads * value_dim) * (taps - 1)
    place = (row * n_heads + head).to(tl.int64) * key_dim * value_dim
    state = tl.load(matrix + place + dim[:, None] * value_dim + lane[None, :])
    rate = tl.exp(tl.load(a_log + head).to(tl.float32))
    bias = tl.load(dt_bias + head).to(tl.float32)
    read = ()  # type: tuple[Any, ...]
    for t in tl.static_range(n_tokens):  # a loop of its own, so that no read waits for another
        q = _convolved(new_q, old, weight, q_at, step, t, taps)
        k = _convolved(new_k, old, weight, k_at, step, t, taps)
        v = _convolved(new_v, old, weight, v_at, step, t, taps)
        strength = tl.load(b + gate + t * step)
        fade = tl.load(a + gate + t * step)
        read = read + ((q, k, v, strength, fade),)
    for t in tl.static_range(n_tokens):
        q, k, v, strength, fade = read[t]
        q = _unit(q, epsilon) * key_dim**-0.5
        k = _unit(k, epsilon)
        beta = 1.0 / (1.0 + tl.exp(-strength.to(tl.float32)))
        beta = beta.to(b.dtype.element_ty).to(tl.float32)
        x = fade.to(tl.float32) + bias
        stays = tl.exp(-rate * tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(x))))
        state = state * stays
        u = beta * (v - tl.sum(state * k[:, None], 0))
        state += k[:, None] * u[None, :]
        token = row * n_tokens + t
        at = (token * n_heads + head) * value_dim + lane
        tl.store(out + at, tl.sum(state * q[:, None], 0).to(out.dtype.element_ty))
        tl.store(written + at, u)
        if split == 0:
            tl.store(remains + token * n_heads + head, stays)
            if within == 0:
                tl.store(keys + (token * n_key_heads + key_head) * key_dim + dim, k)


def read_window(
    parts: Parts,
    inputs: Tensor,
    matrix: Tensor,
    weight: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
    epsilon: float,
) -> tuple[Tensor, Window]:
    """Return a window's outputs before the gated norm, [N, H, dv], and what keeps its tokens.

    Args:
        parts: the window's projections; dk and dv are powers of 2.
        inputs: the convolution's inputs before the window, float32 [B, C, K-1], contiguous.
        matrix: S before the window, float32 [B, H, dk, dv], contiguous.
        weight: of the convolution, [C, 1, K], contiguous; its channels are those of all queries,
            all keys, and all values.
        a_log: [H].
        dt_bias: [H].
        epsilon: of the norm of queries and keys.
    """
    n_heads, value_dim = matrix.shape[1], matrix.shape[3]
    found = parts.query.new_empty(len(parts.query), n_heads, value_dim)
    window = Window(
        torch.empty_like(parts.key, dtype=torch.float32, memory_format=torch.contiguous_format),
        torch.empty_like(found, dtype=torch.float32),
        matrix.new_empty(found.shape[:2]),
    )
    block = min(_COLUMNS, value_dim)
    _read_window[(value_dim // block, n_heads, len(matrix))](
        *(parts.query, parts.key, parts.value, parts.b, parts.a),
        inputs,
        matrix,
        weight,
        a_log,
        dt_bias,
        found,
        *window,
        epsilon,
        of_gates=parts.b.stride(1),
        block=block,
        num_warps=_WARPS,
        **_sizes(parts, inputs, matrix),
    )
    return found, window


def _sizes(parts: Parts, inputs: Tensor, matrix: Tensor) -> dict[str, Any]:
    """Return steps and sizes that both kernels over S take."""
    n_tokens, n_key_heads, key_dim = parts.query.shape
    return {
        "step": parts.query.stride(0),
        "of_keys": parts.query.stride(1),
        "of_values": parts.value.stride(1),
        "n_tokens": n_tokens // len(matrix),
        "n_key_heads": n_key_heads,
        "group": matrix.shape[1] // n_key_heads,
        "key_dim": key_dim,
        "value_dim": matrix.shape[3],
        "taps": inputs.shape[2] + 1,
    }


@triton.jit
def _shift(new, old, channel, kept, step, taps: tl.constexpr, padded: tl.constexpr):
    """Move the convolution's inputs of channels [n] on by `kept`; `new` points at them, [n]."""
    old += channel * (taps - 1)
    tap = tl.arange(0, padded)[None, :]
    inside = tap < taps - 1
    source = kept + tap
    is_old = source < taps - 1
    before = tl.load(old[:, None] + source, mask=inside & is_old, other=0.0)
    source = new[:, None] + (source - taps + 1) * step
    now = tl.load(source, mask=inside & (is_old == 0), other=0.0).to(tl.float32)
    tl.debug_barrier()  # all are read before the first is overwritten
    tl.store(old[:, None] + tap, tl.where(is_old, before, now), mask=inside)


@triton.jit
def _keep_tokens(
    query,
    key,
    value,
    inputs,
    matrix,
    keys,
    written,
    remains,
    count,
    step,
    of_keys,
    of_values,
    n_tokens: tl.constexpr,
    n_key_heads: tl.constexpr,
    group: tl.constexpr,
    key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    taps: tl.constexpr,
    padded: tl.constexpr,
    block: tl.constexpr,
):
    split, head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    n_heads: tl.constexpr = n_key_heads * group
    key_head = head // group
    within = head % group
    dim = tl.arange(0, key_dim)
    lane = split * block + tl.arange(0, block)
    kept = tl.load(count + row).to(tl.int32)
    if kept > 0:
        place = (row * n_heads + head).to(tl.int64) * key_dim * value_dim
        place = matrix + place + dim[:, None] * value_dim + lane[None, :]
        state = tl.load(place)
        read = ()  # type: tuple[Any, ...]
        for t in tl.static_range(n_tokens):
            token = row * n_tokens + t
            k = tl.load(keys + (token * n_key_heads + key_head) * key_dim + dim)
            u = tl.load(written + (token * n_heads + head) * value_dim + lane)
            read = read + ((k, u, tl.load(remains + token * n_heads + head)),)
        for t in tl.static_range(n_tokens):
            k, u, stays = read[t]
            if t < kept:
                state = state * stays + k[:, None] * u[None, :]
        tl.store(place, state)
        first = row * n_tokens * step
        old = inputs + row * (2 * n_key_heads * key_dim + n_heads * value_dim) * (taps - 1)
        v_at = 2 * n_key_heads * key_dim + head * value_dim + lane
        new_v = value + first + key_head * of_values + within * value_dim + lane
        _shift(new_v, old, v_at, kept, step, taps, padded)
        if (split == 0) & (within == 0):
            q_at = key_head * key_dim + dim
            new_q = query + first + key_head * of_keys + dim
            _shift(new_q, old, q_at, kept, step, taps, padded)
            new_k = key + first + key_head * of_keys + dim
            _shift(new_k, old, n_key_heads * key_dim + q_at, kept, step, taps, padded)


def keep_tokens(
    parts: Parts, window: Window, inputs: Tensor, matrix: Tensor, count: Tensor
) -> None:
    """Move the states behind the first `count` tokens of a window, int64 [B], in place.

    The other arguments are those and the result of `read_window`; where `count` is 0, nothing is
    read or written.
    """
    n_heads, value_dim = matrix.shape[1], matrix.shape[3]
    block = min(_COLUMNS, value_dim)
    _keep_tokens[(value_dim // block, n_heads, len(matrix))](
        *(parts.query, parts.key, parts.value),
        inputs,
        matrix,
        *window,
        count,
        padded=triton.next_power_of_2(inputs.shape[2]),
        block=block,
        num_warps=_WARPS,
        **_sizes(parts, inputs, matrix),
    )


@triton.jit
def _gated_norm(
    states,
    z,
    weight,
    out,
    epsilon,
    step,
    of_values,
    n_heads: tl.constexpr,
    group: tl.constexpr,
    value_dim: tl.constexpr,
    block: tl.constexpr,
):
    token = tl.program_id(0)
    head = (tl.program_id(1) * block + tl.arange(0, block))[:, None]
    inside = head < n_heads
    dim = tl.arange(0, value_dim)[None, :]
    at = (token * n_heads + head) * value_dim + dim
    x = tl.load(states + at, mask=inside, other=0.0)
    wide = x.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 1) / value_dim + epsilon)
    w = tl.load(weight + dim)
    normed = ((wide * scale[:, None]).to(x.dtype).to(tl.float32) * w.to(tl.float32)).to(w.dtype)
    gate = z + token * step + head // group * of_values + head % group * value_dim
    gate = tl.load(gate + dim, mask=inside, other=0.0).to(tl.float32)
    found = normed.to(tl.float32) * (gate / (1.0 + tl.exp(-gate)))
    tl.store(out + at, found.to(x.dtype), mask=inside)


def gated_norm(states: Tensor, z: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Return the root-mean-square norm over dv, times silu(z), [N, H * dv].

    Args:
        states: [N, H, dv], contiguous.
        z: of `Parts`.
        weight: [dv].
        epsilon: of the norm.
    """
    n_tokens, n_heads, value_dim = states.shape
    out = torch.empty_like(states)
    block = min(8, triton.next_power_of_2(n_heads))
    _gated_norm[(n_tokens, triton.cdiv(n_heads, block))](
        states,
        z,
        weight,
        out,
        epsilon,
        z.stride(0),
        z.stride(1),
        n_heads=n_heads,
        group=n_heads // z.shape[1],
        value_dim=value_dim,
        block=block,
    )
    return out.flatten(1)

"""A Gated DeltaNet layer between its matrix products, for a window of a few tokens on a GPU.

`read_window` takes two kernels: for the convolution and norms, which all columns of a head's matrix
S share, and for gates and recurrence. Once it is known how many of the window's tokens stay,
`keep_tokens` moves the states in place. The token of a window of one stays, so `read_token` moves
them in the same kernels, which read S once. Programs that go through the tokens have some columns
of S in their registers, and follow the formula at the top of `gated_delta`. Arithmetic is in
float32, whatever the stored type.

Below, N = B * T tokens; H_k key heads, each of which serves r = H / H_k value heads.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_READ_COLUMNS, _READ_WARPS, _TOKEN_WARPS = 32, 1, 2
_KEEP_COLUMNS, _KEEP_WARPS = 32, 4
_CONVOLVE_WARPS = 2
"""Columns of S in one program, and warps of a program: what an H200 was about fastest with."""


class Parts(NamedTuple):
    """What the projections give, by key head: views of one tensor, all with its step per token."""

    query: Tensor  # [N, H_k, dk]
    key: Tensor  # [N, H_k, dk]
    value: Tensor  # [N, H_k, r * dv]
    z: Tensor  # [N, H_k, r * dv]
    b: Tensor  # [N, H_k, r]
    a: Tensor  # [N, H_k, r]


class Layer(NamedTuple):
    """A layer's states, which stand before a window, and its parameters."""

    inputs: Tensor  # of the convolution, float32 [B, C, K-1], contiguous
    matrix: Tensor  # S, float32 [B, H, dk, dv], contiguous
    weight: Tensor  # of the convolution, [C, 1, K], contiguous: all queries, all keys, all values
    a_log: Tensor  # [H]
    dt_bias: Tensor  # [H]
    epsilon: float  # of the norm of queries and keys


class Window(NamedTuple):
    """What `keep_tokens` needs of a window, in float32."""

    keys: Tensor  # normed, [N, H_k, dk]
    written: Tensor  # u, [N, H, dv]
    remains: Tensor  # exp(g), the share of S that remains, [N, H]


@triton.jit
def _convolved(new, old, weight, channel, length, step, n_tokens: tl.constexpr, taps: tl.constexpr):
    """Return silu of the convolution of channels [n] at every token; `new` points at them, [n].

    If `length` is given (None: it is not) and points at more than 0, the inputs move on by a token.
    """
    seen, by, found = (), (), ()  # type: tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]
    for tap in tl.static_range(taps - 1):
        seen = seen + (tl.load(old + channel * (taps - 1) + tap).to(tl.float32),)
    for t in tl.static_range(n_tokens):
        seen = seen + (tl.load(new + t * step).to(tl.float32),)
    for tap in tl.static_range(taps):
        by = by + (tl.load(weight + channel * taps + tap).to(tl.float32),)
    stored = new.dtype.element_ty
    for t in tl.static_range(n_tokens):
        total = seen[t] * by[0]
        for tap in tl.static_range(1, taps):
            total += seen[t + tap] * by[tap]
        total = total.to(stored).to(tl.float32)
        found = found + ((total / (1.0 + tl.exp(-total))).to(stored),)
    if length is not None:
        if tl.load(length) > 0:
            tl.debug_barrier()  # all are read before the first is overwritten
            for tap in tl.static_range(taps - 1):
                tl.store(old + channel * (taps - 1) + tap, seen[tap + 1])
    return found


@triton.jit
def _store_head(
    new, old, weight, channel, length, out, epsilon, step, out_step,
    n_tokens: tl.constexpr, width: tl.constexpr, taps: tl.constexpr, factor: tl.constexpr,
):  # fmt: skip
    """Store the head whose channels begin at `channel`: normed times a factor, or (None) as it is.

    `new` and `out` point at the head's first number.
    """
    dim = tl.arange(0, width)
    found = _convolved(new + dim, old, weight, channel + dim, length, step, n_tokens, taps)
    for t in tl.static_range(n_tokens):
        x = found[t]
        if factor is not None:
            x = x.to(tl.float32)
            x = x / tl.sqrt(tl.sum(x * x, 0) + epsilon) * factor
        tl.store(out + t * out_step + dim, x)


@triton.jit
def _convolve(
    query,
    key,
    value,
    inputs,
    weight,
    lengths,
    queries,
    keys,
    values,
    epsilon,
    step,
    of_keys,
    of_values,
    n_tokens: tl.constexpr,
    n_key_heads: tl.constexpr,
    group: tl.constexpr,
    key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    taps: tl.constexpr,
):
    part, row = tl.program_id(0), tl.program_id(1)  # a head of queries, of keys, or of values
    n_heads: tl.constexpr = n_key_heads * group
    of_all_keys: tl.constexpr = n_key_heads * key_dim
    of_all_values: tl.constexpr = n_heads * value_dim
    old = inputs + row * (2 * of_all_keys + of_all_values) * (taps - 1)
    first, token = row * n_tokens * step, row * n_tokens
    if lengths is not None:
        lengths += row
    if part < n_key_heads:
        new, out = first + part * of_keys, token * of_all_keys + part * key_dim
        _store_head(query + new, old, weight, part * key_dim, lengths, queries + out,
            epsilon, step, of_all_keys, n_tokens, key_dim, taps, key_dim**-0.5)  # fmt: skip
    elif part < 2 * n_key_heads:
        head = part - n_key_heads
        new, out = first + head * of_keys, token * of_all_keys + head * key_dim
        _store_head(key + new, old, weight, part * key_dim, lengths, keys + out,
            epsilon, step, of_all_keys, n_tokens, key_dim, taps, 1.0)  # fmt: skip
    else:
        head = part - 2 * n_key_heads
        new = first + head // group * of_values + head % group * value_dim
        out = token * of_all_values + head * value_dim
        channel = 2 * of_all_keys + head * value_dim
        _store_head(value + new, old, weight, channel, lengths, values + out,
            epsilon, step, of_all_values, n_tokens, value_dim, taps, None)  # fmt: skip


@triton.jit
def _read_window(
    queries,
    keys,
    values,
    b,
    a,
    matrix,
    a_log,
    dt_bias,
    lengths,
    out,
    written,
    remains,
    step,
    of_gates,
    n_tokens: tl.constexpr,
    n_key_heads: tl.constexpr,
    group: tl.constexpr,
    key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    block: tl.constexpr,
):
    split, head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    n_heads: tl.constexpr = n_key_heads * group
    key_head = head // group
    dim = tl.arange(0, key_dim)
    lane = split * block + tl.arange(0, block)
    gate = row * n_tokens * step + key_head * of_gates + head % group
    place = (row * n_heads + head).to(tl.int64) * key_dim * value_dim
    place = matrix + place + dim[:, None] * value_dim + lane[None, :]
    state = tl.load(place)
    rate = tl.exp(tl.load(a_log + head).to(tl.float32))
    bias = tl.load(dt_bias + head).to(tl.float32)
    read = ()  # type: tuple[Any, ...]
    for t in tl.static_range(n_tokens):  # a loop of its own, so that no read waits for another
        of_key = ((row * n_tokens + t) * n_key_heads + key_head) * key_dim + dim
        q, k = tl.load(queries + of_key), tl.load(keys + of_key)
        v = tl.load(values + ((row * n_tokens + t) * n_heads + head) * value_dim + lane)
        strength = tl.load(b + gate + t * step)
        fade = tl.load(a + gate + t * step)
        read = read + ((q, k, v, strength, fade),)
    for t in tl.static_range(n_tokens):
        q, k, v, strength, fade = read[t]
        beta = 1.0 / (1.0 + tl.exp(-strength.to(tl.float32)))
        beta = beta.to(b.dtype.element_ty).to(tl.float32)
        x = fade.to(tl.float32) + bias
        stays = tl.exp(-rate * tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(x))))
        state = state * stays
        u = beta * (v.to(tl.float32) - tl.sum(state * k[:, None], 0))
        state += k[:, None] * u[None, :]
        token = row * n_tokens + t
        at = (token * n_heads + head) * value_dim + lane
        tl.store(out + at, tl.sum(state * q[:, None], 0).to(out.dtype.element_ty))
        if lengths is None:
            tl.store(written + at, u)
            if split == 0:
                tl.store(remains + token * n_heads + head, stays)
    if lengths is not None:
        if tl.load(lengths + row) > 0:
            tl.store(place, state)


def read_window(parts: Parts, layer: Layer) -> tuple[Tensor, Window]:
    """Return a window's outputs before the gated norm, [N, H, dv], and what keeps its tokens.

    dk and dv are powers of 2.
    """
    _, n_heads, _, value_dim = layer.matrix.shape
    written = layer.matrix.new_empty(len(parts.value), n_heads, value_dim)
    remains = layer.matrix.new_empty(len(parts.value), n_heads)
    found, keys = _read(parts, layer, None, written, remains)
    return found, Window(keys, written, remains)


def read_token(parts: Parts, layer: Layer, lengths: Tensor) -> Tensor:
    """Return the outputs of a window of one token, [B, H, dv], and move the states behind it.

    Where `lengths`, int64 [B], is 0, the states stay as they are. See `read_window`.
    """
    assert len(parts.query) == len(layer.matrix), "of several tokens, some may not stay"
    return _read(parts, layer, lengths, None, None)[0]


def _read(
    parts: Parts,
    layer: Layer,
    lengths: Tensor | None,
    written: Tensor | None,
    remains: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return a window's outputs, [N, H, dv], and normed keys; move the states if given `lengths`.

    Without them `written` and `remains` are filled, as in `Window`.
    """
    inputs, matrix, weight, a_log, dt_bias, epsilon = layer
    (n_rows, n_heads, _, value_dim), n_key_heads = matrix.shape, parts.query.shape[1]
    values = parts.value.new_empty(len(parts.value), n_heads, value_dim)
    queries, keys = values.new_empty(2, *parts.key.shape, dtype=torch.float32)
    sizes = _sizes(parts, matrix)
    _convolve[(2 * n_key_heads + n_heads, n_rows)](
        *(parts.query, parts.key, parts.value),
        *(inputs, weight, lengths),
        *(queries, keys, values),
        epsilon,
        taps=inputs.shape[2] + 1,
        num_warps=_CONVOLVE_WARPS,
        **_steps(parts),
        **sizes,
    )
    found, block = torch.empty_like(values), min(_READ_COLUMNS, value_dim)
    _read_window[(value_dim // block, n_heads, n_rows)](
        *(queries, keys, values, parts.b, parts.a),
        *(matrix, a_log, dt_bias, lengths),
        *(found, written, remains),
        parts.b.stride(0),
        parts.b.stride(1),
        block=block,
        num_warps=_READ_WARPS if lengths is None else _TOKEN_WARPS,
        **sizes,
    )
    return found, keys


def _steps(parts: Parts) -> dict[str, int]:
    """Return how far apart tokens and heads are in the parts."""
    step, of_keys, _ = parts.query.stride()
    return {"step": step, "of_keys": of_keys, "of_values": parts.value.stride(1)}


def _sizes(parts: Parts, matrix: Tensor) -> dict[str, Any]:
    n_tokens, n_key_heads, key_dim = parts.query.shape
    return {
        "n_tokens": n_tokens // len(matrix),
        "n_key_heads": n_key_heads,
        "group": matrix.shape[1] // n_key_heads,
        "key_dim": key_dim,
        "value_dim": matrix.shape[3],
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


def keep_tokens(parts: Parts, layer: Layer, window: Window, count: Tensor) -> None:
    """Move the states behind the first `count` tokens of a window, int64 [B], in place.

    The other arguments are those and the result of `read_window`; where `count` is 0, nothing is
    read or written.
    """
    inputs, matrix = layer.inputs, layer.matrix
    n_heads, value_dim = matrix.shape[1], matrix.shape[3]
    block = min(_KEEP_COLUMNS, value_dim)
    _keep_tokens[(value_dim // block, n_heads, len(matrix))](
        *(parts.query, parts.key, parts.value),
        inputs,
        matrix,
        *window,
        count,
        padded=triton.next_power_of_2(inputs.shape[2]),
        taps=inputs.shape[2] + 1,
        block=block,
        num_warps=_KEEP_WARPS,
        **_steps(parts),
        **_sizes(parts, matrix),
    )

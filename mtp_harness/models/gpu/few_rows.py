"""Products of few tokens with a layer's weights, and all that stands around them: one kernel each.

A step of few tokens is the reading of the weights. Each program reads some rows of a weight, once,
and does for itself what comes before (the norm of all states) and behind (bias, silu, the sum with
the residual), on numbers that are in the second-level cache.

    normed_product    norm(states) times queries, keys and values
                      (`few_attention` is here)
    summed_product    attention's output times its weight, plus the states
    gated_product     silu(gate) * up, of norm(states)
    summed_product    that times the weight back, plus the states

Numbers are rounded to the stored type where transformers rounds them. A row of the result does not
depend on the other rows, and no program adds to another's sums: repeated runs are bit-equal.

Kernels that start before the one before them ends and ask for their weights (programmatic dependent
launch) made a layer slower on an H200: 122 microseconds against 117 for one token of the 7B shape,
140 against 130 for four. So did joining attention's parts inside the product: 138.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtp_harness.models.gpu.kernels import scaled, silu_product

FEW_ROWS = 4
"""Number of tokens, at most 16, up to which a step runs by these kernels; 0: never.

Whole steps of 1 and of 4 tokens gain on an H200 for both shapes of `bench_layers_gpu`, those of 16
lose.
"""

_MULTIPROCESSORS = 132
"""Of an H100 or H200."""


class Tile(NamedTuple):
    """How a product's programs read the weight."""

    rows: int  # of the weight, for one program
    columns: int  # of the weight, at a time; for sums of more tokens, 256 or more for every warp
    warps: int
    stages: int  # pieces that are under way at a time, plus one
    lanes: int  # least number of tokens side by side: 1 for sums, 8 for tensor cores


TILES = {
    "qkv": (Tile(2, 2048, 8, 1, 1), Tile(32, 256, 4, 3, 8)),
    "narrow_qkv": (Tile(2, 2048, 8, 1, 1), Tile(64, 256, 4, 3, 8)),
    "o": (Tile(2, 2048, 4, 1, 1), Tile(16, 256, 2, 4, 8)),
    "gate_up": (Tile(2, 2048, 8, 1, 1), Tile(32, 128, 2, 5, 8)),
    "down": (Tile(8, 512, 2, 4, 1), Tile(16, 256, 1, 5, 8)),
}
"""For one token, and for more, by `tests/benchmarks/bench_layers_gpu.py` on an H200."""


class Norm(NamedTuple):
    """A root-mean-square norm."""

    weight: Tensor  # [D]; float32 in a half-precision model if it is 1 + the module's weight
    epsilon: float


def serves(states: Tensor) -> bool:
    """Return whether states [B, T, D] are few enough, and of a type, for these kernels."""
    few = states.shape[0] * states.shape[1] <= FEW_ROWS
    return few and states.dtype in (torch.bfloat16, torch.float16)


@triton.jit
def _inverse_size(states, token, live, epsilon, width: tl.constexpr, tokens: tl.constexpr):
    """Return 1 / root mean square of every token's states, [tokens]."""
    most: tl.constexpr = 4096 // tokens
    block: tl.constexpr = min(most, triton.next_power_of_2(width))
    lane = tl.arange(0, block)
    squares = tl.zeros([tokens, block], tl.float32)
    for first in tl.static_range(0, width, block):
        column = first + lane
        inside = live[:, None] & (column < width)[None, :]
        x = tl.load(states + token[:, None] * width + column[None, :], mask=inside, other=0.0)
        squares += x.to(tl.float32) * x.to(tl.float32)
    return 1.0 / tl.sqrt(tl.sum(squares, 1) / width + epsilon)


@triton.jit
def _spread(row, token, columns: tl.constexpr, apart: tl.constexpr):
    """Return rows, tokens and columns as they stand in tensors of a weight and of states.

    [rows, 1], [tokens, 1] and [1, columns]; for sums of several tokens apart, [1, rows, 1, 1], [1,
    1, tokens, 1] and [columns / 8, 1, 1, 8]: 8 columns, which are 16 bytes, are one thread's, of
    every row and token, so that threads exchange nothing before the end.
    """
    if apart:
        column = (tl.arange(0, columns // 8) * 8)[:, None] + tl.arange(0, 8)[None, :]
        return row[None, :, None, None], token[None, None, :, None], column[:, None, None, :]
    else:
        return row[:, None], token[:, None], tl.arange(0, columns)[None, :]


@triton.jit
def _more(found, weight, states, by_sums: tl.constexpr, apart: tl.constexpr):
    """Return `found` plus a product; sums are [rows, columns], or [columns / 8, rows, tokens]."""
    if apart:
        found += tl.sum(weight.to(tl.float32) * states.to(tl.float32), 3)
    elif by_sums:
        found += weight.to(tl.float32) * states.to(tl.float32)
    else:
        found = tl.dot(weight, tl.trans(states), found)
    return found


@triton.jit
def _finished(
    found, bias, row, inside, dtype: tl.constexpr, by_sums: tl.constexpr, apart: tl.constexpr
):
    """Return a product [rows, tokens] with its bias, rounded."""
    if apart:
        found = tl.sum(found, 0)
    elif by_sums:
        found = tl.sum(found, 1)[:, None]
    if bias is not None:
        found += tl.load(bias + row, mask=inside, other=0.0).to(tl.float32)[:, None]
    return found.to(dtype)


@triton.jit
def _plus(result, residual, last, window, token, row, inside, n_out, dtype: tl.constexpr):
    """Return a result [rows, tokens] plus the residual, that of `last` if there is one."""
    which = token
    if last is not None:
        which = token * window + tl.load(last + token, mask=inside, other=0).to(tl.int32)
    before = tl.load(residual + which * n_out + row, mask=inside, other=0.0)
    return (result.to(tl.float32) + before.to(tl.float32)).to(dtype)


@triton.jit
def _product(
    states,
    norm_weight,
    weight,
    bias,
    residual,
    last,
    out,
    epsilon,
    n_tokens,
    window,
    width: tl.constexpr,
    n_out: tl.constexpr,
    gated: tl.constexpr,
    tokens: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    stages: tl.constexpr,
    by_sums: tl.constexpr,
):
    dtype: tl.constexpr = out.dtype.element_ty
    apart: tl.constexpr = by_sums and tokens > 1
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    inside = row < n_out
    token = tl.arange(0, tokens)
    live = token < n_tokens
    row_at, token_at, lane = _spread(tl.where(inside, row, 0), token, columns, apart)
    source, has = weight + row_at.to(tl.int64) * width, token_at < n_tokens
    if norm_weight is not None:
        scale = _inverse_size(states, token, live, epsilon, width, tokens)
        scale = scale[None, None, :, None] if apart else scale[:, None]
    if apart:
        found = tl.zeros([columns // 8, rows, tokens], tl.float32)
    else:
        found = tl.zeros([rows, columns if by_sums else tokens], tl.float32)
    found_up = found
    for first in tl.range(0, width, columns, num_stages=stages):
        column = first + lane
        within = column < width
        x = tl.load(states + token_at * width + column, mask=has & within, other=0.0)
        if norm_weight is not None:
            by = tl.load(norm_weight + column, mask=within, other=0.0)
            x = scaled(x.to(tl.float32) * scale, by, dtype)
        read = source + column
        piece = tl.load(read, mask=within, other=0.0, eviction_policy="evict_first")
        found = _more(found, piece, x, by_sums, apart)
        if gated:
            read += n_out * width
            piece = tl.load(read, mask=within, other=0.0, eviction_policy="evict_first")
            found_up = _more(found_up, piece, x, by_sums, apart)
    result = _finished(found, bias, row, inside, dtype, by_sums, apart)
    if gated:
        up_bias = None if bias is None else bias + n_out
        up = _finished(found_up, up_bias, row, inside, dtype, by_sums, apart)
        result = silu_product(result, up, dtype)
    token, row = token[None, :], row[:, None]
    inside = live[None, :] & inside[:, None]
    if residual is not None:
        result = _plus(result, residual, last, window, token, row, inside, n_out, dtype)
    tl.store(out + token * n_out + row, result, mask=inside)


def normed_product(states: Tensor, norm: Norm, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the norm of states [N, D] times a weight [O, D], plus a bias [O]; [N, O].

    All tensors are contiguous, N is at most 16.
    """
    out = states.new_empty(len(states), len(weight))
    # Of few rows, programs of 64 have a multiprocessor each.
    kind = "narrow_qkv" if len(weight) <= 64 * _MULTIPROCESSORS else "qkv"
    return _launch(kind, states, weight, bias, out, norm=norm)


def gated_product(states: Tensor, norm: Norm, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return silu(gate) * up, [N, F], where both are `normed_product` with weight [2 F, D]."""
    out = states.new_empty(len(states), len(weight) // 2)
    return _launch("gate_up", states, weight, bias, out, norm=norm, gated=True)


def summed_product(
    kind: str,
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor,
    last: Tensor | None = None,
) -> Tensor:
    """Return residual + states [N, K] times a weight [D, K], plus a bias [D]; [N, D].

    Args:
        kind: "o" or "down", whose `TILES` serve.
        states: contiguous.
        weight: contiguous.
        bias: None adds nothing.
        residual: contiguous, [N, D].
        last: int64 [B]: N is B, and the residual [B * T, D] is read at these tokens of each row.
    """
    out = residual.new_empty(len(states), len(weight))
    return _launch(kind, states, weight, bias, out, residual=residual, last=last)


def _launch(
    kind: str,
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    norm: Norm | None = None,
    residual: Tensor | None = None,
    last: Tensor | None = None,
    gated: bool = False,
) -> Tensor:
    """Run the kernel that fills `out`; return it."""
    n_tokens, width = len(out), weight.shape[1]
    tile = TILES[kind][n_tokens > 1]
    _product[(triton.cdiv(out.shape[1], tile.rows),)](
        states,
        None if norm is None else norm.weight,
        weight,
        bias,
        residual,
        last,
        out,
        0.0 if norm is None else norm.epsilon,
        n_tokens,
        1 if residual is None else len(residual) // n_tokens,
        width=width,
        n_out=out.shape[1],
        gated=gated,
        tokens=max(tile.lanes, triton.next_power_of_2(n_tokens)),
        rows=tile.rows,
        columns=tile.columns,
        stages=tile.stages,
        by_sums=tile.lanes < 8,
        num_warps=tile.warps,
    )
    return out

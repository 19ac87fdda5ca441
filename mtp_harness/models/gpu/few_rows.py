"""Products of few tokens with a layer's weights, and all that stands around them: one kernel each.

A step of few tokens is the reading of the weights. Each program reads some rows of a weight, once,
and does for itself what comes before (the norm of all states, the joining of attention's parts)
and behind (bias, silu, the sum with the residual), on numbers that are in the second-level cache.

    normed_product    norm(states) times queries, keys and values
                      (`few_attention` is here)
    summed_product    attention's output times its weight, plus the states
    gated_product     silu(gate) * up, of norm(states)
    summed_product    that times the weight back, plus the states

Numbers are rounded to the stored type where transformers rounds them. A row of the result does not
depend on the other rows, and no program adds to another's sums: repeated runs are bit-equal.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtp_harness.models.gpu.attention import Parts, join
from mtp_harness.models.gpu.early_start import ask_for, launch_options, starts_early, wait
from mtp_harness.models.gpu.kernels import scaled

FEW_ROWS = 16
"""Number of tokens, at most 16, up to which a step runs by these kernels; 0: never."""

JOINED_INSIDE = 8
"""Number of parts (tokens times splits) up to which `summed_product` joins attention's parts.

Every one of its programs reads all of them; more are joined once, by a kernel of their own.
"""


class Tile(NamedTuple):
    """How a product's programs read the weight."""

    rows: int  # of the weight, for one program
    columns: int  # of the weight, at a time
    warps: int
    stages: int  # pieces that are under way at a time, plus one
    ahead: int  # columns that are asked for before the inputs are there; 0, or a power of two
    lanes: int  # least number of tokens side by side: 1 for sums, 8 for tensor cores


TILES = {
    "qkv": (Tile(8, 1024, 4, 4, 512, 1), Tile(64, 128, 4, 4, 512, 8)),
    "o": (Tile(16, 512, 4, 4, 512, 1), Tile(32, 256, 4, 4, 512, 8)),
    "gate_up": (Tile(4, 1024, 4, 4, 512, 1), Tile(32, 128, 4, 4, 512, 8)),
    "down": (Tile(16, 512, 4, 4, 512, 1), Tile(32, 256, 4, 4, 512, 8)),
}
"""For one token, and for more; to be measured by `tests/benchmarks/bench_layers_gpu.py`."""


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
def _joined(
    parts,
    highest,
    total,
    first,
    n_tokens,
    dtype: tl.constexpr,
    width: tl.constexpr,
    tokens: tl.constexpr,
    columns: tl.constexpr,
    head_dim: tl.constexpr,
    n_splits: tl.constexpr,
):
    """Return attention's output from its column `first`, joined, [tokens, columns]."""
    n_heads: tl.constexpr = width // head_dim
    heads: tl.constexpr = columns // head_dim
    lane = tl.arange(0, tokens * heads)
    head = first // head_dim + lane % heads
    inside = (lane // heads < n_tokens) & (head < n_heads)
    split = tl.arange(0, n_splits)
    place = (lane // heads * n_heads + head)[:, None] * n_splits + split[None, :]
    top = tl.load(highest + place, mask=inside[:, None], other=float("-inf"))
    best = tl.max(top, 1)
    best = tl.where(best == float("-inf"), 0.0, best)
    share = tl.exp(top - best[:, None])
    weight = tl.sum(share * tl.load(total + place, mask=inside[:, None], other=0.0), 1)
    at = place[:, :, None] * head_dim + tl.arange(0, head_dim)[None, None, :]
    mean = tl.load(parts + at, mask=inside[:, None, None], other=0.0)
    mean = tl.sum(mean * share[:, :, None], 1) / tl.where(weight == 0.0, 1.0, weight)[:, None]
    return tl.reshape(mean.to(dtype), [tokens, columns])


@triton.jit
def _more(found, weight, states, by_sums: tl.constexpr):
    """Return `found` plus the product of a weight [rows, columns] and states [tokens, columns]."""
    if by_sums:  # one token; the columns are summed in the end
        found += weight.to(tl.float32) * states.to(tl.float32)
    else:
        found = tl.dot(weight, tl.trans(states), found)
    return found


@triton.jit
def _finished(found, bias, row, inside, dtype: tl.constexpr, by_sums: tl.constexpr):
    """Return a product [rows, tokens] with its bias, rounded."""
    if by_sums:
        found = tl.sum(found, 1)[:, None]
    if bias is not None:
        found += tl.load(bias + row, mask=inside, other=0.0).to(tl.float32)[:, None]
    return found.to(dtype)


@triton.jit
def _silu_times(gate, up, dtype: tl.constexpr):
    """Return silu(gate) * up, rounded where transformers rounds."""
    wide = gate.to(tl.float32)
    shut = (wide / (1.0 + tl.exp(-wide))).to(dtype)
    return (shut.to(tl.float32) * up.to(tl.float32)).to(dtype)


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
    highest,
    total,
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
    head_dim: tl.constexpr,
    n_splits: tl.constexpr,
    gated: tl.constexpr,
    tokens: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    stages: tl.constexpr,
    ahead: tl.constexpr,
    early: tl.constexpr,
):
    by_sums: tl.constexpr = tokens == 1
    dtype: tl.constexpr = out.dtype.element_ty
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    inside = row < n_out
    source = weight + tl.where(inside, row, 0).to(tl.int64) * width
    if ahead > 0:
        pieces = tl.arange(0, ahead // 16) * 16
        ask_for(source[:, None] + pieces[None, :])
        if gated:
            ask_for(source[:, None] + n_out * width + pieces[None, :])
    wait(early)
    token = tl.arange(0, tokens)
    live = token < n_tokens
    if norm_weight is not None:
        scale = _inverse_size(states, token, live, epsilon, width, tokens)[:, None]
    found = tl.zeros([rows, columns if by_sums else tokens], tl.float32)
    found_up = found
    for first in tl.range(0, width, columns, num_stages=stages):
        column = first + tl.arange(0, columns)
        within = (column < width)[None, :]
        if n_splits > 1:
            x = _joined(
                states, highest, total, first, n_tokens, dtype,
                width, tokens, columns, head_dim, n_splits,
            )  # fmt: skip
        else:
            place = token[:, None] * width + column[None, :]
            x = tl.load(states + place, mask=live[:, None] & within, other=0.0)
        if norm_weight is not None:
            by = tl.load(norm_weight + column[None, :], mask=within, other=0.0)
            x = scaled(x.to(tl.float32) * scale, by, dtype)
        read = source[:, None] + column[None, :]
        piece = tl.load(read, mask=within, other=0.0, eviction_policy="evict_first")
        found = _more(found, piece, x, by_sums)
        if gated:
            read += n_out * width
            piece = tl.load(read, mask=within, other=0.0, eviction_policy="evict_first")
            found_up = _more(found_up, piece, x, by_sums)
    result = _finished(found, bias, row, inside, dtype, by_sums)
    if gated:
        up_bias = None if bias is None else bias + n_out
        up = _finished(found_up, up_bias, row, inside, dtype, by_sums)
        result = _silu_times(result, up, dtype)
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
    return _launch("qkv", states, weight, bias, out, norm=norm)


def gated_product(states: Tensor, norm: Norm, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return silu(gate) * up, [N, F], where both are `normed_product` with weight [2 F, D]."""
    out = states.new_empty(len(states), len(weight) // 2)
    return _launch("gate_up", states, weight, bias, out, norm=norm, gated=True)


def summed_product(
    states: Tensor | Parts,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor,
    last: Tensor | None = None,
) -> Tensor:
    """Return residual + states [N, K] times a weight [D, K], plus a bias [D]; [N, D].

    Args:
        states: contiguous; or attention's outputs, [B, T, H, d] with H * d = K and B * T = N.
        weight: contiguous.
        bias: None adds nothing.
        residual: contiguous, [N, D].
        last: int64 [B]: N is B, and the residual [B * T, D] is read at these tokens of each row.
    """
    kind, n_tokens, parts = "down", len(residual), None
    if isinstance(states, Parts):
        kind, n_tokens = "o", states.mean.shape[:2].numel()
        if _joins_inside(states, n_tokens):
            parts, states = states, states.mean
        else:
            seen = join(states, residual.dtype, starts_early(residual))
            states = seen.view(n_tokens, -1)
    out = residual.new_empty(n_tokens, len(weight))
    return _launch(kind, states, weight, bias, out, parts=parts, residual=residual, last=last)


def _joins_inside(parts: Parts, n_tokens: int) -> bool:
    fits = _tile("o", n_tokens).columns >= parts.mean.shape[-1]
    return fits and 1 < parts.n_splits and parts.n_splits * n_tokens <= JOINED_INSIDE


def _tile(kind: str, n_tokens: int) -> Tile:
    return TILES[kind][n_tokens > 1]


def _ahead(tile: Tile, weight: Tensor) -> int:
    """Return how many columns to ask for: as many as there are, in pieces of 16."""
    most = 1 << (weight.shape[1].bit_length() - 1)
    return min(tile.ahead, most) if most >= 16 else 0


def _launch(
    kind: str,
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    norm: Norm | None = None,
    parts: Parts | None = None,
    residual: Tensor | None = None,
    last: Tensor | None = None,
    gated: bool = False,
) -> Tensor:
    """Run the kernel that fills `out`; return it."""
    n_tokens, width = len(out), weight.shape[1]
    tile, early = _tile(kind, n_tokens), starts_early(out)
    options: dict[str, Any] = launch_options(early)
    _product[(triton.cdiv(out.shape[1], tile.rows),)](
        states,
        None if norm is None else norm.weight,
        None if parts is None else parts.highest,
        None if parts is None else parts.total,
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
        head_dim=1 if parts is None else parts.mean.shape[-1],
        n_splits=1 if parts is None else parts.n_splits,
        gated=gated,
        tokens=max(tile.lanes, triton.next_power_of_2(n_tokens)),
        rows=tile.rows,
        columns=tile.columns,
        stages=tile.stages,
        ahead=_ahead(tile, weight) if early else 0,
        early=early,
        num_warps=tile.warps,
        **options,
    )
    return out

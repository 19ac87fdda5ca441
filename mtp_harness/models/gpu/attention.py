"""Decoding attention on a GPU: every row reads only its own columns of the cache.

A few queries per row over a long cache are too little work per row to fill a GPU, so the columns
are split between programs and the parts are joined afterwards (split-K, as in Flash-Decoding, Dao
et al. 2023). Lengths are read on the device, so that one CUDA graph serves rows of all lengths.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 64
_PROGRAMS = 264
"""Number of programs: two on each multiprocessor of an H100."""


@triton.jit
def see(q, k, v, visible, top, weight, mean, scale, precision: tl.constexpr):
    """Return queries' highest score, sum of weights and mean value after more columns.

    Of queries q [n, d], of keys and values [c, d] of which they see those that are `visible`
    [n, c]; top and weight are [n], mean is [n, d], not yet divided by the weight.
    """
    score = tl.dot(q, tl.trans(k), input_precision=precision) * scale
    score = tl.where(visible, score, float("-inf"))
    higher = tl.maximum(top, tl.max(score, 1))
    safe = tl.where(higher == float("-inf"), 0.0, higher)
    p = tl.exp(score - safe[:, None])
    shrink = tl.exp(top - safe)
    seen = tl.dot(p.to(v.dtype), v, input_precision=precision)
    return higher, weight * shrink + tl.sum(p, 1), mean * shrink[:, None] + seen


@triton.jit
def store_part(
    out,
    highest,
    total,
    top,
    weight,
    mean,
    place,
    live,
    split,
    head_dim: tl.constexpr,
    n_splits: tl.constexpr,
):
    """Store what `see` found: the output itself, or the part of one split, for `join`."""
    dim = tl.arange(0, head_dim)
    if n_splits == 1:
        mean = mean / tl.where(weight == 0.0, 1.0, weight)[:, None]
        address = place[:, None] * head_dim + dim[None, :]
        tl.store(out + address, mean.to(out.dtype.element_ty), mask=live[:, None])
    else:
        place = place * n_splits + split
        tl.store(out + place[:, None] * head_dim + dim[None, :], mean, mask=live[:, None])
        tl.store(highest + place, top, mask=live)
        tl.store(total + place, weight, mask=live)


@triton.jit
def _part(
    query,
    keys,
    values,
    lengths,
    positions,
    out,
    highest,
    total,
    scale,
    q_row,
    q_token,
    q_head,
    kv_row,
    kv_column,
    kv_head,
    n_tokens: tl.constexpr,
    group: tl.constexpr,
    head_dim: tl.constexpr,
    n_queries: tl.constexpr,
    block: tl.constexpr,
    n_splits: tl.constexpr,
    precision: tl.constexpr,
):
    # Heads of a row are neighbours in the cache, and run at the same time.
    head, row, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row)
    per_split = tl.cdiv(tl.cdiv(length, block), n_splits) * block
    start = split * per_split
    end = tl.minimum(start + per_split, length)
    lane = tl.arange(0, n_queries)  # query (token, head within the group)
    token = lane // group
    live = lane < n_tokens * group
    dim = tl.arange(0, head_dim)
    at = tl.load(positions + row * n_tokens + token, mask=live, other=-1)
    q_at = row * q_row + token * q_token + (head * group + lane % group) * q_head
    q = tl.load(query + q_at[:, None] + dim[None, :], mask=live[:, None], other=0.0)
    top = tl.full([n_queries], float("-inf"), tl.float32)
    weight = tl.zeros([n_queries], tl.float32)
    mean = tl.zeros([n_queries, head_dim], tl.float32)
    base = row.to(tl.int64) * kv_row + head * kv_head
    for first in range(start, end, block):
        column = first + tl.arange(0, block)
        inside = column < end
        address = base + column[:, None].to(tl.int64) * kv_column + dim[None, :]
        k = tl.load(keys + address, mask=inside[:, None], other=0.0)
        v = tl.load(values + address, mask=inside[:, None], other=0.0)
        visible = inside[None, :] & (column[None, :] <= at[:, None])
        top, weight, mean = see(q, k, v, visible, top, weight, mean, scale, precision)
    n_heads = tl.num_programs(0) * group
    place = (row * n_tokens + token) * n_heads + head * group + lane % group
    store_part(out, highest, total, top, weight, mean, place, live, split, head_dim, n_splits)


@triton.jit
def _join(parts, highest, total, out, head_dim: tl.constexpr, n_splits: tl.constexpr):
    place = tl.program_id(0)
    split = tl.arange(0, n_splits)
    dim = tl.arange(0, head_dim)
    top = tl.load(highest + place * n_splits + split)
    best = tl.max(top, 0)
    best = tl.where(best == float("-inf"), 0.0, best)
    share = tl.exp(top - best)
    weight = tl.sum(share * tl.load(total + place * n_splits + split), 0)
    mean = tl.load(parts + (place * n_splits + split)[:, None] * head_dim + dim[None, :])
    mean = tl.sum(mean * share[:, None], 0) / tl.where(weight == 0.0, 1.0, weight)
    tl.store(out + place * head_dim + dim, mean.to(out.dtype.element_ty))


class Parts(NamedTuple):
    """Attention outputs by split of the columns; with one split, the outputs themselves."""

    mean: Tensor  # [..., H, splits, d], float32, not yet divided; one split: [..., H, d]
    highest: Tensor  # score, [..., H, splits], float32
    total: Tensor  # weight, like `highest`

    @property
    def n_splits(self) -> int:
        """The number of splits."""
        return 1 if self.mean is self.highest else self.highest.shape[-1]


def new_parts(out: Tensor, n_splits: int) -> Parts:
    """Return room for the parts of attention outputs like `out` [..., H, d]."""
    if n_splits == 1:
        return Parts(out, out, out)
    *shape, head_dim = out.shape
    mean = torch.empty((*shape, n_splits, head_dim), device=out.device)
    highest = torch.empty((*shape, n_splits), device=out.device)
    return Parts(mean, highest, torch.empty_like(highest))


def join(parts: Parts, dtype: torch.dtype) -> Tensor:
    """Return attention outputs [..., H, d] in `dtype`."""
    if parts.n_splits == 1:
        return parts.mean
    *shape, n_splits, head_dim = parts.mean.shape
    out = parts.mean.new_empty((*shape, head_dim), dtype=dtype)
    _join[(parts.highest.numel() // n_splits,)](*parts, out, head_dim, n_splits)
    return out


def n_queries_of(n_tokens: int, group: int) -> int:
    """Return the number of a program's queries: tensor cores need 16, and a power of two."""
    return max(16, int(triton.next_power_of_2(n_tokens * group)))


def n_splits_of(n_groups: int, programs: int) -> int:
    """Return into how many parts, at most 16, columns are split between about `programs`."""
    return int(triton.next_power_of_2(max(1, min(16, programs // n_groups))))


def _stages(n_programs: int, n_tokens: int) -> int:
    """Return how many pieces of the cache a program has under way at a time, plus one.

    With two, a multiprocessor has room for three programs instead of two. Measured on one H200:
    512 programs take a tenth less time so; 256 and 336 take a little more; 1,344 and 2,048 take 1
    to 3 % less with four tokens a row, and more with one.
    """
    many, very_many = n_programs > 3 * _PROGRAMS // 2, n_programs > 3 * _PROGRAMS
    return 2 if many and not (very_many and n_tokens == 1) else 3


def fitting(block: int, keys: Tensor, n_queries: int) -> int:
    """Return how many columns, at most `block`, of keys [B, L, H_kv, d] a program reads at a time.

    A multiprocessor has 227 KiB, for the keys and values of two turns, and for its queries twice:
    in their type, and as outputs in float32. (Triton needs less than that, or just as much.)
    """
    width, size = keys.shape[-1], keys.itemsize
    left = 227 * 2**10 - n_queries * width * (size + 4)
    most = max(16, min(block, left // (4 * width * size)))
    return 1 << (most.bit_length() - 1)


def attend_rows(
    query: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, positions: Tensor, scale: float
) -> Tensor:
    """Return the attention of every row's queries over its own columns, [B, T, H * d].

    Args:
        query: [B, T, H, d], the last dimension contiguous.
        keys: [B, L, H_kv, d], contiguous.
        values: like keys.
        lengths: int64 [B], columns to read; 0 gives zeros.
        positions: int64 [B, T], contiguous; a query sees the columns up to its position.
        scale: factor on the scores.
    """
    n_rows, n_tokens, n_heads, head_dim = query.shape
    n_kv_heads = keys.shape[2]
    group = n_heads // n_kv_heads
    n_queries = n_queries_of(n_tokens, group)
    n_splits = n_splits_of(n_rows * n_kv_heads, _PROGRAMS)
    parts = new_parts(query.new_empty(n_rows, n_tokens, n_heads, head_dim), n_splits)
    _part[(n_kv_heads, n_rows, n_splits)](
        query,
        keys,
        values,
        lengths,
        positions,
        *parts,
        scale,
        query.stride(0),
        query.stride(1),
        query.stride(2),
        keys.stride(0),
        keys.stride(1),
        keys.stride(2),
        n_tokens=n_tokens,
        group=group,
        head_dim=head_dim,
        n_queries=n_queries,
        block=fitting(_BLOCK, keys, n_queries),
        n_splits=n_splits,
        # TF32 has 10 bits of mantissa: the text would differ from plain decoding's.
        precision="ieee" if query.dtype is torch.float32 else "tf32",
        num_stages=_stages(n_rows * n_kv_heads * n_splits, n_tokens),
    )
    return join(parts, query.dtype).flatten(2)

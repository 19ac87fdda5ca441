"""Decoding attention of few tokens in one kernel: rotation, the cache's new columns, attention.

A program has the queries of one key/value head of one row, and a part of the columns, as in
`attention`. It norms and rotates its queries itself. The call's own tokens are not read from the
cache, where another program may not have written them yet: the programs of the first part take
them from the projection, and write them into the cache.

    columns  0 1 2 3 4 5 | 6 7      6 and 7 are new
    part 0   x x x       | x x      and writes 6 and 7
    part 1         x x x |          skips them: their old contents may be changing
"""

import triton
import triton.language as tl
from torch import Tensor

from mtp_harness.models.gpu.attention import (
    fitting,
    join,
    n_queries_of,
    n_splits_of,
    new_parts,
    see,
    store_part,
)
from mtp_harness.models.gpu.kernels import HeadNorm, turn

BLOCK = 32
"""Columns that are read at a time."""
PROGRAMS = 264
"""Number of programs, about: two on each multiprocessor of an H100."""
WARPS = 4
"""Of a program."""
_NEW = 16
"""Most tokens of a row in a call; the tensor cores need as many."""


def serves(n_tokens: int, n_heads: int, n_kv_heads: int, head_dim: int) -> bool:
    """Return whether a program can hold the queries of a row's tokens."""
    return n_tokens <= _NEW and n_queries_of(n_tokens, n_heads // n_kv_heads) * head_dim <= 2**14


@triton.jit
def _heads(
    source, weight, cos, sin, token, live, epsilon,
    rotated: tl.constexpr, head_dim: tl.constexpr,
):  # fmt: skip
    """Return heads [n, d] at pointers `source` [n], normed if there is a weight, and rotated."""
    dim = tl.arange(0, head_dim)[None, :]
    turns = dim < rotated
    partner = tl.where(turns, (dim + rotated // 2) % rotated, dim)
    live = live[:, None]
    x = tl.load(source[:, None] + dim, mask=live, other=0.0)
    other = tl.load(source[:, None] + partner, mask=live, other=0.0)
    by, its = x, x
    if weight is not None:
        by, its = tl.load(weight + dim), tl.load(weight + partner)
    at = token[:, None] * rotated + dim
    cosine = tl.load(cos + at, mask=live & turns, other=1.0)
    sine = tl.load(sin + at, mask=live & turns, other=0.0)
    return turn(x, other, by, its, cosine, sine, epsilon, head_dim, weight is not None)


@triton.jit
def _rotate_and_attend(
    projected,
    cos,
    sin,
    query_weight,
    key_weight,
    keys,
    values,
    places,
    lengths,
    positions,
    last,
    out,
    highest,
    total,
    epsilon,
    scale,
    n_columns,
    n_tokens: tl.constexpr,
    n_heads: tl.constexpr,
    n_kv_heads: tl.constexpr,
    head_dim: tl.constexpr,
    rotated: tl.constexpr,
    n_queries: tl.constexpr,
    n_new: tl.constexpr,
    block: tl.constexpr,
    n_splits: tl.constexpr,
):
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    dim = tl.arange(0, head_dim)
    length = tl.load(lengths + row).to(tl.int32)
    per_split = tl.cdiv(tl.cdiv(length, block), n_splits) * block
    start = split * per_split
    end = tl.minimum(start + per_split, length)
    base = row.to(tl.int64) * n_columns * n_kv_heads * head_dim + head * head_dim

    group: tl.constexpr = n_heads // n_kv_heads
    lane = tl.arange(0, n_queries)  # query (token, head within the group)
    q_head = head * group + lane % group
    if last is None:
        token = lane // group
        live = lane < n_tokens * group
        place = (row * n_tokens + token) * n_heads + q_head
    else:
        token = tl.load(last + row).to(tl.int32) + lane * 0
        live = lane < group
        place = row * n_heads + q_head
    heads: tl.constexpr = n_heads + 2 * n_kv_heads
    of_row = row * n_tokens
    source = projected + ((of_row + token) * heads + q_head) * head_dim
    q = _heads(source, query_weight, cos, sin, of_row + token, live, epsilon, rotated, head_dim)
    at = tl.load(positions + of_row + token, mask=live, other=-1).to(tl.int32)

    new = tl.arange(0, n_new)
    is_new = new < n_tokens
    new_at = tl.load(positions + of_row + new, mask=is_new, other=-1).to(tl.int32)
    source = projected + ((of_row + new) * heads + n_heads + head) * head_dim
    new_k = _heads(source, key_weight, cos, sin, of_row + new, is_new, epsilon, rotated, head_dim)
    source += n_kv_heads * head_dim
    new_v = tl.load(source[:, None] + dim[None, :], mask=is_new[:, None], other=0.0)
    first = new + split * n_new < n_tokens
    new_place = tl.load(places + of_row + new, mask=first, other=0)  # counted over all rows
    stored = (new_place * n_kv_heads + head)[:, None] * head_dim + dim[None, :]
    tl.store(keys + stored, new_k, mask=first[:, None])
    tl.store(values + stored, new_v, mask=first[:, None])

    top = tl.full([n_queries], float("-inf"), tl.float32)
    weight = tl.zeros([n_queries], tl.float32)
    mean = tl.zeros([n_queries, head_dim], tl.float32)
    kept = first & (new_at < length)  # the others are in the trash column
    sees = kept[None, :] & (new_at[None, :] <= at[:, None])
    top, weight, mean = see(q, new_k, new_v, sees, top, weight, mean, scale, "tf32")
    for begin in range(start, end, block):
        column = begin + tl.arange(0, block)
        inside = column < end
        for one in tl.static_range(n_tokens):
            inside &= column != tl.load(positions + of_row + one).to(tl.int32)
        address = base + column[:, None].to(tl.int64) * (n_kv_heads * head_dim) + dim[None, :]
        k = tl.load(keys + address, mask=inside[:, None], other=0.0)
        v = tl.load(values + address, mask=inside[:, None], other=0.0)
        visible = inside[None, :] & (column[None, :] <= at[:, None])
        top, weight, mean = see(q, k, v, visible, top, weight, mean, scale, "tf32")
    store_part(out, highest, total, top, weight, mean, place, live, split, head_dim, n_splits)


def rotate_and_attend(
    projected: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    places: Tensor,
    lengths: Tensor,
    positions: Tensor,
    scale: float,
    *,
    norm: HeadNorm | None = None,
    last: Tensor | None = None,
) -> Tensor:
    """Write rotated keys, and values, into the cache; return attention's outputs [B, T, H * d].

    Args:
        projected: queries, keys and values, [B * T, (H + 2 H_kv) * d], contiguous; T at most 16.
        cos: [B * T, r], contiguous; the first r of the d numbers of a head are rotated.
        sin: like cos, the first half negated.
        keys: [B, L, H_kv, d], contiguous.
        values: like keys.
        places: int64 [B * T], columns of the new tokens, counted over all rows.
        lengths: int64 [B], columns to attend to, the new ones included; 0 gives zeros.
        positions: int64 [B, T], contiguous: the columns of the new tokens, which see the columns up
            to there; `lengths` or more for tokens that no token may see.
        scale: factor on the scores.
        norm: None: queries and keys are rotated as they are.
        last: int64 [B], the only token of each row whose output is needed: [B, 1, H * d].
    """
    (n_rows, n_columns, n_kv_heads, head_dim), n_tokens = keys.shape, positions.shape[1]
    n_heads = projected.shape[1] // head_dim - 2 * n_kv_heads
    asked = n_tokens if last is None else 1
    n_queries = n_queries_of(asked, n_heads // n_kv_heads)
    n_splits = n_splits_of(n_rows * n_kv_heads, PROGRAMS)
    parts = new_parts(projected.new_empty(n_rows, asked, n_heads, head_dim), n_splits)
    _rotate_and_attend[(n_rows, n_kv_heads, n_splits)](
        projected,
        cos,
        sin,
        None if norm is None else norm.query,
        None if norm is None else norm.key,
        keys,
        values,
        places,
        lengths,
        positions,
        last,
        *parts,
        0.0 if norm is None else norm.epsilon,
        scale,
        n_columns,
        n_tokens=n_tokens,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        rotated=cos.shape[-1],
        n_queries=n_queries,
        n_new=_NEW,
        block=fitting(BLOCK, keys, n_queries + _NEW),
        n_splits=n_splits,
        num_warps=WARPS,
    )
    return join(parts, projected.dtype).flatten(2)

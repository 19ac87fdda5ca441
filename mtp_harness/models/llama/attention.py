"""Attention of the tokens in one call over what the cache holds of their rows.

The query heads that share a key/value head are laid side by side as more queries of that head, so
keys and values are read once: on a CPU that is twice as fast as showing every query head a copy.
"""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mtp_harness.models.interface import KeyValueCache


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layer: int,
    cache: KeyValueCache,
    scale: float,
    last: Tensor | None = None,
) -> Tensor:
    """Add keys and values to the cache and return the attention over it.

    Args:
        query: [B, T, H, d], rotated; with `last`, [B, 1, H, d].
        key: [B, T, H_kv, d], rotated.
        value: [B, T, H_kv, d].
        layer: index in the cache.
        cache: knows the positions of this call's tokens.
        scale: factor on the scores.
        last: int64 [B], the only tokens that ask; None means all of them.

    Returns:
        [B, T, H * d]; with `last`, [B, 1, H * d].
    """
    keys, values = cache.update(key.transpose(1, 2), value.transpose(1, 2), layer)
    n_rows, n_tokens, n_heads, head_dim = query.shape
    n_kv_heads = keys.shape[1]
    if cache.mask is None and last is None:
        seen = scaled_dot_product_attention(
            query.transpose(1, 2),
            keys,
            values,
            is_causal=True,
            scale=scale,
            enable_gqa=n_heads != n_kv_heads,
        )
        return seen.transpose(1, 2).flatten(2)
    group = n_heads // n_kv_heads
    # [B, T, H_kv, G, d] -> [B, H_kv, G * T, d]
    grouped = query.reshape(n_rows, n_tokens, n_kv_heads, group, head_dim)
    folded = grouped.permute(0, 2, 3, 1, 4).flatten(2, 3)
    bias = cache.bias(query.dtype, group, last)
    seen = scaled_dot_product_attention(folded, keys, values, attn_mask=bias, scale=scale)
    seen = seen.view(n_rows, n_kv_heads, group, n_tokens, head_dim)
    return seen.permute(0, 3, 1, 2, 4).flatten(2)

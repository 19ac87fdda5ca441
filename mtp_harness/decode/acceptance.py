"""Which drafts a step accepts.

A draft is verified when head 1, reading the same prefix, chooses the same token; the step accepts
the agreeing prefix and adds head 1's own token after it, the bonus.

    window   y0 d1 d2 d3        y0 pending (already emitted), d1..d3 drafts
    head 1   t0 t1 t2 t3        its choice after each
             d1 = t0, d2 = t1, d3 != t2   ->   2 verified; emitted: t0 t1 t2

Source: Stern et al. 2018 (blockwise parallel decoding), as in Gloeckle et al. 2024, section 2.
"""

from torch import Tensor


def count_verified(drafts: Tensor, choices: Tensor) -> Tensor:
    """Return the length of the agreeing prefix per row.

    Args:
        drafts: int64 [B, k-1].
        choices: int64 [B, k], head 1's choice after the pending token and after each draft.

    Returns:
        int64 [B], 0..k-1.
    """
    agree = drafts == choices[:, :-1]
    return agree.long().cumprod(-1).sum(-1)

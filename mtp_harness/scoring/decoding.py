"""Metrics of how a document's answers were decoded, as pairs that are summed before dividing."""

import math
from collections.abc import Iterable
from typing import Any

from mtp_harness.decode.records import Acceptance, DecodeRecord

MAX_OFFSET = 64
"""Acceptance is pooled for drafts up to this offset; the paper's largest model has 32 heads."""


def decoding_metrics(records: list[DecodeRecord]) -> dict[str, Any]:
    """Return the metrics of how one document's answers were decoded."""
    if not records:
        return {}
    pooled = Acceptance.pool(records)
    lines = [r for r in records if not r.looping]
    own = [r.tokens_per_forward for r in records if r.n_steps]
    metrics: dict[str, Any] = {
        "looping": 1 - len(lines) / len(records),
        "tokens_per_forward": (pooled.n_kept, pooled.n_steps),
        "tokens_per_forward_no_loops": (
            sum(r.n_kept for r in lines),
            sum(r.n_steps for r in lines),
        ),
        "tokens_per_forward_mean": (sum(own), len(own)),
    }
    if not pooled.lossless:
        return metrics | {"lossy": 1}
    for offset in range(2, pooled.draft_heads + 1):
        verified = pooled.n_drafts_verified(offset)
        metrics[f"accept_rate_prefix_{offset}"] = (verified, pooled.n_steps_drafting(offset))
        metrics[f"accept_rate_cond_{offset}"] = (verified, pooled.n_open[offset - 2])
    return metrics


def ratio_of_sums(pairs: Iterable[tuple[float, float]]) -> float:
    """Aggregate (numerator, denominator) pairs as sum over sum; NaN if nothing was counted."""
    pairs = list(pairs)
    denominator = math.fsum(pair[1] for pair in pairs)
    return math.fsum(pair[0] for pair in pairs) / denominator if denominator else math.nan

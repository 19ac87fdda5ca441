"""What a run decoded, all answers together: `config.mtp.totals` of the results."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mtp_harness.decode.records import Acceptance, DecodeRecord


def totals(records: Sequence[DecodeRecord], generate_s: float) -> dict[str, Any]:
    """Return the counters of all generated answers.

    Args:
        records: of all ranks.
        generate_s: wall time of generation, prefills and tokenization included.
    """
    if not records:
        return {"n_answers": 0}
    pooled = Acceptance.pool(records)
    per_answer = [record.tokens_per_forward for record in records if record.n_steps]
    return {
        "n_answers": len(records),
        "n_prompts_truncated": sum(record.n_truncated > 0 for record in records),
        "n_looping": sum(record.looping for record in records),
        "n_kept": pooled.n_kept,
        "n_steps": pooled.n_steps,
        "n_steps_by_verified_drafts": list(pooled.n_by_verified),
        "tokens_per_forward": pooled.tokens_per_forward if pooled.n_steps else None,
        "tokens_per_forward_mean": sum(per_answer) / len(per_answer) if per_answer else None,
        "accept_rate_prefix": _without_nan(pooled.accept_rate_prefix()),
        "accept_rate_cond": _without_nan(pooled.accept_rate_cond()),
        "ended_by": dict(Counter(record.ended_by for record in records)),
        "generate_s": generate_s,
        "tokens_per_s": (pooled.n_kept + len(records)) / generate_s,
    }


def _without_nan(rates: dict[int, float]) -> dict[int, float | None]:
    """Return JSON values: None where nothing was drafted."""
    return {offset: None if rate != rate else rate for offset, rate in rates.items()}

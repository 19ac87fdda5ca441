"""What a run decoded, all answers together: `config.mtp.totals` of the results."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mtp_harness.decode.records import Acceptance, DecodeRecord


@dataclass(frozen=True)
class Spent:
    """What generation took; answers from a journal were paid for by an earlier process.

    Attributes:
        generate_s: wall time, prefills and tokenization included.
        n_tokens: decoded in that time.
        n_answers_from_journal: read instead.
    """

    generate_s: float = 0.0
    n_tokens: int = 0
    n_answers_from_journal: int = 0

    def and_then(self, ranks: Sequence["Spent"]) -> "Spent":
        """Return this and one more call, in which ranks worked side by side."""
        return Spent(
            self.generate_s + max((rank.generate_s for rank in ranks), default=0.0),
            self.n_tokens + sum(rank.n_tokens for rank in ranks),
            self.n_answers_from_journal + sum(rank.n_answers_from_journal for rank in ranks),
        )


def totals(records: Sequence[DecodeRecord], spent: Spent) -> dict[str, Any]:
    """Return the counters of all generated answers, and under `timing` what they took.

    Args:
        records: of all ranks.
        spent: by all ranks.
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
        "timing": {
            **asdict(spent),
            "tokens_per_s": spent.n_tokens / spent.generate_s if spent.generate_s else None,
        },
    }


def _without_nan(rates: dict[int, float]) -> dict[int, float | None]:
    """Return JSON values: None where nothing was drafted."""
    return {offset: None if rate != rate else rate for offset, rate in rates.items()}

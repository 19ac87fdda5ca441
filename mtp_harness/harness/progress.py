"""The progress bar of decoding, and the totals in `config.mtp.totals` of the results."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm

from mtp_harness.decode.engine import Answer
from mtp_harness.decode.records import Acceptance, DecodeRecord


class Progress(tqdm):  # type: ignore[misc]
    """One bar: documents done, tokens per second and tokens per forward so far."""

    def __init__(self, total: int, done: int, hidden: bool) -> None:
        """Show the bar: `done` of `total` answers are finished already."""
        self.n_tokens = self.n_kept = self.n_steps = 0
        self.began = time.perf_counter()
        about = "Running generate_until requests"
        super().__init__(total=total, initial=done, disable=hidden, desc=about)

    def add(self, answer: Answer) -> None:
        """Count one more answer."""
        self.n_tokens += len(answer.tokens)
        self.n_kept += answer.record.n_kept
        self.n_steps += answer.record.n_steps
        speed = self.n_tokens / (time.perf_counter() - self.began)
        text = f"{speed:.0f} tokens/s"
        if self.n_steps:
            text += f", {self.n_kept / self.n_steps:.2f} tokens/forward"
        self.set_postfix_str(text, refresh=False)
        self.update()


@dataclass(frozen=True)
class Spent:
    """Cost of generation; answers from a journal cost nothing here."""

    generate_s: float = 0.0  # wall time, prefills and tokenization included
    n_tokens: int = 0
    n_answers_from_journal: int = 0

    def and_then(self, ranks: Sequence["Spent"]) -> "Spent":
        """Return the sum with one more call, whose ranks worked in parallel."""
        return Spent(
            self.generate_s + max((rank.generate_s for rank in ranks), default=0.0),
            self.n_tokens + sum(rank.n_tokens for rank in ranks),
            self.n_answers_from_journal + sum(rank.n_answers_from_journal for rank in ranks),
        )


def totals(records: Sequence[DecodeRecord], spent: Spent) -> dict[str, Any]:
    """Return the counters over the answers of all ranks, and their cost under `timing`."""
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
            "tokens_per_s": spent.n_tokens / spent.generate_s if spent.n_tokens else None,
        },
    }


def _without_nan(rates: dict[int, float]) -> dict[int, float | None]:
    """Return JSON values: None if nothing was drafted."""
    return {offset: None if rate != rate else rate for offset, rate in rates.items()}

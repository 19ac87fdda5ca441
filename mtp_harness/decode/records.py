"""What decoding reports: per answer (`DecodeRecord`), and pooled over answers (`Acceptance`).

The first token comes from the prefill; neither it nor the prefill counts as a step, so NTP gives
exactly 1 token per forward. Verified drafts are counted before a stop string, EOS or the budget
cuts the answer; kept tokens (those that remain, including the one that ended the answer) after.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class DecodeRecord:
    """How one answer was decoded."""

    n_prompt_tokens: int  # as fed to the model
    n_truncated: int  # prompt tokens cut off on the left because they did not fit
    draft_heads: int  # k; k - 1 tokens are drafted per step
    draft_rule: str  # how drafts were chosen and verified
    n_kept: int  # tokens after the first one, up to the one that ended the answer
    n_verified: tuple[int, ...]  # verified drafts of each step, in order
    ended_by: str  # `eos`, `stop` or `length`
    looping: bool  # whether the answer repeats itself (`is_looping`)
    batch_size: int  # slots, the rows decoded together
    prefill_s: float | None  # wall time from getting a slot to the first token, if measured apart
    decode_s: float  # wall time from the end of the prefill to the end of this answer
    n_drafted: tuple[int, ...] | None = None  # drafts of each step; None: k - 1 throughout
    lossless: bool = True  # False: drafts were accepted unverified, and `n_verified` counts them
    # Characters that each token added to the answer's text, the first token included, if known. The
    # text may end earlier: at its stop string.
    n_characters: tuple[int, ...] | None = None
    # Ids up to the one that ended the answer, for later use by `--metadata on`.
    tokens: tuple[int, ...] | None = None
    # Ids of the drafts that were not verified, step by step, and the text of each, if known.
    rejected: tuple[int, ...] | None = None
    rejected_text: tuple[str, ...] | None = None

    @property
    def n_steps(self) -> int:
        """Trunk forwards after the prefill."""
        return len(self.n_verified)

    @property
    def tokens_per_forward(self) -> float:
        """Kept tokens per step of this answer; NaN if the prefill alone answered."""
        return _ratio(self.n_kept, self.n_steps)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the record from `as_dict`'s values, also after they went through JSON."""
        read = dict(values)
        names = ("n_verified", "n_drafted", "n_characters", "tokens", "rejected", "rejected_text")
        for name in names:
            if read.get(name) is not None:
                read[name] = tuple(read[name])
        return cls(**read)


class Generation(str):
    """An answer's text that carries its `DecodeRecord`.

    Methods of `str` return plain strings: filters that change the text wrap it again.
    """

    record: DecodeRecord

    def __new__(cls, text: str, record: DecodeRecord) -> Self:
        """Return `text` with its record."""
        self = super().__new__(cls, text)
        self.record = record
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Pickle as a plain string: an answer read from a cache was not decoded in that run."""
        return str, (str.__str__(self),)

    def __copy__(self) -> Self:
        """Return itself: a string never changes."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


@dataclass(frozen=True)
class Acceptance:
    """Counts pooled over answers decoded with the same k."""

    draft_heads: int  # k
    n_kept: int
    n_steps: int
    n_by_verified: tuple[int, ...]  # steps by number of verified drafts, k entries
    n_by_drafted: tuple[int, ...]  # steps by number of drafts, k entries
    n_open: tuple[int, ...]  # per offset 2..k, steps that drafted it and verified all before it
    lossless: bool = True  # whether drafts were verified; if not, acceptance has no rate

    @classmethod
    def pool(cls, records: Iterable[DecodeRecord]) -> "Acceptance":
        """Add up records.

        Raises:
            ValueError: there are none, or they were decoded with different k.
        """
        records = list(records)
        kinds = {(record.draft_heads, record.lossless) for record in records}
        if len(kinds) != 1:
            ks = sorted({record.draft_heads for record in records})
            raise ValueError(f"expected records of one draft_heads and rule, got {ks or 'none'}")
        k, lossless = kinds.pop()
        by_verified, by_drafted, n_open = [0] * k, [0] * k, [0] * (k - 1)
        for record in records:
            drafted = record.n_drafted or (k - 1,) * record.n_steps
            for verified, made in zip(record.n_verified, drafted, strict=True):
                by_verified[verified] += 1
                by_drafted[made] += 1
                for index in range(min(verified + 1, made)):
                    n_open[index] += 1
        n_kept, n_steps = sum(record.n_kept for record in records), sum(by_verified)
        counts = tuple(by_verified), tuple(by_drafted), tuple(n_open)
        return cls(k, n_kept, n_steps, *counts, lossless)

    @property
    def tokens_per_forward(self) -> float:
        """Sum of kept tokens over sum of steps; NaN without a step."""
        return _ratio(self.n_kept, self.n_steps)

    def n_drafts_verified(self, offset: int) -> int:
        """Return the steps whose draft at `offset` (2..k) was verified."""
        return sum(self.n_by_verified[offset - 1 :])

    def n_steps_drafting(self, offset: int) -> int:
        """Return the steps that had a draft at `offset` (2..k)."""
        return sum(self.n_by_drafted[offset - 1 :])

    def accept_rate_prefix(self) -> dict[int, float]:
        """Return, per offset, drafts verified over steps that drafted it."""
        return self._rates(self.n_steps_drafting)

    def accept_rate_cond(self) -> dict[int, float]:
        """Return, per offset, drafts verified over steps that drafted it after verified drafts."""
        return self._rates(lambda offset: self.n_open[offset - 2])

    def _rates(self, out_of: Callable[[int], int]) -> dict[int, float]:
        offsets = range(2, self.draft_heads + 1) if self.lossless else ()
        return {k: _ratio(self.n_drafts_verified(k), out_of(k)) for k in offsets}


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")


def is_looping(tokens: list[int], length: int = 8) -> bool:
    """Return whether fewer than half of an answer's 8-grams are distinct.

    Small models repeat themselves when they decode greedily, and repetition is easy to draft:
    tokens per forward is reported with and without such answers.
    """
    grams = [tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)]
    return bool(grams) and len(set(grams)) < 0.5 * len(grams)

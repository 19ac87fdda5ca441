"""What decoding reports: per answer (`DecodeRecord`), and pooled over answers (`Acceptance`).

The first token comes from the prefill; neither it nor the prefill counts as a step, so NTP gives
exactly 1 token per forward. Verified drafts are counted before a stop string, EOS or the budget
cuts the answer; kept tokens are counted after.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class DecodeRecord:
    """How one answer was decoded.

    Attributes:
        n_prompt_tokens: tokens of the prompt as fed to the model.
        n_truncated: prompt tokens cut off on the left because they did not fit.
        draft_heads: k; k - 1 tokens are drafted per step.
        draft_rule: how drafts were chosen and verified.
        n_kept: tokens after the first one, up to the one that ended the answer.
        n_verified: verified drafts of each step, in order; its length is the number of steps.
        n_drafted: drafts made for each step; None where it is k - 1 throughout.
        lossless: whether drafts were verified; False makes `n_verified` those taken on trust.
        ended_by: `eos`, `stop` or `length`.
        looping: whether the answer repeats itself (`is_looping`).
        batch_size: slots, the rows decoded together.
        prefill_s: wall time from getting a slot to the first token; None where it was not measured
            apart.
        decode_s: wall time from the end of the prefill to the end of this answer.
        n_characters: characters that each token added to the answer's text, the first token
            included; None where that is not known. The text may end earlier: at its stop string.
    """

    n_prompt_tokens: int
    n_truncated: int
    draft_heads: int
    draft_rule: str
    n_kept: int
    n_verified: tuple[int, ...]
    ended_by: str
    looping: bool
    batch_size: int
    prefill_s: float | None
    decode_s: float
    n_drafted: tuple[int, ...] | None = None
    lossless: bool = True
    n_characters: tuple[int, ...] | None = None

    @property
    def n_steps(self) -> int:
        """Trunk forwards after the prefill."""
        return len(self.n_verified)

    @property
    def tokens_per_forward(self) -> float:
        """Kept tokens per step of this answer; NaN where the prefill alone answered."""
        return self.n_kept / self.n_steps if self.n_steps else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the record that `as_dict` gave, before or after it went through JSON."""
        read = dict(values)
        for name in ("n_verified", "n_drafted", "n_characters"):
            if read.get(name) is not None:
                read[name] = tuple(read[name])
        return cls(**read)


class Generation(str):
    """An answer's text that carries its `DecodeRecord`.

    `str` methods return plain strings: filters that change the text wrap it again.
    """

    record: DecodeRecord

    def __new__(cls, text: str, record: DecodeRecord) -> Self:
        """Return `text` with its record."""
        self = super().__new__(cls, text)
        self.record = record
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Pickle as a plain string: what is read from a cache was not decoded in that run."""
        return str, (str.__str__(self),)

    def __copy__(self) -> Self:
        """Return itself: a string never changes."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself."""
        return self


@dataclass(frozen=True)
class Acceptance:
    """Counts pooled over answers decoded with the same k.

    Attributes:
        draft_heads: k.
        n_kept: sum of kept tokens.
        n_steps: sum of steps.
        n_by_verified: steps by number of verified drafts, k entries.
        n_by_drafted: steps by number of drafts, k entries.
        n_open: per offset 2..k, steps that drafted it and verified all drafts before it.
        lossless: whether drafts were verified; if not, acceptance has no rate.
    """

    draft_heads: int
    n_kept: int
    n_steps: int
    n_by_verified: tuple[int, ...]
    n_by_drafted: tuple[int, ...]
    n_open: tuple[int, ...]
    lossless: bool = True

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
        kept = sum(record.n_kept for record in records)
        return cls(
            k,
            kept,
            sum(by_verified),
            tuple(by_verified),
            tuple(by_drafted),
            tuple(n_open),
            lossless,
        )

    @property
    def tokens_per_forward(self) -> float:
        """Sum of kept tokens over sum of steps; NaN without a step."""
        return self.n_kept / self.n_steps if self.n_steps else float("nan")

    def n_drafts_verified(self, offset: int) -> int:
        """Return the steps whose draft at `offset` (2..k) was verified."""
        return sum(self.n_by_verified[offset - 1 :])

    def n_steps_drafting(self, offset: int) -> int:
        """Return the steps that had a draft at `offset` (2..k)."""
        return sum(self.n_by_drafted[offset - 1 :])

    def accept_rate_prefix(self) -> dict[int, float]:
        """Return, per offset, drafts verified over steps that drafted it."""
        return {
            offset: _ratio(self.n_drafts_verified(offset), self.n_steps_drafting(offset))
            for offset in self._offsets()
        }

    def accept_rate_cond(self) -> dict[int, float]:
        """Return, per offset, drafts verified over steps that drafted it after verified drafts."""
        return {
            offset: _ratio(self.n_drafts_verified(offset), self.n_open[offset - 2])
            for offset in self._offsets()
        }

    def _offsets(self) -> range:
        """Return the offsets that have a rate: none where nothing was verified."""
        return range(2, self.draft_heads + 1 if self.lossless else 2)


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")


def is_looping(tokens: list[int], length: int = 8) -> bool:
    """Return whether fewer than half of an answer's 8-grams are distinct.

    Small models repeat themselves when they decode greedily, and repetition is easy to draft:
    tokens per forward is reported with and without such answers.
    """
    grams = [tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)]
    return bool(grams) and len(set(grams)) < 0.5 * len(grams)

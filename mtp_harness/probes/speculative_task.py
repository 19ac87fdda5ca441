"""`mtp_speculative`: tokens per forward and acceptance of every k on real prompts, by category."""

from collections.abc import Iterator, Sequence
from typing import Any

from mtp_harness.decode.records import Acceptance, DecodeRecord
from mtp_harness.errors import UserError
from mtp_harness.probes.measured import Measured
from mtp_harness.probes.pooled import by_data_set, pair_cell
from mtp_harness.probes.speculative import SpeculativeQuestion, records_of
from mtp_harness.probes.task import ProbeTask
from mtp_harness.results.long_table import Cell, long_table

NEW_TOKENS, QUICK_TOKENS = 512, 128
"""Most tokens of an answer, by default and with `quick`."""

UNTIL = {"code": ("\nclass", "\ndef", "\n#", "\nif", "\nprint")}
"""Stop strings by category: those of humaneval_mtp."""


class SpeculativeTask(ProbeTask):
    """Decodes prompts with heads 1..k for every k of the model.

    Flat metrics, for each k from 2 on: `tokens_per_forward_K`, `identical_K` (share of answers that
    are NTP's, token for token) and `accept_rate_prefix_K` (of the last draft, at offset K, when
    decoding with all heads); `looping` (share of NTP's answers that repeat themselves).
    """

    request_type = "speculative"
    OPTIONS = frozenset({"new_tokens"})

    def question(self, doc: dict[str, Any]) -> SpeculativeQuestion:
        """Return how the prompt is continued."""
        return SpeculativeQuestion(
            doc["data_set"], self._new_tokens(), UNTIL.get(doc["data_set"], ())
        )

    def _new_tokens(self) -> int:
        tokens = self.options.get("new_tokens")
        if tokens is None:
            tokens = QUICK_TOKENS if self.options.get("quick") else NEW_TOKENS
        if type(tokens) is not int or tokens < 2:
            raise UserError(
                f"{self.config.task}: new_tokens={tokens}, expected a whole number from 2: the "
                "first token comes from the prompt's own forward."
            )
        return tokens

    def metrics(self, doc: dict[str, Any], measured: Measured) -> dict[str, Any]:
        """Return the flat metrics of one document."""
        n = len(measured["by_k"])
        found: dict[str, Any] = {"looping": (int(records_of(measured, 1).looping), 1)}
        for k in range(2, n + 1):
            record = records_of(measured, k)
            found[f"tokens_per_forward_{k}"] = (record.n_kept, record.n_steps)
            found[f"identical_{k}"] = (int(measured["by_k"][k - 1]["identical"]), 1)
        last = Acceptance.pool([records_of(measured, n)])
        for offset in range(2, n + 1 if last.lossless else 2):
            pair = (last.n_drafts_verified(offset), last.n_steps_drafting(offset))
            found[f"accept_rate_prefix_{offset}"] = pair
        return found

    def described(self, documents: list[Measured]) -> dict[str, dict[str, Any]]:
        """Return what tells the prompts of a run from those of another, and the answers' length."""
        found: dict[str, dict[str, Any]] = super().described(documents)
        for about in found.values():
            about["new_tokens"] = self._new_tokens()
        return found

    def tables(self, documents: list[Measured]) -> dict[str, dict[str, list[Any]]]:
        """Return the tables `by_k`, `by_offset` and `histogram`."""
        by_k: list[Cell] = []
        by_offset: list[Cell] = []
        histogram: list[Cell] = []
        for category, some in by_data_set(documents):
            for k in range(1, len(some[0]["by_k"]) + 1):
                records = [records_of(one, k) for one in some]
                place = (category, k)
                by_k += list(decoding_cells(place, records))
                by_k += list(_checks_and_seconds(place, [one["by_k"][k - 1] for one in some], some))
                by_offset += list(acceptance_cells(place, records))
                counts = Acceptance.pool(records).n_by_verified
                histogram += [
                    Cell((*place, n_verified), "steps", steps, count=steps)
                    for n_verified, steps in enumerate(counts)
                ]
        return {
            "by_k": long_table(("category", "k"), by_k),
            "by_offset": long_table(("category", "k", "offset"), by_offset),
            "histogram": long_table(("category", "k", "n_verified"), histogram),
        }


def decoding_cells(place: tuple[Any, ...], records: Sequence[DecodeRecord]) -> Iterator[Cell]:
    """Yield what the decode records of one category and k say.

    `accept_length` counts verified drafts and the bonus of a step before a stop string or the
    budget cuts the answer, `tokens_per_forward` after.
    """
    kept = [(r.n_kept, r.n_steps) for r in records]
    lines = [(r.n_kept, r.n_steps) for r in records if not r.looping]
    length = [(sum(r.n_verified) + r.n_steps, r.n_steps) for r in records]
    yield pair_cell(place, "tokens_per_forward", kept)
    yield pair_cell(place, "tokens_per_forward_no_loops", lines)
    yield pair_cell(place, "tokens_per_forward_mean", [(a / b, 1) for a, b in kept if b])
    yield pair_cell(place, "accept_length", length)
    yield pair_cell(place, "accept_length_mean", [(a / b, 1) for a, b in length if b])
    yield pair_cell(place, "looping", [(int(r.looping), 1) for r in records])


def acceptance_cells(place: tuple[Any, ...], records: Sequence[DecodeRecord]) -> Iterator[Cell]:
    """Yield how often drafts are verified, by offset; nothing where nobody verifies."""
    each = [Acceptance.pool([record]) for record in records]
    if not all(one.lossless for one in each):
        return
    for offset in range(2, each[0].draft_heads + 1):
        verified = [one.n_drafts_verified(offset) for one in each]
        for name, steps in (
            ("accept_rate_prefix", [one.n_steps_drafting(offset) for one in each]),
            ("accept_rate_cond", [one.n_open[offset - 2] for one in each]),
        ):
            yield pair_cell((*place, offset), name, list(zip(verified, steps, strict=True)))


def _checks_and_seconds(
    place: tuple[Any, ...], found: Sequence[dict[str, Any]], documents: Sequence[Measured]
) -> Iterator[Cell]:
    yield pair_cell(place, "identical", [(int(one["identical"]), 1) for one in found])
    n_tokens = sum(one["tokens"] for one in found)
    for name in ("near_ties", "errors"):
        yield Cell(place, name, sum(one[name] for one in found), count=n_tokens)
    # Every document carries the seconds of its rank's whole category; ranks work side by side.
    by_rank = {doc["rank"]: one["wall_s"] for doc, one in zip(documents, found, strict=True)}
    seconds = max(by_rank.values())
    yield Cell(place, "seconds", seconds, count=len(found))
    yield Cell(place, "tokens_per_second", n_tokens / seconds, count=n_tokens)

"""`mtp_speculative`: tokens per forward and acceptance of every k on real prompts, by category.

    prompts of a category ──▶ k = 1 ──▶ the text of NTP, its seconds
                          ──▶ k = 2 … n ──▶ records, seconds, and is it the same text?

Every k decodes the same prompts of a category at the run's batch size, after a short run of it that
is not counted. Where a text is not NTP's, `decode.compare` says whether rounding explains it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mtp_harness.data.conversations import KIND
from mtp_harness.decode.compare import Decoded, Verifier
from mtp_harness.decode.engine import Answer, Engine, Request
from mtp_harness.decode.memory import fitting_slots
from mtp_harness.decode.records import Acceptance, DecodeRecord
from mtp_harness.errors import UserError, user_errors
from mtp_harness.harness.generation_args import place_of
from mtp_harness.harness.protocol import HeadsModel
from mtp_harness.probes.encoding import last_tokens, prompt_of
from mtp_harness.probes.pooled import Measured, Place, pair_cell
from mtp_harness.probes.task import ProbeTask, Table
from mtp_harness.results.long_table import Cell

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

WARM_UP_TOKENS = 8

Cut = Callable[[str | list[int], int, str], tuple[list[int], int]]
"""`harness.protocol.Decoder.prompt`."""

NEW_TOKENS, QUICK_TOKENS = 512, 128
"""Most tokens of an answer, by default and with `quick`."""

UNTIL = {"code": ("\nclass", "\ndef", "\n#", "\nif", "\nprint")}
"""Stop strings by category: those of humaneval_mtp."""


@dataclass(frozen=True)
class SpeculativeQuestion:
    """How a prompt is continued; prompts of one category are decoded and timed together."""

    category: str
    new_tokens: int
    until: tuple[str, ...] = ()
    kind: str = "text"  # of the row; `conversation`: the prompt is a document in JSON
    prompt_tokens: int | None = None  # so many at the end of the text are the prompt; None: all


def answer(lm: HeadsModel, requests: Sequence[Instance], quiet: bool) -> list[Measured]:
    """Answer requests `(prompt, SpeculativeQuestion)`.

    Returns:
        Per request `by_k`: for each k, in order, the decode `record` as a dictionary, the number of
        `tokens` of the answer, whether it is `identical` to NTP's and how many of its tokens differ
        as `near_ties` and as `errors`; the `wall_s` of all prompts of its category that this `rank`
        decoded, and the `batch_size`.
    """
    places = grouped(requests)
    answers = [Measured() for _ in requests]
    n = lm.decoder().model.n_future_tokens
    with tqdm(total=n * len(places), disable=quiet, desc="Running speculative requests") as bar:
        for some in places.values():
            asked = [request_of(lm, lm.decoder().prompt, requests[place]) for place in some]
            each = decode_with_all(lm, asked, bar)
            for place, one, found in zip(some, asked, each, strict=True):
                answers[place] = measured_of(lm, requests[place], one, found)
    return answers


def grouped(requests: Sequence[Instance]) -> dict[str, list[int]]:
    """Return the places of the requests of each category."""
    places: dict[str, list[int]] = {}
    for place, request in enumerate(requests):
        places.setdefault(request.args[1].category, []).append(place)
    return places


def request_of(lm: Any, cut: Cut, instance: Instance) -> Request:
    """Return what is decoded for a request of the harness; `cut` leaves room for the answer."""
    text, ask = instance.args
    where = place_of(instance)
    with user_errors(ValueError, prefix=f"{where}: ", suffix="."):
        asked = prompt_of(lm, text) if ask.kind == KIND else text
        if ask.prompt_tokens is not None:
            asked = last_tokens(lm, text, ask.prompt_tokens)
    prompt, n_truncated = cut(asked, ask.new_tokens, where)
    if ask.prompt_tokens is not None and n_truncated:
        raise UserError(
            f"{where}: {ask.prompt_tokens} tokens before an answer of {ask.new_tokens} do not fit "
            f"into a context of {lm.max_length}, expected fewer: choose shorter prompts "
            "(prompt_tokens) or answers (new_tokens) in the metadata."
        )
    return Request(prompt, ask.new_tokens, ask.until, n_truncated)


def measured_of(
    lm: Any, instance: Instance, request: Request, by_k: list[dict[str, Any]]
) -> Measured:
    """Return the answer to a request of the harness."""
    found = Measured(rank=lm.rank, by_k=by_k, n_truncated=request.n_truncated)
    if instance.args[1].kind == KIND:  # the row's text is not what is read
        found["n_bytes"] = len(lm.tok_decode(request.prompt).encode())
    return found


def at_k(
    one: Answer, ntp: Answer, odd: tuple[int | None, int | None], wall_s: float, slots: int
) -> dict[str, Any]:
    """Return the results of an answer with heads 1..k; `odd`: counts of near ties and errors."""
    return {
        "record": one.record.as_dict(),
        "tokens": len(one.tokens),
        "identical": one.tokens == ntp.tokens,
        "near_ties": odd[0],
        "errors": odd[1],
        "wall_s": wall_s,
        "batch_size": slots,
    }


def decode_with_all(
    lm: HeadsModel, requests: Sequence[Request], bar: Any
) -> list[list[dict[str, Any]]]:
    """Return `by_k` of each request, for k = 1 … n; see `answer`."""
    decoder = lm.decoder()
    found: list[list[dict[str, Any]]] = [[] for _ in requests]
    ntp: list[Answer] = []
    for k in range(1, decoder.model.n_future_tokens + 1):
        slots = slots_for(lm, k, requests)
        engine = decoder.engine(k, slots)
        engine.generate([Request(r.prompt, WARM_UP_TOKENS) for r in requests[:slots]])
        began = time.perf_counter()
        answers = engine.generate(requests)
        wall_s = time.perf_counter() - began
        ntp = ntp or answers
        for place, odd in enumerate(compare(engine, requests, ntp, answers)):
            found[place].append(at_k(answers[place], ntp[place], odd, wall_s, slots))
        bar.update()
    return found


def slots_for(lm: HeadsModel, k: int, requests: Sequence[Request]) -> int:
    """Return how many requests are decoded together with heads 1..k."""
    if str(lm.batch_size).startswith("auto"):
        return fitting_slots(lm.decoder().engine(k), requests, lm.max_batch_size)
    return min(int(lm.batch_size), len(requests))


def compare(
    engine: Engine, requests: Sequence[Request], ntp: Sequence[Answer], answers: Sequence[Answer]
) -> list[tuple[int, int]]:
    """Return, per answer, how many tokens differ from NTP's as near ties, and as errors.

    Unverified drafts promise no equal text: nothing is looked for there.
    """
    counts = [(0, 0)] * len(requests)
    odd = [i for i in range(len(requests)) if ntp[i].tokens != answers[i].tokens]
    if not odd or not engine.rule.verify:
        return counts
    some = [requests[i] for i in odd]
    verifier = Verifier(engine.model, some, engine.eos, engine.to_text)
    slots = engine.slots or len(some)
    comparison = verifier.compare(
        Decoded(1, slots, [ntp[i] for i in odd]),
        Decoded(engine.k, slots, [answers[i] for i in odd]),
    )
    for index, place in enumerate(odd):
        mine = [one for one in comparison.differences if one.prompt == index]
        near_ties = sum(one.near_tie for one in mine)
        counts[place] = (near_ties, len(mine) - near_ties)
    return counts


def _records(some: Sequence[Measured]) -> list[list[DecodeRecord]]:
    """Return the decode records of answers, for each k."""
    by_k = zip(*(one["by_k"] for one in some), strict=True)
    return [[DecodeRecord.from_dict(one["record"]) for one in at_k] for at_k in by_k]


def _by_k(some: Sequence[Measured]) -> Iterator[Cell]:
    for k, records in enumerate(_records(some), 1):
        yield from decoding_cells((k,), records)
        yield from _checks_and_seconds(k, some)


def _by_offset(some: Sequence[Measured]) -> Iterator[Cell]:
    for k, records in enumerate(_records(some), 1):
        yield from acceptance_cells((k,), records)


def _histogram(some: Sequence[Measured]) -> Iterator[Cell]:
    for k, records in enumerate(_records(some), 1):
        for n_verified, steps in enumerate(Acceptance.pool(records).n_by_verified):
            yield Cell((k, n_verified), "steps", steps, count=steps)


def decoding_cells(place: Place, records: Sequence[DecodeRecord]) -> Iterator[Cell]:
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


def acceptance_cells(place: Place, records: Sequence[DecodeRecord]) -> Iterator[Cell]:
    """Yield how often drafts are verified, by offset; nothing if they are not verified."""
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


def _checks_and_seconds(k: int, some: Sequence[Measured]) -> Iterator[Cell]:
    found = [one["by_k"][k - 1] for one in some]
    yield pair_cell((k,), "identical", [(int(one["identical"]), 1) for one in found])
    n_tokens = sum(one["tokens"] for one in found)
    for name in ("near_ties", "errors"):
        if all(one[name] is not None for one in found):  # a second engine cannot judge
            yield Cell((k,), name, sum(one[name] for one in found), count=n_tokens)
    # Every document carries the seconds of its rank's whole category; ranks work side by side.
    by_rank = {doc["rank"]: one["wall_s"] for doc, one in zip(some, found, strict=True)}
    seconds = max(by_rank.values())
    yield Cell((k,), "seconds", seconds, count=len(found))
    yield Cell((k,), "tokens_per_second", n_tokens / seconds, count=n_tokens)


class SpeculativeTask(ProbeTask):
    """Decodes prompts with heads 1..k for every k of the model.

    Flat metrics, for each k from 2 on: `tokens_per_forward_K`, `identical_K` (share of answers that
    are NTP's, token for token) and `accept_rate_prefix_K` (of the last draft, at offset K, when
    decoding with all heads); `looping` (share of NTP's answers that repeat themselves).
    """

    request_type = "speculative"
    IN_VLLM = True
    OPTIONS = frozenset({"new_tokens"})
    DATA_SET = "category"
    TABLES = {
        "by_k": Table(("k",), _by_k),
        "by_offset": Table(("k", "offset"), _by_offset),
        "histogram": Table(("k", "n_verified"), _histogram),
    }

    @property
    def new_tokens(self) -> int:
        """The most tokens of an answer."""
        hint = ": the first token comes from the prompt's own forward"
        return self.whole("new_tokens", NEW_TOKENS, QUICK_TOKENS, least=2, hint=hint)

    def question(self, doc: dict[str, Any]) -> SpeculativeQuestion:
        """Return how the prompt is continued."""
        category, kind = doc["data_set"], doc.get("kind", "text")
        until = UNTIL.get(category, ()) if kind == "text" else ()  # a conversation ends by itself
        return SpeculativeQuestion(category, self.new_tokens, until, kind)

    def metrics(self, measured: Measured) -> dict[str, Any]:
        """Return the flat metrics of one document, categories together."""
        records = [record for (record,) in _records([measured])]
        found: dict[str, Any] = {"looping": (int(records[0].looping), 1)}
        for k, record in enumerate(records[1:], 2):
            found[f"tokens_per_forward_{k}"] = (record.n_kept, record.n_steps)
            found[f"identical_{k}"] = (int(measured["by_k"][k - 1]["identical"]), 1)
        last = Acceptance.pool(records[-1:])
        for offset in range(2, len(records) + 1 if last.lossless else 2):
            pair = (last.n_drafts_verified(offset), last.n_steps_drafting(offset))
            found[f"accept_rate_prefix_{offset}"] = pair
        return found

    def described(self, documents: list[Measured]) -> dict[str, dict[str, Any]]:
        """Return what tells the prompts of a run from those of another, and the answers' length."""
        found = super().described(documents)
        for name, about in found.items():
            own = [one for one in documents if one["data_set"] == name]
            about["new_tokens"] = self.new_tokens
            about["n_truncated_prompts"] = sum(bool(one["n_truncated"]) for one in own)
        return found

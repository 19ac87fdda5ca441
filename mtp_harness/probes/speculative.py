"""How requests of type `speculative` are answered: real prompts, decoded with heads 1..k for all k.

    prompts of a category ──▶ k = 1 ──▶ the text of NTP, its seconds
                          ──▶ k = 2 … n ──▶ records, seconds, and is it the same text?

Every k decodes the same prompts of a category at the run's batch size, after a short run of it that
is not counted. Where a text is not NTP's, `decode.compare` says whether rounding explains it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mtp_harness.decode.compare import Decoded, Verifier
from mtp_harness.decode.engine import Answer, Engine, Request
from mtp_harness.decode.memory import fitting_slots
from mtp_harness.decode.records import DecodeRecord
from mtp_harness.probes.measured import Measured

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

WARM_UP_TOKENS = 8


@dataclass(frozen=True)
class SpeculativeQuestion:
    """How a prompt is continued.

    Attributes:
        category: what it belongs to: prompts of one are decoded and timed together.
        new_tokens: most tokens of the answer.
        until: stop strings.
    """

    category: str
    new_tokens: int
    until: tuple[str, ...] = ()


def answer(lm: Any, requests: Sequence[Instance], quiet: bool) -> list[Measured]:
    """Answer requests `(prompt, SpeculativeQuestion)`.

    Args:
        lm: an `MTPLM`.
        requests: those of this rank, each once.
        quiet: show no bar.

    Returns:
        Per request `by_k`: for each k, in order, the decode `record` as a dictionary, the number of
        `tokens` of the answer, whether it is `identical` to NTP's and how many of its tokens differ
        as `near_ties` and as `errors`; the `wall_s` of all prompts of its category that this `rank`
        decoded, and the `batch_size`.
    """
    places: dict[str, list[int]] = {}
    for place, request in enumerate(requests):
        places.setdefault(request.args[1].category, []).append(place)
    answers = [Measured() for _ in requests]
    n = lm.decoder().model.n_future_tokens
    with tqdm(total=n * len(places), disable=quiet, desc="Running speculative requests") as bar:
        for some in places.values():
            asked = [_request(lm, requests[place]) for place in some]
            for place, found in zip(some, decode_with_all(lm, asked, bar), strict=True):
                answers[place] = Measured(rank=lm.rank, by_k=found)
    return answers


def _request(lm: Any, instance: Instance) -> Request:
    text, ask = instance.args
    where = f"{instance.task_name}, document {instance.doc_id}"
    prompt, n_truncated = lm.decoder().prompt(text, ask.new_tokens, where)
    return Request(prompt, ask.new_tokens, ask.until, n_truncated)


def decode_with_all(lm: Any, requests: Sequence[Request], bar: Any) -> list[list[dict[str, Any]]]:
    """Return, per request, what `answer` says of it for k = 1 … n."""
    decoder = lm.decoder()
    found: list[list[dict[str, Any]]] = [[] for _ in requests]
    ntp: list[Answer] = []
    for k in range(1, decoder.model.n_future_tokens + 1):
        slots = slots_for(lm, decoder.engine(k), requests)
        engine = decoder.engine(k, slots)
        engine.generate([Request(r.prompt, WARM_UP_TOKENS) for r in requests[:slots]])
        began = time.perf_counter()
        answers = engine.generate(requests)
        wall_s = time.perf_counter() - began
        ntp = ntp or answers
        differences = compare(engine, requests, ntp, answers)
        for place, (one, (near_ties, errors)) in enumerate(zip(answers, differences, strict=True)):
            found[place].append(
                {
                    "record": one.record.as_dict(),
                    "tokens": len(one.tokens),
                    "identical": one.tokens == ntp[place].tokens,
                    "near_ties": near_ties,
                    "errors": errors,
                    "wall_s": wall_s,
                    "batch_size": slots,
                }
            )
        bar.update()
    return found


def slots_for(lm: Any, engine: Engine, requests: Sequence[Request]) -> int:
    """Return how many rows are decoded together: the run's batch size, or what fits."""
    if str(lm.batch_size).startswith("auto"):
        return fitting_slots(engine, requests, lm.max_batch_size)
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


def records_of(measured: dict[str, Any], k: int) -> DecodeRecord:
    """Return the decode record of one request at k, from its answer."""
    return DecodeRecord.from_dict(measured["by_k"][k - 1]["record"])

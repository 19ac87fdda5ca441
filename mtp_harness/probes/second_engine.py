"""How `mtp-vllm` answers requests of types `speculative` and `speed`: one engine for each k.

    k = 2           all categories, or all cells with their trials ──▶ end    it runs already
    k = 1   start ──▶ …
    k = 3   start ──▶ …

The number of drafts is fixed when such an engine starts, and a GPU holds one. So k is the outer
loop, up to the run's `draft_heads`, and trials of different k do not take turns: what else the
machine does in the meantime meets one k and not another.

    prefill    seconds until a batch has its first tokens: it is asked for one token each
    decoding   seconds of the same prompts with all their new tokens, less those

Such an engine tells neither its bytes nor its memory, and shows no logits: there is no
`bandwidth_share`, no `peak_memory`, and a text that is not NTP's is counted, not judged
(`mtp-harness verify --engine vllm` judges).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from mtp_harness.data.corpus import code_corpus
from mtp_harness.decode.engine import Answer, Request
from mtp_harness.errors import UserError
from mtp_harness.models.text import plain_encode
from mtp_harness.probes.pooled import Measured
from mtp_harness.probes.speculative import WARM_UP_TOKENS, at_k, grouped, measured_of, request_of
from mtp_harness.probes.speed import SELF, Prompts, SpeedQuestion, checked_heads, too_long

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


class SecondEngine(Protocol):
    """A model of the harness whose engine has one k, and starts anew for another."""

    pretrained: str
    tokenizer: Any
    rank: int
    max_length: int

    @property
    def k(self) -> int:
        """Of the engine that runs."""

    @property
    def most_heads(self) -> int:
        """The largest k."""

    @property
    def n_rows(self) -> int:
        """The most rows that are decoded together."""

    def with_heads(self, k: int) -> None:
        """Have an engine with heads 1..k."""

    def prompt(self, context: str | list[int], budget: int, where: str) -> tuple[list[int], int]:
        """Return token ids that leave room for an answer, and how many were cut off."""

    def tok_decode(self, tokens: list[int]) -> str:
        """Return the text of token ids."""

    def decode(self, requests: Sequence[Request]) -> list[Answer]:
        """Decode greedily, from an empty cache."""

    def timed(
        self, prompts: Sequence[list[int]], new_tokens: int
    ) -> tuple[float, list[int] | None]:
        """Return seconds until all have exactly so many new tokens, and the steps of each row."""


def speculative(lm: SecondEngine, requests: Sequence[Instance], quiet: bool) -> list[Measured]:
    """Answer requests `(prompt, SpeculativeQuestion)` as `probes.speculative.answer` does.

    `near_ties` and `errors` are None.

    Raises:
        UserError: prompts are to be cut by tokens, as `mtp_long_context` does.
    """
    if any(one.args[1].prompt_tokens is not None for one in requests):
        raise UserError(
            f"{requests[0].task_name} cuts prompts to a number of tokens, which --model mtp-vllm "
            "does not, expected --model mtp: use that model."
        )
    asked = [request_of(lm, lm.prompt, one) for one in requests]
    categories = grouped(requests).values()
    answers: list[dict[int, tuple[Answer, float]]] = [{} for _ in requests]
    ks = _running_first(lm, range(1, lm.most_heads + 1))
    for k in tqdm(ks, disable=quiet, desc="Running speculative requests"):
        lm.with_heads(k)
        for places in categories:
            some = [asked[place] for place in places]
            lm.decode([replace(one, max_new_tokens=WARM_UP_TOKENS) for one in some[: lm.n_rows]])
            began = time.perf_counter()
            decoded = lm.decode(some)
            wall_s = time.perf_counter() - began
            for place, one in zip(places, decoded, strict=True):
                answers[place][k] = one, wall_s
    by_k = [
        [
            at_k(one, found[1][0], (None, None), wall_s, one.record.batch_size)
            for _, (one, wall_s) in sorted(found.items())
        ]
        for found in answers
    ]
    several = zip(requests, asked, by_k, strict=True)
    return [measured_of(lm, instance, one, found) for instance, one, found in several]


def speed(lm: SecondEngine, requests: Sequence[Instance], quiet: bool) -> list[Measured]:
    """Answer requests `(name, SpeedQuestion)` as `probes.speed.answer` does; see the module.

    Raises:
        UserError: a baseline is asked for, or a k that the run does not have.
    """
    cells: list[SpeedQuestion] = [request.args[1] for request in requests]
    for cell in cells:
        if cell.baseline:
            raise UserError(
                f"baseline={cell.baseline} does not work with --model mtp-vllm, whose engine holds "
                "one model: leave it out, and compare two runs."
            )
    heads = [checked_heads(lm.pretrained, cell, lm.most_heads) for cell in cells]
    found = [Measured(heads=[*ks], runs=[], not_measured=[]) for ks in heads]
    prompts = Prompts(code_corpus(), plain_encode(lm.tokenizer))
    all_ks = _running_first(lm, {k for ks in heads for k in ks})
    for k in tqdm(all_ks, disable=quiet, desc="Running k"):
        lm.with_heads(k)
        for cell, ks, one in zip(cells, heads, found, strict=True):
            if k not in ks:
                continue
            if reason := _misfit(lm, cell, k):
                one["not_measured"].append({"model": SELF, "k": k, "reason": reason})
                continue
            for trial in range(-1, cell.trials):  # the first does not count
                took = _run(lm, cell, prompts, max(trial, 0))
                if trial >= 0:
                    one["runs"].append({"model": SELF, "k": k, "trial": trial, **took})
    return found


def _running_first(lm: SecondEngine, ks: Iterable[int]) -> list[int]:
    """Return the k in the order of their engines: that of the running one costs no start."""
    return sorted(ks, key=lambda k: (k != lm.k, k))


def _misfit(lm: SecondEngine, cell: SpeedQuestion, k: int) -> str | None:
    # Rows whose drafts reach the end of the context draft badly.
    if reason := too_long(cell.prompt_tokens + cell.new_tokens + k - 1, lm.max_length):
        return reason
    if cell.batch > lm.n_rows:
        return f"{cell.batch} rows are more than the engine decodes together ({lm.n_rows})"
    return None


def _run(lm: SecondEngine, cell: SpeedQuestion, prompts: Prompts, trial: int) -> dict[str, Any]:
    """Decode one batch, of prompts that no earlier trial had; return what it took."""
    asked = prompts(cell.prompt_tokens, (trial + 1) * cell.batch)[-cell.batch :]
    prefill_s, _ = lm.timed(asked, 1)
    wall_s, steps = lm.timed(asked, cell.new_tokens)
    if wall_s <= prefill_s:
        raise UserError(
            f"{cell.new_tokens} new tokens took {wall_s:.3f} s and the first of them "
            f"{prefill_s:.3f} s, expected less: raise new_tokens, or give the machine nothing else "
            "to do."
        )
    return {
        "wall_s": wall_s,
        "prefill_s": prefill_s,
        "decode_s": wall_s - prefill_s,
        "steps": steps,
        "n_kept": cell.batch * (cell.new_tokens - 1),
        "peak_bytes": None,
    }

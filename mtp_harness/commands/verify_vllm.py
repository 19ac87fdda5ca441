"""`mtp-harness verify --engine vllm`: do two engines write the same text, and accept as often?

vLLM decodes the prompts of `verify` with head 1 alone and with heads 1..k, in one engine after the
other. Each text is compared with our own NTP's, and vLLM's with k heads with vLLM's own NTP, too.
Our model classifies the differences: near ties, or errors (`mtp_harness.decode.compare`). It reads
its modules as vLLM does, so that acceptance can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from mtp_harness.decode.compare import Comparison, Decoded, Difference, Verifier
from mtp_harness.models.checkpoints.sequential_folder import SEQUENTIAL
from mtp_harness.models.load import detect
from mtp_harness.models.sequential import SequentialModel
from mtp_harness.probes.speculative import acceptance_cells

if TYPE_CHECKING:
    from mtp_harness.decode.engine import Answer, Request
    from mtp_harness.results.long_table import Cell

Decode = Callable[[list["Request"]], list["Answer"]]

N_SHOWN = 8
"""Differences on the screen, of each comparison; the JSON counts all."""

OURS, ITS_OWN = "our text without drafts", "its own text without drafts"


class EngineVerifier(Verifier):
    """A `Verifier` of texts that another engine decodes."""

    decode: Decode

    def _decode(self, draft_heads: int, batch: int, requests: list[Request]) -> list[Answer]:
        return self.decode(requests) if requests else []


class Pair(NamedTuple):
    """Two texts of the same prompts, and how often each engine's drafts were verified."""

    against: str
    comparison: Comparison


class Both(NamedTuple):
    """vLLM with k heads beside us.

    Attributes:
        pairs: what its text was compared with.
        acceptance: per offset, the cells of our engine and of vLLM.
    """

    draft_heads: int
    pairs: list[Pair]
    acceptance: list[tuple[Cell, Cell]]


def compare_engines(
    verifier: EngineVerifier,
    ours: Verifier,
    draft_heads: Sequence[int],
    batch: int,
    start: Callable[[int], tuple[Decode, Callable[[], None]]],
) -> Iterator[Both]:
    """Yield the comparison for k = 1 and for each other k.

    Args:
        verifier: of vLLM's texts.
        ours: our engine's run of the same requests.
        draft_heads: the k, 1 left out.
        batch: rows that we decode together.
        start: takes k; returns how vLLM decodes, and how to end that engine.
    """
    truth, plain = ours.run(1, batch), None
    for k in (1, *draft_heads):
        verifier.decode, end = start(k)
        try:
            run = verifier.run(k, batch)
            pairs = [Pair(OURS, verifier.compare(truth, run))]
            if plain is not None:
                pairs.append(Pair(ITS_OWN, verifier.compare(plain, run)))
            plain = plain or run
        finally:
            end()
        yield Both(k, pairs, [*_acceptance(ours.run(k, batch), run)] if k > 1 else [])


def _acceptance(ours: Decoded, its: Decoded) -> Iterator[tuple[Cell, Cell]]:
    cells = [
        [c for c in acceptance_cells((), [a.record for a in one.answers]) if "prefix" in c.metric]
        for one in (ours, its)
    ]
    yield from zip(*cells, strict=True)


def title(settings: Mapping[str, Any], processor: str) -> str:
    """Return what stands above all: what is compared, on what."""
    return (
        f"{settings['pretrained']}, n = {settings['n_future_tokens']}, {settings['dtype']}, "
        f"greedy, {processor}\n{len(settings['prompts'])} prompts of HumanEval, up to "
        f"{settings['new_tokens']} tokens each, in vLLM and in our engine"
    )


def as_lines(both: Both, names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of one k; `names` are those of the prompts."""
    k = both.draft_heads
    how = f"with {_several(k - 1, 'draft')} a step" if k > 1 else "without drafts"
    yield f"\nk = {k}, vLLM {how}"
    for against, comparison in both.pairs:
        counts, odd = comparison.counts, len(comparison.differences)
        yield (
            f"  against {against}: {counts['identical']} of {counts['answers']} answers are "
            f"identical; in {counts['tokens']} tokens {_several(counts['near_ties'], 'near tie')}, "
            f"{_several(counts['errors'], 'error')}"
        )
        errors_first = sorted(comparison.differences, key=lambda one: one.near_tie)
        yield from (_difference(one, names) for one in errors_first[:N_SHOWN])
        if odd > N_SHOWN:
            yield f"    and {odd - N_SHOWN} more (-o FILE writes all)"
    if both.acceptance:
        yield "  share of drafts that were accepted, by offset (90 % interval over prompts)"
        yield f"    {'offset':<9}{'our engine':<24}vLLM"
    for ours, its in both.acceptance:
        apart = "" if _overlap(ours, its) else "   the intervals do not overlap"
        yield f"    {ours.place[-1]:<9}{_shown(ours):<24}{_shown(its)}{apart}"


def _difference(one: Difference, names: Sequence[str]) -> str:
    gap = "" if one.gap is None else f", whose logits differ by {one.gap:.2g}"
    kind = "near tie" if one.near_tie else "ERROR"
    return f"    {kind}: {names[one.prompt]}, token {one.position}: {one.other}, not {one.ntp}{gap}"


def ending(found: Sequence[Both]) -> str:
    """Return what comes out of all comparisons."""
    errors = [b for b in found if any(pair.comparison.counts["errors"] for pair in b.pairs)]
    apart = sorted({b.draft_heads for b in found for o, i in b.acceptance if not _overlap(o, i)})
    lines = ["the texts are the same, or differ by rounding alone (near ties)"]
    if errors:
        plain = errors[0].draft_heads == 1
        where = "also without drafts, so the trunks differ" if plain else "only with drafts"
        lines = [f"ERROR: vLLM writes another text than rounding explains, {where}"]
    if apart:
        ks = ", ".join(map(str, apart))
        lines.append(
            f"the two engines do not accept drafts equally often (k = {ks}): one of them has an "
            "error in the module, or reads it in another way"
        )
    return "\n" + "\n".join(lines)


def _several(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"


def as_json(both: Both) -> dict[str, Any]:
    """Return plain JSON values."""
    return {
        "draft_heads": both.draft_heads,
        "comparisons": [
            {
                "against": against,
                **found.counts,
                "differences": [asdict(d) | {"near_tie": d.near_tie} for d in found.differences],
            }
            for against, found in both.pairs
        ],
        "accept_rate_prefix": [
            {
                "offset": a.place[-1],
                **{n: _numbers(c) for n, c in (("ours", a), ("vllm", b))},
            }
            for a, b in both.acceptance
        ],
    }


def _numbers(cell: Cell) -> list[float | None]:
    """Return value, low and high; None for those that are not known."""
    values = (cell.value, cell.low, cell.high)
    return [None if one is None or math.isnan(one) else one for one in values]


def _shown(cell: Cell) -> str:
    if math.isnan(cell.value):
        return "no drafts"
    interval = "" if cell.low is None else f" [{cell.low:.3f}, {cell.high:.3f}]"
    return f"{cell.value:.3f}{interval}"


def _overlap(one: Cell, other: Cell) -> bool:
    """Return whether two intervals overlap, or one of them is unknown."""
    (_, *its), (_, *others) = _numbers(one), _numbers(other)
    if None in its + others:
        return True
    return its[0] <= others[1] and others[0] <= its[1]  # type: ignore[operator]


def starter(
    pretrained: str, how: dict[str, Any]
) -> Callable[[int], tuple[Decode, Callable[[], None]]]:
    """Return how vLLM is started for a k; one engine at a time fits into a GPU."""

    def start(k: int) -> tuple[Decode, Callable[[], None]]:
        from mtp_harness.vllm import MTPVLLM

        given = {"method": "mtp", **how, **_what_is_free()}  # a configuration may not count them
        held = [MTPVLLM(pretrained, draft_heads=k, **given)]

        def end() -> None:
            held.pop().close()

        return (lambda requests: held[0].decode(requests)), end

    return start


def _what_is_free() -> dict[str, float]:
    # vLLM asks for a share of the whole GPU; our model is there already.
    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"gpu_memory_utilization": 0.9 * free / total}


def require_modules(pretrained: str, loader: str | None, drafter: str | None) -> None:
    """Refuse, before anything loads, what only our engine reads.

    Raises:
        ValueError: heads trained apart are named, or the checkpoint has no sequential module.
    """
    if drafter:
        raise ValueError(
            f"--drafter {drafter} does not work with --engine vllm, which compares a checkpoint's "
            "own modules, expected a checkpoint alone: leave one of the two out."
        )
    if loader or detect(pretrained).name != SEQUENTIAL.name:
        raise ValueError(
            f"--engine vllm compares sequential modules, and {loader or pretrained} has none "
            "that vLLM reads, expected a checkpoint such as GLM-4.5 or MiMo: leave --engine out."
        )


def verify(
    verifier: Verifier,
    pretrained: str,
    draft_heads: Sequence[int],
    batch: int,
    how: dict[str, Any],
) -> Iterator[Both]:
    """Yield the comparisons of a checkpoint with vLLM; see the module.

    Args:
        verifier: of our own model, which has sequential modules, and the requests.
        pretrained: the checkpoint.
        draft_heads: the k, 1 left out.
        batch: rows that we decode together.
        how: model arguments of vLLM, `dtype` among them.
    """
    model = verifier.model
    assert isinstance(model, SequentialModel), "checked by require_modules"
    model.family = model.family.as_engines_do()
    mine = (model, verifier.requests, verifier.eos, verifier.to_text)
    longest = max(len(one.prompt) + one.max_new_tokens for one in verifier.requests)
    room = min(model.max_positions, longest + 64)  # vLLM drafts badly at the very end
    how = {**how, "max_model_len": room}
    yield from compare_engines(
        EngineVerifier(*mine), verifier, draft_heads, batch, starter(pretrained, how)
    )

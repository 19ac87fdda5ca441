"""`mtp_drafts`: where drafts fail, how far to trust their confidence, what a threshold trades.

The prompts of `mtp_speculative` are continued greedily, and behind every token all heads draft
(`decode.every_draft`). Of decoding with all heads and no threshold, the drafts that a step verifies
as long as all before them are right:

    by_class, by_entropy, by_since   accept_rate_cond: verified, by the class of the text's token at
                      their place, by head 1's entropy there in bits, and by tokens since the last
                      rejection (0 is the place behind the token that replaced the rejected draft)
    share_of_rejections              and how much of all rejections falls there

Of drafts behind every token, whether a step begins there or not:

    calibration       confidence in 15 equal bins; accept_rate_prefix: verified with all before
                      them, of all; accept_rate_cond: of those behind right ones

And of the steps that decoding makes with heads 1..k and a `draft_threshold`:

    by_threshold      tokens_per_forward, drafts_per_forward
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mtp_harness.data.conversations import KIND
from mtp_harness.data.token_classes import CLASSES
from mtp_harness.decode.every_draft import EveryDraft, Step, every_draft, walk
from mtp_harness.decode.records import is_looping
from mtp_harness.decode.stopping import continuation_text
from mtp_harness.decode.token_lengths import TokenLengths
from mtp_harness.errors import UserError
from mtp_harness.harness.protocol import HeadsModel
from mtp_harness.probes.head_logprobs import sums_by
from mtp_harness.probes.heads import N_BINS
from mtp_harness.probes.pooled import Measured, Place, column, ratio_cells
from mtp_harness.probes.positions import classes_of_tokens
from mtp_harness.probes.speculative import SpeculativeTask, request_of, slots_for
from mtp_harness.probes.task import Table
from mtp_harness.results.long_table import Cell

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)

ENTROPY = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 3.0, inf)
"""Edges of groups, bits; a group has its lower one."""

SINCE = 8
"""Steps since a rejection that stand each for itself; the group behind them has all later ones."""


class Tried(NamedTuple):
    """A draft that a step verifies, all before it being right."""

    head: int  # 0 is head 2
    place: int  # of the token that it is for
    right: bool
    since: int | None  # steps without a rejection before this one; None before the first rejection


def tried(found: EveryDraft, steps: Sequence[Step]) -> Iterator[Tried]:
    """Yield what steps verify, up to the first draft that is wrong and within the answer."""
    last, since = len(found.tokens) - 1, None
    for begin, n_drafted, n_verified in steps:
        for head in range(min(n_verified + 1, n_drafted, last - begin)):
            yield Tried(head, begin + 1 + head, head < n_verified, since)
        if n_verified < min(n_drafted, last - begin):
            since = 0
        elif since is not None:
            since += 1


def answer(lm: HeadsModel, requests: Sequence[Instance], quiet: bool) -> list[Measured]:
    """Answer requests `(prompt, SpeculativeQuestion)`.

    Returns:
        Per request the sums of `measure`, and `pieces`: the answer, token by token.
    """
    n = lm.decoder().model.n_future_tokens
    if n < 2:
        raise UserError(
            f"mtp_drafts: {lm.pretrained} has one head and drafts nothing, expected a model with "
            "more: leave the task out, or give a drafter (drafter=...)."
        )
    asked = [request_of(lm, lm.decoder().prompt, request) for request in requests]
    slots = slots_for(lm, n, asked)
    engine, lengths = lm.decoder().engine(n, slots), TokenLengths(lm.tok_decode)
    order = sorted(range(len(asked)), key=lambda place: -len(asked[place].prompt))
    answers = [Measured() for _ in requests]
    with tqdm(total=len(order), disable=quiet, desc="Running drafts requests") as bar:
        for at in range(0, len(order), slots):
            some = order[at : at + slots]
            try:
                each = every_draft(engine, [asked[place] for place in some])
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"mtp_drafts: memory does not hold {len(some)} rows: lower batch_size."
                ) from error
            for place, found in zip(some, each, strict=True):
                about, one = requests[place].args[1], asked[place]
                kind = "code" if (about.category, about.kind) == ("code", "text") else "text"
                told = measure(found, one.prompt, kind, lengths)
                answers[place] = Measured(n_truncated=one.n_truncated, **told)
                if about.kind == KIND:  # the row is not what is read
                    answers[place]["n_bytes"] = len(lm.tok_decode(one.prompt).encode())
            bar.update(len(some))
    return answers


def measure(
    found: EveryDraft, prompt: Sequence[int], kind: str, lengths: TokenLengths
) -> dict[str, Any]:
    """Return the sums of one answer: [groups, n-1, (right, tried)] of drafts by group.

    `kind`, `code` or `text`, decides the classes.
    """
    n, tokens = found.drafts.shape[1] + 1, found.tokens.tolist()
    steps = walk(found, n)
    verified = list(tried(found, steps))
    places = [one.place for one in verified]
    characters = lengths(prompt[-1], tokens)
    of_token = _classes(lengths.to_text, prompt, tokens, characters, kind)
    entropy = np.searchsorted(ENTROPY, found.entropy.numpy(), side="right") - 1
    since = [-1 if one.since is None else min(one.since, SINCE) for one in verified]
    return {
        "n": n,
        "kind": kind,
        "looping": is_looping(tokens),
        "kept": len(tokens) - 1,
        "rejected": sum(not one.right for one in verified),
        "classes": _sums(verified, n, len(CLASSES[kind]), of_token[places]),
        "entropy": _sums(verified, n, len(ENTROPY) - 1, entropy[[one - 1 for one in places]]),
        "since": _sums(verified, n, SINCE + 1, np.array(since, dtype=np.int64)),
        "bins": _bins(found),
        "walks": _walks(found),
        "pieces": list(_pieces(found, steps, prompt[-1], characters, lengths)),
    }


def _classes(
    to_text: Callable[[list[int]], str],
    prompt: Sequence[int],
    tokens: list[int],
    lengths: Sequence[int] | None,
    kind: str,
) -> NDArray[np.int64]:
    """Return the classes of an answer's tokens, read behind its prompt; -1 for those without text.

    Those are special tokens at its end, and all where nobody knows what a token wrote.
    """
    before = to_text(list(prompt))
    text = before + continuation_text(to_text, prompt[-1], tokens)
    ends = len(before) + np.cumsum([0, *(lengths or ())])
    there = [pair for pair in pairwise(ends.tolist()) if pair[0] < len(text)]
    found = np.full(len(tokens), -1)
    if there:
        found[: len(there)] = classes_of_tokens(there, text, kind)[0]
    return found


def _sums(
    verified: Sequence[Tried], n: int, n_groups: int, group: NDArray[np.int64]
) -> list[list[list[float]]]:
    """Return how many drafts of each group and head are right, and how many there are."""
    sums = np.zeros((n_groups, n - 1, 2))
    for one, place in zip(verified, group, strict=True):
        if place >= 0:
            sums[place, one.head] += one.right, 1
    found: list[list[list[float]]] = sums.tolist()
    return found


def _bins(found: EveryDraft) -> list[list[list[float]]]:
    """Return sums of drafts within the answer by head and bin of confidence, [n-1, N_BINS, 4].

    They are: all of them, their confidence, those behind right ones, and of these the right ones.
    """
    behind, heads = (torch.arange(size) for size in found.drafts.shape)
    inside = behind[:, None] + heads + 1 < len(found.tokens)  # [m-1, n-1]
    together = found.right().long().cumprod(1).bool()
    before = torch.cat([torch.ones_like(together[:, :1]), together[:, :-1]], 1)
    each = [inside, found.confidence * inside, before & inside, together]
    values = torch.stack([one.double() for one in each], -1)  # [m-1, n-1, 4]
    place = (found.confidence * N_BINS).long().clamp(max=N_BINS - 1)
    return [sums_by(place[:, head], values[:, head], N_BINS) for head in heads.tolist()]


def _walks(found: EveryDraft) -> list[list[list[int]]]:
    """Return how many steps there are and how many drafts they make, [n-1, THRESHOLDS, 2]."""
    each = [
        [walk(found, k, threshold) for threshold in THRESHOLDS]
        for k in range(2, found.drafts.shape[1] + 2)
    ]
    return [[[len(own), sum(one.n_drafted for one in own)] for own in of_k] for of_k in each]


def _pieces(
    found: EveryDraft,
    steps: Sequence[Step],
    last: int,
    characters: Sequence[int] | None,
    lengths: TokenLengths,
) -> Iterator[tuple[int, str]]:
    """Yield the answer's tokens with the head that wrote each.

    Before head 1's token stand the drafts that it rejected, with minus their head.
    """
    tokens = found.tokens.tolist()
    texts = [lengths.text_alone(last, token) for token in tokens]
    if characters is not None:
        whole = continuation_text(lengths.to_text, last, tokens)
        ends = np.cumsum([0, *characters]).tolist()
        texts = [whole[begin:end] for begin, end in pairwise(ends)]
    yield 1, texts[0]
    for begin, n_drafted, n_verified in steps:
        for head in range(n_verified):
            yield head + 2, texts[begin + 1 + head]
        if begin + 1 + n_verified < len(tokens):
            for head in range(n_verified, n_drafted):
                yield -(head + 2), lengths.text_alone(last, int(found.drafts[begin, head]))
            yield 1, texts[begin + 1 + n_verified]


# Tables ---------------------------------------------------------------------------------------


def _by_group(some: Sequence[Measured], name: str, places: Sequence[Place]) -> Iterator[Cell]:
    """Yield acceptance by head and of all heads, and where rejections fall."""
    sums = column(some, name).reshape(len(some), len(places), -1, 2)
    for head in range(sums.shape[2]):
        yield from _accepted([(head + 2, *place) for place in places], sums[:, :, head])
    together = sums.sum(2)
    everywhere = [(None, *place) for place in places]
    yield from _accepted(everywhere, together)
    yield from _shares(some, everywhere, together)


def _accepted(places: Sequence[Place], sums: NDArray[np.float64]) -> Iterator[Cell]:
    yield from ratio_cells(places, "accept_rate_cond", sums[..., 0], sums[..., 1])


def _shares(
    some: Sequence[Measured], places: Sequence[Place], sums: NDArray[np.float64]
) -> Iterator[Cell]:
    wrong, every = sums[..., 1] - sums[..., 0], column(some, "rejected")[:, None]
    yield from ratio_cells(places, "share_of_rejections", wrong, every)


def _by_class(some: Sequence[Measured]) -> Iterator[Cell]:
    yield from _by_group(some, "classes", [(name,) for name in CLASSES[some[0]["kind"]]])


def _by_entropy(some: Sequence[Measured]) -> Iterator[Cell]:
    places = [(low, None if high == inf else high) for low, high in pairwise(ENTROPY)]
    yield from _by_group(some, "entropy", places)


def _by_since(some: Sequence[Measured]) -> Iterator[Cell]:
    """Yield acceptance by tokens since a rejection: whole steps of n, and those before the draft.

    A place has one head; the last of each has all later ones, too.
    """
    n = some[0]["n"]
    sums = column(some, "since").reshape(len(some), SINCE + 1, n - 1, 2)
    for head in range(n - 1):
        places = [(head + 2, steps * n + head) for steps in range(SINCE + 1)]
        yield from _accepted(places, sums[:, :, head])
        yield from _shares(some, places, sums[:, :, head])


def _calibration(some: Sequence[Measured]) -> Iterator[Cell]:
    n = some[0]["n"]
    sums = column(some, "bins").reshape(len(some), n - 1, N_BINS, 4)
    count, confidence, behind_right, right = np.moveaxis(sums, -1, 0)
    for head in range(n - 1):
        places = [(head + 2, number + 1) for number in range(N_BINS)]
        for metric, above, below in (
            ("confidence", confidence, count),
            ("accept_rate_prefix", right, count),
            ("accept_rate_cond", right, behind_right),
        ):
            yield from ratio_cells(places, metric, above[:, head], below[:, head])


def _by_threshold(some: Sequence[Measured]) -> Iterator[Cell]:
    n = some[0]["n"]
    places = [(k, threshold) for k in range(2, n + 1) for threshold in THRESHOLDS]
    steps, drafted = np.moveaxis(column(some, "walks").reshape(len(some), len(places), 2), -1, 0)
    kept = np.broadcast_to(column(some, "kept")[:, None], steps.shape)
    yield from ratio_cells(places, "tokens_per_forward", kept, steps)
    yield from ratio_cells(places, "drafts_per_forward", drafted, steps)


class DraftsTask(SpeculativeTask):
    """See the module docstring.

    Flat metrics: `tokens_per_forward` when decoding with all heads, `looping`.
    """

    request_type = "drafts"
    IN_VLLM = False
    TABLES = {
        "by_class": Table(("offset", "class"), _by_class),
        "by_entropy": Table(("offset", "entropy_from", "entropy_to"), _by_entropy),
        "by_since": Table(("offset", "since"), _by_since),
        "calibration": Table(("offset", "bin"), _calibration),
        "by_threshold": Table(("k", "threshold"), _by_threshold),
    }

    def metrics(self, measured: Measured) -> dict[str, Any]:
        """Return the flat metrics of one document, categories together."""
        n_steps = measured["walks"][-1][0][0]  # of all heads, without a threshold
        return {
            "looping": (int(measured["looping"]), 1),
            "tokens_per_forward": (measured["kept"], n_steps),
        }

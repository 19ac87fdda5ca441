"""`mtp_induction`: does a model recall a name that it has read before?

    Once upon a time there was a girl named | Zor vin | … | Zor vin | smiled.
                                              first: the control    later: what is measured

Names are made up and put into the gaps of templates, so that only the text before it tells how a
name continues. A name is exactly two tokens of the model's tokenizer, and names of one text begin
with different tokens: from the second mention on, the first token determines the second. The probe
measures whether a head's argmax is that second token at every later mention and, as the control, at
the first. Byte-level models have no such names: theirs have `BYTES` letters, and a mention is right
if all letters after the first are, which is the same as writing the name greedily.

Head i reads the state i tokens before its target, so heads from offset 2 on do not see the token
that determines the name.

Source: Gloeckle et al. 2024, section 4.1 (accuracy on the second token, after the first mention;
random names); how names are made is chosen here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tqdm import tqdm

from mtp_harness.data.induction_texts import STORIES
from mtp_harness.data.rows import below
from mtp_harness.data.stories import Template, gaps
from mtp_harness.errors import UserError
from mtp_harness.harness.protocol import HeadsModel
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.text import plain_encode
from mtp_harness.probes.head_logprobs import model_of
from mtp_harness.probes.pooled import Measured, pair_cell
from mtp_harness.probes.task import ProbeTask, Table
from mtp_harness.probes.teacher_forced import hits
from mtp_harness.probes.windows import Encode
from mtp_harness.results.long_table import Cell

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

TOKENS, BYTES = 2, 6
"""Tokens of a name; letters with a tokenizer of single bytes."""

CANDIDATES = 20_000
"""Names tried for one text before the tokenizer is refused."""

_ONSETS = ("b", "br", "d", "dr", "f", "g", "gr", "j", "k", "l", "m", "n", "p", "r", "t", "tr", "v")
_VOWELS = ("a", "e", "i", "o", "u")
_ENDINGS = ("", "", "b", "g", "k", "l", "m", "n", "p", "r", "x", "z")


class Mention(NamedTuple):
    """A name in a text: tokens `start` … `end` - 1, and whether it is its first mention."""

    start: int
    end: int
    first: bool


class Filled(NamedTuple):
    """A template with names in its gaps, as a model reads it."""

    text: str
    names: list[str]
    tokens: list[int]
    mentions: list[Mention]
    n_left_out: int
    """Mentions that the tokenizer splits differently, or that do not fit the context."""


@dataclass(frozen=True)
class InductionQuestion:
    """How names are put into a template: their seed, and whether they begin with a capital."""

    seed: int
    capital: bool


def answer(lm: HeadsModel, requests: Sequence[Instance], quiet: bool) -> list[Measured]:
    """Answer requests `(template, InductionQuestion)`; `doc["name"]` names the template.

    Returns:
        Per request the counts of `count_mentions`, the `names`, `n_left_out`, and how many tokens a
        name is, `name_tokens`.
    """
    model, encode = model_of(lm), plain_encode(lm.tokenizer)
    bos, found = lm.tokenizer.bos_token_id, []
    for request in tqdm(requests, disable=quiet, desc="Running induction requests"):
        template = Template(request.doc["name"], request.args[0])
        try:
            filled = fill(template, encode, bos, lm.max_length, request.args[1])
        except ValueError as error:
            raise UserError(f"{request.task_name}, {lm.pretrained}: {error}") from error
        about = {"names": filled.names, "n_left_out": filled.n_left_out}
        counts = score(model, filled, lm.device)
        found.append(Measured(**counts, **about, name_tokens=tokens_per_name(encode)))
    return found


def score(
    model: MultiHeadModel, filled: Filled, device: torch.device | str
) -> dict[str, dict[str, list[int]]]:
    """Return `count_mentions` of what a model predicts."""
    row = torch.tensor([filled.tokens], device=device)
    return count_mentions(hits(model, row)[0].cpu(), filled.mentions)


def names_for(
    count: int, encode: Encode, source: random.Random, capital: bool, unit: int
) -> list[str]:
    """Return names of `unit` tokens that begin with different ones, or raise a ValueError."""
    names: list[str] = []
    begun: set[int] = set()
    for _ in range(CANDIDATES):
        if len(names) == count:
            return names
        name = _word(source)
        name = name.capitalize() if capital else name
        found = [_between(encode, before, name) for before in ("x ", "x (")]
        if any(one is None or len(one) != unit for one in found):
            continue
        first = {one[0] for one in found if one}
        if not first & begun:
            begun |= first
            names.append(name)
    raise ValueError(
        f"only {len(names)} of {count} made-up names are {unit} tokens of this tokenizer, after "
        f"{CANDIDATES} tries; the induction probe needs a tokenizer that splits words."
    )


def tokens_per_name(encode: Encode) -> int:
    """Return `TOKENS`, or `BYTES` for tokenizers of single bytes."""
    single = all(len(encode(word)) == len(word) for word in ("Zorvin was", "return", " the end"))
    return BYTES if single else TOKENS


def fill(
    template: Template, encode: Encode, bos: int | None, length: int, ask: InductionQuestion
) -> Filled:
    """Put made-up names into a template, the same for the same template, seed and tokenizer.

    `bos` goes in front, if given; text beyond `length` tokens, BOS included, is left out.
    """
    unit = tokens_per_name(encode)
    places = gaps(template.text)
    source = random.Random(f"{ask.seed}/{template.name}")
    names = names_for(1 + max(i for _, i in places), encode, source, ask.capital, unit)
    text, at = "", 0
    spans = []
    for place, index in places:
        text += template.text[at:place]
        spans.append((len(text), len(text) + len(names[index]), index))
        text, at = text + names[index], place + 1
    text += template.text[at:]
    tokens, before = encode(text), [] if bos is None else [bos]
    mentions, seen = [], set[int]()
    for start, end, index in spans:
        span = _span(encode, tokens, text, start, end)
        if span and span[1] - span[0] == unit and span[1] + len(before) <= length:
            first, last = (at + len(before) for at in span)
            mentions.append(Mention(first, last, index not in seen))
        seen.add(index)
    return Filled(text, names, [*before, *tokens][:length], mentions, len(spans) - len(mentions))


def count_mentions(
    right: torch.Tensor, mentions: Sequence[Mention]
) -> dict[str, dict[str, list[int]]]:
    """Return, for `first` and `later` mentions, counts per offset 1 … n.

    Args:
        right: bool [T, n]: whether head i's argmax at t is the token at t+i.
        mentions: in the row.

    Returns:
        `{"first" | "later": {"right": [n], "mentions": [n]}}`: mentions whose tokens after the
        first are all predicted by the head, out of those whose targets it can reach.
    """
    n = right.shape[1]
    counts: dict[str, Any] = {
        part: {"right": [0] * n, "mentions": [0] * n} for part in ("first", "later")
    }
    for start, end, first in mentions:
        part = counts["first" if first else "later"]
        for offset in range(1, n + 1):
            states = range(start + 1 - offset, end - offset)
            if states[0] >= 0:
                part["mentions"][offset - 1] += 1
                part["right"][offset - 1] += all(bool(right[t, offset - 1]) for t in states)
    return counts


def _word(source: random.Random) -> str:
    """Return a made-up word of `BYTES` letters, or of four to eight."""
    parts = ""
    for _ in range(2 + below(source, 2)):
        for options in (_ONSETS, _VOWELS, _ENDINGS):
            parts += options[below(source, len(options))]
    return parts[:BYTES] if len(parts) > BYTES and source.random() < 0.8 else parts[:8]


def _between(encode: Encode, before: str, name: str) -> list[int] | None:
    """Return the tokens of a name before a comma; None if they merge with its neighbours."""
    text = f"{before}{name},"
    tokens = encode(text)
    span = _span(encode, tokens, text, len(before), len(before) + len(name))
    return None if span is None else tokens[span[0] : span[1]]


def _span(
    encode: Encode, tokens: list[int], text: str, start: int, end: int
) -> tuple[int, int] | None:
    """Return which tokens are characters `start` … `end` - 1; None if none are exactly.

    Most tokenizers join a word and the space before it: that space may be in its first token.
    """
    upto = encode(text[:end])
    if tokens[: len(upto)] != upto:
        return None
    for begin in (start, start - 1) if text[start - 1 : start] == " " else (start,):
        before = encode(text[:begin])
        if tokens[: len(before)] == before:
            return len(before), len(upto)
    return None


PARTS = {"later": "accuracy", "first": "accuracy_first_mention"}
"""What is measured, and its control."""


def _by_data_set(some: Sequence[Measured]) -> Iterator[Cell]:
    yield Cell((None,), "name_tokens", some[0]["name_tokens"], count=len(some))
    for i in range(len(some[0]["later"]["right"])):
        for part, name in PARTS.items():
            counts = [(one[part]["right"][i], one[part]["mentions"][i]) for one in some]
            yield pair_cell((i + 1,), name, counts)


class InductionTask(ProbeTask):
    """Reads texts with made-up names.

    Flat metrics, by data set: `stories_accuracy` and `code_accuracy`, head 1's on the second token
    of names that were read before, and the controls `…_accuracy_first_mention`;
    `mentions_left_out`: those that the tokenizer splits differently, or that do not fit the
    context.
    """

    request_type = "induction"
    POOLS = {"mentions_left_out": sum}
    TABLES = {"by_data_set": Table(("offset",), _by_data_set)}

    def question(self, doc: dict[str, Any]) -> InductionQuestion:
        """Return how names are put into a text."""
        return InductionQuestion(self.whole("seed", 0), capital=doc["data_set"] == STORIES)

    def values(self, measured: Measured) -> dict[str, Sequence[float]]:
        """Return head 1's accuracies."""
        return {
            name: (measured[part]["right"][0], measured[part]["mentions"][0])
            for part, name in PARTS.items()
        }

    def metrics(self, measured: Measured) -> dict[str, Any]:
        """Return the accuracies by data set, and how many mentions are left out."""
        return {"mentions_left_out": measured["n_left_out"], **super().metrics(measured)}

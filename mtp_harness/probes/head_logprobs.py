"""Answers requests of type `head_logprobs`: reads texts with all heads, one window at a time.

    requests ─▶ texts ─spans─▶ rows of windows ─read─▶ TextReading, one per text ─measure─▶ answers

One forward per window serves all heads, and one reading serves all requests that ask about the same
text in the same way. States t = 0..N-1 of a text have read x[0]..x[t]; head i at t is compared with
x[t+i], also where the window ends before that token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from mtp_harness.decode.sampling import Sampling
from mtp_harness.errors import UserError, user_errors
from mtp_harness.harness.generation_args import place_of
from mtp_harness.harness.protocol import HeadsModel
from mtp_harness.models.interface import LayerShape, MultiHeadModel
from mtp_harness.probes.encoding import Encoded, encode
from mtp_harness.probes.standard_rule import (
    ExpectedWalk,
    StandardReading,
    expected_walk,
    read_standard,
)
from mtp_harness.probes.teacher_forced import Reading, Walk, read, read_both, walk
from mtp_harness.probes.windows import Span, spans

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

_log = logging.getLogger(__name__)

AUTO_TOKENS = 2**14
"""Tokens of a batch with batch_size=auto; logits are read in pieces, so they need little memory."""


@dataclass(frozen=True)
class TextQuestion:
    """How to read a text, and what to measure.

    Attributes:
        measure: takes the `TextReading`; its result travels between ranks, so it should be small.
        window: states of a window; None: the model's context.
        stride: states that a window scores, see `spans`; None means `usual_stride`, at most a
            window, and `window` where that is None, too.
        context: text before the scored text: read, but not scored; both are encoded as for a
            log-likelihood of lm_eval. Without it, a text stands after the prefix token (BOS).
        as_rolling: encode as lm_eval's rolling log-likelihood does, which reads a tokenizer's own
            BOS after the prefix token.
        chained: whether `measure` also takes one module's chained reading.
        sampling: for `TextReading.standard`, if `measure` takes it.
        kind: of the row; see `encoding`.
    """

    measure: Callable[[TextReading], dict[str, Any]] = field(repr=False, compare=False)
    window: int | None = None
    stride: int | None = None
    usual_stride: int | None = None
    context: str = ""
    as_rolling: bool = False
    chained: bool = field(default=False, compare=False)  # so that readings are shared
    sampling: Sampling | None = None
    kind: str = "text"

    def spans(self, n_states: int, longest: int, where: str) -> list[Span]:
        """Return the windows of a text for a model with a context of `longest` tokens."""
        window = longest if self.window is None else self.window
        if type(window) is not int or not 1 <= window <= longest:
            raise UserError(
                f"{where}: window={window}, expected 1 to the context, {longest} tokens."
            )
        usual = window if self.usual_stride is None else min(window, self.usual_stride)
        stride = usual if self.stride is None else self.stride
        if type(stride) is not int or not 1 <= stride <= window:
            raise UserError(f"{where}: stride={stride}, expected 1 to the window, {window} tokens.")
        return list(spans(n_states, window, stride))


@dataclass
class TextReading:
    """The readings of one text by all heads, on the CPU.

    Attributes:
        encoded: its tokens x[0..N], and which of them are scored.
        heads: a `Reading` [N, n]; empty until the first window has been read.
        chained: offsets 3..n of one module chained, [N, n-2]; [N, 0] if no question asks for it.
        standard: acceptance by the engines' rule, [N, n-1], if a question asks for it.
        position: of each state in the window that scored it, int64 [N].
        n_tokens_read: tokens that were read for it, over all windows.
    """

    encoded: Encoded
    heads: Reading = field(default_factory=lambda: Reading.empty(0, 0))
    chained: Reading = field(default_factory=lambda: Reading.empty(0, 0))
    standard: StandardReading = field(default_factory=lambda: StandardReading.empty(0, 0))
    position: Tensor = field(default_factory=lambda: torch.zeros(0))
    n_tokens_read: int = 0

    @property
    def tokens(self) -> Tensor:
        """The tokens x[0..N], int64 [N+1]."""
        return self.encoded.tokens

    @property
    def n_scored(self) -> int:
        """The number of tokens that are scored."""
        return int(self.encoded.scored.sum())

    @property
    def n(self) -> int:
        """The number of heads."""
        return int(self.heads.right.shape[1])

    def has_target(self) -> Tensor:
        """Return which heads have a scored target at each state, bool [N, n]."""
        part, last = self.encoded.part, len(self.tokens) - 1
        state = torch.arange(len(self.position))[:, None]
        target = state + torch.arange(1, self.n + 1)  # [N, n]
        there = target.clamp(max=last)
        return (target <= last) & self.encoded.scored[there] & (part[there] == part[state])

    def reached(self) -> Tensor:
        """Return the scored tokens that every head can reach, int64 [any number]."""
        found, part = self.encoded.scored.nonzero()[:, 0], self.encoded.part
        found = found[found >= self.n]
        return found[part[found - self.n] == part[found]]

    def walk(self, heads: int | None = None) -> Walk:
        """Walk every run of scored tokens with heads 1..`heads`; None: all heads."""
        right = self.heads.right[:, :heads]
        each = [walk(right, begin - 1, end) for begin, end in self.encoded.runs()]
        return Walk(sum(one.n_kept for one in each), sum(one.n_steps for one in each))

    def expected_walk(self) -> ExpectedWalk:
        """Return the expected counts of sampled drafts, summed over runs of scored tokens."""
        right = self.standard.given_text  # [N, n-1]
        each = [expected_walk(right, begin - 1, end) for begin, end in self.encoded.runs()]
        kept, steps, drafted, accepted = zip(*each, strict=True)
        return ExpectedWalk(
            sum(kept),
            sum(steps),
            [sum(one) for one in zip(*drafted, strict=True)],
            [sum(one) for one in zip(*accepted, strict=True)],
        )

    def facts(self) -> dict[str, Any]:
        """Return facts about a document of the user's for its answer; empty for plain text.

        `n_cut` counts the scored tokens that are predicted without the document's beginning.
        """
        if self.encoded.facts is None:
            return {}
        state = self.encoded.scored[1:].nonzero()[:, 0]
        begin = torch.searchsorted(self.encoded.part, self.encoded.part[state])  # of its part
        n_cut = int((self.position[state] < state - begin).sum())
        return {**self.encoded.facts, "n_cut": n_cut}


def sums_by(group: Tensor, values: Tensor, n_groups: int) -> list[list[float]]:
    """Return the sums in float64 of values [N, C] by group, int64 [N]: [n_groups, C]."""
    sums = torch.zeros(n_groups, values.shape[1], dtype=torch.float64)
    found: list[list[float]] = sums.index_add_(0, group, values.double()).tolist()
    return found


class _OneHead(MultiHeadModel):
    """An ordinary causal language model, through whatever call `HFLM` makes."""

    n_future_tokens = 1

    def __init__(self, lm: HeadsModel) -> None:
        super().__init__()
        self._call = lm._model_call
        self._length = int(lm.max_length)

    @property
    def max_positions(self) -> int:
        return self._length

    def layer_shapes(self, heads: int) -> list[LayerShape]:
        return []

    def trunk(self, tokens: Tensor, *_: Any) -> Tensor:
        logits: Tensor = self._call(tokens)
        return logits

    def head(self, offset: int, states: Tensor, *_: Any) -> Tensor:
        return states

    def logits(self, offset: int, states: Tensor) -> Tensor:
        return states


def model_of(lm: HeadsModel) -> MultiHeadModel:
    """Return the model of an `MTPLM`; an ordinary one as a model with one head."""
    return lm.model if isinstance(lm.model, MultiHeadModel) else _OneHead(lm)


NOTHING: dict[str, Any] = {
    "heads": Reading.empty(0, 0),
    "chained": Reading.empty(0, 0),
    "standard": StandardReading.empty(0, 0),
}
"""In place of a `TextReading` that has been measured."""


@dataclass
class _Text:
    """A text being read: it collects windows, and after the last one answers its requests."""

    asked: list[int]  # indices of its requests
    reading: TextReading
    spans: list[Span]
    sampling: Sampling | None
    both: bool = False  # whether one module is read chained, too

    @property
    def way(self) -> tuple[bool, Sampling | None]:
        """How it is read; texts of a batch are read in the same way."""
        return self.both, self.sampling

    @property
    def n_states(self) -> int:
        return len(self.reading.tokens) - 1

    def put(self, span: Span, heads: Reading, chained: Reading, standard: StandardReading) -> bool:
        """Store what a window [T, n] scored; return whether the text is read to its end."""
        reading = self.reading
        if not reading.n_tokens_read:
            reading.heads = Reading.empty(self.n_states, heads.right.shape[-1])
            reading.chained = Reading.empty(self.n_states, chained.right.shape[-1])
            reading.standard = StandardReading.empty(self.n_states, standard.greedy.shape[-1])
            places = [torch.arange(s.first, s.end) - s.start for s in self.spans]
            reading.position = torch.cat(places)
        mine = (*reading.heads, *reading.chained, *reading.standard)
        for whole, own in zip(mine, (*heads, *chained, *standard), strict=True):
            whole[span.first : span.end] = own[span.first - span.start : span.end - span.start]
        reading.n_tokens_read += span.end - span.start
        return span.end == self.n_states


def answer(lm: HeadsModel, requests: Sequence[Instance], quiet: bool) -> list[Any]:
    """Answer requests `(text, TextQuestion)`: those of this rank, each once."""
    texts = _texts(lm, requests)
    answers: list[Any] = [None] * len(requests)
    every = [span for text in texts for span in text.spans]
    n_states = sum(text.n_states for text in texts)
    n_read = sum(span.end - span.start for span in every)
    _log.info("%d tokens of text, read %.2f times over", n_states, n_read / max(1, n_states))
    with tqdm(total=len(every), disable=quiet, desc="Running head_logprobs requests") as bar:
        for text, span, heads, chained, standard in _windows(lm, model_of(lm), texts):
            if text.put(span, heads, chained, standard):
                for place in text.asked:
                    found = requests[place].args[1].measure(text.reading)
                    found.update(text.reading.facts())
                    answers[place] = found
                text.reading = replace(text.reading, **NOTHING)
            bar.update()
    return answers


def _texts(lm: HeadsModel, requests: Sequence[Instance]) -> list[_Text]:
    """Return the texts to read, longest first, so that too large a batch fails early.

    Those that are read in the same way stand together.
    """
    reused = model_of(lm).reused
    texts: dict[tuple[str, TextQuestion], _Text] = {}
    for place, request in enumerate(requests):
        content, ask = key = request.args  # questions are equal but for what they measure
        if key not in texts:
            where = place_of(request)
            with user_errors(ValueError, prefix=f"{where}: ", suffix="."):
                encoded = encode(lm, content, ask.kind, ask.context, ask.as_rolling)
            if not encoded.scored[1:].any():
                raise UserError(f"{where}: its text has no token, expected at least one.")
            found = _spans(lm, encoded, ask, where)
            texts[key] = _Text([], TextReading(encoded), found, ask.sampling)
        texts[key].asked.append(place)
        texts[key].both |= reused and ask.chained
    return sorted(texts.values(), key=lambda text: (str(text.way), -text.n_states))


def _spans(lm: HeadsModel, encoded: Encoded, ask: TextQuestion, where: str) -> list[Span]:
    """Return the windows of a text, part by part; the last token of all is read by no state."""
    lengths = encoded.lengths()
    found, begin = [], 0
    for number, length in enumerate(lengths, 1):
        for one in ask.spans(length - (number == len(lengths)), lm.max_length, where):
            found.append(Span(*(place + begin for place in one)))
        begin += length
    return found


def _windows(
    lm: HeadsModel, model: MultiHeadModel, texts: list[_Text]
) -> Iterator[tuple[_Text, Span, Reading, Reading, StandardReading]]:
    """Yield every window's readings [T, ..] on the CPU, in order within a text."""
    rows = [(text, span) for text in texts for span in text.spans]
    at = 0
    while at < len(rows):
        longest, first = rows[at]
        fitting = max(1, AUTO_TOKENS // (first.end - first.start))
        size = fitting if lm.batch_size == "auto" else lm.batch_size
        batch = [row for row in rows[at : at + int(size)] if row[0].way == longest.way]
        readings = _read(model, batch, lm.device)
        for row, (text, span) in enumerate(batch):
            heads, chained = (Reading(*(part[row] for part in one)) for one in readings[:2])
            standard = StandardReading(*(part[row] for part in readings[2]))
            yield text, span, heads, chained, standard
        at += len(batch)


def _read(
    model: MultiHeadModel, batch: list[tuple[_Text, Span]], device: Any
) -> tuple[Reading, Reading, StandardReading]:
    """Read windows together, [B, T, ..]; causal attention keeps what follows a row out of it."""
    length, n = max(span.end - span.start for _, span in batch), model.n_future_tokens
    table = torch.zeros(len(batch), length + n, dtype=torch.long)
    for row, (text, span) in zip(table, batch, strict=True):
        part = text.reading.tokens[span.start : span.start + length + n]
        row[: len(part)] = part
    table = table.to(device)
    both, sampling = batch[0][0].way
    standard = StandardReading.empty(len(batch), length, 0)
    try:
        if both:
            heads, chained = read_both(model, table[:, :length], table[:, length:])
        else:
            heads = read(model, table[:, :length], following=table[:, length:])
            chained = Reading.empty(len(batch), length, 0)
        if sampling:
            standard = read_standard(model, table[:, :length], sampling, table[:, length:])
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{len(batch)} windows of {length} tokens do not fit into the memory of {device}; "
            "lower batch_size or --metadata window."
        ) from error
    heads, chained = (Reading(*(part.cpu() for part in one)) for one in (heads, chained))
    return heads, chained, standard

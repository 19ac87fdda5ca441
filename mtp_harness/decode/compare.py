"""Compares the text of k heads with the text of NTP, and classifies differences.

After a difference, decoding continues from NTP's own text, that token included, so that one
difference does not hide the next.

    NTP      a b c d e f g h
    k heads  a b X               position 2 differs
                   d e Y         k heads on the prompt and a b c; position 5 differs
                         g h     k heads on the prompt and a b c d e f

A k-token forward rounds differently from a 1-token forward: in float64 it never changes a token, in
float32 hardly ever, in bfloat16 now and then. A difference is a near tie if rounding explains it,

    gap <= 2 * logit_difference           the two tokens are so close that both may have moved
    logit_difference <= 4 * rounding      and what moved them is no more than rounding

and an error otherwise. gap: difference of head 1's logits of the two tokens, in the 1-token
forward.
logit_difference: the largest difference between the 1-token and the k-token forward of that prefix.
rounding: the largest difference, anywhere in that answer, between 1-token forwards and one forward
without a cache. Without the second condition, a wrong k-token forward would pass as rounding.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor

from mtp_harness.decode.cache import SlotCache
from mtp_harness.decode.engine import Answer, Engine, Request
from mtp_harness.models.interface import MultiHeadModel

MAX_DIFFERENCES = 20
"""Differences of one answer after which its rest is no longer compared or counted."""

ROUNDING_SLACK = 4.0
"""The 4 of the second condition: roundings of different forwards differ in size."""


class Decoded(NamedTuple):
    """All requests, decoded with heads 1..`draft_heads`, `batch` rows at a time."""

    draft_heads: int
    batch: int
    answers: list[Answer]


@dataclass(frozen=True)
class Difference:
    """One token that differs from NTP's; the last three are None if an answer had ended."""

    prompt: int  # index of the prompt
    position: int  # index of the token within the answer
    ntp: int | None  # NTP's token; None if its answer had ended
    other: int | None  # the other token; None if that answer had ended
    gap: float | None = None  # these are explained in the module
    logit_difference: float | None = None
    rounding: float | None = None

    @property
    def near_tie(self) -> bool:
        """Whether rounding explains it; otherwise it is an error."""
        if self.gap is None or self.logit_difference is None or self.rounding is None:
            return False
        within = self.logit_difference <= ROUNDING_SLACK * self.rounding
        return within and self.gap <= 2 * self.logit_difference


@dataclass(frozen=True)
class Comparison:
    """A run with k heads compared with an NTP run, each with its batch size."""

    draft_heads: int
    batch: int
    ntp_batch: int
    n_answers: int  # compared, as are tokens
    n_tokens: int
    differences: tuple[Difference, ...]  # by prompt and position

    @property
    def counts(self) -> dict[str, int]:
        """Answers, tokens, identical answers, near ties and errors."""
        near_ties = sum(difference.near_tie for difference in self.differences)
        return {
            "answers": self.n_answers,
            "tokens": self.n_tokens,
            "identical": self.n_answers - len({d.prompt for d in self.differences}),
            "near_ties": near_ties,
            "errors": len(self.differences) - near_ties,
        }


class Verifier:
    """Decodes the same requests in several ways, and compares the answers."""

    def __init__(
        self,
        model: MultiHeadModel,
        requests: Sequence[Request],
        eos: Sequence[int],
        to_text: Callable[[list[int]], str],
    ) -> None:
        """Store what stays the same; the arguments are `Engine`'s."""
        self.model, self.requests, self.eos, self.to_text = model, list(requests), eos, to_text

    def run(self, draft_heads: int, batch: int) -> Decoded:
        """Decode all requests."""
        return Decoded(draft_heads, batch, self._decode(draft_heads, batch, self.requests))

    def compare(self, ntp: Decoded, run: Decoded) -> Comparison:
        """Compare a run with an NTP run; see the module."""
        truths = [answer.tokens for answer in ntp.answers]
        todo = {prompt: (0, answer.tokens) for prompt, answer in enumerate(run.answers)}
        differences: dict[int, list[Difference]] = defaultdict(list)
        n_tokens = 0
        while todo:
            starts: dict[int, int] = {}  # where to continue, by prompt
            for prompt, (start, tokens) in todo.items():
                truth, text = truths[prompt], truths[prompt][:start] + tokens
                pairs = [*zip_longest(truth, text)]  # None behind the shorter one's end
                at = next((at for at, (a, b) in enumerate(pairs) if a != b), len(pairs))
                n_tokens += min(at + 1, len(truth)) - start
                if at < len(pairs):
                    differences[prompt].append(Difference(prompt, at, *pairs[at]))
                    if at + 1 < len(truth) and len(differences[prompt]) < MAX_DIFFERENCES:
                        starts[prompt] = at + 1
            rest = [self._rest(p, truths[p], start) for p, start in starts.items()]
            answers = self._decode(run.draft_heads, run.batch, rest)
            todo = {
                prompt: (start, answer.tokens)
                for (prompt, start), answer in zip(starts.items(), answers, strict=True)
            }
        judged: list[Difference] = []
        for prompt in sorted(differences):
            judged += self._judge(differences[prompt], ntp, run)
        return Comparison(
            run.draft_heads, run.batch, ntp.batch, len(run.answers), n_tokens, tuple(judged)
        )

    def _decode(self, draft_heads: int, batch: int, requests: list[Request]) -> list[Answer]:
        engine = Engine(self.model, draft_heads, self.eos, self.to_text, slots=batch)
        return engine.generate(requests)

    def _rest(self, prompt: int, truth: list[int], start: int) -> Request:
        """Return the rest of an answer; without stop strings, which may span `start`."""
        return Request(self.requests[prompt].prompt + truth[:start], len(truth) - start)

    def _judge(self, differences: list[Difference], ntp: Decoded, run: Decoded) -> list[Difference]:
        """Add the numbers that classify the differences of one answer."""
        prompt, answer = differences[0].prompt, ntp.answers[differences[0].prompt].tokens
        text = self.requests[prompt].prompt + answer
        n_prompt = len(text) - len(answer)
        single = logits_along(self.model, text, n_prompt, 1, ntp.batch)
        several = logits_along(self.model, text, n_prompt, run.draft_heads, run.batch)
        uncached = logits_along(self.model, text, n_prompt, None, 1)
        rounding = float((single - uncached).abs().max())
        judged = []
        for difference in differences:
            at, a, b = difference.position, difference.ntp, difference.other
            if a is not None and b is not None:
                gap = float((single[at, a] - single[at, b]).abs())
                moved = float((single[at] - several[at]).abs().max())
                difference = Difference(prompt, at, a, b, gap, moved, rounding)
            judged.append(difference)
        return judged


@torch.inference_mode()
def logits_along(
    model: MultiHeadModel, text: list[int], n_prompt: int, width: int | None, rows: int
) -> Tensor:
    """Return head 1's logits for each token of an answer, float64 [answer, V].

    Args:
        model: the model.
        text: tokens of prompt and answer.
        n_prompt: how many of them are the prompt's; at least 1.
        width: tokens per forward, after a first forward over the prompt without its last token;
            None: all of the text in one forward without a cache.
        rows: how often the text is repeated in the batch; the shapes decide how a forward rounds.
    """
    first, length = n_prompt - 1, len(text) + (width or 0)
    tokens = torch.zeros(rows, length, dtype=torch.int64, device=model.device)
    tokens[:, : len(text)] = torch.tensor(text, device=model.device)
    if width is None:
        return model.next_token_logits(tokens[:1])[0, first:-1].double()
    shapes = model.layer_shapes(1)
    cache = SlotCache(shapes, rows, length, model.dtype, model.device)

    def states(start: int, stop: int) -> Tensor:
        positions = torch.arange(start, stop, device=model.device).expand(rows, -1)
        if start:
            cache.at(positions, stop)
        else:
            cache.fill(torch.arange(rows, device=model.device), positions)
        trunk = model.trunk(tokens[:, start:stop], positions, cache)
        cache.keep(torch.full((rows,), stop - start, device=model.device))
        return model.head(1, trunk, None, positions, cache)

    if first:
        states(0, first)
    steps = [
        model.logits(1, states(start, start + width))[0]
        for start in range(first, len(text) - 1, width)
    ]
    return torch.cat(steps)[: len(text) - n_prompt].double()

"""Every draft of a greedy text: what a step would find wherever it begins.

    text               y0   y1   y2   y3   y4      head 1's own, one token a forward
    drafts behind y0        d2   d3   d4           by heads 2, 3, 4
    drafts behind y1             d2   d3   d4

Which steps decoding makes depends on k and the threshold; what is drafted behind a token depends on
neither. So one pass answers for every k and threshold (`walk`). It makes real steps with real
drafters: a window of the pending token alone leaves a row as a step does that rejects all drafts.
"""

from collections.abc import Sequence
from math import log
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from mtp_harness.decode.acceptance import Rule, confidence_of
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.decode.sampling import Sampling
from mtp_harness.decode.slots import Slots
from mtp_harness.decode.step import Batch, Drafter
from mtp_harness.decode.threads import threads_for
from mtp_harness.models.gpu.current import current


class EveryDraft(NamedTuple):
    """A greedy answer of m tokens, and what is drafted behind each of them but the last."""

    tokens: Tensor  # int64 [m], up to the one that ended the answer
    drafts: Tensor  # int64 [m-1, k-1]; [j, i] is head i+2's, behind token j, for token j+i+1
    confidence: Tensor  # float32 [m-1, k-1], their probabilities
    entropy: Tensor  # float32 [m-1], bits; of head 1's distribution for token j+1

    def right(self) -> Tensor:
        """Return which drafts are the text's tokens, bool [m-1, k-1]; none beyond its end."""
        behind, heads = (torch.arange(size) for size in self.drafts.shape)
        place = behind[:, None] + heads + 1
        last = len(self.tokens) - 1
        return (self.drafts == self.tokens[place.clamp(max=last)]) & (place <= last)


class Step(NamedTuple):
    """A step of decoding: behind which token it drafts, how many, and how many are verified."""

    begin: int
    n_drafted: int
    n_verified: int  # those beyond the answer's end are not


def walk(found: EveryDraft, k: int, threshold: float = 0.0) -> list[Step]:
    """Return the steps that decoding makes with heads 1..k and a `draft_threshold`.

    Each emits its verified drafts and head 1's own token, together the answer without its first.
    """
    sure = (found.confidence[:, : k - 1] >= threshold).long().cumprod(1).sum(1).tolist()
    right = found.right()[:, : k - 1].long().cumprod(1).sum(1).tolist()
    steps, begin = [], 0
    while begin < len(sure):
        steps.append(Step(begin, sure[begin], min(sure[begin], right[begin])))
        begin += steps[-1].n_verified + 1
    return steps


class _Listening:
    """A drafter that keeps how unsure head 1 was of what follows the pending tokens."""

    def __init__(self, drafter: Drafter) -> None:
        self.drafter = drafter
        self.fill, self.start, self.draft = drafter.fill, drafter.start, drafter.draft
        self.entropy = torch.zeros(0)  # bits, [B]

    def read(self, batch: Batch, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        logits, forward = self.drafter.read(batch, tokens, positions)
        log_p = log_softmax(logits[:, 0].float(), -1)  # [B, V]
        # What cannot come has log p = -inf and counts as 0.
        self.entropy = -(log_p.exp() * log_p.clamp(min=-1e4)).sum(-1) / log(2)
        return logits, forward


class _Watched(Slots):
    """Slots that keep how sure each draft is, by position; the noise's keys are row numbers."""

    def __init__(self, engine: Engine, n: int, length: int) -> None:
        super().__init__(engine.model, engine.k, Rule(), Sampling(), n, length)
        self.sure = torch.zeros(self.text.shape, device=self.device)
        self.drafter = self.listening = _Listening(self.drafter)

    def choose_drafts(
        self, logits: Tensor, keys: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        drafts, count = super().choose_drafts(logits, keys, positions)
        sure = confidence_of(drafts, log_softmax(logits.float(), -1))
        self.sure[keys[:, None], positions] = sure.to(self.sure)
        return drafts, count

    def behind_pending(self) -> tuple[Tensor, Tensor]:
        """Return the drafts behind the pending tokens and how sure they are, [B, k-1] each."""
        places = self.pending[:, None] + self.ahead[1 : self.k]
        return self.text.gather(1, places), self.sure.gather(1, places)


@torch.inference_mode()
def every_draft(engine: Engine, requests: Sequence[Request]) -> list[EveryDraft]:
    """Decode requests greedily, all at once, and return every draft of heads 2..k behind them.

    Their sampling and the engine's rule are left aside: drafts are made and none is taken.
    """
    n = len(requests)
    sequences = [engine.sequence(row, request) for row, request in enumerate(requests)]
    prompts = [sequence.prompt for sequence in sequences]
    slots = _Watched(engine, n, engine.memory(requests, n).length)
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    with threads_for(engine.model, n), current(engine.model.device):
        prefilled = [slots.fill([row], [prompt])[0] for row, prompt in enumerate(prompts)]
        budgets = [sequence.budget for sequence in sequences]
        new = slots.start(range(n), prompts, prefilled, budgets, range(n))[:, :1]
        while True:
            for sequence, tokens in zip(sequences, new.tolist(), strict=True):
                if not sequence.ended_by:
                    sequence.take(tokens)
            living = [sequence for sequence in sequences if not sequence.ended_by]
            if not living:
                break
            if len(living) < n:
                slots.stop([sequence.index for sequence in sequences if sequence.ended_by])
            drafts, sure = slots.behind_pending()
            stands = [len(sequence.prompt) + len(sequence.tokens) - 1 for sequence in living]
            new = slots.step(1, max(stands) + 1)[:, :1]
            kept.append((drafts, sure, slots.listening.entropy))
    shape = (len(kept), n, engine.k - 1)
    columns = [torch.stack(part).cpu() for part in zip(*kept, strict=True)] or [
        torch.zeros(shape, dtype=torch.int64),
        torch.zeros(shape),
        torch.zeros(shape[:2]),
    ]
    return [
        EveryDraft(
            torch.tensor(sequence.tokens),
            *(part[: len(sequence.tokens) - 1, row] for part in columns),
        )
        for row, sequence in enumerate(sequences)
    ]

"""The slots on the device: prompts are filled in, rows start and stop, and steps run."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from mtp_harness.decode import step
from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.drafters import drafter_for
from mtp_harness.decode.sampling import Sampling, choose
from mtp_harness.models.gpu.current import captured
from mtp_harness.models.interface import MultiHeadModel

_log = logging.getLogger(__name__)

_BUCKET = 64
"""On a GPU prompts are padded to multiples of this many tokens, so that kernels compile once."""

_NARROWEST = 512
"""Columns that the narrowest of several graphs reads."""


class StepGraph:
    """A function of fixed shapes as one CUDA graph, so that the GPU does not wait for Python."""

    def __init__(self, step: Callable[[], Tensor], other: "StepGraph | None" = None) -> None:
        """Run `step` once, which compiles all that it needs, then capture it.

        Args:
            step: reads and writes tensors that live as long as this; running it more often is
                harmless.
            other: a graph that never runs at the same time, and whose memory this one uses, too.

        Raises:
            RuntimeError: a graph cannot hold the step, for example because it reads a value.
        """
        pool = None if other is None else other.graph.pool()
        self.graph: torch.cuda.CUDAGraph
        self.graph, self.out = captured(step, pool=pool)

    def replay(self) -> Tensor:
        """Run the step; return the tensor that every replay writes its result into."""
        self.graph.replay()
        return self.out


class Slots(step.Batch):
    """Rows decoded together with heads 1..k."""

    def __init__(
        self, model: MultiHeadModel, k: int, rule: Rule, sampling: Sampling, n: int, length: int
    ) -> None:
        """Allocate `n` rows for the longest prompt with its answer, and k tokens more."""
        super().__init__(model, k, rule, sampling, n, length)
        self.drafter = drafter_for(self)

    def fill(self, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> list[step.Prefilled]:
        """Run prompts through trunk and heads, each into its slot's columns."""
        longest = max(map(len, prompts))
        if self.device.type == "cuda":
            longest = min(-(-longest // _BUCKET) * _BUCKET, self.cache.trash)
        padded = [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]
        tokens = self.given(padded)  # [b, T]
        lengths = self.given([len(prompt) for prompt in prompts])
        columns = torch.arange(longest, device=self.device)
        positions = torch.where(columns < lengths[:, None], columns, self.cache.trash)
        self.cache.fill(self.given(slots), positions)
        return self.drafter.fill(self, tokens, lengths, self.known(positions))

    def share(self, source: int, targets: Sequence[int], length: int) -> None:
        """Copy the first `length` columns of a prompt to other slots."""
        self.cache.share(source, self.given(targets), length)

    def lasting(self, prefilled: step.Prefilled, slot: int) -> step.Prefilled:
        """Return a prompt with its states in `slot`, for rows that start later.

        Its columns stay, but a row that continues changes its states.
        """
        return prefilled._replace(states=self.cache.states_of(slot))

    def start(
        self,
        slots: Sequence[int],
        prompts: Sequence[Sequence[int]],
        prefilled: Sequence[step.Prefilled],
        budgets: Sequence[int],
        keys: Sequence[int],
    ) -> Tensor:
        """Choose the first token of rows whose prompts stand in their slots, and draft.

        Budgets are numbers of tokens to emit, keys those of the noise.

        Returns:
            First token and number of drafts, int64 [b, 2].
        """
        # The budget's last token is emitted, but never fed.
        ends = [len(prompt) + budget - 1 for prompt, budget in zip(prompts, budgets, strict=True)]
        rows, at, limit, key = (
            self.given(values)
            for values in (slots, [len(prompt) for prompt in prompts], ends, keys)
        )
        logits = torch.stack([prompt.logits[:1] for prompt in prefilled])  # [b, 1, V]
        first = choose(logits, self.sampling, key, at[:, None])[:, 0]  # [b]
        self.text[rows, at] = first
        self.pending[rows], self.limit[rows], self.keys[rows] = at, limit, key
        for slot, prompt in zip(slots, prefilled, strict=True):
            if prompt.states:
                self.cache.restore(slot, prompt.states)
        self.drafter.start(self, rows, prompts, prefilled)
        return torch.stack([first, self.n_draft[rows]], 1)

    def stop(self, slots: Sequence[int]) -> None:
        """End rows: from now on they write into the trash column."""
        self.limit.index_fill_(0, self.given(slots), 0)  # `[...] = 0` waits for the GPU

    def step(self, n_tokens: int, width: int) -> Tensor:
        """See `step.step`."""
        return step.step(self, self.drafter, n_tokens, width)

    def graphs(self, fewest: int) -> dict[int, StepGraph]:
        """Return the step of k tokens as CUDA graphs, by the number of columns that they read.

        Call it before any row starts. The last one serves all steps; there are others, that read
        less, if attention does not stop at each row's own length. Empty without a GPU or with
        several, and, with a warning, if a graph cannot hold the model's step.

        Args:
            fewest: columns that every step needs; no graph reads less.
        """
        n_devices = len({keys.device for keys in self.cache.keys})
        if self.device.type != "cuda" or n_devices > 1:
            return {}
        try:
            self.cache.cut = False
            whole = StepGraph(partial(self.step, self.k, self.cache.trash))
            found = {}
            width = _NARROWEST
            while self.cache.cut and width < self.cache.trash:
                if width >= fewest:
                    found[width] = StepGraph(partial(self.step, self.k, width), whole)
                width *= 2
            return found | {self.cache.trash: whole}
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            torch.cuda.synchronize()
            reason = str(error).splitlines()[0]
            _log.warning(
                "decoding runs without a CUDA graph, which this model prevents (%s)", reason
            )
            return {}

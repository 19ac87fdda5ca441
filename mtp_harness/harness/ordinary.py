"""Decode records for ordinary causal LMs, which `HFLM` generates from by itself.

`HFLM.generate_until` returns text only. It hands every finished answer to its cache hook right
after decoding it, in the order in which `_model_generate` returned the rows; this listens to both.
"""

import time
from collections import deque
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs
from torch import Tensor

from mtp_harness.decode.records import DecodeRecord, Generation, is_looping
from mtp_harness.decode.stopping import Stopping
from mtp_harness.harness.generation_args import checked_arguments, place_of, room_for_prompt

ORDINARY_RULE = "none: an ordinary causal language model"


class _Prompt(str):
    """A prompt that knows which request it belongs to: `HFLM` hands the object itself through."""

    place: int
    gen_kwargs: dict[str, Any]
    """As the request has them, by which the harness's cache knows it."""


class OrdinaryRecorder:
    """Listens to one call of `HFLM.generate_until`."""

    def __init__(self, lm: Any, eos: list[int], default_budget: int) -> None:
        """Prepare to listen to `lm`, an `HFLM`."""
        self.lm, self.eos, self.default_budget = lm, eos, default_budget
        self.rows: deque[tuple[list[int], int, int, float]] = deque()
        self.records: dict[int, DecodeRecord] = {}

    def __enter__(self) -> Self:
        """Put ourselves between the model and its cache hook."""
        self.hook, self.generate = self.lm.cache_hook, self.lm._model_generate
        self.lm.cache_hook, self.lm._model_generate = self, self._model_generate
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put everything back."""
        self.lm.cache_hook = self.hook
        del self.lm._model_generate  # the instance's; the class's shows again

    def numbered(self, requests: list[Instance]) -> list[Instance]:
        """Return the requests with checked arguments, and prompts that say whose they are.

        Raises:
            ValueError: an argument has a value that it cannot have.
        """
        copies = []
        for index, request in enumerate(requests):
            prompt = _Prompt(request.args[0])
            prompt.place, prompt.gen_kwargs = index, request.args[1]
            checked = self._checked(request)
            copies.append(replace(request, arguments=(prompt, checked)))
        return copies

    def _checked(self, request: Instance) -> dict[str, Any]:
        where = place_of(request)
        try:
            checked = checked_arguments(request.args[1])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if self.lm.backend == "causal":
            budget = normalize_gen_kwargs(checked, self.default_budget)["max_gen_toks"]
            room_for_prompt(budget, self.lm.max_length, where)
        return checked

    def _model_generate(self, context: Tensor, **kwargs: Any) -> Tensor:
        began = time.perf_counter()
        tokens: Tensor = self.generate(context=context, **kwargs)  # [B, prompt + answer]
        seconds = time.perf_counter() - began
        length = context.shape[1]
        n_prompt = kwargs["attention_mask"].sum(-1).tolist()
        for row, count in zip(tokens.tolist(), n_prompt, strict=True):
            self.rows.append((row[length:], count, len(n_prompt), seconds))
        return tokens

    def add_partial(self, attr: str, request: tuple[_Prompt, dict[str, Any]], answer: str) -> None:
        """Take note of an answer, then do what the cache hook would have done."""
        prompt, gen_kwargs = request
        self.records[prompt.place] = self._record(prompt, gen_kwargs, *self.rows.popleft())
        self.hook.add_partial(attr, (str.__str__(prompt), prompt.gen_kwargs), answer)

    def _record(
        self,
        prompt: str,
        gen_kwargs: dict[str, Any],
        row: list[int],
        n_prompt: int,
        size: int,
        seconds: float,
    ) -> DecodeRecord:
        whole, _ = self.lm.tok_batch_encode([prompt], truncation=self.lm.truncation)
        kwargs = normalize_gen_kwargs(gen_kwargs, self.default_budget)
        stopping = Stopping(self.eos, kwargs["until"], kwargs["max_gen_toks"], self.lm.tok_decode)
        ending = stopping.end([], row)
        return DecodeRecord(
            n_prompt_tokens=n_prompt,
            n_truncated=max(0, whole.shape[1] - n_prompt),
            draft_heads=1,
            draft_rule=ORDINARY_RULE,
            n_kept=ending.n_kept - 1,
            n_verified=(0,) * (ending.n_kept - 1),
            ended_by=ending.ended_by or "length",
            looping=is_looping(row[: ending.n_kept]),
            batch_size=size,
            prefill_s=None,
            decode_s=seconds,
        )

    def with_records(self, texts: list[str]) -> list[Generation]:
        """Return the answers, in the order of the requests, with their records."""
        return [Generation(text, self.records[index]) for index, text in enumerate(texts)]

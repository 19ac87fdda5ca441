"""How a model answers generation requests: with its heads, or as `HFLM` does.

Every answer carries its `DecodeRecord`; the results hold the totals over all answers.
`HFLM.generate_until` returns text only. It hands every finished answer to its cache hook right
after decoding it, in the order in which `_model_generate` returned the rows: `OrdinaryRecorder`
listens to both.
"""

import time
from collections import deque
from dataclasses import replace
from typing import Any, Self

from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs
from torch import Tensor

from mtp_harness.decode.records import DecodeRecord, Generation, is_looping
from mtp_harness.decode.stopping import Stopping
from mtp_harness.errors import UserError, user_errors
from mtp_harness.harness.generation import Generator
from mtp_harness.harness.generation_args import checked_arguments, place_of, room_for_prompt
from mtp_harness.harness.log_likelihood import Head1LM, using
from mtp_harness.harness.progress import Spent
from mtp_harness.harness.protocol import HeadsModel
from mtp_harness.models.text import end_ids

ORDINARY_RULE = "none: an ordinary causal language model"


class _Prompt(str):
    """A prompt that knows which request it belongs to: `HFLM` hands the object itself through."""

    place: int
    gen_kwargs: dict[str, Any]
    """The arguments as in the request: the key of the harness's cache."""


class OrdinaryRecorder:
    """Listens to one call of `HFLM.generate_until`."""

    def __init__(self, lm: HeadsModel, eos: list[int]) -> None:
        self.lm, self.eos = lm, eos
        self.rows: deque[tuple[list[int], int, int, float]] = deque()
        self.records: dict[int, DecodeRecord] = {}

    def __enter__(self) -> Self:
        """Stand between the model and its cache hook."""
        self.hook, self.generate = self.lm.cache_hook, self.lm._model_generate
        self.lm.cache_hook, self.lm._model_generate = self, self._model_generate
        return self

    def __exit__(self, *_: object) -> None:
        self.lm.cache_hook = self.hook
        del self.lm._model_generate  # the instance's; the class's is visible again

    def numbered(self, requests: list[Instance]) -> list[Instance]:
        """Return the requests with checked arguments, and prompts that know their request.

        Raises:
            UserError: an argument has an invalid value.
        """
        copies = []
        for index, request in enumerate(requests):
            where, prompt = place_of(request), _Prompt(request.args[0])
            prompt.place, prompt.gen_kwargs = index, request.args[1]
            with user_errors(ValueError, prefix=f"{where}: "):
                checked = checked_arguments(request.args[1])
            if self.lm.backend == "causal":
                budget = normalize_gen_kwargs(checked, self.lm.max_gen_toks)["max_gen_toks"]
                with user_errors(ValueError):
                    room_for_prompt(budget, self.lm.max_length, where)
            copies.append(replace(request, arguments=(prompt, checked)))
        return copies

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
        """Record an answer, then do what the cache hook would have done."""
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
        kwargs = normalize_gen_kwargs(gen_kwargs, self.lm.max_gen_toks)
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
            tokens=tuple(row[: ending.n_kept]),
        )

    def with_records(self, texts: list[str]) -> list[Generation]:
        """Return the answers, in the order of the requests, with their records."""
        return [Generation(text, self.records[index]) for index, text in enumerate(texts)]


class GeneratingLM(Head1LM):
    """Generates with heads 1..k; an ordinary model exactly as `--model hf` does."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._records: list[DecodeRecord] = []
        self._spent = Spent()

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer generation requests; every answer is a `Generation` with its decode record."""
        return self._answer(requests, lambda own: self._generate(own, disable_tqdm))

    def _generate(self, requests: list[Instance], disable_tqdm: bool) -> list[Generation]:
        began = time.perf_counter()
        generator = self._generator
        if generator is None:
            answers = self._generate_ordinary(requests, disable_tqdm)
            counts = sum(answer.record.n_kept + 1 for answer in answers), 0
        else:
            answers = generator.answer(requests, disable_tqdm)
            counts = generator.n_tokens, generator.n_from_journal
        spent = Spent(time.perf_counter() - began, *counts)
        gathered = self.gather_object(([answer.record for answer in answers], spent)) or []
        for records, _ in gathered:
            self._records.extend(records)
        self._spent = self._spent.and_then([one for _, one in gathered])
        return answers

    def _generate_ordinary(self, requests: list[Instance], disable_tqdm: bool) -> list[Generation]:
        """Let `HFLM` generate, exactly as `--model hf` does, and record what it decoded."""
        with OrdinaryRecorder(self, end_ids(self.model, self.tokenizer)) as recorder:
            numbered = recorder.numbered(requests)
            with using("a generation argument", ValueError, TypeError):
                texts = super().generate_until(numbered, disable_tqdm)
        return recorder.with_records(texts)

    def decoder(self) -> Generator:
        """Return the generator that decodes with any number of heads.

        Raises:
            UserError: the model is an ordinary one, which `HFLM` decodes.
        """
        if self._generator is None:
            raise UserError(
                f"{self.pretrained} is an ordinary causal language model, which transformers "
                "decodes; tasks that decode with several heads need a checkpoint that this package "
                "loads with its heads: name another one (`mtp-harness inspect` says what it is)."
            )
        return self._generator

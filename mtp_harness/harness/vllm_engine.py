"""lm_eval's `VLLM` with an engine for any number of heads, one at a time.

The number of drafts is fixed when vLLM starts: another k is another engine, and the one before it
ends first, since a GPU holds one.
"""

from __future__ import annotations

import atexit
import gc
import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from lm_eval.models.utils import maybe_truncate
from lm_eval.models.vllm_causallms import VLLM
from vllm import LLM, SamplingParams, TokensPrompt, exceptions
from vllm import __version__ as VLLM_VERSION

from mtp_harness.decode.engine import Answer, Request
from mtp_harness.decode.records import DecodeRecord
from mtp_harness.decode.vllm_counts import Heard, Setting, record_of
from mtp_harness.errors import UserError, user_errors
from mtp_harness.harness.generation_args import room_for_prompt
from mtp_harness.harness.vllm_args import Speculation
from mtp_harness.harness.vllm_listener import Listener, heard_of
from mtp_harness.harness.vllm_start import starting

METRICS = "per_request_spec_decode_metrics"
METRICS_SINCE = "0.32"

REFUSED: type[Exception] = getattr(exceptions, "VLLMClientError", ValueError)
"""What vLLM raises for a request that it does not answer; earlier versions have a ValueError."""


class Asked(NamedTuple):
    """One answer that is asked for."""

    prompt: list[int]
    n_truncated: int
    until: list[str]
    params: Any  # vLLM's `SamplingParams`
    key: str = ""  # in the journal

    @property
    def greedy(self) -> bool:
        """Whether nothing is sampled."""
        return bool(self.params.temperature == 0)


class EngineLM(VLLM):  # type: ignore[misc]
    """vLLM in the harness, decoding with heads 1..k for any k."""

    pretrained: str
    how: Speculation
    """As the run asks for it."""
    now: Speculation
    """Of the engine that runs."""
    _counts: bool
    """Whether vLLM tells how it decoded each answer."""

    def how_with(self, k: int) -> Speculation:
        """Return how to draft with heads 1..k."""
        raise NotImplementedError

    def speculating(self) -> dict[str, Any]:
        """Return vLLM's arguments for how it drafts `now`."""
        if not self.now.config:
            return {}
        told = {METRICS: "detailed"} if self._counts else {}
        return {"speculative_config": dict(self.now.config), **told}  # vLLM writes into it

    def with_heads(self, k: int) -> None:
        """Have an engine with heads 1..k."""
        if k == self.k:
            return
        self.close()
        self.now = self.how_with(k)
        own = ("speculative_config", METRICS)
        kept = {name: value for name, value in self.model_args.items() if name not in own}
        with starting(self.pretrained, VLLM_VERSION):
            self.model = LLM(**kept, **self.speculating())

    def close_at_exit(self) -> None:
        """Have the engine end with the program.

        Otherwise Python ends the processes of tensor parallelism before vLLM does, which reports
        that they died.
        """
        atexit.register(_close, weakref.ref(self))

    def close(self) -> None:
        """End the engine, and the processes that it started."""
        self.model.llm_engine.engine_core.shutdown()
        del self.model
        gc.collect()
        torch.cuda.empty_cache()  # of an engine in this process; nothing where there is no GPU

    @property
    def k(self) -> int:
        """Of the engine that runs."""
        return self.now.draft_heads

    @property
    def most_heads(self) -> int:
        """The largest k that probes decode with."""
        return self.how.draft_heads

    @property
    def n_rows(self) -> int:
        """The most rows that the engine decodes together."""
        config = self.model.llm_engine.vllm_config
        return int(config.scheduler_config.max_num_seqs)

    def require_counts(self) -> None:
        """Raise a `UserError` where answers have no records."""
        if not self._counts:
            raise UserError(
                f"this vLLM tells no acceptance, expected {METRICS_SINCE}, one engine, and a "
                "method with a fixed number of drafts: use those, or --model mtp."
            )

    # Tokens -------------------------------------------------------------------------------------

    def tok_decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids."""
        return str(self.tokenizer.decode(tokens))

    def prompt(self, context: str | list[int], budget: int, where: str) -> tuple[list[int], int]:
        """Return token ids that leave room for an answer, and how many were cut off.

        Raises:
            UserError: there is no prompt, or no room for it.
        """
        if not context:
            raise UserError(f"{where}: the prompt is empty, expected at least one character.")
        with user_errors(ValueError):
            room_for_prompt(budget, self.max_length, where)
        whole = self.tok_encode(context) if isinstance(context, str) else context
        side = self.truncation_side
        kept, _ = maybe_truncate(whole, budget, self.max_length, side=side, verbose=False)
        return kept, len(whole) - len(kept)

    # Decoding -----------------------------------------------------------------------------------

    def generate(self, some: Sequence[Asked], keep: Any, quiet: bool = False) -> None:
        """Have vLLM answer; `keep` as for `Listener`, at once where the engine is in reach."""
        prompts, params = [one.prompt for one in some], [one.params for one in some]
        with user_errors(REFUSED), ExitStack() as stack:
            if self._counts:
                stack.enter_context(Listener(self.model.llm_engine, keep))
            if quiet:
                fed = [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
                own = {"use_tqdm": False, "lora_request": self.lora_request}
                outputs = self.model.generate(fed, params, **own)
            else:
                outputs = self._model_generate(prompts, generate=True, sampling_params=params)
        if not self._counts:
            for index, output in enumerate(outputs):
                keep(index, output, heard_of(output, [], 0.0))

    def record(self, one: Asked, heard: Heard, n_asked: int) -> DecodeRecord:
        """Return how one of `n_asked` answers was decoded."""
        setting = Setting(self.k, self.max_length, min(n_asked, self.n_rows))
        with user_errors(ValueError):
            return record_of(heard, setting, one.greedy, one.n_truncated)

    def decode(self, requests: Sequence[Request]) -> list[Answer]:
        """Decode requests of our own engine greedily, `batch_size` at once, from an empty cache.

        Raises:
            UserError: answers have no records here.
        """
        self.require_counts()
        self.model.reset_prefix_cache()
        asked = [Asked(r.prompt, r.n_truncated, [*r.until], _greedy(r)) for r in requests]
        size = len(asked) or 1 if self.batch_size == "auto" else int(self.batch_size)
        found: dict[int, Answer] = {}
        for start in range(0, len(asked), size):
            some = asked[start : start + size]

            def keep(index: int, _: Any, heard: Heard, at: int = start, n: int = len(some)) -> None:
                record = self.record(asked[at + index], heard, n)
                found[at + index] = Answer([*heard.tokens], replace(record, tokens=None))

            self.generate(some, keep, quiet=True)
        return [found[index] for index in range(len(asked))]

    def timed(
        self, prompts: Sequence[list[int]], new_tokens: int
    ) -> tuple[float, list[int] | None]:
        """Return seconds until all prompts have exactly so many new tokens, and steps of each row.

        They are decoded together, from an empty cache, with EOS off. Where vLLM does not tell how
        it decoded, there are no steps.
        """
        params = SamplingParams(
            temperature=0.0, max_tokens=new_tokens, ignore_eos=True, detokenize=False
        )
        asked = [Asked(prompt, 0, [], params) for prompt in prompts]
        steps: dict[int, int] = {}

        def keep(index: int, _: Any, heard: Heard) -> None:
            if self._counts:
                steps[index] = self.record(asked[index], heard, len(asked)).n_steps

        self.model.reset_prefix_cache()
        began = time.perf_counter()
        self.generate(asked, keep, quiet=True)
        seconds = time.perf_counter() - began
        return seconds, [steps[index] for index in range(len(asked))] if self._counts else None


def _close(model: weakref.ref[EngineLM]) -> None:
    there = model()
    if there is not None and hasattr(there, "model"):  # data parallelism has no engine here
        there.close()


def _greedy(request: Request) -> Any:
    return SamplingParams(
        temperature=0.0,
        max_tokens=request.max_new_tokens,
        stop=[*request.until],
        skip_special_tokens=False,
    )

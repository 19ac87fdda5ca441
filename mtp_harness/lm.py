"""`lm_eval --model mtp`: a checkpoint with all its heads, as a model of the harness.

`MTPLM` is `HFLM` with two things changed: how a checkpoint is loaded, and how it generates. All
log-likelihood tasks, batching of them, chat templates and devices are inherited; they read head 1.

    pretrained=PATH | NAME        Meta's layout, this package's, or any causal LM (n = 1)
    draft_heads=k                 self-speculative decoding with heads 1..k (default n; 1 is NTP)
    loader=module:function        your own `MultiHeadModel`; with tokenizer=...
"""

# First, or registering hides the harness's built-in models: `get_model` fills its registry only
# while that is empty.
import lm_eval.models  # noqa: F401  # isort: skip

import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM, get_dtype
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from mtp_harness import provenance
from mtp_harness.decode.engine import DRAFT_RULE, Answer, Engine, Request
from mtp_harness.decode.records import DecodeRecord, Generation
from mtp_harness.decode.stopping import continuation_text
from mtp_harness.model_args import refuse_odd_values, refuse_unknown
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.load import (
    DEFAULT_MODEL,
    SHIPPED_MODELS,
    Layout,
    detect,
    is_local,
    load_model,
    load_tokenizer,
    resolve,
    settle_threads,
)
from mtp_harness.models.user_loader import load_with
from mtp_harness.ordinary import ORDINARY_RULE, OrdinaryRecorder
from mtp_harness.plugin import UserError
from mtp_harness.totals import totals

_log = logging.getLogger(__name__)

AUTO_BATCH_SIZE = 16
"""Rows decoded together for `batch_size=auto`."""

_SAMPLING_ARGUMENTS = {"temperature", "top_p", "top_k", "min_p", "typical_p"}
"""Without effect on greedy decoding; stock tasks set them all the same."""


@register_model("mtp")
class MTPLM(HFLM):  # type: ignore[misc]
    """A multi-token-prediction model in the harness; see the module docstring."""

    def __init__(
        self,
        pretrained: str | None = None,
        draft_heads: int | None = None,
        loader: str | None = None,
        device: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Load the model.

        Args:
            pretrained: a folder, a shipped model's name, or a name on the hub; None means the first
                shipped model, or whatever the loader makes of None.
            draft_heads: k, 1..n; None means n.
            loader: `module:function`, called with `pretrained`; returns a `MultiHeadModel`.
            device: as for `HFLM`; None means the GPU where there is one.
            **kwargs: `HFLM`'s own arguments.

        Raises:
            ValueError: an argument or the checkpoint is not what it should be.
            FileNotFoundError: the checkpoint is incomplete.
        """
        self._loader = loader
        given = None if pretrained == loader else pretrained  # see `create_from_arg_obj`
        pretrained = given or loader or DEFAULT_MODEL
        self._name = pretrained  # `HFLM` takes the folder for it and sets `pretrained` to that
        self._layout = None if loader else detect(pretrained)
        if self._layout is not Layout.TRANSFORMERS:  # theirs go on to from_pretrained, as with hf
            refuse_unknown(kwargs, HFLM.__init__, MTPLM.__init__)
        refuse_odd_values(draft_heads, kwargs.get("batch_size"), kwargs.get("dtype"))
        self._user_model = load_with(loader, given) if loader else None
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._layout is not Layout.TRANSFORMERS:
            kwargs.setdefault("backend", "causal")  # no table of transformers lists our type
        super().__init__(pretrained=resolve(pretrained), device=device, **kwargs)
        self.pretrained = self._name
        self._set_ranks()
        self._records: list[DecodeRecord] = []
        self._generate_s = 0.0
        self._said_head_1 = False
        self.draft_heads, self._engine = 1, None
        if isinstance(self.model, MultiHeadModel):
            self.draft_heads = self.model.n_future_tokens if draft_heads is None else draft_heads
            self._engine = Engine(self.model, self.draft_heads, self._eos_ids(), self.tok_decode)
        elif draft_heads not in (None, 1):
            raise ValueError(
                f"draft_heads={draft_heads}, but {pretrained} is an ordinary causal language model "
                "with 1 head; leave draft_heads out."
            )

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "MTPLM":
        """Build the model for the command line: errors are one sentence, not a traceback.

        `pretrained` is filled in here, so that the results folder carries the model's name (the
        loader's, where a loader was given no `pretrained`).
        """
        arg_dict.setdefault("pretrained", arg_dict.get("loader") or DEFAULT_MODEL)
        try:
            model: MTPLM = super().create_from_arg_obj(arg_dict, additional_config)
            return model
        except (ValueError, OSError) as error:  # OSError: transformers found no such model
            raise UserError(" ".join(str(error).split())) from error

    def _set_ranks(self) -> None:
        """Share the work between processes on the CPU too; `HFLM` does so on GPUs only."""
        accelerator = getattr(self, "accelerator", None)
        if accelerator is not None:
            self._rank = accelerator.process_index
            self._world_size = accelerator.num_processes

    def _eos_ids(self) -> list[int]:
        declared = getattr(getattr(self.model, "config", None), "eos_token_id", None)
        ids = declared if isinstance(declared, list) else [declared]
        return sorted({i for i in (*ids, self.tokenizer.eos_token_id) if i is not None})

    # Loading ------------------------------------------------------------------------------------

    def _get_config(self, pretrained: str, **kwargs: Any) -> None:
        if self._user_model is None and self._layout is Layout.TRANSFORMERS:
            super()._get_config(pretrained, **kwargs)
            return
        if self._user_model is None:
            self._user_model = load_model(pretrained, None)
        self._config = getattr(self._user_model, "config", None)

    def _create_tokenizer(self, pretrained: Any, tokenizer: Any, **kwargs: Any) -> None:
        if self._user_model is None:
            super()._create_tokenizer(pretrained, tokenizer, **kwargs)
        elif tokenizer is None and self._loader:
            raise ValueError(
                f"loader={self._loader} gives no tokenizer, expected tokenizer=NAME or FOLDER in "
                "the model arguments: add it."
            )
        elif tokenizer is None or isinstance(tokenizer, str):
            self.tokenizer = load_tokenizer(tokenizer or pretrained)
        else:
            self.tokenizer = tokenizer

    def _create_model(self, pretrained: str, dtype: Any = "auto", **kwargs: Any) -> None:
        model = self._user_model
        if model is None:
            super()._create_model(pretrained, dtype=dtype, **kwargs)
            return
        for option in ("parallelize", "tp_plan", "peft", "delta", "autogptq", "gptqmodel"):
            if kwargs.get(option):
                raise ValueError(
                    f"{option}={kwargs[option]} does not work with a checkpoint that has heads; "
                    "leave it out."
                )
        if attention := kwargs.get("attn_implementation"):
            if not isinstance(model, PreTrainedModel):
                raise ValueError(
                    f"attn_implementation={attention} needs a transformers model; leave it out."
                )
            model.set_attn_implementation(attention)
        wanted = get_dtype(dtype)
        if wanted == "auto":
            # Half precision is a storage format for the CPU, slow there and less exact, and for the
            # shipped models everywhere: their text should be the same on every machine.
            exact = self.device.type == "cpu" or self._name in SHIPPED_MODELS
            wanted = torch.float32 if exact else model.dtype
        self._model = model.to(device=self.device, dtype=wanted)
        settle_threads(model)

    @property
    def max_length(self) -> int:
        """The context length in tokens."""
        if isinstance(self.model, MultiHeadModel):
            return int(self._max_length or self.model.max_positions)
        return int(super().max_length)

    # Log-likelihoods: head 1 --------------------------------------------------------------------

    def _model_call(self, inps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not isinstance(self.model, MultiHeadModel):
            logits: Tensor = super()._model_call(inps, *args, **kwargs)
            return logits
        with torch.no_grad(), self._autocast():
            return self.model.next_token_logits(inps)  # [B, T, V]

    def _autocast(self) -> torch.autocast:
        enabled = self.mixed_precision_dtype is not None
        return torch.autocast(self.device.type, dtype=self.mixed_precision_dtype, enabled=enabled)

    def _loglikelihood_tokens(self, *args: Any, **kwargs: Any) -> Any:
        if self._engine is not None and self.draft_heads > 1 and not self._said_head_1:
            _log.warning("log-likelihoods are head 1's; draft_heads=%d is unused", self.draft_heads)
            self._said_head_1 = True
        return super()._loglikelihood_tokens(*args, **kwargs)

    # Generation ---------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer generation requests; every answer is a `Generation` with its decode record."""
        own, first = _without_padding(requests)
        began = time.perf_counter()
        if self._engine is None:
            answers = self._generate_ordinary(own, disable_tqdm)
        else:
            answers = self._generate(own, self._engine, disable_tqdm)
        seconds = time.perf_counter() - began
        gathered = self.gather_object(([answer.record for answer in answers], seconds))
        for records, _ in gathered or []:
            self._records.extend(records)
        # Ranks work side by side: the slowest one's time is the run's.
        self._generate_s += max((one for _, one in gathered or []), default=0.0)
        return [answers[index] for index in first]

    def _generate(
        self, requests: list[Instance], engine: Engine, disable_tqdm: bool
    ) -> list[Generation]:
        prepared = [self._prepare(*instance.args) for instance in requests]
        order = sorted(range(len(prepared)), key=lambda i: -len(prepared[i].prompt))
        size = AUTO_BATCH_SIZE if self.batch_size == "auto" else int(self.batch_size)
        answers: dict[int, Generation] = {}
        n_kept, n_steps = 0, 0
        hidden = disable_tqdm or self.rank != 0
        with tqdm(total=len(order), disable=hidden, desc="Running generate_until requests") as bar:
            for start in range(0, len(order), size):
                chosen = order[start : start + size]
                with self._autocast():
                    decoded = engine.generate([prepared[i] for i in chosen])
                for index, answer in zip(chosen, decoded, strict=True):
                    context, kwargs = requests[index].args
                    answers[index] = self._finish(answer, prepared[index])
                    n_kept, n_steps = n_kept + answer.record.n_kept, n_steps + answer.record.n_steps
                    # A plain string: an answer read from a cache must not claim to be timed.
                    text = str.__str__(answers[index])
                    self.cache_hook.add_partial("generate_until", (context, kwargs), text)
                if n_steps:
                    bar.set_postfix_str(f"{n_kept / n_steps:.2f} tokens/forward")
                bar.update(len(chosen))
        return [answers[index] for index in range(len(requests))]

    def _prepare(self, context: str, gen_kwargs: dict[str, Any]) -> Request:
        """Turn the harness's request into the engine's, truncating on the left as `HFLM` does."""
        kwargs = normalize_gen_kwargs(gen_kwargs, self.max_gen_toks)
        until = handle_stop_sequences(kwargs.pop("until", None), eos=None)
        budget = kwargs.pop("max_gen_toks")
        if kwargs.pop("do_sample", False):
            raise UserError(
                f"do_sample=True (temperature {kwargs.get('temperature')}) was asked for, but "
                "decoding with heads is greedy so far: use do_sample=False, or sample with "
                "--model hf."
            )
        if unknown := sorted(set(kwargs) - _SAMPLING_ARGUMENTS):
            raise UserError(
                f"generation arguments {', '.join(unknown)} are not understood; expected until, "
                "max_gen_toks, do_sample, temperature."
            )
        if budget < 1:
            raise UserError(f"max_gen_toks={budget}, expected at least 1.")
        room = self.max_length - budget
        if room <= 0:
            raise UserError(
                f"max_gen_toks={budget} leaves no room for a prompt in a context of "
                f"{self.max_length} tokens; lower it or raise max_length."
            )
        tokens, _ = self.tok_batch_encode([context], truncation=self.truncation)
        prompt: list[int] = tokens[0].tolist() or [self.prefix_token_id]
        return Request(prompt[-room:], budget, tuple(until), max(0, len(prompt) - room))

    def _finish(self, answer: Answer, request: Request) -> Generation:
        text = continuation_text(self.tok_decode, request.prompt[-1], answer.tokens)
        text = postprocess_generated_text(text, list(request.until), self.think_end_token)
        return Generation(text, answer.record)

    def _generate_ordinary(self, requests: list[Instance], disable_tqdm: bool) -> list[Generation]:
        """Let `HFLM` generate, exactly as `--model hf` does, and record what it decoded."""
        eos = self._eos_ids()
        with OrdinaryRecorder(self, eos, self.max_gen_toks) as recorder:
            texts = super().generate_until(recorder.numbered(requests), disable_tqdm)
        return recorder.with_records(texts)

    # Results ------------------------------------------------------------------------------------

    def get_model_info(self) -> dict[str, Any]:
        """Return what goes into the results' `config`; `mtp` holds settings, totals, provenance."""
        if is_local(self.pretrained) or self._loader:
            info: dict[str, Any] = {
                "model_num_parameters": sum(p.numel() for p in self.model.parameters()),
                "model_dtype": self.model.dtype,
                "model_revision": self.revision,
                "model_sha": provenance.weights_sha256(Path(resolve(self.pretrained))) or "",
            }
        else:
            info = super().get_model_info()
        mtp = {
            **self._settings(),
            "totals": totals(self._records, self._generate_s),
            **provenance.environment(self.device),
        }
        return {**info, "mtp": mtp}

    def _settings(self) -> dict[str, Any]:
        heads = isinstance(self.model, MultiHeadModel)
        return {
            "pretrained": self.pretrained,
            "layout": self._layout or "loader",
            "loader": self._loader,
            "n_future_tokens": self.model.n_future_tokens if heads else 1,
            "heads": ("sequential" if self.model.sequential else "parallel") if heads else "none",
            "draft_heads": self.draft_heads,
            "draft_rule": DRAFT_RULE if heads else ORDINARY_RULE,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.device),
            "max_length": self.max_length,
            "batch_size": self.batch_size,
            "world_size": self.world_size,
        }


def _without_padding(requests: list[Instance]) -> tuple[list[Instance], list[int]]:
    """Drop the repetitions by which the evaluator pads short ranks.

    Returns:
        The requests to answer, each at most `repeats` times, and for every request of the input
        the index of its answer.
    """
    own: list[Instance] = []
    places: dict[int, list[int]] = {}
    index: list[int] = []
    seen: Counter[int] = Counter()
    for request in requests:
        key, repeats = id(request), request.repeats or len(requests)  # None: not from a task
        if seen[key] < repeats:
            places.setdefault(key, []).append(len(own))
            own.append(request)
        index.append(places[key][seen[key] % repeats])
        seen[key] += 1
    return own, index

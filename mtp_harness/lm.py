"""`lm_eval --model mtp`: a checkpoint with all its heads, as a model of the harness.

`MTPLM` is `HFLM` with two things changed: how a checkpoint is loaded, and how it generates. All
log-likelihood tasks, batching of them, chat templates and devices are inherited; they read head 1.

    pretrained=PATH | NAME        Meta's layout, this package's, or any causal LM (n = 1)
    draft_heads=k | auto          self-speculative decoding with heads 1..k (default n; 1 is NTP)
    draft_threshold=p             stop drafting at the first head less sure than this; lossless
    acceptance=exact | all        all: drafts are accepted unverified, which is lossy
    seed=s                        of sampling; default: the run's --seed
    journal=FILE                  finished answers, so that a killed run goes on where it stood
    loader=module:function        your own `MultiHeadModel`; with tokenizer=...
    label=NAME                    what tables and figures call this checkpoint; with train_tokens=,
                                  train_step= and train_seed= they put it on an axis

Probes (`mtp_harness.probes`) send requests of types of their own; each has a method here.
"""

# First, or registering hides the harness's built-in models: `get_model` fills its registry only
# while that is empty.
import lm_eval.models  # noqa: F401  # isort: skip

import atexit
import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM, get_dtype
from torch import Tensor
from transformers import PreTrainedModel

from mtp_harness.decode.records import DecodeRecord, Generation
from mtp_harness.errors import UserError, sentence
from mtp_harness.files import user_path
from mtp_harness.harness import response_cache
from mtp_harness.harness.generation import Decoding, Generator, user_errors
from mtp_harness.harness.model_args import (
    plain_dtypes,
    plain_paths,
    read_arguments,
    refuse_heads,
    refuse_odd_values,
    refuse_unknown,
    refuse_without_effect,
)
from mtp_harness.harness.ordinary import ORDINARY_RULE, OrdinaryRecorder
from mtp_harness.harness.totals import Spent, totals
from mtp_harness.models import provenance
from mtp_harness.models.checkpoints.ordinary_folder import asking_transformers, check_ordinary
from mtp_harness.models.checkpoints.tokenizer_folder import check_vocabulary
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.load import (
    DEFAULT_MODEL,
    SHIPPED_MODELS,
    detect,
    is_local,
    open_model,
    resolve,
)
from mtp_harness.models.spread import gpus, require_spreadable, spread
from mtp_harness.probes import head_logprobs, induction, speculative, speed

_log = logging.getLogger(__name__)

SCHEMA = 1
"""Of `config.mtp` in the results; goes up where readers of an older one would go wrong."""

ProbeAnswer = Callable[["MTPLM", list[Instance], bool], list[Any]]
"""Takes the model, the requests of this rank, and whether to show no bar; one answer each."""


class ProbeSpent(NamedTuple):
    """What one rank did in one call of a probe's requests."""

    n_requests: int
    wall_s: float


@register_model("mtp")
class MTPLM(HFLM):  # type: ignore[misc]
    """A multi-token-prediction model in the harness; see the module docstring."""

    def __init__(
        self,
        pretrained: str | None = None,
        draft_heads: int | str | None = None,
        draft_threshold: float = 0.0,
        acceptance: str = "exact",
        seed: int | None = None,
        journal: str | None = None,
        loader: str | None = None,
        device: str | None = None,
        label: str | None = None,
        train_tokens: int | None = None,
        train_step: int | None = None,
        train_seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Load the model.

        Args:
            pretrained: a folder, a shipped model's name, or a name on the hub; None means the first
                shipped model, or whatever the loader makes of None.
            draft_heads: k, 1..n; None means n, `auto` the fastest, measured on the first requests.
            draft_threshold: see `decode.acceptance.Rule`.
            acceptance: `exact`, or `all` to accept drafts unverified.
            seed: of the sampling noise; None means torch's, which the harness sets from `--seed`.
            journal: file that finished answers are kept in.
            loader: `module:function`, called with `pretrained`; returns a `MultiHeadModel`.
            device: as for `HFLM`; None means the GPU where there is one.
            label: name of the checkpoint in tables and figures.
            train_tokens: tokens that it was trained on.
            train_step: steps that it was trained for.
            train_seed: seed that it was trained with.
            **kwargs: `HFLM`'s own arguments.

        Raises:
            ValueError: an argument or the checkpoint is not what it should be.
            FileNotFoundError: the checkpoint is incomplete.
        """
        given_here = {
            "pretrained": pretrained,
            "draft_heads": draft_heads,
            "draft_threshold": draft_threshold,
            "acceptance": acceptance,
            "seed": seed,
            "journal": journal,
            "loader": loader,
            "label": label,
            "train_tokens": train_tokens,
            "train_step": train_step,
            "train_seed": train_seed,
        }
        kwargs, own = read_arguments(kwargs), read_arguments(given_here)
        # First, because a checkpoint is looked for by its name before the rest is checked.
        refuse_odd_values(None, None, {name: own.get(name) for name in ("loader", "pretrained")})
        self._loader = loader = own.get("loader")
        given = own.get("pretrained")
        given = None if given == loader else given  # see `create_from_arg_obj`
        pretrained = given or loader or DEFAULT_MODEL
        self._name = pretrained  # `HFLM` takes the folder for it and sets `pretrained` to that
        self._layout = None if loader else detect(pretrained)
        self._ordinary = self._layout is not None and self._layout.ordinary
        if not self._ordinary:  # theirs go on to from_pretrained, as with hf
            refuse_unknown(kwargs, HFLM.__init__, MTPLM.__init__)
            refuse_without_effect(kwargs)
        refuse_odd_values(own.get("draft_heads"), device, {**kwargs, **own})
        if self._ordinary:
            refuse_heads(pretrained, own)
        self._checkpoint: dict[str, str | int | None] = {
            "label": None if label is None else str(label),
            **{name: own.get(name) for name in ("train_tokens", "train_step", "train_seed")},
        }
        kwargs = plain_paths(plain_dtypes(kwargs))
        if self._ordinary and is_local(pretrained) and not kwargs.get("subfolder"):
            check_ordinary(Path(resolve(pretrained)))
        self._arguments = kwargs
        self._resized = bool(kwargs.get("peft"))  # the harness fits the model to the tokenizer
        self._token_arguments = {
            name: kwargs.get(name) for name in ("prefix_token_id", "think_end_token")
        }
        self._user_model: MultiHeadModel | None = None
        if loader:
            self._open(given)
        if kwargs.get("parallelize") and not self._ordinary:
            require_spreadable(self._user_model, loader)
            device = "cuda:0"  # the first one has what is outside the blocks
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if not self._ordinary:
            kwargs.setdefault("backend", "causal")  # no table of transformers lists our type
        super().__init__(pretrained=resolve(pretrained), device=device, **kwargs)
        self.pretrained = self._name
        self._set_ranks()
        self._records: list[DecodeRecord] = []
        self._spent = Spent()
        self._asked: list[Instance] = []
        self._probed: dict[str, list[ProbeSpent]] = {}
        self._said_head_1 = self._said_bos = False
        self._generator: Generator | None = None
        how = Decoding(
            own.get("draft_heads"),
            float(own.get("draft_threshold", 0.0)),
            own.get("acceptance", "exact"),
            own.get("seed", torch.initial_seed()),
            user_path(own["journal"]) if "journal" in own else None,
        )
        if isinstance(self.model, MultiHeadModel):
            self._generator = Generator(self, self.model, self._eos_ids(), how)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "MTPLM":
        """Build the model for the command line: errors are one sentence, not a traceback.

        `pretrained` is filled in here, so that the results folder carries the model's name (the
        loader's, where a loader was given no `pretrained`).
        """
        arg_dict.setdefault("pretrained", arg_dict.get("loader") or DEFAULT_MODEL)
        if not arg_dict["pretrained"]:
            raise UserError(
                "pretrained= is empty, expected a folder, a name on the hub or a shipped model; "
                f"leave it out altogether for {DEFAULT_MODEL}."
            )
        try:
            model: MTPLM = super().create_from_arg_obj(arg_dict, additional_config)
            return model
        except (ValueError, OSError) as error:  # OSError: transformers found no such model
            raise UserError(sentence(error)) from error

    def _set_ranks(self) -> None:
        """Share the work between processes on the CPU too; `HFLM` does so on GPUs only."""
        accelerator = getattr(self, "accelerator", None)
        if accelerator is not None:
            self._rank = accelerator.process_index
            self._world_size = accelerator.num_processes
            if self._world_size > 1:
                # A process that ends with the group's threads running may be aborted.
                atexit.register(accelerator.end_training)

    def barrier(self) -> None:
        """Wait for all processes; the evaluator does so when it has given requests their answers.

        Answers to the requests that it pads short ranks with are dropped first: nothing after it
        tells them from a document's own.
        """
        for request in self._asked:
            del request.resps[request.repeats :]
        self._asked.clear()
        super().barrier()

    def _note(self, requests: list[Instance]) -> None:
        if self.world_size > 1:
            self._asked += [request for request in requests if request.repeats]

    def agree(self, mine: Any) -> Any:
        """Return rank 0's value in every process."""
        if self.world_size == 1:
            return mine
        box = [mine]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def _eos_ids(self) -> list[int]:
        declared = getattr(getattr(self.model, "config", None), "eos_token_id", None)
        ids = declared if isinstance(declared, list) else [declared]
        return sorted({i for i in (*ids, self.tokenizer.eos_token_id) if i is not None})

    # Loading ------------------------------------------------------------------------------------

    def _open(self, pretrained: str | None) -> None:
        tokenizer = self._arguments.get("tokenizer")
        self._user_model, self._user_tokenizer = open_model(
            pretrained, self._loader, tokenizer=tokenizer
        )

    def _get_config(self, pretrained: str, **kwargs: Any) -> None:
        if self._ordinary:
            with asking_transformers(pretrained):
                super()._get_config(pretrained, **kwargs)
            return
        if self._user_model is None:
            self._open(self._name)
        self._config = getattr(self._user_model, "config", None)

    def _create_tokenizer(self, pretrained: Any, tokenizer: Any, **kwargs: Any) -> None:
        if self._user_model is None:
            with asking_transformers(f"the tokenizer of {tokenizer or pretrained}"):
                super()._create_tokenizer(pretrained, tokenizer, **kwargs)
        else:
            self.tokenizer = self._user_tokenizer
        self._check_vocabulary()

    def _check_vocabulary(self) -> None:
        """Refuse token ids for which the model has no row; it would fail at the first of them."""
        config: Any = getattr(self._config, "get_text_config", lambda: self._config)()
        vocabulary = getattr(config, "vocab_size", None)
        if not isinstance(vocabulary, int) or self._resized:
            return
        ordinary = self._user_model is None
        check_vocabulary(self.tokenizer, vocabulary, self._name, padding=not ordinary)
        for name, token in self._token_arguments.items():
            if isinstance(token, int) and token >= vocabulary:
                raise ValueError(
                    f"{name}={str(token)[:20]}, but {self._name} has a vocabulary of {vocabulary}, "
                    f"expected an id below {vocabulary}: name another."
                )
        if (self.tokenizer.pad_token_id or 0) >= vocabulary:
            # Masked out wherever it stands, but looked up all the same.
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def _create_model(self, pretrained: str, dtype: Any = "auto", **kwargs: Any) -> None:
        model = self._user_model
        if model is None:
            with asking_transformers(pretrained):
                super()._create_model(pretrained, dtype=dtype, **kwargs)
            return
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
        typed: Any = model.to(dtype=wanted)
        parallel = kwargs.get("parallelize")
        self._model = spread(typed, gpus()) if parallel else typed.to(device=self.device)

    @property
    def max_length(self) -> int:
        """The context length in tokens."""
        if isinstance(self.model, MultiHeadModel):
            return int(self._max_length or self.model.max_positions)
        return int(super().max_length)

    # Log-likelihoods: head 1 --------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], *args: Any, **kwargs: Any) -> Any:
        """Answer log-likelihood requests, as `HFLM` does."""
        if self.enable_thinking:
            tasks = ", ".join(sorted({str(request.task_name) for request in requests}))
            raise UserError(
                f"enable_thinking=True does not work with log-likelihood tasks ({tasks}): leave "
                "it out, or name tasks that generate."
            )
        self._note(requests)
        return super().loglikelihood(requests, *args, **kwargs)

    def loglikelihood_rolling(self, requests: list[Instance], *args: Any, **kwargs: Any) -> Any:
        """Answer requests for the log-likelihood of whole documents, as `HFLM` does."""
        self._note(requests)
        if not self._said_bos and self.tok_encode("a")[:1] == [self.prefix_token_id]:
            _log.warning(
                "rolling log-likelihoods score one token more than each text has: the BOS that the "
                "tokenizer adds, after another BOS, as --model hf does; add_bos_token=False leaves "
                "it out"
            )
            self._said_bos = True
        return super().loglikelihood_rolling(requests, *args, **kwargs)

    def _model_call(self, inps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not isinstance(self.model, MultiHeadModel):
            logits: Tensor = super()._model_call(inps, *args, **kwargs)
            return logits
        with torch.no_grad():
            return self.model.next_token_logits(inps)  # [B, T, V]

    def _loglikelihood_tokens(self, *args: Any, **kwargs: Any) -> Any:
        if self._generator is not None and self._generator.k > 1 and not self._said_head_1:
            k = self._generator.k
            _log.warning("log-likelihoods are head 1's; draft_heads=%d is unused", k)
            self._said_head_1 = True
        return super()._loglikelihood_tokens(*args, **kwargs)

    # Generation ---------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer generation requests; every answer is a `Generation` with its decode record."""
        self._note(requests)
        own, first = _without_padding(requests)
        began = time.perf_counter()
        generator = self._generator
        if generator is None:
            answers = self._generate_ordinary(own, disable_tqdm)
            counts = sum(answer.record.n_kept + 1 for answer in answers), 0
        else:
            answers = generator.answer(own, disable_tqdm)
            counts = generator.n_tokens, generator.n_from_journal
        spent = Spent(time.perf_counter() - began, *counts)
        gathered = self.gather_object(([answer.record for answer in answers], spent)) or []
        for records, _ in gathered:
            self._records.extend(records)
        self._spent = self._spent.and_then([one for _, one in gathered])
        return [answers[index] for index in first]

    def _generate_ordinary(self, requests: list[Instance], disable_tqdm: bool) -> list[Generation]:
        """Let `HFLM` generate, exactly as `--model hf` does, and record what it decoded."""
        eos = self._eos_ids()
        with OrdinaryRecorder(self, eos, self.max_gen_toks) as recorder:
            with user_errors(ValueError):
                numbered = recorder.numbered(requests)
            with _using("a generation argument", ValueError, TypeError):
                texts = super().generate_until(numbered, disable_tqdm)
        return recorder.with_records(texts)

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Take the cache of `--use_cache`, if it holds this model's answers or none.

        Raises:
            UserError: it holds another model's.
        """
        cache = cache_hook.dbdict
        if cache is not None:
            mine = response_cache.identity(self.identity(), self._arguments, self._how(), self)
            with user_errors(ValueError):
                response_cache.claim(cache, cache.filename, mine)
        super().set_cache_hook(cache_hook)

    def _how(self) -> dict[str, Any]:
        """Return the arguments that an answer's text may depend on, in bfloat16 at least."""
        if self._generator is None:
            return {}
        how = self._generator.how
        return {
            "draft_heads": how.draft_heads or self._generator.k,
            "draft_threshold": how.draft_threshold,
            "acceptance": how.acceptance,
            "seed": how.seed,
        }

    # Chat templates -----------------------------------------------------------------------------

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the tokenizer's chat template; see `HFLM`."""
        if chat_template:
            self._require_chat_template()
        with _using("the chat template", ValueError):
            template: str | None = super().chat_template(chat_template)
        return template

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as the model reads it; see `HFLM`."""
        self._require_chat_template()
        with _using("the chat template", ValueError, TypeError, TemplateError):
            text: str = super().apply_chat_template(chat_history, add_generation_prompt)
        return text

    def _require_chat_template(self) -> None:
        if not self.tokenizer.chat_template:
            raise UserError(
                f"--apply_chat_template: the tokenizer of {self._name} has no chat template, "
                "expected one in its folder (chat_template.jinja): leave the flag out, or add the "
                "file."
            )

    # Probes -------------------------------------------------------------------------------------

    def head_logprobs(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Answer with what a request measures of all heads' reading of its text."""
        return self._probe("head_logprobs", head_logprobs.answer, requests, disable_tqdm)

    def speculative(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Answer with how prompts are decoded with heads 1..k, for every k."""
        return self._probe("speculative", speculative.answer, requests, disable_tqdm)

    def speed(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Answer with what decoding takes, by batch size, prompt length and k."""
        return self._probe("speed", speed.answer, requests, disable_tqdm)

    def induction(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Answer with how many names are known that were read before."""
        return self._probe("induction", induction.answer, requests, disable_tqdm)

    def decoder(self) -> Generator:
        """Return what decodes with any number of heads.

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

    def _probe(
        self, name: str, answer: ProbeAnswer, requests: list[Instance], disable_tqdm: bool
    ) -> list[Any]:
        self._note(requests)
        own, first = _without_padding(requests)
        began = time.perf_counter()
        answers = answer(self, own, disable_tqdm or self.rank != 0)
        spent = ProbeSpent(len(own), time.perf_counter() - began)
        self._probed.setdefault(name, []).extend(self.gather_object(spent) or [])
        return [answers[index] for index in first]

    # Results ------------------------------------------------------------------------------------

    def get_model_info(self) -> dict[str, Any]:
        """Return what goes into the results' `config`; `mtp` holds settings, totals, provenance."""
        identity = self.identity()
        if is_local(self.pretrained) or self._loader:
            info: dict[str, Any] = {
                "model_num_parameters": sum(p.numel() for p in self.model.parameters()),
                "model_dtype": self.model.dtype,
                "model_revision": self.revision,
                "model_sha": identity["weights_sha256"] or "",
            }
        else:
            info = super().get_model_info()
        mtp = {
            "schema": SCHEMA,
            **self._checkpoint,
            **identity,
            **self._decoding(),
            "vocab_size": self.vocab_size,
            "device": str(self.device),
            "devices": sorted({str(p.device) for p in self.model.parameters()}),
            "batch_size": self.batch_size,
            "world_size": self.world_size,
            "totals": totals(self._records, self._spent),
            "probes": {
                name: [one._asdict() for one in ranks] for name, ranks in self._probed.items()
            },
            **provenance.environment(self.device),
        }
        return {**info, "mtp": mtp}

    @property
    def checkpoint_folder(self) -> Path:
        """Where the checkpoint is, if it is a folder here."""
        return Path(resolve(self.pretrained))

    def identity(self) -> dict[str, Any]:
        """Return what a log-likelihood or an answer depends on, decoding aside."""
        heads = isinstance(self.model, MultiHeadModel)
        local = is_local(self.pretrained) or self._loader
        return {
            "pretrained": self.pretrained,
            "layout": self._layout.name if self._layout else "loader",
            "loader": self._loader,
            "weights_sha256": provenance.weights_sha256(self.checkpoint_folder) if local else None,
            "n_future_tokens": self.model.n_future_tokens if heads else 1,
            "heads": ("sequential" if self.model.sequential else "parallel") if heads else "none",
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "max_length": self.max_length,
        }

    def _decoding(self) -> dict[str, Any]:
        if self._generator is None:
            return {"draft_heads": 1, "draft_rule": ORDINARY_RULE}
        rules = sorted({record.draft_rule for record in self._records})
        return {**self._generator.settings(), "draft_rule": "; ".join(rules) or None}


def _using(what: str, *kinds: type[Exception]) -> AbstractContextManager[None]:
    """Put into a sentence that transformers cannot use something of the user's."""
    suffix = "): correct it, or leave it out."
    return user_errors(*kinds, prefix=f"transformers cannot use {what} (", suffix=suffix)


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

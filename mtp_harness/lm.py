"""`lm_eval --model mtp`: a checkpoint with all its heads, as a model of the harness.

`MTPLM` changes two things in `HFLM`: how a checkpoint is loaded, and how it generates.
Log-likelihood tasks, batching, chat templates and devices are inherited; log-likelihoods use head
1.

    pretrained=PATH | NAME        Meta's layout, this package's, or any causal LM (n = 1)
    drafter=PATH | NAME           heads trained apart, used instead of the checkpoint's own
    draft_heads=k | auto          self-speculative decoding with heads 1..k (default n; 1 is NTP);
                                  a single module drafts repeatedly: n = max(k, 4), k up to 8
    draft_threshold=p             stop drafting at the first head less sure than this; lossless
    acceptance=exact | all        all: drafts are accepted unverified, which is lossy
    seed=s                        of sampling; default: the run's --seed
    journal=FILE                  finished answers, so that a killed run can be resumed
    loader=module:function        your own `MultiHeadModel`; with tokenizer=...
    label=NAME                    what tables and figures call this checkpoint; with train_tokens=,
                                  train_step= and train_seed= they put it on an axis
    …                             and those of `HFLM`

Probes (`mtp_harness.probes`) send other types of requests; each type has a method here.
"""

# First, or registering hides the harness's built-in models: `get_model` fills its registry only
# while that is empty.
import lm_eval.models  # noqa: F401  # isort: skip

from pathlib import Path
from typing import Any

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM, get_dtype
from transformers import PreTrainedModel

from mtp_harness.errors import UserError, user_errors
from mtp_harness.files import user_path
from mtp_harness.harness.generation import Decoding, Generator
from mtp_harness.harness.identity import IdentifiedLM
from mtp_harness.harness.model_args import (
    OWN,
    plain,
    read_arguments,
    refuse_heads,
    refuse_odd_values,
    refuse_unknown,
    refuse_without_effect,
)
from mtp_harness.harness.ranks import answered_by
from mtp_harness.models.checkpoints.ordinary_folder import asking_transformers, check_ordinary
from mtp_harness.models.checkpoints.tokenizer_folder import check_vocabulary
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.kept import open_kept
from mtp_harness.models.load import (
    DEFAULT_MODEL,
    SHIPPED_MODELS,
    detect,
    is_local,
    located,
    resolve,
    within_memory,
)
from mtp_harness.models.spread import gpus, require_spreadable, spread
from mtp_harness.models.text import end_ids
from mtp_harness.probes import drafts, head_logprobs, induction, speculative, speed


@register_model("mtp")
class MTPLM(IdentifiedLM):
    """A multi-token-prediction model in the harness; see the module docstring."""

    def __init__(
        self, pretrained: str | None = None, device: str | None = None, **kwargs: Any
    ) -> None:
        """Load the model; the arguments are in the module docstring.

        Raises:
            ValueError: an argument or the checkpoint is wrong.
            FileNotFoundError: the checkpoint is incomplete.
        """
        kwargs = read_arguments({"pretrained": pretrained, **kwargs})
        own = {name: kwargs.pop(name) for name in OWN if name in kwargs}
        # First, because the checkpoint is searched by name before the rest is checked.
        places = ("loader", "pretrained", "drafter")
        refuse_odd_values(None, None, {name: own.get(name) for name in places})
        self._loader = loader = own.get("loader")
        self._drafter = drafter = own.get("drafter")
        given = own.get("pretrained")
        given = None if given == loader else given  # see `create_from_arg_obj`
        pretrained = given or loader or DEFAULT_MODEL
        self._name = pretrained  # `HFLM` gets the folder for it and sets `pretrained` to that
        revision = kwargs.get("revision")
        self._layout = None if loader else detect(pretrained, revision, drafter)
        self._ordinary = self._layout is not None and self._layout.ordinary
        self._refuse(own, kwargs, device)
        self._checkpoint: dict[str, str | int | None] = {
            "label": str(own["label"]) if "label" in own else None,
            **{name: own.get(name) for name in ("train_tokens", "train_step", "train_seed")},
        }
        kwargs = plain(kwargs)
        if self._ordinary and is_local(pretrained) and not kwargs.get("subfolder"):
            check_ordinary(Path(resolve(pretrained)))
        self._arguments = kwargs
        self._resized = bool(kwargs.get("peft"))  # the harness fits the model to the tokenizer
        self._token_arguments = {
            name: kwargs.get(name) for name in ("prefix_token_id", "think_end_token")
        }
        self._user_model: MultiHeadModel | None = None
        k = own.get("draft_heads")
        self._heads = k if isinstance(k, int) else None
        if loader:
            self._open(given)
        if kwargs.get("parallelize") and not self._ordinary:
            require_spreadable(self._layout, self._user_model, loader)
            device = "cuda:0"  # the first GPU has everything outside the blocks
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if not self._ordinary:
            kwargs.setdefault("backend", "causal")  # transformers does not list our model type
        self._place = pretrained if loader else located(pretrained, revision, drafter)
        super().__init__(pretrained=resolve(self._place), device=device, **kwargs)
        self.pretrained = self._name
        if isinstance(self.model, MultiHeadModel):
            ends = end_ids(self.model, self.tokenizer)
            self._generator = Generator(self, self.model, ends, _decoding(own))

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
        with user_errors(ValueError, OSError):  # OSError: transformers found no such model
            model: MTPLM = super().create_from_arg_obj(arg_dict, additional_config)
        return model

    # Loading ------------------------------------------------------------------------------------

    def _refuse(self, own: dict[str, Any], kwargs: dict[str, Any], device: str | None) -> None:
        """Refuse arguments that do not fit the checkpoint's layout, and unknown ones."""
        if not self._ordinary:  # an ordinary model's go to from_pretrained, as with hf
            refuse_unknown(kwargs, HFLM.__init__)
            refuse_without_effect(kwargs, local=self._layout is None or is_local(self._name))
        refuse_odd_values(own.get("draft_heads"), device, {**kwargs, **own})
        if self._ordinary:
            refuse_heads(self._name, {**kwargs, **own}, HFLM.__init__)

    def _open(self, pretrained: str | None) -> None:
        tokenizer = self._arguments.get("tokenizer")
        self._user_model, self._user_tokenizer = open_kept(
            pretrained,
            self._loader,
            tokenizer=tokenizer,
            heads=self._heads,
            drafter=self._drafter,
        )

    def _get_config(self, pretrained: str, **kwargs: Any) -> None:
        if self._ordinary:
            with asking_transformers(pretrained):
                super()._get_config(pretrained, **kwargs)
            return
        if self._user_model is None:
            self._open(self._place)
        self._config = getattr(self._user_model, "config", None)

    def _create_tokenizer(self, pretrained: Any, tokenizer: Any, **kwargs: Any) -> None:
        if self._user_model is None:
            with asking_transformers(f"the tokenizer of {tokenizer or pretrained}"):
                super()._create_tokenizer(pretrained, tokenizer, **kwargs)
        else:
            self.tokenizer = self._user_tokenizer
        self._check_vocabulary()

    def _check_vocabulary(self) -> None:
        """Refuse token ids beyond the model's vocabulary, which would fail at their first use."""
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
            # Masked wherever it stands, but its embedding is looked up all the same.
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def _create_model(self, pretrained: str, dtype: Any = "auto", **kwargs: Any) -> None:
        model = self._user_model
        if model is None:
            with asking_transformers(pretrained), within_memory(self._name, self.device):
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
            # On the CPU, half precision is slow and less exact: weights are only stored in it. The
            # shipped models always use float32: their text should be the same on every machine.
            exact = self.device.type == "cpu" or self._name in SHIPPED_MODELS
            wanted = torch.float32 if exact else model.dtype
        typed: Any = model.to(dtype=wanted)
        parallel = kwargs.get("parallelize")
        with within_memory(self._name, "the GPUs" if parallel else self.device):
            self._model = spread(typed, gpus()) if parallel else typed.to(device=self.device)

    @property
    def max_length(self) -> int:
        """The context length in tokens."""
        if isinstance(self.model, MultiHeadModel):
            return int(self._max_length or self.model.max_positions)
        return int(super().max_length)

    # Probes -------------------------------------------------------------------------------------

    head_logprobs = answered_by("head_logprobs", head_logprobs.answer)
    speculative = answered_by("speculative", speculative.answer)
    drafts = answered_by("drafts", drafts.answer)
    speed = answered_by("speed", speed.answer)
    induction = answered_by("induction", induction.answer)


def _decoding(own: dict[str, Any]) -> Decoding:
    return Decoding(
        own.get("draft_heads"),
        float(own.get("draft_threshold", 0.0)),
        own.get("acceptance", "exact"),
        own.get("seed", torch.initial_seed()),
        user_path(own["journal"]) if "journal" in own else None,
    )

"""`lm_eval --model mtp-vllm`: the same tasks and records, decoded by vLLM.

For models and machines that outgrow one process. `MTPVLLM` changes two things in lm_eval's `VLLM`:
speculation is set up from `draft_heads`, and every answer carries a `DecodeRecord` with the same
counts as `--model mtp` (`decode.vllm_counts`). Log-likelihoods are inherited.

    pretrained=PATH | NAME        any checkpoint that vLLM knows
    draft_heads=k                 k - 1 drafts in a step (default as `--model mtp`); 1 is NTP
    method=mtp | eagle | eagle3 | medusa | ngram
                                  default mtp, where the configuration has modules
    drafter=PATH | NAME           weights of eagle, eagle3 and medusa
    seed=s                        of sampling; default: the run's --seed
    journal=FILE                  finished answers, so that a killed run can be resumed
    label=, train_tokens=, …      as for `--model mtp`
    …                             and those of lm_eval's `vllm` (tensor_parallel_size, …)

`--batch_size auto` gives vLLM all requests at once, which is fastest; a number limits them. The
probes that decode have a method here, those that read logits have none.
"""

# First, or registering hides the harness's built-in models; see `mtp_harness.lm`.
import lm_eval.models  # noqa: F401  # isort: skip

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.utils import postprocess_generated_text

from mtp_harness.decode.journal import Journal, answer_key
from mtp_harness.decode.records import DecodeRecord, Generation
from mtp_harness.decode.sampling import row_key
from mtp_harness.decode.token_lengths import TokenLengths
from mtp_harness.decode.vllm_counts import Heard
from mtp_harness.errors import UserError, user_errors
from mtp_harness.files import user_path
from mtp_harness.harness.generation_args import checked_arguments, place_of
from mtp_harness.harness.identity import SCHEMA
from mtp_harness.harness.model_args import (
    OWN,
    read_arguments,
    refuse_misspelt,
    refuse_odd_values,
)
from mtp_harness.harness.progress import Spent, totals
from mtp_harness.harness.vllm_args import (
    VARYING,
    Speculation,
    modules_of,
    refuse_foreign,
    require_folders,
    speculation,
)
from mtp_harness.harness.vllm_start import starting
from mtp_harness.models import provenance
from mtp_harness.models.load import is_local, resolve
from mtp_harness.models.sequential import heads_of
from mtp_harness.probes import second_engine

try:
    from vllm import SamplingParams
    from vllm import __version__ as VLLM_VERSION
    from vllm.engine.arg_utils import EngineArgs

    from mtp_harness.harness.vllm_engine import METRICS, METRICS_SINCE, REFUSED, Asked, EngineLM
except (ImportError, PackageNotFoundError) as error:
    raise UserError(
        f"--model mtp-vllm needs vLLM, which cannot be imported here ({error}): install "
        "mtp-harness[vllm], or use --model mtp."
    ) from error

_log = logging.getLogger(__name__)


@register_model("mtp-vllm")
class MTPVLLM(EngineLM):
    """A multi-token-prediction model in vLLM; see the module docstring."""

    def __init__(self, pretrained: str, **kwargs: Any) -> None:
        """Start the engine; the arguments are in the module docstring.

        Raises:
            ValueError: an argument is not what it should be.
            UserError: vLLM cannot load the checkpoint.
        """
        kwargs = read_arguments(kwargs)
        refuse_foreign(kwargs)
        names = {*OWN, "method"}
        of_vllm = EngineArgs.__dataclass_fields__
        refuse_misspelt(kwargs, {*names, *signature(EngineLM.__init__).parameters, *of_vllm})
        self._own = own = {name: kwargs.pop(name) for name in names & kwargs.keys()}
        given = {"pretrained": pretrained, "batch_size": kwargs.get("batch_size"), **own}
        refuse_odd_values(None, None, {**given, "draft_heads": None})  # `speculation` reads it
        require_folders(kwargs | own)
        self.pretrained = pretrained
        self._modules = modules_of(pretrained, kwargs.get("revision"))
        self.how = self.now = speculation(own, pretrained, self._modules)
        self._checkpoint = {n: own.get(n) for n in ("train_tokens", "train_step", "train_seed")}
        self._label = str(own["label"]) if "label" in own else None
        self._seed = int(own.get("seed", torch.initial_seed()))
        self._journal_file = user_path(own["journal"]) if "journal" in own else None
        self._journal: Journal | None = None
        self._records: list[DecodeRecord] = []
        self._spent = Spent()
        self._counts = self._can_count(kwargs)
        given = {"seed": self._seed % 2**32, **kwargs, **self.speculating()}
        with starting(pretrained, VLLM_VERSION):
            super().__init__(pretrained=resolve(pretrained), **given)
        self.close_at_exit()
        self._token_lengths = TokenLengths(self.tok_decode)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "MTPVLLM":
        """Build the model for the command line: errors are one sentence, not a traceback."""
        if not arg_dict.get("pretrained"):
            raise UserError(
                "--model mtp-vllm without pretrained=, expected a folder or a name on the hub: "
                "add it."
            )
        with user_errors(ValueError, OSError):
            model: MTPVLLM = super().create_from_arg_obj(arg_dict, additional_config)
        return model

    def how_with(self, k: int) -> Speculation:
        """Return how to draft with heads 1..k."""
        return speculation({**self._own, "draft_heads": k}, self.pretrained, self._modules)

    def _can_count(self, kwargs: dict[str, Any]) -> bool:
        """Return whether answers can have records; say once why not."""
        reason = ""
        if self.how.draft_heads > 1 and METRICS not in EngineArgs.__dataclass_fields__:
            reason = (
                f"vLLM {VLLM_VERSION} does not tell acceptance per request ({METRICS_SINCE} does)"
            )
        elif self.how.method in VARYING:
            reason = f"{self.how.method} drafts another number of tokens in every step"
        elif int(kwargs.get("data_parallel_size") or 1) > 1:
            reason = "with data_parallel_size above 1 the engines are out of reach"
        if reason:
            _log.warning("texts and scores come without acceptance: %s", reason)
        return not reason

    # Probes -------------------------------------------------------------------------------------

    def speculative(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Answer requests `(prompt, SpeculativeQuestion)`; see `probes.speculative`."""
        self.require_counts()
        return second_engine.speculative(self, requests, disable_tqdm)

    def speed(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Answer requests `(name, SpeedQuestion)`; see `probes.speed`."""
        if self.data_parallel_size > 1:
            raise UserError(
                f"data_parallel_size={self.data_parallel_size}, expected 1: mtp_speed times one "
                "engine, so leave it out."
            )
        return second_engine.speed(self, requests, disable_tqdm)

    # Generation ---------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer generation requests; answers are `Generation`s where vLLM's numbers are known."""
        began, seen = time.perf_counter(), Counter[int]()
        asked = []
        for request in requests:
            asked.append(self._asked(request, seen[id(request)]))
            seen[id(request)] += 1
        with self._journaling():
            answers = dict(self._finished(asked))
            n_from_journal = len(answers)
            todo = [place for place in range(len(asked)) if place not in answers]
            n_tokens = self._decode_missing(requests, asked, todo, answers)
        in_order = [answers[place] for place in range(len(asked))]
        self._records += [one.record for one in in_order if isinstance(one, Generation)]
        spent = Spent(time.perf_counter() - began, n_tokens, n_from_journal)
        self._spent = self._spent.and_then([spent])
        return in_order

    def _decode_missing(
        self,
        requests: Sequence[Instance],
        asked: Sequence[Asked],
        todo: Sequence[int],
        answers: dict[int, str],
    ) -> int:
        """Have the answers at the places `todo` decoded; return the number of their tokens."""
        n_tokens = 0
        if todo:
            self.with_heads(self.how.draft_heads)  # a probe may have left another engine
        size = len(todo) or 1 if self.batch_size == "auto" else int(self.batch_size)
        if size == 1 < len(todo):
            _log.warning(
                "batch_size=1: vLLM decodes one request at a time; --batch_size auto gives it all"
            )
        for start in range(0, len(todo), size):
            some = todo[start : start + size]

            def keep(index: int, output: Any, heard: Heard, some: Sequence[int] = some) -> None:
                nonlocal n_tokens
                place = some[index]
                answers[place] = self._answer(asked[place], output, heard, len(some))
                n_tokens += len(heard.tokens)
                self._note(asked[place].key, heard.tokens, answers[place])
                shown = str.__str__(answers[place])
                self.cache_hook.add_partial("generate_until", requests[place].args, shown)

            self.generate([asked[place] for place in some], keep)
        return n_tokens

    def _asked(self, instance: Instance, repeat: int) -> Asked:
        """Return the requests to vLLM, as lm_eval's class would make them."""
        context, gen_kwargs = instance.args
        where = place_of(instance)
        with user_errors(ValueError, TypeError, prefix=f"{where}: "):
            checked = checked_arguments(gen_kwargs)
            if checked.pop("n", 1) != 1:
                raise ValueError("n is above 1, expected one answer to a request: use repeats.")
            # As `--model mtp`: without these two, vLLM samples.
            checked.setdefault("do_sample", bool(checked.get("temperature")))
            checked.setdefault("temperature", float(checked["do_sample"]))
            eos = self.tokenizer.decode(self.eot_token_id) or self.tokenizer.eos_token
            how, until, budget = self.modify_gen_kwargs(checked, eos, self.max_gen_toks)
        prompt, n_truncated = self.prompt(context, budget, where)
        task, document = str(instance.task_name), int(instance.doc_id or 0)
        options = {"until": until, "max_gen_toks": budget, **how}
        key = answer_key(task, document, instance.idx, repeat, prompt, options)
        # Otherwise a resumed run would draw the same numbers again.
        if how.get("temperature"):
            how = {"seed": row_key(self._seed, task, document, repeat) % 2**63, **how}
        # A thought may hold the task's stop strings: they cut the text behind it, not the tokens.
        stops = [stop for stop in until if stop == eos] if self.think_end_token else until
        with user_errors(ValueError, TypeError, REFUSED, prefix=f"{where}: "):
            params = SamplingParams(max_tokens=budget, stop=stops, **how)
        return Asked(prompt, n_truncated, until, params, key)

    def _answer(self, one: Asked, output: Any, heard: Heard, n_asked: int) -> str:
        text = output.outputs[0].text
        cut = str(postprocess_generated_text(text, one.until, self.think_end_token))
        if not self._counts:
            return cut
        return self._with_lengths(cut, self.record(one, heard, n_asked), one.prompt[-1])

    def _with_lengths(self, text: str, record: DecodeRecord, before: int) -> Generation:
        # Without its thinking, the text's first characters are not those of the first tokens.
        tokens = [] if self.think_end_token else [*(record.tokens or ())]
        lengths = self._token_lengths(before, tokens) if tokens else None
        return Generation(text, replace(record, n_characters=lengths))

    # The journal --------------------------------------------------------------------------------

    @contextmanager
    def _journaling(self) -> Iterator[None]:
        """Open the journal, if there is one; nobody else has it until this ends."""
        if self._journal_file is None:
            yield
            return
        settings: dict[str, Any] = json.loads(json.dumps(self._settings() | self._identity()))
        with user_errors(ValueError):
            self._journal = Journal(self._journal_file, settings, self.rank)
        with closing(self._journal):
            yield
        self._journal = None

    def _note(self, key: str, tokens: tuple[int, ...], answer: str) -> None:
        if self._journal is None:
            return
        record = answer.record.as_dict() if isinstance(answer, Generation) else None
        text = str.__str__(answer)
        with user_errors(ValueError):
            self._journal.add(key, {"tokens": tokens, "text": text, "record": record})

    def _finished(self, asked: Sequence[Asked]) -> Iterator[tuple[int, str]]:
        """Yield the answers that the journal holds, by place."""
        for place, one in enumerate(asked):
            entry = self._journal.get(one.key) if self._journal is not None else None
            if entry is not None:
                text, record = entry["text"], entry["record"]
                known = record is not None
                yield place, Generation(text, DecodeRecord.from_dict(record)) if known else text

    # What the results say -----------------------------------------------------------------------

    @cached_property
    def _dtype(self) -> str:
        dtype = self.model_args["dtype"]
        if self.data_parallel_size <= 1:  # above it there is no engine to ask
            dtype = self.model.llm_engine.model_config.dtype
        return str(dtype).removeprefix("torch.")

    @property
    def _kind_of_heads(self) -> str:
        if self.how.method in ("medusa", "ngram"):
            return {"medusa": "parallel", "ngram": "none"}[self.how.method]
        return "sequential" if self.how.method or self._modules else "none"

    def _identity(self) -> dict[str, Any]:
        """Return what an answer depends on, decoding aside."""
        drafter = self._own.get("drafter") if self.how.method else None
        return {
            "pretrained": self.pretrained,
            "weights_sha256": _sha256(self.pretrained),
            **({"drafter": drafter, "drafter_sha256": _sha256(drafter)} if drafter else {}),
            "n_future_tokens": max(self.how.draft_heads, heads_of(self._modules or 0)),
            "heads": self._kind_of_heads,
            "dtype": self._dtype,
            "max_length": self.max_length,
            "engine": {"name": "vllm", "version": VLLM_VERSION},
        }

    def _settings(self) -> dict[str, Any]:
        """Return how answers are decoded."""
        return {
            "draft_heads": self.how.draft_heads,
            "method": self.how.method or None,
            "acceptance": "exact",
            "lossless": True,
            "seed": self._seed,
        }

    def get_model_info(self) -> dict[str, Any]:
        """Return what goes into the results' `config`; `mtp` holds settings, totals, provenance."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        rules = sorted({record.draft_rule for record in self._records})
        trained = provenance.trained(Path(resolve(self.pretrained)))
        mtp = {
            "schema": SCHEMA,
            "label": self._label,
            **{k: trained.get(k) if v is None else v for k, v in self._checkpoint.items()},
            "layout": "vllm",
            "loader": None,
            **self._identity(),
            **self._settings(),
            "draft_rule": "; ".join(rules) or None,
            "journal": None if self._journal_file is None else str(self._journal_file),
            "vocab_size": len(self.tokenizer),
            "device": device.type,
            "batch_size": self.batch_size,
            "world_size": self.world_size,
            "parallel": {n: getattr(self, f"{n}_parallel_size") for n in ("tensor", "data")},
            "totals": totals(self._records, self._spent),
            **provenance.environment(device),
        }
        return {"model_dtype": self._dtype, "mtp": mtp}


def _sha256(place: str) -> str | None:
    return provenance.weights_sha256(Path(resolve(place))) if is_local(place) else None

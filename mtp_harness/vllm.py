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

`--batch_size auto` gives vLLM all requests at once, which is fastest; a number limits them.
"""

# First, or registering hides the harness's built-in models; see `mtp_harness.lm`.
import lm_eval.models  # noqa: F401  # isort: skip

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.utils import maybe_truncate, postprocess_generated_text

from mtp_harness.decode.engine import Answer, Request
from mtp_harness.decode.journal import Journal, answer_key
from mtp_harness.decode.records import DecodeRecord, Generation
from mtp_harness.decode.sampling import row_key
from mtp_harness.decode.token_lengths import TokenLengths
from mtp_harness.decode.vllm_counts import Heard, Setting, record_of
from mtp_harness.errors import UserError, user_errors
from mtp_harness.files import user_path
from mtp_harness.harness.generation_args import checked_arguments, place_of, room_for_prompt
from mtp_harness.harness.identity import SCHEMA
from mtp_harness.harness.model_args import OWN, read_arguments, refuse_odd_values
from mtp_harness.harness.progress import Spent, totals
from mtp_harness.harness.vllm_args import (
    VARYING,
    Speculation,
    in_a_sentence,
    refuse_foreign,
    speculation,
)
from mtp_harness.harness.vllm_listener import Listener, heard_of
from mtp_harness.models import provenance
from mtp_harness.models.checkpoints.checks import read_json
from mtp_harness.models.checkpoints.hub import looked_up
from mtp_harness.models.families import promised
from mtp_harness.models.load import is_local, resolve
from mtp_harness.models.sequential import heads_of

try:
    from lm_eval.models.vllm_causallms import VLLM
    from vllm import SamplingParams
    from vllm import __version__ as VLLM_VERSION
    from vllm.engine.arg_utils import EngineArgs
except (ImportError, PackageNotFoundError) as error:
    raise UserError(
        f"--model mtp-vllm needs vLLM, which cannot be imported here ({error}): install "
        "mtp-harness[vllm], or use --model mtp."
    ) from error

_log = logging.getLogger(__name__)

_METRICS = "per_request_spec_decode_metrics"
_METRICS_SINCE = "0.32"
_ROWS = 256
"""vLLM's default number of rows on most devices."""


class _Asked(NamedTuple):
    """One requested answer."""

    prompt: list[int]
    n_truncated: int
    until: list[str]
    params: Any  # vLLM's `SamplingParams`
    key: str  # in the journal

    @property
    def greedy(self) -> bool:
        return bool(self.params.temperature == 0)


@register_model("mtp-vllm")
class MTPVLLM(VLLM):  # type: ignore[misc]
    """A multi-token-prediction model in vLLM; see the module docstring."""

    def __init__(self, pretrained: str, **kwargs: Any) -> None:
        """Start the engine; the arguments are in the module docstring.

        Raises:
            ValueError: an argument is not what it should be.
            UserError: vLLM cannot load the checkpoint.
        """
        refuse_foreign(kwargs)
        names = {*OWN, "method", "drafter"}
        kwargs = read_arguments(kwargs)
        own = {name: kwargs.pop(name) for name in names & kwargs.keys()}
        refuse_odd_values(own.get("draft_heads"), None, {"pretrained": pretrained, **own})
        self.pretrained = pretrained
        self._modules = _modules_of(pretrained, kwargs.get("revision"))
        self.how: Speculation = speculation(own, pretrained, self._modules)
        self._checkpoint = {n: own.get(n) for n in ("train_tokens", "train_step", "train_seed")}
        self._label = str(own["label"]) if "label" in own else None
        self._seed = int(own.get("seed", torch.initial_seed()))
        self._journal_file = user_path(own["journal"]) if "journal" in own else None
        self._journal: Journal | None = None
        self._records: list[DecodeRecord] = []
        self._spent = Spent()
        self._counts = self._can_count(kwargs)
        if self.how.config:
            kwargs["speculative_config"] = self.how.config
            if self._counts:
                kwargs[_METRICS] = "detailed"
        try:
            super().__init__(pretrained=resolve(pretrained), seed=self._seed % 2**32, **kwargs)
        except Exception as error:  # whatever vLLM, or a process of its, has met
            raise UserError(
                f"vLLM {VLLM_VERSION} cannot load {pretrained}: {in_a_sentence(error)}. Correct "
                "the model arguments, or use --model mtp."
            ) from error
        self._token_lengths = TokenLengths(lambda ids: str(self.tokenizer.decode(ids)))

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "MTPVLLM":
        """Build the model for the command line: errors are one sentence, not a traceback."""
        with user_errors(ValueError):
            refuse_foreign(arg_dict)
        if not arg_dict.get("pretrained"):
            raise UserError(
                "--model mtp-vllm without pretrained=, expected a folder or a name on the hub: "
                "add it."
            )
        with user_errors(ValueError, OSError):
            model: MTPVLLM = super().create_from_arg_obj(arg_dict, additional_config)
        return model

    def _can_count(self, kwargs: dict[str, Any]) -> bool:
        """Return whether answers can have records; say once why not."""
        reason = ""
        if self.how.draft_heads > 1 and _METRICS not in EngineArgs.__dataclass_fields__:
            reason = (
                f"vLLM {VLLM_VERSION} does not tell acceptance per request ({_METRICS_SINCE} does)"
            )
        elif self.how.method in VARYING:
            reason = f"{self.how.method} drafts another number of tokens in every step"
        elif int(kwargs.get("data_parallel_size") or 1) > 1:
            reason = "with data_parallel_size above 1 the engines are out of reach"
        if reason:
            _log.warning("texts and scores come without acceptance: %s", reason)
        return not reason

    # Generation ---------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer generation requests; answers are `Generation`s where vLLM's numbers are known."""
        began, seen = time.perf_counter(), Counter[int]()
        asked = []
        for request in requests:
            asked.append(self._asked(request, seen[id(request)]))
            seen[id(request)] += 1
        self._open_journal()
        answers = dict(self._finished(asked))
        n_from_journal = len(answers)
        n_tokens = 0
        todo = [place for place in range(len(asked)) if place not in answers]
        size = len(todo) or 1 if self.batch_size == "auto" else int(self.batch_size)
        for start in range(0, len(todo), size):
            some = todo[start : start + size]

            def keep(index: int, output: Any, heard: Heard, some: list[int] = some) -> None:
                nonlocal n_tokens
                place = some[index]
                answers[place] = self._answer(asked[place], output, heard, len(some))
                n_tokens += len(heard.tokens)
                self._note(asked[place].key, heard.tokens, answers[place])
                shown = str.__str__(answers[place])
                self.cache_hook.add_partial("generate_until", requests[place].args, shown)

            self._generate([asked[place] for place in some], keep)
        in_order = [answers[place] for place in range(len(asked))]
        self._records += [one.record for one in in_order if isinstance(one, Generation)]
        spent = Spent(time.perf_counter() - began, n_tokens, n_from_journal)
        self._spent = self._spent.and_then([spent])
        return in_order

    def _asked(self, instance: Instance, repeat: int) -> _Asked:
        """Return the requests to vLLM, as lm_eval's class would make them."""
        context, gen_kwargs = instance.args
        where = place_of(instance)
        if not context:
            raise UserError(f"{where}: the prompt is empty, expected at least one character.")
        with user_errors(ValueError, TypeError, prefix=f"{where}: "):
            checked = checked_arguments(gen_kwargs)
            eos = self.tokenizer.decode(self.eot_token_id) or self.tokenizer.eos_token
            how, until, budget = self.modify_gen_kwargs(checked, eos, self.max_gen_toks)
        with user_errors(ValueError):
            room_for_prompt(budget, self.max_length, where)
        whole = self.tok_encode(context)
        prompt, _ = maybe_truncate(
            whole, budget, self.max_length, side=self.truncation_side, verbose=False
        )
        task, document = str(instance.task_name), int(instance.doc_id or 0)
        options = {"until": until, "max_gen_toks": budget, **how}
        key = answer_key(task, document, instance.idx, repeat, prompt, options)
        # Otherwise a resumed run would draw the same numbers again.
        if how.get("temperature"):
            how = {"seed": row_key(self._seed, task, document, repeat) % 2**63, **how}
        # A thought may hold the task's stop strings: they cut the text behind it, not the tokens.
        stops = [stop for stop in until if stop == eos] if self.think_end_token else until
        with user_errors(ValueError, TypeError, prefix=f"{where}: "):
            params = SamplingParams(max_tokens=budget, stop=stops, **how)
        return _Asked(prompt, len(whole) - len(prompt), until, params, key)

    def _generate(self, some: Sequence[_Asked], keep: Any) -> None:
        """Have vLLM answer; `keep` as for `Listener`, at once where the engine is in reach."""
        with ExitStack() as stack:
            if self._counts:
                stack.enter_context(Listener(self.model.llm_engine, keep))
            outputs = self._model_generate(
                [one.prompt for one in some],
                generate=True,
                sampling_params=[one.params for one in some],
            )
        if not self._counts:
            for index, output in enumerate(outputs):
                keep(index, output, heard_of(output, [], 0.0))

    def _answer(self, one: _Asked, output: Any, heard: Heard, n_rows: int) -> str:
        text = output.outputs[0].text
        cut = str(postprocess_generated_text(text, one.until, self.think_end_token))
        if not self._counts:
            return cut
        rows = min(n_rows, int(self.model_args.get("max_num_seqs") or _ROWS))
        return self._with_lengths(cut, self._record(one, heard, rows), one.prompt[-1])

    def _record(self, one: _Asked, heard: Heard, rows: int) -> DecodeRecord:
        setting = Setting(self.how.draft_heads, self.max_length, rows)
        with user_errors(ValueError):
            return record_of(heard, setting, one.greedy, one.n_truncated)

    def decode(self, requests: Sequence[Request]) -> list[Answer]:
        """Decode requests of our own engine greedily, for `mtp-harness verify`.

        Raises:
            UserError: answers have no records here.
        """
        if not self._counts:
            raise UserError(
                f"this vLLM tells no acceptance, expected {_METRICS_SINCE} and a method with a "
                "fixed number of drafts: use those."
            )
        found: dict[int, Answer] = {}
        asked = [
            _Asked(one.prompt, one.n_truncated, [*one.until], _greedy(one), "") for one in requests
        ]

        def keep(index: int, _: Any, heard: Heard) -> None:
            record = self._record(asked[index], heard, len(asked))
            found[index] = Answer([*heard.tokens], record)

        self._generate(asked, keep)
        return [found[index] for index in range(len(asked))]

    def close(self) -> None:
        """End the engine, and the processes that it started."""
        self.model.llm_engine.engine_core.shutdown()
        del self.model

    def _with_lengths(self, text: str, record: DecodeRecord, before: int) -> Generation:
        # Without its thinking, the text's first characters are not those of the first tokens.
        tokens = [] if self.think_end_token else [*(record.tokens or ())]
        lengths = self._token_lengths(before, tokens) if tokens else None
        return Generation(text, replace(record, n_characters=lengths))

    # The journal --------------------------------------------------------------------------------

    def _open_journal(self) -> None:
        if self._journal_file is not None and self._journal is None:
            settings: dict[str, Any] = json.loads(json.dumps(self._settings() | self._identity()))
            with user_errors(ValueError):
                self._journal = Journal(self._journal_file, settings, self.rank)

    def _note(self, key: str, tokens: tuple[int, ...], answer: str) -> None:
        if self._journal is None:
            return
        record = answer.record.as_dict() if isinstance(answer, Generation) else None
        text = str.__str__(answer)
        with user_errors(ValueError):
            self._journal.add(key, {"tokens": tokens, "text": text, "record": record})

    def _finished(self, asked: Sequence[_Asked]) -> Iterator[tuple[int, str]]:
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

    def _identity(self) -> dict[str, Any]:
        """Return what an answer depends on, decoding aside."""
        folder = Path(resolve(self.pretrained))
        local = is_local(self.pretrained)
        return {
            "pretrained": self.pretrained,
            "weights_sha256": provenance.weights_sha256(folder) if local else None,
            "n_future_tokens": max(self.how.draft_heads, heads_of(self._modules)),
            "heads": "sequential" if self._modules else "none",
            "dtype": self._dtype,
            "max_length": self.max_length,
            "engine": {"name": "vllm", "version": VLLM_VERSION},
        }

    def _settings(self) -> dict[str, Any]:
        """Return how answers are decoded."""
        return {
            "draft_heads": self.how.draft_heads,
            "method": self.how.method or None,
            "drafter": (self.how.config or {}).get("model"),
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


def _greedy(request: Request) -> Any:
    return SamplingParams(
        temperature=0.0,
        max_tokens=request.max_new_tokens,
        stop=[*request.until],
        skip_special_tokens=False,
    )


def _modules_of(pretrained: str, revision: str | None) -> int:
    """Return how many modules a checkpoint's configuration promises.

    Raises:
        FileNotFoundError: a folder without a configuration.
        ValueError: it cannot be read.
    """
    local = is_local(pretrained)
    folder = Path(resolve(pretrained)) if local else looked_up(pretrained, revision)
    return promised(read_json(folder / "config.json")) if folder else 0

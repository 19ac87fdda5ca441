"""How `MTPLM` answers generation requests: settings, journal, progress.

    Instance ──prepare──▶ Request ──Engine──▶ Answer ──finish──▶ Generation (text, DecodeRecord)
                              │                  │
                              └── journal.get    └── journal.add

Errors in a request are found before the first request is decoded.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.engine import Answer, Engine, OutOfSlots, Request
from mtp_harness.decode.fastest import fastest_draft_heads
from mtp_harness.decode.journal import Journal, answer_key, recorded_settings
from mtp_harness.decode.memory import fitting_slots
from mtp_harness.decode.records import DecodeRecord, Generation
from mtp_harness.decode.sampling import Sampling, row_key
from mtp_harness.decode.stopping import continuation_text
from mtp_harness.decode.token_lengths import TokenLengths
from mtp_harness.errors import UserError, user_errors
from mtp_harness.harness.generation_args import checked_arguments, place_of, room_for_prompt
from mtp_harness.harness.model_args import refuse_odd_values
from mtp_harness.harness.progress import Progress
from mtp_harness.harness.protocol import HeadsModel
from mtp_harness.models.interface import MultiHeadModel

_log = logging.getLogger(__name__)

_SAMPLING_ARGUMENTS = {"temperature", "top_p", "top_k"}
_WITHOUT_EFFECT_WHEN_GREEDY = _SAMPLING_ARGUMENTS | {"min_p", "typical_p"}
"""Sampling arguments that stock tasks set even for greedy decoding."""


@dataclass(frozen=True)
class Decoding:
    """The model arguments about decoding; see `mtp_harness.lm`."""

    draft_heads: int | str | None  # None: all of them
    draft_threshold: float
    acceptance: str
    seed: int
    journal: Path | None

    def __post_init__(self) -> None:
        refuse_odd_values(None, None, {"acceptance": self.acceptance})


class Generator:
    """Answers the generation requests of one model; a part of `MTPLM`."""

    def __init__(
        self, lm: HeadsModel, model: MultiHeadModel, eos: Sequence[int], how: Decoding
    ) -> None:
        """Bind a model, its harness model, and the ids that end an answer.

        Raises:
            ValueError: `draft_heads` is not within 1..n.
        """
        self.lm, self.model, self.eos, self.how = lm, model, tuple(eos), how
        self.auto: dict[str, Any] | None = None
        self.memory: dict[str, int] = {}
        self.n_tokens = 0  # decoded in the last call
        self.n_from_journal = 0  # answers of the last call that an earlier process decoded
        self._token_lengths = TokenLengths(lm.tok_decode)
        n = model.n_future_tokens
        self.k = how.draft_heads if isinstance(how.draft_heads, int) else n
        self.engine(self.k)  # refuses a k out of range before anything else happens

    def engine(self, k: int, slots: int | None = None) -> Engine:
        """Return an engine with heads 1..k."""
        rule = Rule(self.how.draft_threshold, verify=self.how.acceptance == "exact")
        return Engine(self.model, k, self.eos, self.lm.tok_decode, slots=slots, rule=rule)

    def answer(self, instances: Sequence[Instance], disable_tqdm: bool) -> list[Generation]:
        """Return one answer per instance; equal instances are repeats of one request."""
        self.n_tokens = self.n_from_journal = 0
        if not instances:
            return []
        seen: Counter[int] = Counter()
        requests, keys = [], []
        for instance in instances:
            request, key = self._prepare(instance, seen[id(instance)])
            seen[id(instance)] += 1
            requests.append(request)
            keys.append(key)
        self._settle(requests)
        with self._journal() as journal:
            hidden = disable_tqdm or self.lm.rank != 0
            answers = self._decode(instances, requests, keys, journal, hidden)
        return [answers[place] for place in range(len(requests))]

    def _decode(
        self,
        instances: Sequence[Instance],
        requests: Sequence[Request],
        keys: Sequence[str],
        journal: Journal | None,
        hidden: bool,
    ) -> dict[int, Generation]:
        """Return the answers by index: from the journal where it has them, the others decoded."""
        finished = _finished(journal, keys)
        answers = {place: self._finish(requests[place], one) for place, one in finished.items()}
        self.n_from_journal = len(answers)
        todo = [place for place in range(len(requests)) if place not in answers]
        engine = self.engine(self.k, self._slots(requests))
        with Progress(len(requests), len(answers), hidden) as bar:

            def keep(index: int, answer: Answer) -> None:
                place = todo[index]
                if journal is not None:
                    entry: Any = {"tokens": answer.tokens, "record": answer.record.as_dict()}
                    with user_errors(ValueError):
                        journal.add(keys[place], entry)
                answers[place] = self._finish(requests[place], answer)
                text = str.__str__(answers[place])
                self.lm.cache_hook.add_partial("generate_until", instances[place].args, text)
                self.n_tokens += len(answer.tokens)
                bar.add(answer)

            with user_errors(OutOfSlots):
                engine.generate([requests[place] for place in todo], keep)
        return answers

    def _finish(self, request: Request, answer: Answer) -> Generation:
        text, from_the_start = self._text(request, answer.tokens)
        # Without its thinking, the text's first characters are not those of the first tokens.
        last, tokens, rejected = request.prompt[-1], answer.tokens, answer.record.rejected or ()
        record = replace(answer.record, tokens=tuple(tokens))
        if from_the_start:
            texts = tuple(self._token_lengths.text_alone(last, token) for token in rejected)
            lengths = self._token_lengths(last, tokens)
            record = replace(record, n_characters=lengths, rejected_text=texts)
        return Generation(text, record)

    def _text(self, request: Request, tokens: list[int]) -> tuple[str, bool]:
        """Return an answer's text as `HFLM` cuts it, and whether it begins with the first token."""
        end, before = self.lm.think_end_token, request.prompt[-1]
        to_text = self.lm.tok_decode
        rest = whole = continuation_text(to_text, before, tokens)
        if isinstance(end, int):  # a token's id; the text after the last one, stripped in front
            if end in tokens:
                last = len(tokens) - 1 - tokens[::-1].index(end)
                rest = continuation_text(to_text, end, tokens[last + 1 :])
            rest = rest.lstrip()
        elif end:
            rest = postprocess_generated_text(whole, None, end)
        return postprocess_generated_text(rest, list(request.until), None), rest == whole

    def settings(self) -> dict[str, Any]:
        """Return the decoding settings for the results' `config.mtp`."""
        return {
            "draft_heads": self.k,
            "draft_heads_auto": self.auto,
            "acceptance": self.how.acceptance,
            "lossless": self.how.acceptance == "exact",
            "draft_threshold": self.how.draft_threshold,
            "seed": self.how.seed,
            "journal": None if self.how.journal is None else str(self.how.journal),
            **self.memory,
        }

    def asked(self) -> dict[str, Any]:
        """Return the arguments that an answer's text may depend on, at least in bfloat16."""
        names = ("draft_threshold", "acceptance", "seed")
        asked = {name: getattr(self.how, name) for name in names}
        return {"draft_heads": self.how.draft_heads or self.k, **asked}

    # Requests -----------------------------------------------------------------------------------

    def _prepare(self, instance: Instance, repeat: int) -> tuple[Request, str]:
        """Return a request, and its answer's key in a journal."""
        context, gen_kwargs = instance.args
        where = place_of(instance)
        with user_errors(ValueError, prefix=f"{where}: "):
            checked = checked_arguments(gen_kwargs)
        kwargs = dict(normalize_gen_kwargs(checked, self.lm.max_gen_toks))
        until = kwargs.pop("until")
        if "" in until:
            raise UserError(
                f"{where}: until={until} has an empty stop string, which would end every answer at "
                "once; expected at least one character each."
            )
        budget = kwargs.pop("max_gen_toks")
        sampling = _sampling(kwargs, where)
        prompt, n_truncated = self.prompt(context, budget, where)
        task, document = str(instance.task_name), int(instance.doc_id or 0)
        request = Request(
            prompt,
            budget,
            tuple(until),
            n_truncated,
            sampling,
            0 if sampling.greedy else row_key(self.how.seed, task, document, repeat),
        )
        options = {"until": until, "max_gen_toks": budget, **asdict(sampling)}
        return request, answer_key(task, document, instance.idx, repeat, prompt, options)

    def prompt(self, context: str | list[int], budget: int, where: str) -> tuple[list[int], int]:
        """Return token ids, cut on the left as `HFLM` does, and how many were cut off."""
        if not context:
            raise UserError(f"{where}: the prompt is empty, expected at least one character.")
        with user_errors(ValueError):
            room = room_for_prompt(budget, self.lm.max_length, where)
        if isinstance(context, str):
            tokens, _ = self.lm.tok_batch_encode([context], truncation=self.lm.truncation)
            context = tokens[0].tolist() or [self.lm.prefix_token_id]
        prompt: list[int] = context
        return prompt[-room:], max(0, len(prompt) - room)

    # Settings that depend on the requests -------------------------------------------------------

    def _settle(self, requests: Sequence[Request]) -> None:
        """Choose k if `draft_heads=auto`."""
        if self.how.draft_heads == "auto" and self.auto is None:
            # Every rank takes part in this, also one that finds the choice in the journal.
            self.auto = self.lm.agree(self._choice(requests))
            self.k = int(self.auto["draft_heads"])
            _log.info("draft_heads=auto chose %d: %s", self.k, self.auto["tokens_per_s"])

    @contextmanager
    def _journal(self) -> Iterator[Journal | None]:
        """Open the journal, if there is one; it is locked for others until this ends.

        Not longer: another model of this process may continue it.
        """
        if self.how.journal is None:
            yield None
            return
        with user_errors(ValueError):
            journal = Journal(self.how.journal, self._journal_settings(), self.lm.rank)
        with closing(journal):
            yield journal

    def _choice(self, requests: Sequence[Request]) -> dict[str, Any]:
        """Return the k that `auto` chose in the run that is resumed, or choose one now."""
        if self.how.journal is not None:
            with user_errors(ValueError):
                recorded = (recorded_settings(self.how.journal) or {}).get("draft_heads_auto")
            if isinstance(recorded, dict) and recorded:
                return recorded
        n, slots = self.model.n_future_tokens, self._slots(requests)
        with user_errors(OutOfSlots):
            return fastest_draft_heads(self.engine, n, requests, slots)

    def _journal_settings(self) -> dict[str, Any]:
        """Return what answers and their records depend on, as JSON values."""
        mine = {**self.lm.identity(), **self.settings()}
        for name in ("journal", "slots", "cache_tokens_per_slot", "cache_bytes"):
            mine.pop(name, None)
        plain: dict[str, Any] = json.loads(json.dumps(mine))
        return plain

    def _slots(self, requests: Sequence[Request]) -> int:
        engine, size = self.engine(self.k), self.lm.batch_size
        fits = size == "auto"
        slots = fitting_slots(engine, requests, self.lm.max_batch_size) if fits else int(size)
        memory = engine.memory(requests, slots)
        self.memory = {
            "slots": memory.slots,
            "cache_tokens_per_slot": memory.length,
            "cache_bytes": memory.cache_bytes,
        }
        return slots


def _finished(journal: Journal | None, keys: Sequence[str]) -> dict[int, Answer]:
    """Return the answers in a journal, by index."""
    found: dict[int, Answer] = {}
    for place, key in enumerate(keys):
        if journal is not None and (entry := journal.get(key)) is not None:
            found[place] = Answer(entry["tokens"], DecodeRecord.from_dict(entry["record"]))
    if found:
        _log.info("%d of %d answers are in the journal", len(found), len(keys))
    return found


def _sampling(kwargs: dict[str, Any], where: str) -> Sampling:
    """Return how tokens are chosen, from the remaining generation arguments."""
    sampled = kwargs.pop("do_sample")
    known = _SAMPLING_ARGUMENTS if sampled else _WITHOUT_EFFECT_WHEN_GREEDY
    if unknown := sorted(set(kwargs) - known):
        raise UserError(
            f"{where}: generation arguments "
            f"{', '.join(f'{name}={kwargs[name]}' for name in unknown)} are not understood; "
            "expected until, max_gen_toks, do_sample, temperature, top_k, top_p."
        )
    if not sampled:
        return Sampling()
    with user_errors(ValueError, prefix=f"{where}: "):
        return Sampling(
            float(kwargs.get("temperature", 1.0)),
            int(kwargs.get("top_k", 0)),
            float(kwargs.get("top_p", 1.0)),
        )

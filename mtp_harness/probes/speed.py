"""Answers requests of type `speed`: one batch size and prompt length, every k, timed.

    trial 1   k = 1, 2, … n, n = 1 baseline      fresh prompts in every trial, the same for every k
    trial 2   n = 1 baseline, n, … 2, 1          the other way round
    …         after one whole run of each that is not counted

So every k meets the same disturbances, and a speedup is a quotient of sums over the same trials.
EOS is off and there are no stop strings: every row decodes exactly `new_tokens` tokens. Prompts are
real code, joined and cut to exactly `prompt_tokens`. The engine times prefill and decoding
separately and waits for the device; decoding lasts until the last row of the batch has ended.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tqdm import tqdm

from mtp_harness.data.corpus import Corpus, code_corpus
from mtp_harness.decode.engine import Engine, OutOfSlots, Request
from mtp_harness.decode.memory import fitting_slots, foreseen_bytes
from mtp_harness.errors import UserError
from mtp_harness.harness.protocol import HeadsModel
from mtp_harness.models.load import open_model
from mtp_harness.models.text import plain_encode, shown
from mtp_harness.probes.hardware import PeakMemory, Traffic, read_bandwidth, synchronize
from mtp_harness.probes.pooled import Measured
from mtp_harness.probes.windows import Encode

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

_ARGUMENT = re.compile(r"(?:^|,)(pretrained|drafter|loader|tokenizer)=(.+?)(?=,\w+=|$)")

SELF = "self"
"""The name of the evaluated model in tables."""


@dataclass(frozen=True)
class SpeedQuestion:
    """One cell of the grid.

    Attributes:
        baseline: another checkpoint, decoded with its head 1 in the same trials; its name, or
            model arguments such as `loader=module:function,tokenizer=NAME`.
    """

    batch: int  # rows decoded together, of `prompt_tokens` and `new_tokens` each
    prompt_tokens: int
    new_tokens: int
    trials: int  # runs that count
    heads: tuple[int, ...] | None = None  # the k to time, or None for 1..n
    baseline: str | None = None


class Contender(NamedTuple):
    """One model (`SELF`, or the baseline's name) with one k."""

    model: str
    engine: Engine
    prompts: Callable[[int, int], list[list[int]]]
    """(tokens, how many) -> prompts in this model's tokens."""
    max_length: int

    @property
    def k(self) -> int:
        """Heads that it decodes with."""
        return self.engine.k


class Prompts:
    """Prompts of exactly a length: documents of a corpus, joined and cut."""

    def __init__(self, corpus: Corpus, encode: Encode) -> None:
        """Bind a corpus, and what makes token ids of a text."""
        self.encode = encode
        self._texts = iter(document.text for document in corpus.documents)
        self._tokens: list[int] = []

    def __call__(self, length: int, count: int) -> list[list[int]]:
        """Return the first `count` prompts of `length` tokens."""
        while len(self._tokens) < length * count:
            text = next(self._texts, None)
            if text is None:  # more are needed than the corpus has: read it again
                self._tokens *= 2
            else:
                self._tokens += self.encode(text)
        return [self._tokens[i * length : (i + 1) * length] for i in range(count)]


def answer(lm: HeadsModel, requests: Sequence[Instance], quiet: bool) -> list[Measured]:
    """Answer requests `(name, SpeedQuestion)`.

    Returns:
        Per request `runs` (of each contender and trial: seconds, steps of each row, memory),
        `heads` (the k that were asked for), by contender its `traffic` and `foreseen_bytes` (caches
        and logits of all rows), `bandwidth` in bytes per second as measured here, and
        `not_measured`: the contenders that do not fit, and why.
    """
    corpus = code_corpus()
    cells: list[SpeedQuestion] = [request.args[1] for request in requests]
    own = Prompts(corpus, plain_encode(lm.tokenizer))
    baselines = {cell.baseline for cell in cells if cell.baseline}
    others = {name: _baseline(name, lm, corpus) for name in baselines}
    bandwidth = read_bandwidth(lm.decoder().model.device) if cells else 0.0
    found = []
    for cell in tqdm(cells, disable=quiet, desc="Running speed requests"):
        rivals = _contenders(lm, cell, own)
        if cell.baseline:
            rivals.append(others[cell.baseline](cell.batch))
        found.append(Measured(bandwidth=bandwidth, **measure(cell, rivals)))
    return found


def measure(cell: SpeedQuestion, rivals: Sequence[Contender]) -> dict[str, Any]:
    """Time all contenders on one cell; see `answer`."""
    fit: list[Contender] = []
    unfit: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    foreseen: dict[str, int] = {}

    def leave_out(one: Contender, reason: str) -> None:
        unfit.append({"model": one.model, "k": one.k, "reason": reason})

    memory_ran_out = f"memory ran out with {cell.batch} rows"
    for one in rivals:
        if reason := _misfit(cell, one):
            leave_out(one, reason)
            continue
        row = Request([0] * cell.prompt_tokens, cell.new_tokens)
        foreseen[f"{one.model} {one.k}"] = foreseen_bytes(one.engine, [row], cell.batch)
        try:  # once, uncounted
            _run(one, cell, 0)
        except OutOfSlots:
            leave_out(one, memory_ran_out)
        else:
            fit.append(one)
    traffic = {f"{one.model} {one.k}": Traffic.of(one.engine.model, one.k) for one in fit}
    for trial in range(cell.trials):
        for one in list(fit) if trial % 2 == 0 else list(reversed(fit)):
            try:
                took = _run(one, cell, trial)
            except OutOfSlots:  # it fitted before: something else has taken the memory
                fit.remove(one)
                leave_out(one, memory_ran_out)
                runs = [run for run in runs if (run["model"], run["k"]) != (one.model, one.k)]
            else:
                runs.append({"model": one.model, "k": one.k, "trial": trial, **took})
    return {
        "heads": [one.k for one in rivals if one.model == SELF],
        "runs": runs,
        "traffic": {name: each._asdict() for name, each in traffic.items()},
        "foreseen_bytes": foreseen,
        "not_measured": unfit,
    }


def _run(one: Contender, cell: SpeedQuestion, trial: int) -> dict[str, Any]:
    """Decode one batch of prompts that no earlier trial had; return its measurements."""
    prompts = one.prompts(cell.prompt_tokens, (trial + 1) * cell.batch)[-cell.batch :]
    requests = [Request(prompt, cell.new_tokens) for prompt in prompts]
    device = one.engine.model.device
    synchronize(device)
    peak = PeakMemory(device)
    before = peak.read()
    began = time.perf_counter()
    records = [answer.record for answer in one.engine.generate(requests)]
    synchronize(device)
    wall_s = time.perf_counter() - began
    if any(record.batch_size != cell.batch for record in records):
        raise OutOfSlots("the engine went on with fewer rows")
    return {
        "wall_s": wall_s,
        "prefill_s": max(record.prefill_s or 0.0 for record in records),
        "decode_s": max(record.decode_s for record in records),
        "steps": [record.n_steps for record in records],
        "n_kept": sum(record.n_kept for record in records),
        "before_bytes": before,
        "peak_bytes": peak.read(),
    }


def _misfit(cell: SpeedQuestion, one: Contender) -> str | None:
    """Return why a contender cannot run a cell, as far as that is known before."""
    if reason := too_long(cell.prompt_tokens + cell.new_tokens, one.max_length):
        return reason
    if one.engine.model.device.type == "cuda":
        torch.cuda.empty_cache()  # what earlier cells took is free again
    row = Request([0] * cell.prompt_tokens, cell.new_tokens)
    if cell.batch > 1 and fitting_slots(one.engine, [row] * cell.batch, cell.batch) < cell.batch:
        needed = one.engine.memory([row], cell.batch).cache_bytes
        return f"{cell.batch} rows need {needed} bytes of cache, more than memory has free"
    return None


def too_long(length: int, max_length: int) -> str | None:
    """Return why a context does not hold so many tokens; None where it does."""
    if length <= max_length:
        return None
    return f"{length} tokens do not fit into a context of {max_length}"


def checked_heads(name: str, cell: SpeedQuestion, n: int) -> tuple[int, ...]:
    """Return the k to time; a model called `name` has 1 to `n`.

    Raises:
        UserError: the model does not have one of them.
    """
    heads = cell.heads or tuple(range(1, n + 1))
    if wrong := [k for k in heads if not 1 <= k <= n]:
        raise UserError(f"heads={wrong[0]}, but {name} has n = {n}: choose from 1 to {n}.")
    return heads


def _contenders(lm: HeadsModel, cell: SpeedQuestion, prompts: Prompts) -> list[Contender]:
    decoder = lm.decoder()
    heads = checked_heads(lm.pretrained, cell, decoder.model.n_future_tokens)
    engines = [decoder.engine(k, cell.batch) for k in heads]
    for engine in engines:
        engine.eos = ()  # every row decodes its whole budget
    return [Contender(SELF, engine, prompts, lm.max_length) for engine in engines]


def _baseline(name: str, lm: HeadsModel, corpus: Corpus) -> Callable[[int], Contender]:
    """Load another checkpoint; return a function that makes its engine for a batch size."""
    mine = lm.decoder().model
    try:
        named = _ARGUMENT.match(name) is not None
        arguments = dict(_ARGUMENT.findall(name)) if named else {"pretrained": name}
        model, tokenizer = open_model(**arguments, dtype=mine.dtype, device=mine.device)
    except (ValueError, OSError) as error:
        raise UserError(f"baseline={name}: {error}") from error
    prompts = Prompts(corpus, plain_encode(tokenizer))

    def contender(batch: int) -> Contender:
        engine = Engine(model, 1, (), shown(tokenizer), slots=batch)
        return Contender(name, engine, prompts, model.max_positions)

    return contender

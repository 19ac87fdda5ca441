"""Tasks whose answers are programs: generated, graded as one stream, scored with their decoding.

Per document, and so in the samples:

    pass@1                        unbiased estimate over the document's graded answers
    tokens_per_forward            (kept tokens, steps); summed before they are divided
    tokens_per_forward_no_loops   the same over answers that do not loop
    tokens_per_forward_mean       (sum of the answers' own ratios, answers)
    accept_rate_prefix_I          (drafts at offset I verified, steps that drafted I)
    accept_rate_cond_I            (the same, steps whose earlier drafts were all verified)
    looping                       share of answers that repeat themselves
    n_grading_errors              answers that the grader could not judge: never scored as 0
    n_answers                     each answer's verdict and decode record (in the results: how many)

Where nothing was counted a pair is (0, 0), and the pooled value NaN. Pairs are never left out: with
several ranks the evaluator looks up the first one's metrics in all of them. `pass@1` is left out
where the grader judged no answer.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Self

from lm_eval.api.task import ConfigurableTask

from mtp_harness import plugin
from mtp_harness.decode.records import Acceptance, DecodeRecord
from mtp_harness.sandbox import Grader, Program, Verdict
from mtp_harness.scoring.pass_at_k import pass_at_k

FILTER = "none"

MAX_OFFSET = 64
"""Acceptance is pooled for drafts up to this offset; the paper's largest model has 32 heads."""


class Graded(str):
    """An answer that carries its verdict and how it was decoded.

    Attributes:
        verdict: None where only predictions were asked for.
        record: None for answers of models, or of caches, that record nothing.
    """

    verdict: Verdict | None
    record: DecodeRecord | None

    def __new__(cls, answer: str, verdict: Verdict | None) -> Self:
        """Return the answer with its verdict, keeping the record it came with."""
        self = super().__new__(cls, answer)
        self.verdict = verdict
        self.record = getattr(answer, "record", None)
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Pickle as a plain string: ranks exchange answers after they have been scored."""
        return str, (str.__str__(self),)


class HumanEvalTask(ConfigurableTask):  # type: ignore[misc]
    """HumanEval: the answer continues the prompt; `check(candidate)` decides."""

    grades_programs = True

    def __init__(self, config: dict[str, Any]) -> None:
        """Build the task from its YAML."""
        super().__init__(config={k: v for k, v in config.items() if k != "class"})

    def apply_filters(self) -> None:
        """Grade all answers of this rank as one stream."""
        # The evaluator pads short ranks with repetitions: only `repeats` answers count.
        answers = [
            (instance, text)
            for instance in self.instances
            for text in instance.resps[: instance.repeats]
        ]
        verdicts: list[Verdict | None] = [None] * len(answers)
        if "bypass" not in self._metric_fn_list:
            with Grader(consent=plugin.consent_given()) as grader:
                verdicts = list(grader.grade([_program(i.doc, text) for i, text in answers]))
        for instance in self.instances:
            instance.filtered_resps[FILTER] = []
        for (instance, text), verdict in zip(answers, verdicts, strict=True):
            instance.filtered_resps[FILTER].append(Graded(text, verdict))

    def aggregation(self) -> dict[str, Callable[[list[Any]], float]]:
        """Return how each metric is pooled; the offsets depend on the model."""
        known: dict[str, Callable[[list[Any]], float]] = super().aggregation()
        return (
            known
            | {"lossy": max}
            | {
                name: ratio_of_sums
                for offset in range(2, MAX_OFFSET + 1)
                for name in (f"accept_rate_prefix_{offset}", f"accept_rate_cond_{offset}")
            }
        )


def _program(doc: dict[str, str], answer: str) -> Program:
    return Program(
        code=doc["prompt"] + answer,
        entry_point=doc["entry_point"],
        test=doc["test"],
        preamble=doc["prompt"],
        name=doc["task_id"],
    )


def score_document(doc: dict[str, Any], results: list[list[Graded]]) -> dict[str, Any]:
    """Return the metrics of one document (the YAML's `process_results`)."""
    answers = [answer for answers in results for answer in answers]
    verdicts = [answer.verdict for answer in answers if answer.verdict is not None]
    outcomes = [verdict.outcome for verdict in verdicts]
    n_judged = len(outcomes) - outcomes.count("error")
    metrics: dict[str, Any] = {
        "n_grading_errors": outcomes.count("error"),
        "n_answers": [_described(answer) for answer in answers],
    }
    if n_judged:
        metrics["pass@1"] = pass_at_k(n_judged, outcomes.count("pass"), 1)
    records = [answer.record for answer in answers if answer.record is not None]
    return metrics | decoding_metrics(records)


def decoding_metrics(records: list[DecodeRecord]) -> dict[str, Any]:
    """Return the metrics of how one document's answers were decoded."""
    if not records:
        return {}
    pooled = Acceptance.pool(records)
    lines = [r for r in records if not r.looping]
    own = [r.tokens_per_forward for r in records if r.n_steps]
    metrics: dict[str, Any] = {
        "looping": 1 - len(lines) / len(records),
        "tokens_per_forward": (pooled.n_kept, pooled.n_steps),
        "tokens_per_forward_no_loops": (
            sum(r.n_kept for r in lines),
            sum(r.n_steps for r in lines),
        ),
        "tokens_per_forward_mean": (sum(own), len(own)),
    }
    if not pooled.lossless:
        return metrics | {"lossy": 1}
    for offset in range(2, pooled.draft_heads + 1):
        verified = pooled.n_drafts_verified(offset)
        metrics[f"accept_rate_prefix_{offset}"] = (verified, pooled.n_steps_drafting(offset))
        metrics[f"accept_rate_cond_{offset}"] = (verified, pooled.n_open[offset - 2])
    return metrics


def _described(answer: Graded) -> dict[str, Any]:
    return {
        "verdict": None if answer.verdict is None else answer.verdict._asdict(),
        "decode": None if answer.record is None else answer.record.as_dict(),
    }


def ratio_of_sums(pairs: Iterable[tuple[float, float]]) -> float:
    """Aggregate (numerator, denominator) pairs as sum over sum; NaN where nothing was counted."""
    pairs = list(pairs)
    denominator = math.fsum(pair[1] for pair in pairs)
    return math.fsum(pair[0] for pair in pairs) / denominator if denominator else math.nan


def total(values: Iterable[float]) -> float:
    """Aggregate counts as their sum."""
    return sum(values)


def total_length(values: Iterable[list[Any]]) -> int:
    """Aggregate lists as the number of their entries."""
    return sum(len(value) for value in values)

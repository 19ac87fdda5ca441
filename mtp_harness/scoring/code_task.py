"""Tasks whose answers are programs: generated, graded as one stream, scored with their decoding.

Per document, and so in the samples (S is empty for greedy decoding and `_sampled` otherwise, so
that the two never share a name):

    pass@kS                       unbiased estimate over the document's graded answers
    pass@kS_low90, pass@kS_high90 the same value; pooled as the ends of the bootstrap interval
    exact_match                   share of answers equal to a reference solution, white space aside
    tokens_per_forward            (kept tokens, steps); summed before they are divided
    tokens_per_forward_no_loops   the same over answers that do not loop
    tokens_per_forward_mean       (sum of the answers' own ratios, answers)
    accept_rate_prefix_I          (drafts at offset I verified, steps that drafted I)
    accept_rate_cond_I            (the same, steps whose earlier drafts were all verified)
    looping                       share of answers that repeat themselves
    n_grading_errors              answers that the grader could not judge: never scored as 0
    n_not_judgeable               answers that fail because a test needs what cannot be copied
    n_truncated_answers           answers that end inside their thinking: they count as empty
    n_answers                     each answer's verdict and decode record (in the results: how many)

A pair that counted nothing is (0, 0), and the pooled value NaN. Pairs are never left out: with
several ranks the evaluator looks up the first one's metrics in all of them. `pass@k` is left out if
the grader judged fewer than k answers.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from lm_eval.api.instance import Instance

from mtp_harness.errors import UserError
from mtp_harness.harness.shots import tokens_of
from mtp_harness.sandbox import Grader, Verdict
from mtp_harness.sandbox.consent import consent_given
from mtp_harness.scoring.answers import code_of, normalised
from mtp_harness.scoring.decoding import decoding_metrics
from mtp_harness.scoring.generation_task import SampledTask
from mtp_harness.scoring.pass_at_k import pass_at_k
from mtp_harness.scoring.programs import benchmark_read_by
from mtp_harness.scoring.thinking import TRUNCATED, FinalText, n_truncated

_log = logging.getLogger(__name__)

MAX_ERROR_SHARE = 0.01
"""With more grading errors than this share of the answers, the run fails."""


class CodeTask(SampledTask):
    """A benchmark of programs: the one in `programs.BENCHMARKS` whose documents its YAML loads."""

    grades_programs = True
    _shots_chosen = False

    def __init__(self, config: dict[str, Any]) -> None:
        self.benchmark = benchmark_read_by(config)
        self.instruction = self.benchmark.instruction
        self.chat_stops = self.benchmark.chat_stops
        super().__init__(config)

    def set_config(self, key: str, value: Any, update: bool = False) -> None:
        """Set a value of the configuration, as the harness does for `--num_fewshot`."""
        self._shots_chosen = self._shots_chosen or key == "num_fewshot"
        super().set_config(key, value, update=update)

    def fit_shots(self, lm: object) -> None:
        """Leave out the YAML's few-shot examples if they do not fit a model's context."""
        super().fit_shots(lm)
        shots, context = self.config.num_fewshot, getattr(lm, "max_length", None)
        if self._shots_chosen or not shots or context is None:
            return
        room = context - self.config.generation_kwargs["max_gen_toks"]
        longest = max(self.eval_docs, key=lambda doc: len(self.doc_to_text(doc)))
        needed = tokens_of(lm, str(self.fewshot_context(longest, shots)))
        if needed is not None and needed > room:
            said = f"0, because {shots} shots take up to {needed} tokens, and {room} are free"
            super().set_config("num_fewshot", 0)
            super().set_config("metadata", {"num_fewshot": said}, update=True)
            _log.warning("%s: num_fewshot is %s", self.config.task, said)

    def judge(self, answers: Sequence[tuple[Instance, FinalText]]) -> None:
        """Grade all answers of this rank as one stream."""
        made = [self.benchmark.program(instance.doc, text) for instance, text in answers]
        with Grader(self.benchmark.limits, consent=consent_given()) as grader:
            verdicts = grader.grade(made)
            self.set_config("metadata", {"grading": grader.settings()}, update=True)
        refuse_errors(verdicts, self.config.task)
        for (_, text), verdict in zip(answers, verdicts, strict=True):
            text.verdict = verdict

    def score(self, doc: Any, results: list[list[FinalText]]) -> dict[str, Any]:
        """Return the metrics of one document."""
        return score_document(doc, results, self.ks, self.suffix)


def refuse_errors(verdicts: Sequence[Verdict], task: str) -> None:
    """Fail if the grader could not judge more than `MAX_ERROR_SHARE` of the answers."""
    errors = [verdict for verdict in verdicts if verdict.outcome == "error"]
    if len(errors) > MAX_ERROR_SHARE * len(verdicts):
        raise UserError(
            f"{task}: {len(errors)} of {len(verdicts)} answers could not be graded, more than "
            f"{MAX_ERROR_SHARE:.0%} (the first: {errors[0].detail}): correct that, then "
            "grade again; answers saved with --predict_only --log_samples are graded by "
            "`mtp-harness grade`."
        )


def score_document(
    doc: dict[str, Any],
    results: list[list[FinalText]],
    ks: Iterable[int] = (1,),
    suffix: str = "",
) -> dict[str, Any]:
    """Return the metrics of one document.

    Args:
        doc: Its columns; exact match is scored if it has reference solutions.
        results: The graded answers, as the harness hands them on.
        ks: The k of every pass@k.
        suffix: Ends the name of every pass@k.
    """
    answers = [answer for answers in results for answer in answers]
    outcomes = [answer.verdict.outcome for answer in answers if answer.verdict is not None]
    n_judged, n_right = len(outcomes) - outcomes.count("error"), outcomes.count("pass")
    kinds = [getattr(answer.verdict, "kind", "") for answer in answers]
    metrics: dict[str, Any] = {
        "n_grading_errors": outcomes.count("error"),
        "n_not_judgeable": kinds.count("not_judgeable"),
        TRUNCATED: n_truncated(results),
        "n_answers": [
            {"verdict": None if one.verdict is None else one.verdict._asdict(), **one.described()}
            for one in answers
        ],
    }
    for k in ks:
        if k <= n_judged:
            value = pass_at_k(n_judged, n_right, k)
            name = f"pass@{k}{suffix}"
            metrics |= {name: value, f"{name}_low90": value, f"{name}_high90": value}
    references = {normalised(code) for code in references_of(doc)}
    if references and answers:
        wanted = doc.get("entry_point") or doc.get("fn_name") or ""
        same = [normalised(code_of(str(answer), wanted)) in references for answer in answers]
        metrics["exact_match"] = sum(same) / len(same)
    records = [answer.record for answer in answers if answer.record is not None]
    return metrics | decoding_metrics(records)


def references_of(doc: dict[str, Any]) -> list[str]:
    """Return a document's reference solutions, if exact match is asked for."""
    if "solutions" in doc:
        return list(doc["solutions"])
    return [doc["code"]] if "code" in doc else []


def total(values: Iterable[float]) -> float:
    """Aggregate counts as their sum."""
    return sum(values)


def total_length(values: Iterable[list[Any]]) -> int:
    """Aggregate lists as the number of their entries."""
    return sum(len(value) for value in values)

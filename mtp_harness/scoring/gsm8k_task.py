"""GSM8K: worked answers, right if their final number is; greedy, or pass@k of sampled answers.

The final answer is the number after the first "The answer is", as in the examples of the prompt;
`1,234`, `$1234` and `1234.00` are the same number. An answer without one is wrong, and is counted
in `no_final_answer`. The other metrics are those of programs (`mtp_harness.scoring.code_task`), and
`mtp-harness passk` reads the samples.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from lm_eval.api.instance import Instance

from mtp_harness.data.gsm8k import value_of
from mtp_harness.scoring.code_task import score_document
from mtp_harness.scoring.generation_task import SampledTask
from mtp_harness.scoring.thinking import FinalText

_FINAL = re.compile(r"[Tt]he answer is:?\s*(?P<number>[-$]*\d[\d,]*(?:\.\d+)?|[-$]*\.\d+)")


class FinalAnswer(NamedTuple):
    """The verdict on one answer."""

    outcome: Literal["pass", "fail"]
    given: str | None  # its final number as written


class GSM8KTask(SampledTask):
    """Word problems, after eight worked examples."""

    columns = ("question", "target")

    def judge(self, answers: Sequence[tuple[Instance, FinalText]]) -> None:
        """Compare every answer's final number with the reference's."""
        for instance, text in answers:
            text.verdict = judge(instance.doc["final"], text)

    def score(self, doc: Any, results: list[list[FinalText]]) -> dict[str, Any]:
        """Return the metrics of one document."""
        return score_problem(doc, results, self.ks, self.suffix)


def score_problem(
    doc: dict[str, Any],
    results: list[list[FinalText]],
    ks: Sequence[int] = (1,),
    suffix: str = "",
) -> dict[str, Any]:
    """Return the metrics of one problem; the arguments are those of `score_document`."""
    metrics = score_document(doc, results, ks, suffix)
    for name in ("n_grading_errors", "n_not_judgeable"):  # cannot happen when numbers are compared
        del metrics[name]
    finals = [answer.verdict for some in results for answer in some]
    missing = sum(isinstance(one, FinalAnswer) and one.given is None for one in finals)
    return metrics | {"no_final_answer": missing}


def judge(reference: str, answer: str) -> FinalAnswer:
    """Return whether an answer's final number equals the reference's, which is text, too."""
    found = _FINAL.search(answer)
    if found is None:
        return FinalAnswer("fail", None)
    given = found["number"]
    return FinalAnswer("pass" if value_of(given) == value_of(reference) else "fail", given)

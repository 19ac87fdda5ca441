"""The grader as an `evaluate.Metric`, with the signature and the results of `code_eval`.

    from mtp_harness.scoring.code_eval import CodeEval
    scores, results = CodeEval().compute(
        references=["assert add(2, 3) == 5"], predictions=[["def add(a, b): return a + b"]], k=[1]
    )

Nothing is downloaded. A reference is trusted and runs in the grader. Names that it uses and does
not define belong to the program, and cross to the grader by the rule `objects`: values of builtin
types and the standard library as copies that compare as in Python, exceptions as exceptions, and
everything else as a handle. Functions that a reference passes run in the grader.

Source: https://huggingface.co/spaces/evaluate-metric/code_eval. Differences: programs are isolated
(`HF_ALLOW_CODE_EVAL` is not read), a program cannot see the reference, and a reference that cannot
run raises. As there, a k above the number of answers is left out.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from mtp_harness.sandbox import Grader, Limits, Program, Verdict
from mtp_harness.scoring.pass_at_k import pass_at_k_each
from mtp_harness.scoring.programs import check_of_statements, free_names

_log = logging.getLogger(__name__)

_DESCRIPTION = "Runs model-written programs in isolation and estimates pass@k."
_INPUTS = """
predictions: one list of programs per problem
references: one test per problem, as Python statements
k: the k of every pass@k
num_workers: programs graded at once
timeout: seconds of processor time that one program may take, rounded up; three times as long in all
"""
_CITATION = "Chen et al. 2021, Evaluating Large Language Models Trained on Code, arXiv:2107.03374"

Results = dict[int, list[tuple[int, dict[str, Any]]]]


class CodeEval(evaluate.Metric):  # type: ignore[misc]
    """pass@k of programs against tests.

    A program fails with the result `not judgeable: …`, and a warning counts such programs, where
    the reference needs a decision of an object that cannot be copied:

    - equality (`f(1) == P(1)`, unless it is the same object), order or truth of an object of a
      class that the program defines, and `type(x) is P` (`isinstance(x, P)` works);
    - arithmetic between such an object and a plain value (`P(1) + P(2)` works, `P(1) + 1` not);
    - subclasses of builtin types, other than named tuples and enumerations;
    - an exception that a `with` block of the program's should swallow: it never does;
    - arguments that cannot be copied: modules, locks, open files, objects of the reference's own
      classes.

    """

    def __init__(self, consent: bool = False, **kwargs: Any) -> None:
        """Store the consent to run programs even if the self-test finds them not isolated."""
        self._consent = consent
        super().__init__(**kwargs)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(predictions=datasets.Sequence(text), references=text),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[str]],
        references: Sequence[str],
        k: Sequence[int] = (1, 10, 100),
        num_workers: int | None = None,
        timeout: float = 3.0,
    ) -> tuple[dict[str, float], Results]:
        """Return the scores, and the outcome of each program by problem."""
        owners = [task for task, programs in enumerate(predictions) for _ in programs]
        pairs = zip(predictions, references, strict=True)
        programs = [program_of(code, reference) for codes, reference in pairs for code in codes]
        cpu_s = max(1, math.ceil(timeout))
        limits = Limits(wall_s=3.0 * cpu_s, cpu_s=cpu_s)
        with Grader(limits, num_workers, self._consent) as grader:
            verdicts = grader.grade(programs)
        if refused := sum(verdict.kind == "not_judgeable" for verdict in verdicts):
            _log.warning("%d of %d programs could not be judged and fail", refused, len(verdicts))
        results: Results = defaultdict(list)
        for task, verdict in zip(owners, verdicts, strict=True):
            results[task].append(_result(task, len(results[task]), verdict))
        totals = list(map(len, predictions))
        right = [sum(one["passed"] for _, one in results[task]) for task in range(len(predictions))]
        fitting = [n for n in k if totals and min(totals) >= n]
        scores = {f"pass@{n}": float(pass_at_k_each(totals, right, n).mean()) for n in fitting}
        return scores, dict(results)


def program_of(code: str, reference: str) -> Program:
    """Return a program whose test is the statements of a reference."""
    first, *others = free_names(reference) or [""]
    test = check_of_statements(reference)
    return Program(code=code, entry_point=first, test=test, rule="objects", exports=others)


def _result(task: int, number: int, verdict: Verdict) -> tuple[int, dict[str, Any]]:
    if verdict.outcome == "error":
        raise ValueError(
            f"the test of problem {task} cannot be run: {verdict.detail}; expected statements that "
            "use the program's functions: correct it"
        )
    said = {"pass": "passed", "timeout": "timed out"}.get(verdict.kind or "pass")
    failed = "not judgeable" if verdict.kind == "not_judgeable" else "failed"
    text = said or f"{failed}: {verdict.detail or verdict.kind}"
    about = {"task_id": task, "passed": verdict.outcome == "pass", "result": text}
    return number, {**about, "completion_id": number}

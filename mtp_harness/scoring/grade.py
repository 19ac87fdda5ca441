"""`mtp-harness grade SAMPLES`: grade answers that were saved, with `--predict_only` for one.

Every file gets a copy beside it, `….graded.jsonl`, with the verdicts and metrics that a grading run
would have put into the samples. Whatever verdicts were there are made again.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtp_harness.sandbox import Grader
from mtp_harness.scoring import samples
from mtp_harness.scoring.bootstrap import estimate
from mtp_harness.scoring.code_task import Graded, refuse_errors, score_document
from mtp_harness.scoring.n_samples import SUFFIX
from mtp_harness.scoring.programs import BENCHMARKS
from mtp_harness.scoring.thinking import TRUNCATED

KS = (1, 10, 100)


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Its arguments.
    """
    parser = argparse.ArgumentParser(
        prog="mtp-harness grade", description="Grade the programs in saved samples."
    )
    parser.add_argument("samples", nargs="+", help="samples_….jsonl files, or folders of them")
    parser.add_argument("--task", help="the task's name, where the file's does not say it")
    parser.add_argument("--k", default="", help="such as 1,10,100; by default those that fit")
    parser.add_argument("--workers", type=int, help="programs graded at once")
    parser.add_argument(
        "--confirm_run_unsafe_code",
        action="store_true",
        help="run the programs even where nothing isolates them",
    )
    given = parser.parse_args(argv)
    ks = tuple(int(k) for k in given.k.split(",") if k)
    for path in samples.find(given.samples):
        grade_file(
            samples.describe(path, given.task),
            ks,
            workers=given.workers,
            consent=given.confirm_run_unsafe_code,
        )
    return 0


def grade_file(
    file: samples.SamplesFile,
    ks: tuple[int, ...] = (),
    workers: int | None = None,
    consent: bool = False,
) -> Path:
    """Grade one file, write its graded copy and print its scores.

    Args:
        file: The samples.
        ks: The k of every pass@k; those of `KS` that fit if empty.
        workers: Programs graded at once; as many as keep the machine busy if None.
        consent: Run programs even where nothing isolates them.

    Returns:
        The graded copy.
    """
    benchmark = BENCHMARKS[samples.benchmark_of(file.task)]
    rows = list(samples.read(file.path))
    if not rows:
        raise ValueError(f"{file.path} holds no samples")
    answers = [(row, answer) for row in rows for answer in samples.answers_of(row)]
    with Grader(benchmark.limits, workers=workers, consent=consent) as grader:
        verdicts = grader.grade([benchmark.program(row["doc"], one) for row, one in answers])
        settings = grader.settings()
    refuse_errors(verdicts, file.task)
    graded: dict[int, list[Graded]] = {id(row): [] for row in rows}
    for (row, answer), verdict in zip(answers, verdicts, strict=True):
        graded[id(row)].append(Graded(answer, verdict))
    fewest = min(len(some) for some in graded.values())
    ks = ks or tuple(k for k in KS if k <= fewest)
    suffix = SUFFIX if samples.temperature_of(rows[0]) else ""
    metrics = [score_document(row["doc"], [graded[id(row)]], ks, suffix) for row in rows]
    copy = file.path.with_suffix(".graded.jsonl")
    with copy.open("w", encoding="utf-8") as lines:
        for row, own in zip(rows, metrics, strict=True):
            line = {**row, **_keep_decoding(row, own), "grading": settings}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    _show(file, metrics, [f"pass@{k}{suffix}" for k in ks], len(answers))
    return copy


def _keep_decoding(row: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Keep how each answer was decoded, where the samples hold it."""
    for new, old in zip(metrics["n_answers"], row.get("n_answers") or [], strict=False):
        new["decode"] = old.get("decode")
    return metrics


def _show(
    file: samples.SamplesFile, metrics: list[dict[str, Any]], names: list[str], n: int
) -> None:
    errors = sum(own["n_grading_errors"] for own in metrics)
    sys.stdout.write(
        f"{file.model} {file.task}: {n} answers to {len(metrics)} problems, "
        f"{errors} grading errors\n"
    )
    if truncated := sum(own[TRUNCATED] for own in metrics):
        sys.stdout.write(f"  {truncated} answers end inside <think> and count as empty\n")
    for name in names:
        value, low, high = estimate([own[name] for own in metrics if name in own])
        sys.stdout.write(f"  {name:20} {value:7.2%}   90 % interval {low:.2%} to {high:.2%}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

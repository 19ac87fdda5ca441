"""`mtp-harness rouge RESULTS`: all ROUGE scores with their intervals, from samples files.

The harness's own table has the thirty scores of a task and the intervals of the F1s. Here every
score has its 90 % bootstrap interval over documents, and where a model has all eight benchmarks
their plain average follows, as in Table S10; its interval resamples each benchmark's documents.

Source: Gloeckle et al. 2024, tables S8 to S10. Those models were finetuned on each benchmark.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtp_harness.data.summarization import BENCHMARKS
from mtp_harness.files import user_path, write_whole
from mtp_harness.results import samples
from mtp_harness.results.find import read_each
from mtp_harness.scoring.bootstrap import LEVEL, Estimate, replicates
from mtp_harness.scoring.rouge import ASCII, ASPECTS, SCORES, TYPES, UNICODE

AVERAGE = "average of the eight"
TOKENIZATIONS = {ASCII: "ASCII tokens, the paper's reading", UNICODE: "Unicode tokens"}


class Row(NamedTuple):
    """One score of one model.

    Attributes:
        model: Folder of the samples.
        task: Name of the task, or `AVERAGE`.
        metric: One of `SCORES`.
        score: With its interval, in [0, 1].
        n_documents: That it is over.
    """

    model: str
    task: str
    metric: str
    score: Estimate
    n_documents: int


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Its arguments.
    """
    parser = argparse.ArgumentParser(
        prog="mtp-harness rouge", description="Print ROUGE with 90 % intervals over documents."
    )
    parser.add_argument("results", nargs="+", help="samples_….jsonl files, or folders of them")
    parser.add_argument("--json", type=user_path, help="write the rows into this file, too")
    given = parser.parse_args(argv)
    rows = table(samples.find(given.results))
    sys.stdout.write("".join(f"{line}\n" for line in _lines(rows)))
    if given.json:
        plain = [{**row._asdict(), "score": row.score._asdict()} for row in rows]
        write_whole(given.json, json.dumps(plain, indent=2) + "\n")
    return 0


def table(paths: Iterable[Path]) -> list[Row]:
    """Return every score of every model and task in samples files.

    Raises:
        ValueError: There are two files for one of them, or none with ROUGE. Damaged files are named
            on stderr and left out.
    """
    read: dict[tuple[str, str], NDArray[np.float64]] = {}
    for file, found in read_each(paths, _read):
        key = file.model, file.task
        if key in read and len(found):
            raise ValueError(f"two files hold {file.task} of {file.model}: name the one to use")
        if len(found):
            read[key] = found
    if not read:
        raise ValueError("no samples with ROUGE were found: run a summary task with --log_samples")
    rows = []
    for model in sorted({model for model, _ in read}):
        scores = {task: matrix for (owner, task), matrix in sorted(read.items()) if owner == model}
        for task, matrix in scores.items():
            rows += _rows(model, task, [matrix])
        eight = [scores.get(f"{name}_mtp") for name in BENCHMARKS]
        if all(matrix is not None for matrix in eight):
            rows += _rows(model, AVERAGE, [matrix for matrix in eight if matrix is not None])
    return rows


def _read(path: Path) -> tuple[samples.SamplesFile, NDArray[np.float64]]:
    """Return a file's scores, [P, 30]; [0] where it is of no summaries."""
    file, documents = samples.describe(path), list(samples.read(path))
    if not any(SCORES[0] in one for one in documents):
        return file, np.empty(0)
    try:
        return file, np.array([[float(one[name]) for name in SCORES] for one in documents])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} has a document without a score ({type(error).__name__}: {error}), expected "
            "all of ROUGE: run again"
        ) from None


def _rows(model: str, task: str, matrices: list[NDArray[np.float64]]) -> list[Row]:
    """Return the scores averaged over benchmarks, each of them [P, 30]."""
    means = np.mean([matrix.mean(axis=0) for matrix in matrices], axis=0)  # [30]
    # Sorted, as `low90` does: a benchmark's interval is then the one in the results.
    drawn = [replicates(np.sort(one, axis=0), seed=seed) for seed, one in enumerate(matrices)]
    ends = np.quantile(np.mean(drawn, axis=0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    count = sum(map(len, matrices))
    return [
        Row(model, task, name, Estimate(float(mean), float(low), float(high)), count)
        for name, mean, low, high in zip(SCORES, means, *ends, strict=True)
    ]


def _lines(rows: list[Row]) -> Iterable[str]:
    """Yield the table; scores in percent, as the paper has them."""
    found = {row[:3]: row for row in rows}
    for model, task in dict.fromkeys(row[:2] for row in rows):
        for suffix, label in TOKENIZATIONS.items():
            first = found[model, task, SCORES[0]]
            yield f"{model}  {task}  {first.n_documents} documents, {label}"
            yield " " * 12 + "".join(f"{aspect:22}" for aspect in ASPECTS).rstrip()
            for kind in TYPES:
                cells = (found[model, task, f"{kind}_{aspect}{suffix}"].score for aspect in ASPECTS)
                text = "".join(f"{_percent(cell):22}" for cell in cells)
                yield f"  {kind:10}{text}".rstrip()
            yield ""
    yield "in percent, with 90 % intervals; the paper finetuned its models on each benchmark:"
    yield "beside its tables S8 to S10, zero- and few-shot results are another protocol"


def _percent(one: Estimate) -> str:
    return f"{100 * one.value:.2f} [{100 * one.low:.2f}, {100 * one.high:.2f}]"

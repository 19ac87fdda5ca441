"""ROUGE of models with intervals, from samples files, as printed by `mtp-harness rouge`.

The harness's own table has the thirty scores of a task and the intervals of the F1s. Here every
score has its 90 % bootstrap interval over documents. For a model with all eight benchmarks the
plain average follows, as in Table S10; its interval resamples each benchmark's documents.

Source: Gloeckle et al. 2024, tables S8 to S10. Those models were finetuned on each benchmark.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtp_harness.leaderboard.text import aligned, spanned
from mtp_harness.results import samples
from mtp_harness.results.find import read_each
from mtp_harness.scoring.bootstrap import LEVEL, Estimate, replicates
from mtp_harness.scoring.rouge import ASCII, ASPECTS, SCORES, TYPES, UNICODE

AVERAGE = "average of the eight"
TOKENIZATIONS = {ASCII: "ASCII tokens, the paper's reading", UNICODE: "Unicode tokens"}


class Row(NamedTuple):
    """One score of one model."""

    model: str
    task: str  # or `AVERAGE`
    metric: str  # one of `SCORES`
    score: Estimate  # in [0, 1]
    n_documents: int  # scored


def table(paths: Iterable[Path], eight: Sequence[str]) -> list[Row]:
    """Return every score of every model and task in samples files, and the average of eight tasks.

    Raises:
        ValueError: There are two files for one model and task, or none with ROUGE.
    """
    found = [(path, matrix) for path, matrix in read_each(paths, _read) if len(matrix)]
    if not found:
        raise ValueError("no samples with ROUGE were found: run a summary task with --log_samples")
    named = samples.describe_each(path for path, _ in found)
    by_model: dict[str, dict[str, list[NDArray[np.float64]]]] = defaultdict(dict)
    for path, matrix in found:
        model, task = named[path].model, named[path].task
        if task in by_model[model]:
            raise ValueError(f"two files hold {task} of {model}: name the one to use")
        by_model[model][task] = [matrix]
    rows = []
    for model in sorted(by_model):
        own = dict(sorted(by_model[model].items()))
        if own.keys() >= set(eight):
            own[AVERAGE] = [own[task][0] for task in eight]
        for task, matrices in own.items():
            rows += _rows(model, task, matrices)
    return rows


def _read(path: Path) -> tuple[Path, NDArray[np.float64]]:
    """Return a file with its scores, [P, 30]; [0] if it has no summaries."""
    samples.describe(path)  # refuses a name without a task
    documents = list(samples.read(path))
    if not any(SCORES[0] in one for one in documents):
        return path, np.empty(0)
    try:
        return path, np.array([[float(one[name]) for name in SCORES] for one in documents])
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


def lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of the table; scores in percent, as in the paper."""
    found = {row[:3]: row for row in rows}
    for model, task in dict.fromkeys(row[:2] for row in rows):
        for suffix, label in TOKENIZATIONS.items():
            first = found[model, task, SCORES[0]]
            yield f"{model}  {task}  {first.n_documents} documents, {label}"
            cells = [["", *ASPECTS]]
            for kind in TYPES:
                scores = [
                    found[model, task, f"{kind}_{aspect}{suffix}"].score for aspect in ASPECTS
                ]
                cells.append([f"  {kind}", *(spanned(score, _percent) for score in scores)])
            yield aligned(cells, gap="", least=(12, 22, 22, 22))
            yield ""
    yield "in percent, with 90 % intervals; tables S8 to S10 of the paper are another protocol:"
    yield "there, models were finetuned on each benchmark"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"

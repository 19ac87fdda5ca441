"""pass@k of models over temperatures, from samples files, as `mtp-harness passk` prints it.

One row per model, task and k, with the oracle temperature as in the paper's tables 1 and S12, an
honest one beside it, and with a baseline the gain over a model on the same problems. Answers that
were drawn in another way, as far as samples and the results beside them say, are refused as
`mtp-harness leaderboard` refuses them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtp_harness.results import result_file, samples
from mtp_harness.results.documents import load
from mtp_harness.results.find import read_each, results_of
from mtp_harness.results.protocol import Protocol, protocol_of, protocol_of_samples
from mtp_harness.results.run import Run
from mtp_harness.scoring.bootstrap import Estimate
from mtp_harness.scoring.pass_at_k import pass_at_k_each
from mtp_harness.scoring.programs import is_of_programs
from mtp_harness.scoring.temperatures import honest, oracle, oracle_gain

Counts = dict[str, tuple[int, int]]
"""Problem → answers judged, and right ones among them."""

_PASS = re.compile(r"pass@(\d+)(_sampled)?")


class Answers(NamedTuple):
    """What one samples file holds.

    Attributes:
        file: The file.
        temperature: Of its answers; 0 where they are greedy.
        counts: Of each problem.
        ks: The k that it was scored with.
        protocol: How the answers were drawn.
    """

    file: samples.SamplesFile
    temperature: float
    counts: Counts
    ks: frozenset[int]
    protocol: Protocol


class Row(NamedTuple):
    """One cell of the paper's table 1, with what stands behind it.

    Attributes:
        model: Folder of the samples.
        task: Name without a temperature.
        k: Of pass@k.
        n_samples: Fewest judged answers of a problem.
        n_problems: Problems with at least k judged answers at every temperature.
        temperatures: That there are samples of.
        best: The oracle temperature; None where several are best.
        score: pass@k there; its interval chooses again in each replicate.
        honest: pass@k at a temperature chosen on other problems; NaN for one temperature.
        gain: Over the baseline, both at their oracle temperatures; None without one.
    """

    model: str
    task: str
    k: int
    n_samples: int
    n_problems: int
    temperatures: list[float]
    best: float | None
    score: Estimate
    honest: float
    gain: Estimate | None


def read_answers(paths: Iterable[Path]) -> list[Answers]:
    """Return what samples files of programs hold; damaged ones are named on stderr and left out.

    Raises:
        ValueError: There is none.
    """
    found = [one for one in read_each(paths, _read) if one is not None]
    if not found:
        raise ValueError("no samples of programs were found: run with --log_samples")
    named = samples.describe_each(one.file.path for one in found)
    return [one._replace(file=named[one.file.path]) for one in found]


def _read(path: Path) -> Answers | None:
    """Return what a samples file holds; None where it holds no programs."""
    file, rows = samples.describe(path), list(samples.read(path))
    try:
        if not rows or samples.generation_of(rows[0]) is None:
            return None
        if not (samples.is_judged(rows[0]) or is_of_programs(file.task)):
            return None
        return Answers(
            file,
            samples.temperature_of(rows[0]),
            {str(row["doc_id"]): _count(row, path) for row in rows},
            frozenset(int(k[1]) for row in rows for name in row if (k := _PASS.fullmatch(name))),
            _protocol(file),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} has a line that is not a sample ({type(error).__name__}: {error}), expected "
            "what lm_eval --log_samples writes: run again"
        ) from None


def _protocol(file: samples.SamplesFile) -> Protocol:
    """Return how answers were drawn, as their results say it, or else the samples alone."""
    documents, results = load(file.path), results_of(file.path)
    if results is None:
        return protocol_of_samples(documents)
    run = Run(**vars(result_file.read(results, results.name)))
    return protocol_of(run, file.task, documents)


def _refuse_other_protocols(found: Iterable[Answers]) -> None:
    """Refuse answers to a task that differ in more than model and temperature.

    Raises:
        ValueError: There are some; the message names the first difference.
    """
    first: dict[tuple[str, bool], Answers] = {}
    for one in found:
        same = first.setdefault((one.file.family, one.temperature == 0), one)
        its = replace(one.protocol, temperature=same.protocol.temperature)
        if how := same.protocol.differences(its):
            raise ValueError(
                f"{one.file.family} of {same.file.path} and of {one.file.path} cannot be compared: "
                f"{'; '.join(how)}. Expected answers that differ in their models and temperatures "
                "alone: name the files that belong together"
            )


def _by_temperature(found: Iterable[Answers]) -> dict[tuple[str, str], dict[float, Answers]]:
    """Return the answers of each (model, task), by temperature.

    Raises:
        ValueError: There are two files for one of them.
    """
    cells: dict[tuple[str, str], dict[float, Answers]] = defaultdict(dict)
    for one in found:
        file, temperature = one.file, one.temperature
        other = cells[file.model, file.family].setdefault(temperature, one)
        if other is not one:
            raise ValueError(
                f"{file.path} and {other.file.path} are both {file.model}, {file.family} at "
                f"temperature {temperature:g}; expected one: name the files to use"
            )
    return dict(cells)


def _count(row: dict[str, Any], path: Path) -> tuple[int, int]:
    verdicts = [answer.get("verdict") for answer in row.get("n_answers") or []]
    if not verdicts or None in verdicts:
        raise ValueError(f"{path} holds answers without verdicts: run `mtp-harness grade {path}`")
    outcomes = [verdict["outcome"] for verdict in verdicts]
    return len(outcomes) - outcomes.count("error"), outcomes.count("pass")


def score(found: Sequence[Answers], ks: Iterable[int], baseline: str | None = None) -> list[Row]:
    """Return a row for every (model, task) and every k that its answers allow.

    Args:
        found: What `read_answers` returns.
        ks: The k of pass@k.
        baseline: Model that gains are over.

    Raises:
        ValueError: Answers cannot be compared, or no model is called like the baseline.
    """
    _refuse_other_protocols(found)
    cells = _by_temperature(found)
    models = sorted({model for model, _ in cells})
    if baseline is not None and baseline not in models:
        raise ValueError(f"baseline={baseline}; expected one of {', '.join(models)}: choose one")
    rows = []
    for (model, task), answers in sorted(cells.items(), key=lambda cell: cell[0]):
        base = cells.get((baseline, task), {}) if baseline not in (None, model) else {}
        for greedy in (True, False):  # apart: greedy answers are no temperature to choose
            own, its = (
                {t: one.counts for t, one in sorted(several.items()) if (t == 0) is greedy}
                for several in (answers, base)
            )
            rows += [row for k in ks if (row := _row(model, task, k, own, its))]
    return rows


def _row(
    model: str, task: str, k: int, own: dict[float, Counts], base: dict[float, Counts]
) -> Row | None:
    problems = _judged(own, k)
    if not problems:
        return None
    temperatures = list(own)
    matrix = _scores(own, problems, k)
    best, means = oracle(matrix, temperatures), matrix.mean(axis=0)
    is_tie = np.isclose(means, means.max()).sum() > 1
    gain, its = None, set(_judged(base, k))
    if common := [problem for problem in problems if problem in its]:
        gain = oracle_gain(_scores(own, common, k), _scores(base, common, k))
    return Row(
        model=model,
        task=task,
        k=k,
        n_samples=min(counts[p][0] for counts in own.values() for p in problems),
        n_problems=len(problems),
        temperatures=temperatures,
        best=None if is_tie else best.temperature,
        score=best.score,
        honest=honest(matrix, temperatures) if len(temperatures) > 1 else float("nan"),
        gain=gain,
    )


def _judged(own: dict[float, Counts], k: int) -> list[str]:
    """Return the problems with at least k judged answers at every temperature."""
    first = next(iter(own.values()), {})
    return [p for p in first if all(counts.get(p, (0, 0))[0] >= k for counts in own.values())]


def _scores(own: dict[float, Counts], problems: list[str], k: int) -> NDArray[Any]:
    """Return pass@k of each problem at each temperature, [P, T]."""
    columns = []
    for counts in own.values():
        n, c = zip(*(counts[p] for p in problems), strict=True)
        columns.append(pass_at_k_each(n, c, k))
    return np.stack(columns, axis=1)

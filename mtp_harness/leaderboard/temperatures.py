"""pass@k of models over temperatures, from samples files, as printed by `mtp-harness passk`.

There is one row per model, task and k, with the oracle temperature as in the paper's tables 1 and
S12, an honest score beside it (`scoring.temperatures`), and, with a baseline, the gain over a model
on the same problems. Answers drawn in different ways are refused, as by `mtp-harness leaderboard`,
as far as samples and results show it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtp_harness.leaderboard.text import spanned
from mtp_harness.results import result_file, samples
from mtp_harness.results.documents import load
from mtp_harness.results.find import read_each, results_of
from mtp_harness.results.protocol import Protocol, protocol_of, protocol_of_samples
from mtp_harness.results.sizes import in_digits
from mtp_harness.scoring.bootstrap import Estimate
from mtp_harness.scoring.pass_at_k import pass_at_k_each
from mtp_harness.scoring.programs import is_of_programs
from mtp_harness.scoring.temperatures import honest, oracle, oracle_gain

Counts = dict[str, tuple[int, int]]
"""Problem → answers judged, and right ones among them."""

_PASS = re.compile(r"pass@(\d+)(_sampled)?")


class Answers(NamedTuple):
    """The content of one samples file."""

    file: samples.SamplesFile
    temperature: float  # 0 for greedy answers
    counts: Counts
    ks: frozenset[int]  # the k of its pass@k
    protocol: Protocol  # how the answers were drawn


class Row(NamedTuple):
    """One cell of the paper's table 1, with its details."""

    model: str
    task: str  # without a temperature
    k: int  # of pass@k
    n_samples: int  # fewest judged answers of a problem
    n_problems: int  # with at least k judged answers at every temperature
    temperatures: list[float]  # with samples
    best: float | None  # the oracle temperature; None if several are best
    score: Estimate  # pass@k there; its interval chooses again in each replicate
    honest: float  # pass@k at a temperature chosen on other problems; NaN for one temperature
    gain: Estimate | None  # over the baseline, both at their oracle temperatures


def read_answers(paths: Iterable[Path]) -> list[Answers]:
    """Return the content of samples files of programs; damaged files are reported on stderr.

    Raises:
        ValueError: None has programs.
    """
    found = [one for one in read_each(paths, _read) if one is not None]
    if not found:
        raise ValueError("no samples of programs were found: run with --log_samples")
    named = samples.describe_each(one.file.path for one in found)
    return [one._replace(file=named[one.file.path]) for one in found]


def _read(path: Path) -> Answers | None:
    """Return the content of a samples file; None if it has no programs."""
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
    """Return how answers were drawn, from their results, or else from the samples alone."""
    documents, results = load(file.path), results_of(file.path)
    if results is None:
        return protocol_of_samples(documents)
    return protocol_of(result_file.read(results, results.name), file.task, documents)


def _refuse_other_protocols(found: Iterable[Answers]) -> None:
    """Refuse answers to a task that differ in more than model and temperature."""
    first: dict[tuple[str, bool], Answers] = {}
    for one in found:
        same = first.setdefault((one.file.family, one.protocol.is_greedy), one)
        if how := same.protocol.differences(one.protocol):
            raise ValueError(
                f"{one.file.family} of {same.file.path} and of {one.file.path} cannot be compared: "
                f"{'; '.join(how)}. Expected answers that differ in their models and temperatures "
                "alone: name the files that belong together"
            )


def _by_temperature(found: Iterable[Answers]) -> dict[tuple[str, str], dict[float, Answers]]:
    """Return the answers of each (model, task), by temperature; one file for each."""
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

    Raises:
        ValueError: Answers cannot be compared, or no model has the baseline's name.
    """
    _refuse_other_protocols(found)
    cells = _by_temperature(found)
    models = sorted({model for model, _ in cells})
    if baseline is not None and baseline not in models:
        raise ValueError(f"baseline={baseline}; expected one of {', '.join(models)}: choose one")
    rows = []
    for (model, task), answers in sorted(cells.items(), key=lambda cell: cell[0]):
        base = cells.get((baseline, task), {}) if baseline not in (None, model) else {}
        for greedy in (True, False):  # apart: greedy answers are used only if nothing was sampled
            own, its = (
                {t: one.counts for t, one in sorted(several.items()) if (t == 0) is greedy}
                for several in (answers, base)
            )
            rows += [row for k in ks if (row := _row(model, task, k, own, its))]
    return rows


def _row(
    model: str, task: str, k: int, own: dict[float, Counts], base: dict[float, Counts]
) -> Row | None:
    problems = list(next(iter(own.values()), {}))
    scores = _scores(own, problems, k)
    known = ~np.isnan(scores).any(axis=1)
    if not known.any():
        return None
    temperatures, gain = list(own), None
    best, means = oracle(scores[known], temperatures), scores[known].mean(axis=0)
    its = _scores(base, problems, k)
    if base and (common := known & ~np.isnan(its).any(axis=1)).any():
        gain = oracle_gain(scores[common], its[common])
    judged = [problems[place] for place in np.flatnonzero(known)]
    return Row(
        model=model,
        task=task,
        k=k,
        n_samples=min(counts[p][0] for counts in own.values() for p in judged),
        n_problems=len(judged),
        temperatures=temperatures,
        best=None if np.isclose(means, means.max()).sum() > 1 else best.temperature,
        score=best.score,
        honest=honest(scores[known], temperatures) if len(temperatures) > 1 else float("nan"),
        gain=gain,
    )


def _scores(own: dict[float, Counts], problems: list[str], k: int) -> NDArray[np.float64]:
    """Return pass@k of each problem at each temperature, [P, T]; NaN with fewer than k answers."""
    scores = np.empty((len(problems), len(own)))
    for column, counts in enumerate(own.values()):
        pairs = np.array([counts.get(problem, (0, 0)) for problem in problems]).reshape(-1, 2)
        scores[:, column] = pass_at_k_each(pairs[:, 0], pairs[:, 1], k)
    return scores


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines to print."""
    for row in rows:
        tried = ", ".join(f"{t:g}" for t in row.temperatures)
        if row.best is None:
            at = f"at the best of T={tried}, which several temperatures share"
        elif len(row.temperatures) == 1:
            at = f"at T={tried}"
        else:
            at = f"at T={row.best:g} (oracle of {tried})"
        text = f"{row.model}  {row.task}  pass@{row.k}  {spanned(row.score, in_digits)} {at}"
        if not np.isnan(row.honest):
            text += f"  honest {in_digits(row.honest)}"
        if row.gain is not None:
            text += f"  gain {spanned(row.gain, in_digits)}"
        yield f"{text}  n={row.n_samples}, {row.n_problems} problems"
    if any(row.best is not None and len(row.temperatures) > 1 for row in rows):
        yield (
            "oracle: best temperature on these problems; honest: chosen on one half of them, and "
            "scored on the other"
        )

"""`mtp-harness passk RESULTS`: pass@k over several temperatures, from samples files.

One row per model, task and k, with the oracle temperature as in the paper's tables 1 and S12, an
honest one beside it, and with `--baseline` the gain over a model on the same problems.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtp_harness.scoring import samples
from mtp_harness.scoring.bootstrap import Estimate
from mtp_harness.scoring.grade import KS
from mtp_harness.scoring.pass_at_k import pass_at_k_each
from mtp_harness.scoring.temperatures import honest, oracle, oracle_gain

Counts = dict[str, tuple[int, int]]
"""Problem → answers judged, and right ones among them."""


class Row(NamedTuple):
    """One cell of the paper's table 1, with what stands behind it.

    Attributes:
        model: Folder of the samples.
        task: Name without a temperature.
        k: Of pass@k.
        n_samples: Fewest judged answers of a problem.
        n_problems: Problems with at least k judged answers at every temperature.
        temperatures: That there are samples of.
        best: The oracle temperature.
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
    best: float
    score: Estimate
    honest: float
    gain: Estimate | None


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Its arguments.
    """
    parser = argparse.ArgumentParser(
        prog="mtp-harness passk", description="Score pass@k over several temperatures."
    )
    parser.add_argument("results", nargs="+", help="samples_….jsonl files, or folders of them")
    parser.add_argument("--k", default=",".join(map(str, KS)), help="such as 1,10,100")
    parser.add_argument("--baseline", help="model (folder name) that gains are over")
    parser.add_argument("--json", help="write the rows into this file, too")
    given = parser.parse_args(argv)
    counted = read_counts(samples.find(given.results))
    ks = [int(k) for k in given.k.split(",")]
    table = score(counted, ks, given.baseline)
    sys.stdout.write("".join(f"{_line(row)}\n" for row in table))
    for k in sorted({*ks} - {row.k for row in table}):
        sys.stdout.write(f"pass@{k} is left out: no task has {k} judged answers per problem\n")
    if given.json:
        Path(given.json).write_text(json.dumps([_plain(row) for row in table], indent=2) + "\n")
    return 0


def read_counts(paths: list[Path]) -> dict[tuple[str, str], dict[float, Counts]]:
    """Return the counts of each (model, task), by temperature.

    Raises:
        ValueError: There are two files for one of them, or one without verdicts.
    """
    found: dict[tuple[str, str], dict[float, Counts]] = defaultdict(dict)
    origin: dict[tuple[str, str, float], Path] = {}
    for path in paths:
        file = samples.describe(path)
        rows = list(samples.read(path))
        if not rows or samples.generation_of(rows[0]) is None:
            continue
        if not (samples.is_judged(rows[0]) or samples.is_of_programs(file.task)):
            continue
        temperature = samples.temperature_of(rows[0])
        key = (file.model, file.family, temperature)
        if key in origin:
            raise ValueError(
                f"{path} and {origin[key]} are both {file.model}, {file.family} at temperature "
                f"{temperature:g}; expected one: name the files to use"
            )
        origin[key] = path
        found[key[:2]][temperature] = {str(row["doc_id"]): _count(row, path) for row in rows}
    if not found:
        raise ValueError("no samples of programs were found: run with --log_samples")
    return dict(found)


def _count(row: dict[str, Any], path: Path) -> tuple[int, int]:
    verdicts = [answer.get("verdict") for answer in row.get("n_answers") or []]
    if not verdicts or None in verdicts:
        raise ValueError(f"{path} holds answers without verdicts: run `mtp-harness grade {path}`")
    outcomes = [verdict["outcome"] for verdict in verdicts]
    return len(outcomes) - outcomes.count("error"), outcomes.count("pass")


def score(
    counted: dict[tuple[str, str], dict[float, Counts]],
    ks: list[int],
    baseline: str | None = None,
) -> list[Row]:
    """Return a row for every (model, task) and every k that its answers allow.

    Args:
        counted: What `read_counts` returns.
        ks: The k of pass@k.
        baseline: Model that gains are over.
    """
    models = sorted({model for model, _ in counted})
    if baseline is not None and baseline not in models:
        raise ValueError(f"baseline={baseline}; expected one of {', '.join(models)}: choose one")
    rows = []
    for (model, task), by_temperature in sorted(counted.items()):
        base = counted.get((baseline, task)) if baseline not in (None, model) else None
        for greedy in (True, False):  # apart: greedy answers are no temperature to choose
            own, its = (_only(greedy, counts) for counts in (by_temperature, base or {}))
            rows += [row for k in ks if (row := _row(model, task, k, own, its))]
    return rows


def _only(greedy: bool, by_temperature: dict[float, Counts]) -> dict[float, Counts]:
    return {t: counts for t, counts in by_temperature.items() if (t == 0) is greedy}


def _row(
    model: str, task: str, k: int, own: dict[float, Counts], base: dict[float, Counts]
) -> Row | None:
    problems = _judged(own, k)
    if not problems:
        return None
    temperatures = sorted(own)
    matrix = _scores(own, problems, k)
    best = oracle(matrix, temperatures)
    gain = None
    if base and (common := [p for p in problems if p in set(_judged(base, k))]):
        gain = oracle_gain(_scores(own, common, k), _scores(base, common, k))
    return Row(
        model=model,
        task=task,
        k=k,
        n_samples=min(counts[p][0] for counts in own.values() for p in problems),
        n_problems=len(problems),
        temperatures=temperatures,
        best=best.temperature,
        score=best.score,
        honest=honest(matrix, temperatures) if len(temperatures) > 1 else float("nan"),
        gain=gain,
    )


def _judged(by_temperature: dict[float, Counts], k: int) -> list[str]:
    """Return the problems with at least k judged answers at every temperature."""
    first, *others = by_temperature.values() if by_temperature else [{}]
    return [
        problem
        for problem, (n, _) in first.items()
        if n >= k and all(counts.get(problem, (0, 0))[0] >= k for counts in others)
    ]


def _scores(by_temperature: dict[float, Counts], problems: list[str], k: int) -> NDArray[Any]:
    columns = []
    for temperature in sorted(by_temperature):
        n, c = zip(*(by_temperature[temperature][p] for p in problems), strict=True)
        columns.append(pass_at_k_each(n, c, k))
    return np.stack(columns, axis=1)  # [P, T]


def _line(row: Row) -> str:
    text = (
        f"{row.model}  {row.task}  pass@{row.k}  {_percent(row.score)} at T={row.best:g} "
        f"(oracle of {', '.join(f'{t:g}' for t in row.temperatures)})"
    )
    if not np.isnan(row.honest):
        text += f"  honest {row.honest:.2%}"
    if row.gain is not None:
        text += f"  gain {_percent(row.gain)}"
    return f"{text}  n={row.n_samples}, {row.n_problems} problems"


def _percent(one: Estimate) -> str:
    return f"{one.value:.2%} [{one.low:.2%}, {one.high:.2%}]"


def _plain(row: Row) -> dict[str, Any]:
    gain = None if row.gain is None else row.gain._asdict()
    return {**row._asdict(), "score": row.score._asdict(), "gain": gain}

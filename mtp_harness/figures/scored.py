"""pass@k of models over temperatures, and gains over n = 1, from runs.

As in the paper's tables 1 and S12, the temperature of a cell is the best one that was run, and an
interval chooses it again in every bootstrap replicate over problems (`scoring.temperatures`).
Greedy answers are used only if nothing was sampled.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mtp_harness.figures.rows import MODEL, plain, printed
from mtp_harness.results import alike, sizes
from mtp_harness.results.documents import scores
from mtp_harness.results.result_file import ResultFile
from mtp_harness.results.samples import family_of
from mtp_harness.results.tidy import Results, frame
from mtp_harness.results.values import decoding_of
from mtp_harness.scoring.temperatures import oracle, oracle_gain


class Cell(NamedTuple):
    """One model on one benchmark for one k of pass@k.

    Attributes:
        rows: One per temperature, lowest first.
        by_problem: Scores by problem, a column for each temperature; empty without samples.
    """

    rows: pd.DataFrame
    by_problem: pd.DataFrame

    @property
    def runs(self) -> str:
        """The hashes of its files."""
        return " ".join(dict.fromkeys(self.rows["run"]))

    @property
    def best(self) -> Any:
        """The row of the best temperature; of equal ones the lowest."""
        return self.rows.loc[self.rows["value"].astype(float).idxmax()]

    @property
    def has_a_best(self) -> bool:
        """Whether one of several temperatures scores higher than all others."""
        values = self.rows["value"].astype(float)
        return len(values) > 1 and int((values > values.max() - 1e-9).sum()) == 1


def cells(results: Results, tasks: tuple[str, ...]) -> Iterator[Cell]:
    """Yield every model, benchmark and k that was run, in the order of the table."""
    values = printed(results)
    passed = values[values["at"].notna() & values["task"].isin(tasks)]
    for _, rows in passed.groupby([*MODEL, "task", "at"], dropna=False, sort=True):
        sampled = rows[(rows["temperature"] > 0).fillna(False)]
        chosen = sampled if len(sampled) else rows
        alike.refuse_differences(chosen, results)
        # The text is the same for every k and batch size: of several runs the one with most heads.
        ordered = chosen.sort_values(["temperature", "n_samples", "k", "batch", "run"])
        one_each = ordered.drop_duplicates("temperature", keep="last").reset_index(drop=True)
        yield Cell(one_each, _by_problem(results, one_each))


def _by_problem(results: Results, rows: pd.DataFrame) -> pd.DataFrame:
    columns = []
    for _, row in rows.iterrows():
        file = results.files[row["run"]]
        suffix = "_sampled" if _is_sampled(row) else ""
        task = next(task for task in file.tasks if _is_of(row, file, task))
        by_document = scores(file, task, row["metric"] + suffix)
        if by_document is None:
            return pd.DataFrame()
        columns.append(pd.Series(by_document))
    return pd.concat(columns, axis="columns", join="inner").sort_index()


def _is_of(row: Any, file: ResultFile, task: str) -> bool:
    """Return whether a row belongs to a task: a file may hold several temperatures of it."""
    temperature = decoding_of(file, task).get("temperature")
    return family_of(task) == row["task"] and same(temperature, row["temperature"])


def _is_sampled(row: Any) -> bool:
    return not pd.isna(row["temperature"]) and bool(row["temperature"] > 0)


def at_best_temperature(results: Results, tasks: tuple[str, ...]) -> pd.DataFrame:
    """Return one row for every cell: its score at the best temperature, with its interval."""
    return best_of(cells(results, tasks))


def best_of(found: Iterable[Cell]) -> pd.DataFrame:
    """Return the same for some cells."""
    rows = []
    for cell in found:
        row = cell.best
        if len(cell.by_problem):
            places = [float(place) for place in range(len(cell.rows))]
            best, score = oracle(np.ascontiguousarray(cell.by_problem), places)
            row = cell.rows.loc[int(best)].to_dict() | score._asdict()
            row |= {"run": cell.runs, "count": len(cell.by_problem)}
        rows.append(plain(row))
    return frame(rows)


def gains(results: Results, tasks: tuple[str, ...]) -> pd.DataFrame:
    """Return what every model with n > 1 gains over n = 1 of the same size and training tokens."""
    found = list(cells(results, tasks))
    if found:
        alike.refuse_differences(pd.concat([cell.rows for cell in found]), results)
    rows = []
    for cell in found:
        candidates = [other for other in found if _is_baseline(other.best, cell.best)]
        place = the_baseline([one.best for one in candidates], cell.best)
        if place is None:
            continue
        base = candidates[place]
        problems = cell.by_problem.index.intersection(base.by_problem.index)
        if problems.empty and not same(base.best["documents"], cell.best["documents"]):
            continue
        row = difference(cell.best, base.best) | {"run": f"{cell.runs} {base.runs}"}
        if len(problems):
            own, its = (np.ascontiguousarray(one.by_problem.loc[problems]) for one in (cell, base))
            gain = oracle_gain(own, its)
            row |= gain._asdict() | {
                "count": len(problems),
                "baseline_value": float(its.mean(axis=0).max()),
            }
        rows.append(row)
    return frame(rows)


def the_baseline(candidates: Sequence[Any], row: Any) -> int | None:
    """Return the n = 1 that a model is compared with: the one with its label, or the only one.

    Args:
        candidates: Rows of all n = 1 that it could be compared with.
        row: The model's.

    Raises:
        ValueError: There are several, and none has its label.
    """
    labels = [one["label"] for one in candidates]
    own = [place for place, label in enumerate(labels) if label == row["label"]]
    chosen = own or list(range(len(labels)))
    if len(chosen) > 1:
        raise ValueError(
            f"{row['label']} could be compared with {' and '.join(labels)} on {row['task']}, "
            "expected one model with n = 1: leave the others out, or give pairs one label"
        )
    return chosen[0] if chosen else None


def difference(row: Any, base: Any) -> dict[str, Any]:
    """Return a row minus that of n = 1, without an interval."""
    changed = {"value": float(row["value"]) - float(base["value"]), "low": None, "high": None}
    named = {"baseline": base["label"], "baseline_value": float(base["value"])}
    return plain(row) | changed | named | {"run": f"{row['run']} {base['run']}"}


def _is_baseline(other: Any, row: Any) -> bool:
    return is_n1_of(other, row, "task", "at", "n_samples") and same_size(other, row)


def is_n1_of(other: Any, row: Any, *equal: str) -> bool:
    """Return whether one row has n = 1, the other n > 1, and some columns are equal.

    Also training tokens and seed must be equal, or the steps if both trainings' tokens are unknown.
    """
    unknown = pd.isna(row["train_tokens"]) and pd.isna(other["train_tokens"])
    keys = [*equal, "train_tokens", "train_seed", *(["train_step"] if unknown else [])]
    return other["n"] == 1 and row["n"] > 1 and all(same(other[key], row[key]) for key in keys)


def same_size(one: Any, other: Any) -> bool:
    """Return whether parameters of two rows are within 10 %; False if one is not known."""
    counts = one["parameters"], other["parameters"]
    return not any(map(pd.isna, counts)) and sizes.same_size(*counts)


def same(one: Any, other: Any) -> bool:
    """Return whether two entries are equal, or both missing."""
    if pd.isna(one) or pd.isna(other):
        return bool(pd.isna(one) and pd.isna(other))
    return bool(one == other)

"""Operations on rows of the tidy table, shared by several figures."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from mtp_harness.figures import words
from mtp_harness.results import schema
from mtp_harness.results.tidy import Results, frame

Select = Callable[[Results], pd.DataFrame]

MODEL = ["label", "n", "parameters", "train_tokens", "train_step", "train_seed"]
"""Columns that together identify a model."""


def nothing(results: Results) -> pd.DataFrame:
    """Return no rows, for figures that no run measures."""
    return frame([])


def printed(results: Results) -> pd.DataFrame:
    """Return the metrics that the harness prints, of runs that verified their drafts."""
    values = results.values
    verified = values["acceptance"].fillna("exact") == "exact"
    return values[(values["table"] == "results") & verified]


def put(rows: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """Return rows with other columns, with the types of the tidy table."""
    return rows.assign(**columns).astype({name: schema.COLUMNS[name] for name in columns})


def plain(row: Any) -> dict[str, Any]:
    """Return a row for `tidy.frame`: None for missing entries."""
    return {name: None if pd.isna(entry) else entry for name, entry in row.items()}


def mean_of(group: pd.DataFrame, *kept: str, **told: Any) -> dict[str, Any]:
    """Return one row for several: their mean, the files behind it, and their common entries."""
    first = plain(group.iloc[0])
    joined = {"run": " ".join(dict.fromkeys(group["run"]))}
    joined |= {"task": "+".join(dict.fromkeys(group["task"]))}
    same = {name: first[name] for name in (*MODEL, "source", "file", "hardware", "metric", *kept)}
    return same | joined | {"value": float(group["value"].mean())} | told


def with_most_heads(rows: pd.DataFrame, same: Sequence[str]) -> pd.DataFrame:
    """Keep one of the rows that share some columns: the answers are the same for every k."""
    ordered = rows.sort_values("k", kind="stable")
    return ordered.drop_duplicates(list(same), keep="last").sort_index()


def shared(rows: pd.DataFrame, column: str, by: Sequence[str] = ("label",)) -> set[Any]:
    """Return the entries of a column that all models have."""
    each = [set(own) for _, own in rows.groupby(list(by), dropna=False)[column]]
    return set.intersection(*each) if each else set()


def told_apart(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Add a column's entry to the label of models that have several of them."""
    several = rows.groupby("label")[column].transform("nunique") > 1
    entries = [words.entry(column, entry) for entry in rows[column]]
    named = rows["label"] + ", " + pd.Series(entries, rows.index, dtype="string")
    return put(rows, label=rows["label"].where(~several, named))

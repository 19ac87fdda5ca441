"""A folder of runs as one tidy table.

    read_runs(places) -> Results
        values     pandas.DataFrame with the columns and types of `schema.COLUMNS`, one number a row
        files      the `ResultFile` of each run that was read, by the hash in the column `run`
        problems   sentences: files that were left out, and measurements that occur twice

    frame(rows)      the same frame from other rows, such as the paper's (`paper_data.read`)
    to_csv(values)   its text: only columns with entries; equal values give equal bytes

Missing values stay missing. A file that cannot be used is left out, and a sentence in `problems`
says which and why. If two runs measured the same with the same settings, the newer counts.
"""

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from mtp_harness.results import result_file, schema
from mtp_harness.results.find import find_results
from mtp_harness.results.result_file import ResultFile, Unreadable, told_apart
from mtp_harness.results.values import columns_of


class Results(NamedTuple):
    """The content of a folder of runs; `files` are without the tables that `values` has."""

    values: pd.DataFrame
    files: dict[str, ResultFile]
    problems: list[str]


def read_runs(places: Sequence[str | Path]) -> Results:
    """Read all results files in and below `places`.

    Raises:
        FileNotFoundError: A place does not exist, or there is no results file at all.
    """
    tables: list[pa.Table] = []
    files: dict[str, ResultFile] = {}
    problems: list[str] = []
    found = find_results(places)
    with _no_search_for_cycles():
        for path, name in found.items():
            try:
                file = result_file.read(path, name)
                if (copy := files.get(file.sha256)) is not None:
                    problems.append(f"{path} is a copy of {copy.path}: it is counted once")
                    continue
                tables.append(_typed(columns_of(file)))
                files[file.sha256] = file.without_tables()  # they are in the table now
            except Unreadable as error:
                problems.append(str(error))
    values = _joined(tables)
    named = {file.sha256: file for file in told_apart(list(files.values()))}
    if longer := {sha256: file.alias for sha256, file in named.items() if file.alias}:
        values["label"] = values["run"].map(longer).astype("string").fillna(values["label"])
    values, doubled = _newest(values, named)
    return Results(values, named, problems + doubled)


def table(results: Results, task: str, name: str, *metrics: str) -> pd.DataFrame:
    """Return rows of one of the probes' tables."""
    values = results.values
    chosen = values[(values["task"] == task) & (values["table"] == name)]
    if metrics:
        chosen = chosen[chosen["metric"].isin(metrics)]
    return chosen.reset_index(drop=True)


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Pause the garbage collector: JSON makes millions of lists, and no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a table with the declared columns and types."""
    listed = list(rows)
    return _joined([_typed({name: [row.get(name) for row in listed] for name in schema.COLUMNS})])


_ARROW = {"string": pa.large_string(), "Int64": pa.int64(), "Float64": pa.float64()}
_PANDAS = {
    pa.null(): pd.StringDtype(),
    pa.large_string(): pd.StringDtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.float64(): pd.Float64Dtype(),
}
_SCHEMA = pa.schema({name: _ARROW[kind] for name, kind in schema.COLUMNS.items()})


def _typed(columns: Mapping[str, list[Any]]) -> pa.Table:
    """Return columns by `_SCHEMA`; empty ones take no memory until they are joined."""
    return pa.table({name: _array(name, column) for name, column in columns.items()})


def _array(name: str, column: list[Any]) -> pa.Array:
    if column.count(None) == len(column):
        return pa.nulls(len(column))
    kind = _SCHEMA.field(name).type if name in schema.COLUMNS else pa.float64()
    if name not in schema.COLUMNS and any(isinstance(entry, str) for entry in column):
        kind = pa.large_string()
    try:
        return pa.array(column, kind, from_pandas=True)
    except (UnicodeEncodeError, pa.ArrowException):
        return pa.array(map(_text, column), kind)


def _text(entry: object) -> str | None:
    """Return an entry as text without half characters, which JSON allows and tables do not."""
    return None if entry is None else str(entry).encode("utf-8", "replace").decode()


def _joined(tables: Iterable[pa.Table]) -> pd.DataFrame:
    """Return tables below each other."""
    tables = list(tables)
    kinds: dict[str, set[pa.DataType]] = defaultdict(set)
    for field in (field for table in tables for field in table.schema):
        kinds[field.name].add(field.type)
    for name in schema.not_ours(kinds):
        if len(kinds[name] - {pa.null()}) > 1:  # numbers in one run, text in another
            tables = [_as_text(table, name) for table in tables]
    whole = pa.concat_tables([_SCHEMA.empty_table(), *tables], promote_options="default")
    values: pd.DataFrame = whole.to_pandas(types_mapper=_PANDAS.get)
    return values


def _as_text(table: pa.Table, name: str) -> pa.Table:
    if name not in table.column_names:
        return table
    column = table[name].cast(pa.large_string())
    return table.set_column(table.column_names.index(name), name, column)


def to_csv(values: pd.DataFrame) -> str:
    """Return a table as CSV, columns without any entry left out."""
    shown = values.dropna(axis="columns", how="all")
    text: str = shown.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    return text


SETTINGS = (
    "label n parameters train_tokens train_step train_seed dtype documents acceptance asked task "
    "table"
).split()
"""Columns that equal measurements share, besides the dimensions (and the machine for times)."""


def _newest(
    values: pd.DataFrame, files: Mapping[str, ResultFile]
) -> tuple[pd.DataFrame, list[str]]:
    """Keep the newest of equal measurements, and name the others."""
    same = [*SETTINGS, *schema.DIMENSIONS, *schema.not_ours(values), "hardware"]
    ordered = _several_times(values).sort_values(
        ["date", "run"], kind="stable", na_position="first"
    )
    ordered = ordered.assign(hardware=ordered["hardware"].where(_beside_times(ordered)))
    older = ordered.duplicated(same, keep="last")
    if not older.any():
        return values, []
    said = []
    for (run, task), rows in ordered[older].groupby(["run", "task"], sort=False):
        newer = ordered[~older & (ordered["task"] == task)].merge(rows[same], on=same)
        by = files[newer["run"].iloc[0]].path
        said.append(f"{files[run].path} and {by} both measured {task}: the newer counts")
    return values.drop(index=ordered.index[older]).reset_index(drop=True), said


def _beside_times(values: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows are times, or are in a table with times."""
    timed = values["metric"].str.fullmatch(schema.TIMED.pattern)
    in_tables = (values["table"] != "results") | values["task"].isin(schema.OF_TIMES)
    with_times = values.loc[timed & in_tables, "table"].unique()
    return timed | (in_tables & values["table"].isin(with_times))


def _several_times(values: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of all tables that more than one run has for one model."""
    tables = values[["run", *SETTINGS]].drop_duplicates()
    several = tables[tables.duplicated(SETTINGS, keep=False)]
    return values[values["run"].isin(several["run"]) & values["task"].isin(several["task"])]

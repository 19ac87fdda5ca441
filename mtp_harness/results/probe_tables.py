"""Reads and checks the probes' own tables in a results file, column by column.

    config.mtp.tables.TASK.TABLE = {"columns": […], "rows": [[…], …]}

They have thousands of rows, so a column is checked as a whole. Columns that are not in
`schema.COLUMNS` belong to a user's own probe, and are kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import compress
from typing import Any, NamedTuple

from mtp_harness.results import schema
from mtp_harness.results.result_file import ResultFile, Unreadable, number, whole

Row = dict[str, Any]
Columns = dict[str, list[Any]]


class Block(NamedTuple):
    """Rows that share most entries, with the differing ones by column: there are thousands."""

    shared: Row
    own: Mapping[str, Sequence[Any]]
    n_rows: int


def blocks_of(file: ResultFile, task: str, name: str, table: Any) -> Iterator[Block]:
    """Yield the rows of a table that have a value; none of a list of reasons (`not_measured`).

    Raises:
        Unreadable: It is not a table, or has content that no probe writes; the message names both.
    """
    where = f"{file.path}: table {name} of {task}"
    if not isinstance(table, Mapping) or not isinstance(names := table.get("columns"), list):
        raise Unreadable(f"{where} has no columns, expected columns and rows: run again")
    if "metric" not in names and "value" not in names:  # reasons, such as `not_measured`
        return
    _check_shape(where, names, table.get("rows"))
    if not table["rows"]:
        return
    own = {
        column: _typed(file, f"{name}.{column}", column, entries)
        for column, entries in zip(names, zip(*table["rows"], strict=True), strict=True)
    }
    _check_offsets(where, own.get("offset", ()), file)
    if None in own["metric"]:
        place = own["metric"].index(None) + 1
        raise Unreadable(f"{where} has no metric in row {place}: run again")
    if "model" in own:
        own["baseline"] = [None if model == "self" else model for model in own.pop("model")]
    own["documents"] = _documents_of_rows(file, task, own)
    measured = [value is not None for value in own["value"]]
    own = {column: list(compress(entries, measured)) for column, entries in own.items()}
    shared = {"k": None, "task": task, "table": name, "asked": asked_of(file, task)}
    yield Block(shared, own, len(own["value"]))


def _check_shape(where: str, names: list[Any], rows: Any) -> None:
    if unnamed := [name for name in names if not isinstance(name, str)]:
        raise Unreadable(f"{where} has the column {unnamed[0]!r}, expected a name: run again")
    if lacking := [name for name in ("metric", "value") if name not in names]:
        raise Unreadable(f"{where} has no column {lacking[0]}, expected one: run again")
    if not isinstance(rows, list):
        raise Unreadable(f"{where} has no rows, expected a list of them: run again")
    for place, entries in enumerate(rows, 1):
        if not isinstance(entries, list) or len(entries) != len(names):
            raise Unreadable(f"{where} has in row {place} not its {len(names)} entries: run again")


def _documents_of_rows(file: ResultFile, task: str, own: Columns) -> list[str | None]:
    """Return each row's documents, by its data set or category."""
    nothing = [None] * len(own["value"])
    sets = own.get("data_set", nothing)
    kept = [one or other for one, other in zip(sets, own.get("category", nothing), strict=True)]
    named = {name: documents_of(file, task, name) for name in set(kept)}
    return [named[name] for name in kept]


def _typed(file: ResultFile, name: str, column: str, entries: Sequence[Any]) -> list[Any]:
    """Return the entries of a column, as numbers if it is a column of numbers.

    An unknown column is one of numbers if it has nothing else.
    """
    types = set(map(type, entries)) - {type(None)}
    kind = schema.COLUMNS.get(column, "Float64" if types and types <= {int, float} else "string")
    if kind == "string":
        return list(entries) if types <= {str} else [e if e is None else str(e) for e in entries]
    if kind == "Float64":
        return [number(file, name, entry) for entry in entries]
    if types <= {int} and all(entry is None or 0 <= entry < 2**53 for entry in entries):
        return list(entries)
    return [whole(file, name, entry, least=0) for entry in entries]


def _check_offsets(where: str, offsets: Sequence[int | None], file: ResultFile) -> None:
    n = file.mtp.get("n_future_tokens", 1)
    for offset in set(offsets):
        if offset is not None and not 1 <= offset <= n:
            raise Unreadable(f"{where} has offset {offset}, expected 1 to n = {n}: run again")


_CHANGE_NUMBERS = ("window", "stride", "new_tokens")
"""Options of probes that change what is measured on the same documents."""


def asked_of(file: ResultFile, task: str) -> str:
    """Return in words how a task was run, without temperature and repeats.

    The place of documents and the choice among them are covered by their hashes, not here.
    """
    config = file.content["configs"].get(task, {})
    kwargs = dict(config.get("generation_kwargs") or {})
    if not kwargs.get("do_sample"):
        kwargs = {name: value for name, value in kwargs.items() if name not in ("top_p", "top_k")}
    told = [f"version {file.version(task)}", f"{file.told('n-shot', task) or 0}-shot"]
    for name in sorted(set(kwargs) - {"do_sample", "temperature", "until"}):
        told.append(f"{name}={kwargs[name]}")
    if "until" in kwargs:
        told.append(f"stops {sha256(repr(kwargs['until']).encode()).hexdigest()[:6]}")
    if task.startswith("mtp_"):
        options = config.get("metadata") or {}
        told += [f"{name}={options[name]}" for name in _CHANGE_NUMBERS if name in options]
    return ", ".join(told)


def documents_of(file: ResultFile, task: str, data_set: str | None) -> str | None:
    """Return the documents of a task: their hash, how many of how many, or both."""
    sets = file.data_sets(task)
    about = next(iter(sets.values())) if len(sets) == 1 else sets.get(str(data_set))
    sha256 = about.get("sha256") if isinstance(about, dict) else None
    parts = [str(sha256)[:12]] if sha256 else []
    read, whole = file.counted(task)
    if whole is not None and (read != whole or not parts):
        parts.append(f"{read} of {whole}")
    return ", ".join(parts) or None

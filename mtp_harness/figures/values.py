"""The numbers in one results file, as rows of the tidy table.

    results.TASK["pass@10_sampled,none"]   table "results": metric pass@10, temperature, interval
    config.mtp.totals                      table "totals": what all answers of the run decoded
    config.mtp.tables.TASK.TABLE           the probes' own tables, column by column

A metric that counted nothing (NaN, null) gives no row.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mtp_harness.figures import schema
from mtp_harness.figures.result_file import ResultFile, Unreadable, number, whole

Row = dict[str, Any]

_TEMPERATURE = re.compile(r"_t\d+(\.\d+)?$")
_AT_OFFSET = re.compile(r"(accept_rate_prefix|accept_rate_cond)_(\d+)")
_ROUGE = re.compile(r"(rouge(?:\d|L|Lsum))_(f1|precision|recall)(_unicode)?")
_ENDS = {"_low90": "low", "_high90": "high"}


def rows_of(file: ResultFile) -> list[Row]:
    """Return every number of a results file.

    Raises:
        Unreadable: A number is none, or cannot be what its name says; the message names the file.
    """
    run = _run(file)
    rows = [run | row for row in _all(file)]
    for row in rows:
        said = schema.unfit(row["metric"], row["value"])
        low, high = row.get("low"), row.get("high")
        if said is None and low is not None and high is not None and low > high:
            said = f"{row['metric']} has an interval from {low:g} to {high:g}"
        if said:
            raise Unreadable(f"{file.path}: {row['task']}: {said}: run again")
    _refuse_doubled(file, rows)
    return rows


def _all(file: ResultFile) -> Iterator[Row]:
    for task in file.tasks:
        yield from _flat(file, task)
    yield from _totals(file)
    for task, tables in (file.mtp.get("tables") or {}).items():
        if not isinstance(tables, dict):
            raise Unreadable(f"{file.path}: tables of {task} are no tables by name: run again")
        for name, table in tables.items():
            yield from _table(file, task, name, table)


def _run(file: ResultFile) -> Row:
    config, mtp = file.content["config"], file.mtp
    hardware = mtp.get("hardware") or {}
    n = whole(file, "n_future_tokens", mtp.get("n_future_tokens"), least=1)
    parameters = config.get("model_num_parameters")
    return {
        "source": "run",
        "file": file.name,
        "run": file.sha256,
        "date": number(file, "date", file.content.get("date")),
        "label": file.label,
        "n": n or 1,  # another model of the harness predicts one token
        "heads": mtp.get("heads"),
        "parameters": whole(file, "model_num_parameters", parameters, least=0),
        "train_tokens": whole(file, "train_tokens", mtp.get("train_tokens")),
        "train_step": whole(file, "train_step", mtp.get("train_step")),
        "train_seed": whole(file, "train_seed", mtp.get("train_seed")),
        "hardware": hardware.get("gpu") or hardware.get("cpu"),
        "dtype": mtp.get("dtype"),
        "note": file.content.get("note"),
        "acceptance": mtp.get("acceptance"),
    }


def _decoding(file: ResultFile, task: str) -> Row:
    """Return how a task's answers were decoded."""
    config = file.content["configs"].get(task, {})
    kwargs = config.get("generation_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise Unreadable(f"{file.path}: generation_kwargs of {task} are no settings: run again")
    row: Row = {"k": whole(file, "draft_heads", file.mtp.get("draft_heads"))}
    if kwargs:
        given = kwargs.get("temperature", 1.0) if kwargs.get("do_sample") else 0.0
        row["temperature"] = number(file, f"temperature of {task}", given)
        row["n_samples"] = whole(file, f"repeats of {task}", config.get("repeats"), least=1)
    slots = file.mtp.get("slots") or file.mtp.get("batch_size")
    if isinstance(slots, int):
        row["batch"] = slots
    return row


def _flat(file: ResultFile, task: str) -> Iterator[Row]:
    """Yield the metrics that the harness prints, each with the interval reported beside it."""
    family = family_of(task)
    metadata = file.content["configs"][task].get("metadata")
    effective = (file.content.get("n-samples") or {}).get(task) or {}
    shared = _decoding(file, task) | {
        "task": family,
        "table": "results",
        "data_set": family.removesuffix("_mtp"),
        "protocol": metadata.get("protocol") if isinstance(metadata, dict) else None,
        "documents": _documents(file, task, family.removesuffix("_mtp")),
        "count": whole(file, f"n-samples of {task}", effective.get("effective"), least=0),
    }
    found: dict[str, Row] = {}
    for key, value in file.content["results"][task].items():
        metric, comma, _ = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        of, end = metric, "value"
        for suffix, name in _ENDS.items():
            if metric.endswith(suffix):
                of, end = metric.removesuffix(suffix), name
        measured = number(file, f"{task} {metric}", value)
        if measured is not None:
            found.setdefault(of, {})[end] = measured
    for metric, values in found.items():
        if "value" in values:
            yield shared | _named(metric) | values


def _documents(file: ResultFile, task: str, data_set: str | None) -> str | None:
    """Return which documents a task read: their hash, how many of how many, or both."""
    told = (file.mtp.get("documents") or {}).get(task) or {}
    sets = told if isinstance(told, dict) else {}
    about = next(iter(sets.values())) if len(sets) == 1 else sets.get(data_set)
    sha256 = about.get("sha256") if isinstance(about, dict) else None
    parts = [str(sha256)[:12]] if sha256 else []
    counted = (file.content.get("n-samples") or {}).get(task) or {}
    effective, original = counted.get("effective"), counted.get("original")
    if original is not None and (effective != original or not parts):
        parts.append(f"{effective} of {original}")
    return ", ".join(parts) or None


def family_of(task: str) -> str:
    """Return a task's name without a temperature, so that a task at several of them is one."""
    return _TEMPERATURE.sub("", task)


def _named(metric: str) -> Row:
    """Return what a flat metric's name says."""
    if found := _AT_OFFSET.fullmatch(metric):
        return {"metric": found[1], "offset": int(found[2])}
    if found := _ROUGE.fullmatch(metric):
        return {"metric": found[1] + (found[3] or ""), "aspect": found[2]}
    named = metric.removesuffix("_sampled")
    return {"metric": named, "at": schema.at(named)}


def _totals(file: ResultFile) -> Iterator[Row]:
    totals = file.mtp.get("totals") or {}
    tasks = file.tasks
    if not totals.get("n_steps") or not tasks:
        return
    shared = _decoding(file, tasks[0]) if len(tasks) == 1 else {}
    shared |= {
        "task": "+".join(map(family_of, tasks)),
        "table": "totals",
        "k": whole(file, "draft_heads", file.mtp["draft_heads"]),
        "count": whole(file, "n_answers", totals.get("n_answers"), least=0),
    }
    timing = totals.get("timing") or {}
    for metric, value in (
        ("tokens_per_forward", totals.get("tokens_per_forward")),
        ("tokens_per_second", timing.get("tokens_per_s")),
    ):
        if (measured := number(file, metric, value)) is not None:
            yield shared | {"metric": metric, "value": measured}
    for verified, steps in enumerate(totals.get("n_steps_by_verified_drafts") or []):
        measured = number(file, "n_steps_by_verified_drafts", steps)
        if measured is not None:
            yield shared | {"metric": "steps", "n_verified": verified, "value": measured}


def _table(file: ResultFile, task: str, name: str, table: Any) -> Iterator[Row]:
    where = f"{file.path}: table {name} of {task}"
    if not isinstance(table, Mapping) or not isinstance(columns := table.get("columns"), list):
        raise Unreadable(f"{where} has no columns, expected columns and rows: run again")
    lacking = [column for column in ("metric", "value") if column not in columns]
    if len(lacking) == 2:  # a list of reasons, such as `not_measured`
        return
    if unknown := [column for column in columns if not _known(column)]:
        raise Unreadable(
            f"{where} has the column {unknown[0]!r}, expected {', '.join(schema.DIMENSIONS)}: it "
            "was written by another version of mtp-harness; update, or run again"
        )
    if lacking:
        raise Unreadable(f"{where} has no column {lacking[0]}, expected one: run again")
    if not isinstance(rows := table.get("rows"), list):
        raise Unreadable(f"{where} has no rows, expected a list of them: run again")
    shared = {"k": None, "task": task, "table": name}
    for place, entries in enumerate(rows, 1):
        if not isinstance(entries, list) or len(entries) != len(columns):
            raise Unreadable(
                f"{where} has in row {place} not its {len(columns)} entries: run again"
            )
        row = dict(zip(columns, entries, strict=True))
        row = {key: _typed(file, f"{name}.{key}", key, entry) for key, entry in row.items()}
        _check_offset(where, row, file)
        if row["metric"] is None:
            raise Unreadable(f"{where} has in row {place} no metric: run again")
        if row["value"] is not None:
            model = row.pop("model", "self")
            kept = row.get("data_set") or row.get("category")
            row["documents"] = _documents(file, task, kept)
            yield shared | ({"baseline": model} if model not in ("self", None) else {}) | row


def _known(column: Any) -> bool:
    return column == "model" or (isinstance(column, str) and column in schema.COLUMNS)


def _typed(file: ResultFile, name: str, column: str, entry: Any) -> Any:
    kind = schema.COLUMNS.get(column, "string")
    if entry is None or kind == "string":
        return None if entry is None else str(entry)
    if kind == "Float64":
        return number(file, name, entry)
    return whole(file, name, entry, least=0)


def _check_offset(where: str, row: Row, file: ResultFile) -> None:
    n, offset = file.mtp.get("n_future_tokens", 1), row.get("offset")
    if offset is not None and not 1 <= offset <= n:
        raise Unreadable(f"{where} has offset {offset}, expected 1 to n = {n}: run again")


def _refuse_doubled(file: ResultFile, rows: list[Row]) -> None:
    seen = set()
    for row in rows:
        keys = ("task", "table", "metric", *schema.DIMENSIONS)
        place = tuple(row.get(key) for key in dict.fromkeys(keys))
        if place in seen:
            at = ", ".join(f"{k}={row[k]}" for k in schema.DIMENSIONS if row.get(k) is not None)
            raise Unreadable(
                f"{file.path}: {row['task']} has two values for {at}, expected one: run again"
            )
        seen.add(place)

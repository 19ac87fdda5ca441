"""The numbers in one results file, as columns of the tidy table.

    results.TASK["pass@10_sampled,none"]   table "results": metric pass@10, temperature, interval
    config.mtp.totals                      table "totals": what all answers of the run decoded
    config.mtp.tables.TASK.TABLE           the probes' own tables, column by column

A metric that counted nothing (NaN, null) gives no row.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from mtp_harness.results import probe_tables, schema
from mtp_harness.results.probe_tables import Block, Columns, Row
from mtp_harness.results.result_file import ResultFile, Unreadable, number, whole
from mtp_harness.results.samples import family_of

_AT_OFFSET = re.compile(r"(accept_rate_prefix|accept_rate_cond)_(\d+)")
_ROUGE = re.compile(r"(rouge(?:\d|L|Lsum))_(f1|precision|recall)(_unicode)?")
_ENDS = {"_low90": "low", "_high90": "high"}


def columns_of(file: ResultFile) -> Columns:
    """Return every number of a results file, in `schema.COLUMNS` and the tables' own columns.

    Raises:
        Unreadable: A value is not a number, or is impossible for its metric.
    """
    run, blocks = _run(file), list(_all(file))
    own = (name for block in blocks for name in block.own)
    columns: Columns = {name: [] for name in (*schema.COLUMNS, *own)}
    for block in blocks:
        shared = run | block.shared
        for name, column in columns.items():
            column += block.own[name] if name in block.own else [shared.get(name)] * block.n_rows
    _refuse_unfit(file, columns)
    _refuse_doubled(file, columns)
    return columns


def _all(file: ResultFile) -> Iterator[Block]:
    for task in file.tasks:
        yield from (Block(row, {}, 1) for row in _flat(file, task))
    yield from (Block(row, {}, 1) for row in _totals(file))
    for task, tables in (file.mtp.get("tables") or {}).items():
        if not isinstance(tables, dict):
            raise Unreadable(f"{file.path}: tables of {task} are not tables by name: run again")
        for name, table in tables.items():
            yield from probe_tables.blocks_of(file, task, name, table)


def _run(file: ResultFile) -> Row:
    config, mtp = file.content["config"], file.mtp
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
        "reading": mtp.get("reading"),
        "parameters": whole(file, "model_num_parameters", parameters, least=0),
        "train_tokens": whole(file, "train_tokens", mtp.get("train_tokens")),
        "train_step": whole(file, "train_step", mtp.get("train_step")),
        "train_seed": whole(file, "train_seed", mtp.get("train_seed")),
        "hardware": file.machine,
        "dtype": mtp.get("dtype"),
        "note": file.content.get("note"),
        "acceptance": mtp.get("acceptance"),
    }


def decoding_of(file: ResultFile, task: str) -> Row:
    """Return how a task's answers were decoded: k, temperature, answers of each document, batch."""
    config = file.content["configs"].get(task, {})
    kwargs = config.get("generation_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise Unreadable(f"{file.path}: generation_kwargs of {task} are not settings: run again")
    row: Row = {"k": whole(file, "draft_heads", file.mtp.get("draft_heads"))}
    if kwargs:
        given = kwargs.get("temperature", 1.0) if kwargs.get("do_sample") else 0.0
        row["temperature"] = number(file, f"temperature of {task}", given)
        row["n_samples"] = whole(file, f"repeats of {task}", config.get("repeats"), least=1)
    elif task == "mtp_acceptance":  # generates nothing: its temperature is an option
        given = (config.get("metadata") or {}).get("temperature")
        row["temperature"] = number(file, f"temperature of {task}", given)
    slots = file.mtp.get("slots") or file.mtp.get("batch_size")
    if type(slots) is int:  # not True
        row["batch"] = whole(file, "slots", slots)
    return row


def _flat(file: ResultFile, task: str) -> Iterator[Row]:
    """Yield the metrics that the harness prints, each with the interval reported beside it."""
    family = family_of(task)
    metadata = file.content["configs"][task].get("metadata")
    shared = decoding_of(file, task) | {
        "task": family,
        "table": "results",
        "data_set": family.removesuffix("_mtp"),
        "protocol": metadata.get("protocol") if isinstance(metadata, dict) else None,
        "asked": probe_tables.asked_of(file, task),
        "documents": probe_tables.documents_of(file, task, family.removesuffix("_mtp")),
        "count": whole(file, f"n-samples of {task}", file.counted(task)[0], least=0),
    }
    found: dict[str, Row] = {}
    for (metric, _), value in file.stated(task).items():
        end = next((name for suffix, name in _ENDS.items() if metric.endswith(suffix)), "value")
        of = metric if end == "value" else metric.rpartition("_")[0]
        if (measured := number(file, f"{task} {metric}", value)) is not None:
            found.setdefault(of, {})[end] = measured
    for metric, values in found.items():
        if "value" in values:
            named = _named(metric)
            for name in ("at", "offset"):
                whole(file, f"{metric} of {task}", named.get(name))
            yield shared | named | values


def _named(metric: str) -> Row:
    if found := _AT_OFFSET.fullmatch(metric):
        return {"metric": found[1], "offset": int(found[2])}
    if found := _ROUGE.fullmatch(metric):
        return {"metric": found[1] + (found[3] or ""), "aspect": found[2]}
    named = metric.removesuffix("_sampled")
    return {"metric": named, "at": schema.at(named)}


def _totals(file: ResultFile) -> Iterator[Row]:
    totals = file.mtp.get("totals") or {}
    tasks = file.tasks
    if not totals.get("n_steps"):
        return
    shared: Row = {}
    if len(tasks) == 1:
        shared = decoding_of(file, tasks[0]) | {"asked": probe_tables.asked_of(file, tasks[0])}
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


def _refuse_unfit(file: ResultFile, columns: Columns) -> None:
    """Refuse impossible values of a metric, and intervals that end before they begin."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, metric in enumerate(columns["metric"]):
        places[metric].append(place)
    for metric, its in places.items():
        by_value = sorted(its, key=columns["value"].__getitem__)
        for place in (by_value[0], by_value[-1]):
            if said := schema.unfit(metric, columns["value"][place]):
                raise Unreadable(f"{file.path}: {columns['task'][place]}: {said}: run again")
    for place, (low, high) in enumerate(zip(columns["low"], columns["high"], strict=True)):
        if low is not None and high is not None and low > high:
            task, metric = columns["task"][place], columns["metric"][place]
            raise Unreadable(
                f"{file.path}: {task}: {metric} has an interval from {low:g} to {high:g}: run again"
            )


def _refuse_doubled(file: ResultFile, columns: Columns) -> None:
    dimensions = [*schema.DIMENSIONS, *schema.not_ours(columns)]
    names = [
        name
        for name in dict.fromkeys(("task", "table", "metric", *dimensions))
        if columns[name].count(None) < len(columns[name])
    ]
    seen: set[tuple[Any, ...]] = set()
    for place in zip(*(columns[name] for name in names), strict=True):
        if place in seen:
            row = dict(zip(names, place, strict=True))
            at = ", ".join(f"{k}={row[k]}" for k in dimensions if row.get(k) is not None)
            raise Unreadable(
                f"{file.path}: {row['task']} has two values for {at}, expected one: run again"
            )
        seen.add(place)

"""The documents that the runs of a figure read, and their empty or looping answers."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from mtp_harness.figures import words
from mtp_harness.results import documents
from mtp_harness.results.result_file import ResultFile
from mtp_harness.results.samples import family_of

Task = tuple[ResultFile, str]

MOST_BYTES = 512
"""Size of the largest vocabulary that can consist of bytes and special tokens."""

DECODED = ("mtp_speculative", "mtp_long_context", "mtp_drafts")
"""The tasks that decode prompts with every number of heads."""


def sets_of(file: ResultFile, task: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the facts about the data sets that a probe read, by name."""
    return (file.mtp.get("documents") or {}).get(task) or {}


def new_tokens(file: ResultFile, task: str) -> list[int | None]:
    """Return the most tokens that a probe decoded, for each data set."""
    lengths = [about.get("new_tokens") for about in sets_of(file, task).values()]
    return [length if type(length) is int else None for length in lengths]


def counts_bytes(own: pd.DataFrame, files: Mapping[str, ResultFile]) -> bool:
    """Return whether all models of rows have bytes as tokens, as far as runs say."""
    runs = {run for several in own["run"].dropna() for run in several.split()}
    sizes = [files[run].mtp.get("vocab_size") for run in runs]
    return bool(sizes) and all(type(size) is int and size <= MOST_BYTES for size in sizes)


def tasks_of(own: pd.DataFrame, files: Mapping[str, ResultFile]) -> list[Task]:
    """Return the tasks that rows of runs were measured in, each with its file.

    Args:
        own: Rows of runs; a row may be of several files, and of several tasks joined by "+".
        files: The runs, by hash.
    """
    found: dict[tuple[str, str], Task] = {}
    names = own[["run", "task"]].drop_duplicates().dropna()
    for runs, task in names.itertuples(index=False, name=None):
        for file in (files[one] for one in runs.split()):
            its = [one for one in file.tasks if family_of(one) in task.split("+")]
            found |= {(file.sha256, one): (file, one) for one in its}
    return list(found.values())


def parts(tasks: list[Task]) -> Iterator[str]:
    """Yield how many documents tasks read, such as "HumanEval 20 of 164"; probes have their own."""
    for file, task in tasks:
        read, whole = file.counted(task)
        if read is not None and not _is_timed(task) and not sets_of(file, task):
            yield f"{_name(task)} {read:,}" + ("" if whole in (None, read) else f" of {whole:,}")


def probed(own: pd.DataFrame, tasks: list[Task]) -> Iterator[str]:
    """Yield how many texts of each kind the probes read, such as "code 18, prose 31".

    Args:
        own: Rows of runs; kinds that they do not name are left out.
        tasks: What `tasks_of` returns for them.
    """
    kinds = tuple({*own["data_set"].dropna(), *own["category"].dropna()})
    for file, task in tasks:
        sets = sets_of(file, task)
        counts = [
            f"{words.entry('data_set', name)} {about['n_documents']:,}"
            for name, about in sets.items()
            if type(about.get("n_documents")) is int and (len(sets) == 1 or _is_among(name, kinds))
        ]
        quick = (file.content["configs"][task].get("metadata") or {}).get("quick") is True
        if counts and not _is_timed(task):
            yield ", ".join(counts) + (" (quick settings)" if quick else "")


def answers(tasks: list[Task]) -> pd.DataFrame:
    """Return the number of answers of each model to each data set: all, empty, and looping."""
    each = [one for file, task in tasks if (one := _answers(file, task)) is not None]
    counted = pd.DataFrame(each, columns=["data_set", "label", "total", "empty", "looped"])
    counted = counted.astype({name: "Int64" for name in ("total", "empty", "looped")})
    by_model = counted.groupby(["data_set", "label"], sort=False)
    return by_model.sum(skipna=False).reset_index()


def of_answers(counted: pd.DataFrame, what: str) -> Iterator[str]:
    """Yield by data set how many of the answers were empty, or looping: the column `what`."""
    for name, models in counted.groupby("data_set", sort=False):
        numbers, totals = models[what], models["total"]
        if numbers.isna().all():
            if what == "empty" and name not in {words.entry("data_set", one) for one in DECODED}:
                yield f"{name} not counted"
        elif len(models) > words.FEW:
            yield f"{name} {_range(numbers)} of {_range(totals)} ({len(models)} models)"
        else:
            each = zip(models["label"], numbers, totals, strict=True)
            said = (f"{label} {'?' if pd.isna(n) else n} of {total:,}" for label, n, total in each)
            yield f"{name} {', '.join(said)}"


def _answers(file: ResultFile, task: str) -> tuple[str, str, int, int | None, int | None] | None:
    """Return data set, label and counts of a task's answers; None if it asked for none."""
    config = file.content["configs"][task]
    generated = config.get("output_type", "generate_until") == "generate_until"
    if not (generated and config.get("generation_kwargs")) and task not in DECODED:
        return None
    read, _ = file.counted(task)
    if read is None:
        return None
    metrics = {key.partition(",")[0]: value for key, value in file.content["results"][task].items()}
    repeats = config.get("repeats")
    total = read * (repeats if type(repeats) is int else 1)
    empty = _count(metrics, "empty_answers_unicode", 1)
    if empty is None and task not in DECODED:
        empty = documents.empty_answers(file, task)
    return _name(task), file.label, total, empty, _count(metrics, "looping", total)


def _count(metrics: Mapping[str, Any], name: str, times: int) -> int | None:
    value = metrics.get(name)
    if not isinstance(value, int | float) or value != value:  # NaN
        return None
    return round(value * times)


def _is_among(name: str, kinds: tuple[str, ...]) -> bool:
    """Return whether a data set is shown in a figure, which may have more details of it."""
    return any(kind.startswith((name, words.entry("data_set", name))) for kind in kinds)


def _is_timed(task: str) -> bool:
    """Return whether a task always decodes the number of tokens that it was asked for."""
    return task == "mtp_speed" or task.startswith("mtp_speed_")


def _name(task: str) -> str:
    return words.entry("data_set", family_of(task).removesuffix("_mtp"))


def _range(numbers: "pd.Series[int]") -> str:
    low, high = numbers.min(), numbers.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"

"""What the runs of a figure read, and how many of their answers were empty or looped."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from mtp_harness.figures import words
from mtp_harness.results import documents
from mtp_harness.results.result_file import ResultFile
from mtp_harness.results.samples import family_of

Task = tuple[ResultFile, str]

DECODED = "mtp_speculative"
"""Decodes answers of its own, with every number of heads."""

TIMED = "mtp_speed"
"""Decodes as many tokens as it was asked for, whatever they are."""


class Answers(NamedTuple):
    """Answers of one model to one task.

    Attributes:
        data_set: Words for the task.
        label: Of the model.
        total: How many there are.
        empty: How many have no text; None where nothing says it.
        looped: How many repeat themselves; None where nothing says it.
    """

    data_set: str
    label: str
    total: int
    empty: int | None
    looped: int | None


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


def parts(tasks: list[Task]) -> list[str]:
    """Return the data sets of which a part was read, such as "HumanEval 20 of 164"."""
    said: dict[str, None] = {}
    for file, task in tasks:
        read, whole = file.counted(task)
        if read is not None and whole is not None and read != whole and not _is_timed(task):
            said[f"{_name(task)} {read:,} of {whole:,}"] = None
    return list(said)


def probed(own: pd.DataFrame, tasks: list[Task]) -> list[str]:
    """Return how many texts of each kind the probes read, such as "code 18, prose 31".

    Args:
        own: Rows of runs; a kind that none of them names is not told.
        tasks: What `tasks_of` returns for them.
    """
    kinds = tuple({*own["data_set"].dropna(), *own["category"].dropna()})
    said: dict[str, None] = {}
    for file, task in tasks:
        sets = (file.mtp.get("documents") or {}).get(task) or {}
        counts = [
            f"{words.entry('data_set', name)} {about['n_documents']:,}"
            for name, about in sets.items()
            if type(about.get("n_documents")) is int and (len(sets) == 1 or _is_among(name, kinds))
        ]
        quick = (file.content["configs"][task].get("metadata") or {}).get("quick") is True
        if counts and not _is_timed(task):
            said[", ".join(counts) + (" (quick)" if quick else "")] = None
    return list(said)


def answers(tasks: list[Task]) -> list[Answers]:
    """Return the answers of each model to each data set, over all files of the figure."""
    found: dict[tuple[str, str], list[Answers]] = {}
    for file, task in tasks:
        if (one := _answers(file, task)) is not None:
            found.setdefault((one.data_set, one.label), []).append(one)
    return [
        Answers(*key, sum(one.total for one in group), _sum(group, "empty"), _sum(group, "looped"))
        for key, group in found.items()
    ]


def of_answers(counted: list[Answers], what: str) -> Iterator[str]:
    """Yield by data set how many answers were empty, or looped, of how many.

    Args:
        counted: What `answers` returns.
        what: `empty` or `looped`.
    """
    sets: dict[str, list[Answers]] = {}
    for one in counted:
        sets.setdefault(one.data_set, []).append(one)
    for name, models in sets.items():
        known = [(one, getattr(one, what)) for one in models]
        if all(number is None for _, number in known):
            if what == "empty" and name != words.entry("data_set", DECODED):
                yield f"{name} not counted"
        elif len(known) > words.FEW:
            numbers = [number for _, number in known if number is not None]
            totals = sorted({one.total for one in models})
            yield f"{name} {_range(numbers)} of {_range(totals)} ({len(known)} models)"
        else:
            each = (f"{one.label} {'?' if n is None else n} of {one.total:,}" for one, n in known)
            yield f"{name} {', '.join(each)}"


def _sum(group: list[Answers], name: str) -> int | None:
    counts = [getattr(one, name) for one in group]
    return None if None in counts else sum(counts)


def _answers(file: ResultFile, task: str) -> Answers | None:
    config = file.content["configs"][task]
    generated = config.get("output_type", "generate_until") == "generate_until"
    if not (generated and config.get("generation_kwargs")) and task != DECODED:
        return None
    read, _ = file.counted(task)
    if read is None:
        return None
    metrics = {key.partition(",")[0]: value for key, value in file.content["results"][task].items()}
    repeats = config.get("repeats")
    total = read * (repeats if type(repeats) is int else 1)
    empty = _count(metrics, "empty_answers_unicode", 1)
    if empty is None and task != DECODED:
        empty = documents.empty_answers(file, task)
    looped = _count(metrics, "looping", total)
    return Answers(_name(task), file.label, total, empty, looped)


def _count(metrics: Mapping[str, Any], name: str, times: int) -> int | None:
    value = metrics.get(name)
    if not isinstance(value, int | float) or value != value:  # NaN
        return None
    return round(value * times)


def _is_among(name: str, kinds: tuple[str, ...]) -> bool:
    """Return whether a data set is among those of a figure, which may say more of it."""
    return any(kind.startswith((name, words.entry("data_set", name))) for kind in kinds)


def _is_timed(task: str) -> bool:
    return task == TIMED or task.startswith(f"{TIMED}_")


def _name(task: str) -> str:
    return words.entry("data_set", family_of(task).removesuffix("_mtp"))


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"

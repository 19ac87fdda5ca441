"""The samples files of the harness, `samples_TASK_DATE.jsonl`: which exist, and their content."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.files import user_path
from mtp_harness.results import result_file
from mtp_harness.results.find import (
    all_samples,
    graded_copy,
    is_graded,
    lines_of,
    read_name,
    refuse_other_answers,
    results_of,
    samples_below,
)
from mtp_harness.results.label import Model, labels_of, model_of_folder

_JUDGED = ("verdict", "decode")
_TEMPERATURE = re.compile(r"_t\d+(\.\d+)?$")


class SamplesFile(NamedTuple):
    """One task's samples.

    Attributes:
        family: The task without a temperature, the same for all its temperatures.
        model: Its model's name. Without results beside the samples it comes from the folder, which
            the harness names after the model.
    """

    path: Path
    task: str
    family: str
    model: str


def describe(path: Path, task: str | None = None) -> SamplesFile:
    """Return the task and model of samples; `task` if their name does not say it."""
    return describe_each([path], task)[path]


def describe_each(paths: Iterable[Path], task: str | None = None) -> dict[Path, SamplesFile]:
    """Return the same for files that stand side by side, with different labels for all models."""
    models = {path: _model_of(path) for path in paths}
    labels = labels_of(models.values())
    return {path: _described(path, task, labels[model]) for path, model in models.items()}


def _described(path: Path, task: str | None, label: str) -> SamplesFile:
    named = read_name(path)
    task = task or (named.task if named else None)
    if task is None:
        raise ValueError(
            f"{path.name} does not say its task; expected a name such as "
            "samples_humaneval_mtp_2026-01-31T12-00-00.jsonl: rename it, or give --task"
        )
    return SamplesFile(path, task, family_of(task), label)


def _model_of(path: Path) -> Model:
    results = results_of(path)
    try:
        if results is not None:
            return result_file.read(results, results.name).model_name
    except result_file.Unreadable:
        pass  # an error is reported where the results are needed
    return model_of_folder(path.resolve().parent.name)


def family_of(task: str) -> str:
    """Return a task's name without a temperature, the same for all its temperatures."""
    return _TEMPERATURE.sub("", task)


def find(places: Iterable[str | Path]) -> list[Path]:
    """Return the samples files named, and those of named results files and folders.

    If a file has a graded copy, the copy.
    """
    found = find_all(places)
    return [path for path in found if is_graded(path) or graded_copy(path) not in found]


def find_all(places: Iterable[str | Path]) -> list[Path]:
    """Return the same with each graded copy and its source.

    Raises:
        FileNotFoundError: A place does not exist.
    """
    found: dict[Path, None] = {}
    for place in map(user_path, places):
        if not place.exists():
            raise FileNotFoundError(f"no {place}: give samples_….jsonl files, or folders of them")
        if place.is_dir():
            found |= dict.fromkeys(samples_below(place))
        elif place.suffix == ".json":
            written = all_samples(place)
            found |= dict.fromkeys(written)
            found |= {copy: None for path in written if (copy := graded_copy(path)).is_file()}
        else:
            found[place] = None
    return list(found)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of a file.

    Raises:
        ValueError: A line is not a sample; the message names the file and the line. Or a graded
            copy has answers other than those beside it.
    """
    for _, sample in read_numbered(path):
        yield sample


def read_numbered(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the same with the number of each line, from 1; blank lines are skipped."""
    if (named := read_name(path)) and named.is_graded:
        refuse_other_answers(path)
    for number, line in enumerate(lines_of(path), 1):  # a wrong encoding is a damaged line
        if not line.strip():
            continue
        try:
            sample = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}:{number} is not JSON: {error}") from None
        if not _is_sample(sample):
            raise ValueError(
                f"{path}:{number} is not a sample, expected what lm_eval --log_samples writes: "
                "run again"
            )
        yield number, sample


def _is_sample(told: Any) -> bool:
    """Return whether requests have arguments by name or in order, and answers have known forms."""
    requests = told.get("arguments", []) if isinstance(told, dict) else None
    if not isinstance(requests, dict | list):
        return False
    each = requests.values() if isinstance(requests, dict) else requests
    return all(isinstance(one, dict | list) for one in each) and _are_answers(told.get("n_answers"))


def _are_answers(told: Any) -> bool:
    """Return whether `n_answers` has a known form: a number, an expression's facts, or a list.

    Entries of a list say how an answer was decoded; those of programs have a verdict, too.
    """
    if not isinstance(told, list):
        return told is None or isinstance(told, int | float | dict)
    return all(
        isinstance(one, dict)
        and "decode" in one
        and all(isinstance(one.get(name), dict | None) for name in _JUDGED)
        and _is_record(one["decode"] or {})
        for one in told
    )


def _is_record(decode: Mapping[str, Any]) -> bool:
    """Return whether counts by step and by token are lists of counts, and tokens are counted."""
    names = ("n_verified", "n_characters", "tokens", "n_drafted")
    counts, texts = [decode.get(name) or [] for name in names], decode.get("rejected_text") or []
    if not all(isinstance(one, list) and all(type(c) is int for c in one) for one in counts):
        return False
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        return False
    return not counts[0] or isinstance(decode.get("n_kept"), int | float)


def is_judged(sample: Mapping[str, Any]) -> bool:
    """Return whether a sample's answers have places for verdicts, as those of programs have."""
    told = sample.get("n_answers")
    return isinstance(told, list) and any("verdict" in one for one in told)


def generation_of(sample: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the generation arguments of a sample; None if nothing was generated."""
    second = arguments_of(sample)[1]
    return dict(second) if isinstance(second, dict) and "until" in second else None


def arguments_of(sample: Mapping[str, Any]) -> list[Any]:
    """Return the first two arguments of a sample's first request; None for missing ones."""
    requests = sample["arguments"]
    each = requests.values() if isinstance(requests, dict) else requests
    first = next(iter(each), None) or ()
    if isinstance(first, dict):
        return [first.get("arg_0"), first.get("arg_1")]
    return [*first, None, None][:2]


def temperature_of(sample: dict[str, Any]) -> float:
    """Return the temperature of a sample's answers; 0 if they are greedy."""
    kwargs = generation_of(sample)
    if kwargs is None:
        raise ValueError(
            f"document {sample.get('doc_id')} holds no generation, expected the samples of a task "
            "that generates"
        )
    given = kwargs.get("temperature")
    return (1.0 if given is None else float(given)) if kwargs.get("do_sample") else 0.0

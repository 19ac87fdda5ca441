"""The scores of each document in a run's samples, and answers without text."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mtp_harness.results.result_file import ResultFile
from mtp_harness.results.samples import generation_of, read, read_numbered

Score = float | tuple[float, ...]
"""A number, or values that are summed before dividing: (numerator, denominator), or the four sums
of `scoring.bits_per_byte`."""

EMPTY = "n_empty_answers"
"""In samples without texts: how many of a document's answers had no text."""

_OTHER_KEYS = frozenset(
    "doc_id doc target arguments resps filtered_resps filter metrics "
    "doc_hash prompt_hash target_hash n_answers".split()
)


@dataclass
class Documents:
    """The samples of one task of one run, as far as comparisons need them.

    Attributes:
        documents: Hash over the documents and their ids.
        prompts: Hash over the prompts.
        n_samples: Answers per document.
        generation: Arguments of generation; None for tasks that do not generate.
        scores: By (metric, filter), then by document.
    """

    n_documents: int
    documents: str
    prompts: str
    n_samples: int
    generation: dict[str, Any] | None
    scores: dict[tuple[str, str], dict[str, Score]] = field(default_factory=dict)


def load(path: Path) -> Documents:
    """Read a samples file.

    Raises:
        ValueError: It is empty, cut off, or no samples file.
    """
    documents: set[tuple[str, str]] = set()
    prompts: set[tuple[str, str]] = set()
    scores: dict[tuple[str, str], dict[str, Score]] = defaultdict(dict)
    n_samples, generation = 0, None
    for sample in read(path):
        try:
            name = str(sample["doc_id"])
            documents.add((name, sample["doc_hash"]))
            prompts.add((name, sample["prompt_hash"]))
            n_samples = max(n_samples, max(map(len, sample["resps"]), default=0))
            generation = generation or generation_of(sample)
            for metric, value in scores_of(sample):
                scores[metric, sample["filter"]][name] = value
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            lacks = (
                f"without {error}" if isinstance(error, KeyError) else f"that is not one ({error})"
            )
            raise ValueError(
                f"{path} has a line {lacks}, expected a sample of lm_eval --log_samples: run again"
            ) from None
    _refuse_empty(path, documents)
    return Documents(
        len(documents), _hash(documents), _hash(prompts), n_samples, generation, dict(scores)
    )


def scores_of(sample: Mapping[str, Any]) -> Iterator[tuple[str, Score]]:
    """Yield the metrics of a sample that are numbers or sums."""
    for name, value in sample.items():
        if name in _OTHER_KEYS:
            continue
        if isinstance(value, int | float):
            yield name, float(value)
        elif (
            isinstance(value, list)
            and (len(value) == 2 or (len(value) == 4 and "bits_per_byte" in name))
            and all(isinstance(part, int | float) for part in value)
        ):
            yield name, tuple(map(float, value))


def _hash(pairs: set[tuple[str, str]]) -> str:
    return hashlib.sha256(repr(sorted(pairs)).encode()).hexdigest()


def scores(file: ResultFile, task: str, metric: str) -> dict[str, float] | None:
    """Return a metric, `_sampled` in its name, by document; None if no samples were logged.

    Raises:
        ValueError: The samples are damaged, do not have the metric, or are not those that the
            results file was pooled from.
    """
    path = file.samples(task)
    if path is None:
        return None
    found: dict[str, float] = {}
    for name, values in _numbers(path):
        if not isinstance(value := values.get(metric), int | float):
            raise ValueError(
                f"{path} has no {metric} for document {name}, expected what the run's results "
                "have: run again"
            )
        if value != value or name in found:
            what = f"document {name} twice" if name in found else f"{metric} = NaN for {name}"
            raise ValueError(f"{path} has {what}, expected one number for each: run again")
        found[name] = float(value)
    file.require_all(task, path, len(found))
    mean = sum(found.values()) / len(found)
    for (named, _), stated in file.metrics(task).items():
        if named == metric and not abs(mean - stated) <= 1e-6:
            raise ValueError(
                f"{path} gives {metric} = {mean:g}, {file.path.name} says {stated:g}: run again"
            )
    return found


def empty_answers(file: ResultFile, task: str) -> int | None:
    """Return how many answers have no text; None if the samples do not say it.

    Raises:
        ValueError: The samples are damaged.
    """
    path = file.samples(task)
    if path is None:
        return None
    each = [numbers[EMPTY] for _, numbers in _numbers(path) if EMPTY in numbers]
    return int(sum(each)) if len(each) == len(_numbers(path)) else None


def count_empty(sample: Mapping[str, Any]) -> int | None:
    """Return how many answers of a sample have no text; None if its texts were left out."""
    if "filtered_resps" not in sample:  # the harness writes it, and the import leaves it out
        return sample.get(EMPTY)
    answers = [
        one
        for each in sample.get("resps") or []
        for one in (each if isinstance(each, list) else [each])
    ]
    return sum(not one.strip() for one in answers if isinstance(one, str))


@lru_cache(maxsize=64)
def _numbers(path: Path) -> tuple[tuple[str, dict[str, float]], ...]:
    """Return the numbers of each line, without answers and documents."""
    found = []
    for place, sample in read_numbered(path):
        if "doc_id" not in sample:
            raise ValueError(
                f"{path}:{place} is not a sample of lm_eval: was the run killed while it wrote? "
                "remove the file, or run again"
            )
        numbers = {k: v for k, v in sample.items() if type(v) in (int, float)}
        if (empty := count_empty(sample)) is not None:
            numbers[EMPTY] = empty
        found.append((str(sample["doc_id"]), numbers))
    _refuse_empty(path, found)
    return tuple(found)


def _refuse_empty(path: Path, found: Sized) -> None:
    if not found:
        raise ValueError(f"{path} is empty, expected one line per document: run again")

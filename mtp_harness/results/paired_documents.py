"""What a run's samples file says about each document of a task."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtp_harness.results.samples import generation_of, read

Score = float | tuple[float, ...]
"""A number, or what is summed before dividing: (numerator, denominator), or the four sums of
`scoring.bits_per_byte`."""

_OTHER_KEYS = frozenset(
    "doc_id doc target arguments resps filtered_resps filter metrics "
    "doc_hash prompt_hash target_hash n_answers".split()
)


@dataclass
class Documents:
    """The samples of one task of one run, as far as comparisons need them.

    Attributes:
        n_documents: How many.
        documents: Hash over the documents and their ids.
        prompts: Hash over the prompts.
        n_samples: Answers per document.
        generation: Arguments of generation; None for tasks that generate nothing.
        scores: Of each (metric, filter), by document.
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
            lacks = f"without {error}" if isinstance(error, KeyError) else f"that is none ({error})"
            raise ValueError(
                f"{path} has a line {lacks}, expected what lm_eval --log_samples writes: run again"
            ) from None
    if not documents:
        raise ValueError(f"{path} is empty, expected one line per document: run again")
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

"""The grid of `mtp_speed`: one document per batch size and prompt length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from mtp_harness.data.corpus import code_corpus

if TYPE_CHECKING:
    import datasets

BATCH, PROMPT_TOKENS = (1, 4, 8, 16), (512, 1024, 2048)
QUICK_BATCH, QUICK_PROMPT_TOKENS = (1, 4), (128,)
"""A grid that a CPU gets through in a minute."""


def load(
    quick: bool = False,
    batch: int | Sequence[int] | None = None,
    prompt_tokens: int | Sequence[int] | None = None,
    **_metadata: Any,
) -> dict[str, datasets.Dataset]:
    """Return the cells as the harness wants them from `custom_dataset`.

    Args:
        quick: the small grid, where the next two do not say otherwise.
        batch: batch sizes.
        prompt_tokens: prompt lengths.
        _metadata: the rest of the task's and the run's metadata, all of which the harness passes.

    Returns:
        The split `test`: one row per cell with its `batch` and `prompt_tokens`, large ones last,
        and what all documents of probes have.

    Raises:
        ValueError: a size is no whole number from 1.
    """
    import datasets

    if quick:
        batches = _sizes("batch", batch, QUICK_BATCH)
        lengths = _sizes("prompt_tokens", prompt_tokens, QUICK_PROMPT_TOKENS)
    else:
        batches = _sizes("batch", batch, BATCH)
        lengths = _sizes("prompt_tokens", prompt_tokens, PROMPT_TOKENS)
    corpus = code_corpus()
    source = f"standard library of Python {corpus.python_version}"
    rows = [
        {
            "data_set": corpus.name,
            "name": f"batch {size}, prompt {length}",
            "source": source,
            "sha256": corpus.sha256,
            "text": "",
            "batch": size,
            "prompt_tokens": length,
        }
        for length, size in product(lengths, batches)
    ]
    return {"test": datasets.Dataset.from_list(rows)}


def _sizes(name: str, given: Any, default: Sequence[int]) -> Sequence[int]:
    sizes = default if given is None else given if isinstance(given, list | tuple) else [given]
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(f"{name}={given}, expected whole numbers from 1, such as {list(default)}")
    return sorted(set(sizes))

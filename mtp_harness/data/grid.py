"""The grid of `mtp_speed`: one document per batch size and prompt length."""

from collections.abc import Sequence
from itertools import product
from typing import Any

from mtp_harness.data.corpus import code_corpus
from mtp_harness.data.rows import Splits, several, splits

BATCH, PROMPT_TOKENS = (1, 4, 8, 16), (512, 1024, 2048)
QUICK_BATCH, QUICK_PROMPT_TOKENS = (1, 4), (128,)
"""A small grid, for a minute on a CPU."""


def load(
    quick: bool = False,
    batch: int | Sequence[int] | None = None,
    prompt_tokens: int | Sequence[int] | None = None,
    **_metadata: Any,
) -> Splits:
    """Return the cells; with `quick`, those of the small grid, unless sizes are given.

    Returns:
        The split `test`: one row per cell with its `batch` and `prompt_tokens`, large ones last,
        and the columns that all documents of probes have.

    Raises:
        ValueError: a size is not a whole number from 1.
    """
    batches = several("batch", batch, QUICK_BATCH if quick else BATCH, least=1)
    usual = QUICK_PROMPT_TOKENS if quick else PROMPT_TOKENS
    lengths = several("prompt_tokens", prompt_tokens, usual, least=1)
    corpus = code_corpus()
    rows = [
        {
            "data_set": corpus.name,
            "name": f"batch {size}, prompt {length}",
            "source": f"standard library of Python {corpus.python_version}",
            "sha256": corpus.sha256,
            "text": "",
            "batch": size,
            "prompt_tokens": length,
        }
        for length, size in product(sorted(lengths), sorted(batches))
    ]
    return splits({"test": rows})

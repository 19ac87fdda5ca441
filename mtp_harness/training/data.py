"""Training text for byte-level models, and the batches taken from it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtp_harness.training.recipe import Recipe

LOOKAHEAD = 8
"""Bytes each window has beyond its context, the same for every n, so that batches are the same."""

HELD_OUT = 0.02
"""Share of a text, at its end, that is held out."""

HELD_OUT_WINDOWS = 8
"""Most held-out windows that the loss is computed on."""

Bytes = NDArray[np.uint8]


class Text(NamedTuple):
    """Documents as bytes, with byte 0 before each, and facts about them, at least `data_sha256`."""

    data: Bytes
    report: dict[str, Any]
    held_out: Bytes = np.zeros(0, np.uint8)

    def held_out_windows(self, context: int) -> Bytes | None:
        """Return windows of the held-out text, [W, context + `LOOKAHEAD`]; None if none fits."""
        width = context + LOOKAHEAD
        count = min(HELD_OUT_WINDOWS, len(self.held_out) // width)
        return self.held_out[: count * width].reshape(count, width) if count else None


def load(path: Path) -> Text:
    """Return the text in a file, in the files of a folder, or in `PATH.npy`.

    Args:
        path: a file is one document; a folder has one in each file, by name; their end is held
            out. `PATH.npy` holds the bytes of all documents, is mapped into memory, and has its
            report in `PATH.json`: examples/training_text writes both, and nothing is held out.

    Raises:
        FileNotFoundError: none of the three exists.
        ValueError: a document holds byte 0.
    """
    report = path.with_name(path.name + ".json")
    if report.is_file():
        data = np.load(path.with_name(path.name + ".npy"), mmap_mode="r")
        return Text(data, json.loads(report.read_text(encoding="utf-8")))
    if not path.exists():
        raise FileNotFoundError(
            f"no {report}, nor {path}; name a text file, a folder of them, or the PREFIX of text "
            "made by examples/training_text/make.py"
        )
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    documents = [file.read_bytes() for file in files]
    for file, document in zip(files, documents, strict=True):
        if b"\0" in document:
            raise ValueError(f"{file} holds byte 0, which begins a document; expected text")
    joined = b"".join(b"\0" + document for document in documents)
    counts = {"n_documents": len(documents), "n_bytes": len(joined)}
    digest = hashlib.sha256(joined).hexdigest()
    whole = np.frombuffer(joined, dtype=np.uint8)
    end = len(whole) - round(HELD_OUT * len(whole))
    return Text(whole[:end], {**counts, "data_sha256": digest}, whole[end:])


@dataclass(frozen=True)
class Batches:
    """Windows at random places, which depend on the seed and the step alone.

    Two models that use the same `extra` see the same bytes in the same order, however many heads
    they have.
    """

    data: Bytes  # `[N]` uint8, from `load`
    context: int  # input length in bytes
    rows: int  # windows in a batch
    extra: int = 4  # bytes after the context, for the targets; at least the largest offset
    seed: int = 0  # 0 or more

    def __post_init__(self) -> None:
        """Refuse windows that are longer than the data."""
        if len(self.data) < self.context + self.extra:
            raise ValueError(
                f"a window has {self.context + self.extra} bytes (context + extra) but the data "
                f"has {len(self.data)}; shorten the context or give more data"
            )

    def __call__(self, step: int) -> Bytes:
        """Return the batch of a step, `[rows, context + extra]` uint8."""
        width = self.context + self.extra
        rng = np.random.default_rng([self.seed, step])
        starts = rng.integers(0, len(self.data) - width + 1, size=self.rows)
        return np.asarray(self.data[starts[:, None] + np.arange(width)])


def batches(data: Bytes, recipe: Recipe) -> Callable[[int], Bytes]:
    """Return step -> windows: short ones first, then ones as long as the context.

    Raises:
        ValueError: the short windows are longer than the context, or the data is too short.
    """
    if recipe.short_context > recipe.context:
        raise ValueError(
            f"--short-context {recipe.short_context} with --context {recipe.context}: expected at "
            "most the context; lower it."
        )
    n_short = round(recipe.short_share * recipe.steps)
    short_rows = recipe.rows * recipe.context // recipe.short_context
    short = Batches(data, recipe.short_context, short_rows, LOOKAHEAD, recipe.seed)
    long = Batches(data, recipe.context, recipe.rows, LOOKAHEAD, recipe.seed)
    return lambda step: short(step) if step < n_short else long(step)

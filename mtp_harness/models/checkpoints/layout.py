"""The record of one checkpoint layout, and a summary of a folder's content.

Each file here defines one record, and `load.LAYOUTS` lists them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from mtp_harness.errors import sentence
from mtp_harness.models.checkpoints.checks import KeyReport, StoredTensors, is_finite, listing
from mtp_harness.models.interface import MultiHeadModel

T = TypeVar("T")


@dataclass
class Summary:
    """A checkpoint, described without building a model: headers first, then tensor by tensor.

    None and empty mean unknown, because a file is missing or broken: all problems are collected,
    not only the first. `commands.inspect` prints the result.
    """

    path: str
    layout: str  # `Layout.name`
    architecture: str | None = None  # the model class
    n_future_tokens: int | None = None
    trunk_layers: int | None = None  # blocks that all heads share
    modules: int | None = None  # sequential ones
    width: int | None = None
    ffn_width: int | None = None
    attention_heads: int | None = None  # per layer, as are key/value heads
    kv_heads: int | None = None
    vocabulary: int | None = None
    context: int | None = None  # tokens
    # `total`, and where heads are known `embedding`, `trunk`, `heads` (a list), `norm` and
    # `unembedding`
    parameters: dict[str, Any] = field(default_factory=dict)
    stored_bytes: dict[str, int] = field(default_factory=dict)  # of weights, by type
    files: list[str] = field(default_factory=list)
    tokenizer: str | None = None
    drafter: str | None = None  # place of heads trained apart
    missing: list[str] = field(default_factory=list)  # keys that only the model has
    unexpected: list[str] = field(default_factory=list)  # keys that only the weights have
    wrong_shapes: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)  # tensors with NaN or infinity
    problems: list[str] = field(default_factory=list)  # sentences; none for a sound checkpoint
    notes: list[str] = field(default_factory=list)

    def attempt(self, step: Callable[[], T]) -> T | None:
        """Return a step's result, or None after noting why it failed."""
        try:
            return step()
        except (ValueError, OSError) as error:
            if (problem := sentence(error)) not in self.problems:  # several steps read params.json
                self.problems.append(problem)
            return None

    def note_keys(self, keys: KeyReport, causes: Iterable[str]) -> None:
        """Store how keys and shapes differ from the model's, and the probable reason."""
        self.missing, self.unexpected, self.wrong_shapes = keys
        self.problems += [*causes, *keys.clauses()]

    def scan(self, stored: StoredTensors) -> None:
        """Add sizes by type, and read every tensor once to find NaN and infinity."""
        self.files += [file.name for file in stored.files]
        n_numbers = sum(map(prod, stored.shapes.values()))
        self.parameters["total"] = self.parameters.get("total", 0) + n_numbers
        not_finite = []
        for name, dtype in stored.dtypes.items():
            tensor = self.attempt(partial(stored.read, name))
            if tensor is None:
                continue
            kind = str(tensor.dtype).removeprefix("torch.")
            self.stored_bytes[kind] = self.stored_bytes.get(kind, 0) + tensor.nbytes
            if dtype is not None and not is_finite(tensor):
                not_finite.append(name)
        if not_finite:
            self.not_finite += not_finite
            self.problems.append(f"NaN or infinity in {listing(not_finite)}")


@dataclass(frozen=True)
class Layout:
    """How checkpoints are stored; every function takes a folder of this layout.

    Attributes:
        name: in results and in `inspect --json`.
        title: in messages.
        recognises: whether a folder has this layout; tried in the order of `load.LAYOUTS`.
        n_future_tokens: n if no number of heads is asked for, without reading weights.
        tokenizer: raises FileNotFoundError if the folder has no tokenizer.
        describe: fills in a summary for `inspect`; returns the place of the tokenizer, if known.
        load: to the CPU, in a type or as stored; None if transformers loads it with one head.
        most_heads: the largest n that may be asked for, without reading weights, if n can be
            chosen: `load` then takes n, too. None if n is the checkpoint's own.
        provenance: facts about the source for a converted folder; None if none is converted.
        spreads: whether `parallelize=True` can spread its model over several GPUs.
    """

    name: str
    title: str
    recognises: Callable[[Path], bool]
    n_future_tokens: Callable[[Path], int]
    tokenizer: Callable[[Path], PreTrainedTokenizerBase]
    describe: Callable[[Summary, Path], Path | None]
    load: Callable[..., MultiHeadModel] | None = None
    most_heads: Callable[[Path], int] | None = None
    provenance: Callable[[Path], dict[str, Any]] | None = None
    spreads: bool = False

    @property
    def ordinary(self) -> bool:
        """Whether it is an ordinary causal LM of transformers, with its one head."""
        return self.load is None

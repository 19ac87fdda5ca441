"""What a results file says about the model and how it decoded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.results import result_file
from mtp_harness.results.find import find_results, read_each
from mtp_harness.results.probe_tables import Columns
from mtp_harness.results.result_file import LOSSY, ResultFile
from mtp_harness.results.sizes import in_short, same_size
from mtp_harness.results.values import columns_of


class Model(NamedTuple):
    """What a row of the leaderboard stands for; equal for runs of other tasks.

    Attributes:
        label: What it is called.
        n: `n_future_tokens`; 1 for ordinary models.
        k: heads used in decoding.
        acceptance: of drafts: "exact", "all" (unverified, lossy) or "synthetic".
        parameters: of the whole model; like what follows, None where the run does not say it.
    """

    label: str
    n: int
    k: int
    acceptance: str
    parameters: int | None
    train_tokens: int | None
    train_step: int | None
    train_seed: int | None

    @property
    def name(self) -> str:
        """The model in a few words, unique among rows."""
        parts = [self.label]
        if self.n > 1:
            parts.append(f"k={self.k}")
        if not self.is_lossless:
            parts.append(f"lossy ({LOSSY.get(self.acceptance, self.acceptance)})")
        if self.train_tokens is not None:
            parts.append(f"{in_short(self.train_tokens)} tokens")
        told = (("step", self.train_step), ("seed", self.train_seed))
        parts += [f"{name} {value}" for name, value in told if value is not None]
        return ", ".join(parts)

    @property
    def is_lossless(self) -> bool:
        """Whether its text is that of plain decoding."""
        return self.acceptance == "exact"

    def is_as_large_as(self, other: "Model") -> bool:
        """Return whether the parameters differ by at most 10 %; False where they are not known."""
        return same_size(self.parameters, other.parameters)


@dataclass(frozen=True)
class Run(ResultFile):
    """One results file with its numbers.

    Attributes:
        columns: The numbers, as columns of the tidy table.
    """

    columns: Columns = field(default_factory=dict, repr=False)

    @cached_property
    def model(self) -> Model:
        """The model."""
        config, mtp = self.content["config"], self.mtp
        n = int(mtp.get("n_future_tokens", 1))
        return Model(
            label=self.label,
            n=n,
            k=int(mtp.get("draft_heads", 1)) if n > 1 else 1,
            acceptance=str(mtp.get("acceptance") or "exact"),
            parameters=config.get("model_num_parameters"),
            train_tokens=mtp.get("train_tokens"),
            train_step=mtp.get("train_step"),
            train_seed=mtp.get("train_seed"),
        )

    @property
    def vocab_size(self) -> int | None:
        """How many tokens its tokenizer has; None where the run was not told."""
        size: int | None = self.mtp.get("vocab_size")
        return size

    @property
    def batch(self) -> str:
        """How many rows it decoded together."""
        return str(self.mtp.get("slots") or self.mtp.get("batch_size", "?"))

    def table(self, task: str, name: str, metric: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of one of the tables that our probes write; none where there is none."""
        keys = zip(*(self.columns[key] for key in ("task", "table", "metric")), strict=True)
        for place, key in enumerate(keys):
            if key == (task, name, metric):
                yield {column: entries[place] for column, entries in self.columns.items()}


def find(places: Sequence[str]) -> list[Run]:
    """Return the runs in result files, and in all of those below folders.

    Raises:
        FileNotFoundError: A place does not exist, or no place holds a results file.
        ValueError: None of the files is a results file that tables can be made of. Where some
            are, the others are named and left out.
    """
    found = find_results(places).items()
    return result_file.told_apart(read_each(found, lambda one: _read(*one)))


def _read(path: Path, name: str) -> Run:
    file = result_file.read(path, name)
    return Run(**vars(file), columns=columns_of(file))

"""The model of a results file, and how it decoded."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
    """A row of the leaderboard; equal for runs of different tasks with one model."""

    label: str
    n: int  # `n_future_tokens`; 1 for ordinary models
    k: int  # heads used in decoding
    acceptance: str  # of drafts: "exact", "all" (unverified, lossy) or "synthetic"
    parameters: int | None  # of the whole model; this and what follows: None if not told
    train_tokens: int | None
    train_step: int | None
    train_seed: int | None
    called: str = ""  # its name beside the other models of these results; empty: its whole name

    @property
    def name(self) -> str:
        """The model in a few words: its label, and as much more as distinguishes it from others."""
        return self.called or self.whole_name

    @property
    def whole_name(self) -> str:
        """The model with all known facts."""
        return ", ".join([self._begins, *filter(None, self._parts)])

    @property
    def _begins(self) -> str:
        lossy = (
            "" if self.is_lossless else f", lossy ({LOSSY.get(self.acceptance, self.acceptance)})"
        )
        return f"{self.label}{lossy}"

    @property
    def _parts(self) -> tuple[str, ...]:
        tokens = self.train_tokens
        return (
            f"k={self.k}" if self.n > 1 else "",
            "" if tokens is None else f"{in_short(tokens)} tokens",
            "" if self.train_step is None else f"step {self.train_step}",
            "" if self.train_seed is None else f"seed {self.train_seed}",
        )

    @property
    def facts(self) -> dict[str, Any]:
        """All fields but its name."""
        return {name: value for name, value in self._asdict().items() if name != "called"}

    @property
    def text(self) -> "Model":
        """The same for every k, which changes no answer."""
        return self._replace(k=0, called="")

    @property
    def is_lossless(self) -> bool:
        """Whether its text is that of plain decoding."""
        return self.acceptance == "exact"

    def is_as_large_as(self, other: "Model") -> bool:
        """Return whether the parameters differ by at most 10 %; False if they are not known."""
        return same_size(self.parameters, other.parameters)


@dataclass(frozen=True)
class Run(ResultFile):
    """One results file with its numbers.

    Attributes:
        columns: The numbers, as columns of the tidy table.
        called: `Model.called`.
    """

    columns: Columns = field(default_factory=dict, repr=False)
    called: str = ""

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
            called=self.called,
        )

    @property
    def vocab_size(self) -> int | None:
        """The size of its tokenizer's vocabulary; None if unknown."""
        size: int | None = self.mtp.get("vocab_size")
        return size

    @property
    def batch(self) -> str:
        """How many rows it decoded together."""
        return str(self.mtp.get("slots") or self.mtp.get("batch_size", "?"))

    def table(self, task: str, name: str, metric: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of one of the probes' tables; none if there is no such table."""
        keys = zip(*(self.columns[key] for key in ("task", "table", "metric")), strict=True)
        for place, key in enumerate(keys):
            if key == (task, name, metric):
                yield {column: entries[place] for column, entries in self.columns.items()}


def find(places: Sequence[str]) -> list[Run]:
    """Return the runs in result files, and in all of those below folders.

    Raises:
        FileNotFoundError: A place does not exist, or no place holds a results file.
        ValueError: None of the files is a usable results file. If some are, the others are named
            and left out.
    """
    found = find_results(places).items()
    runs = result_file.told_apart(read_each(found, lambda one: _read(*one)))
    names = names_of({run.model for run in runs})
    return [replace(run, called=names[run.model]) for run in runs]


def names_of(models: Iterable[Model]) -> dict[Model, str]:
    """Return names of models side by side: their labels, with as much more as distinguishes them.

    mtp-bytes-n4 alone; mtp-bytes-n4, k=2 beside mtp-bytes-n4, k=4
    """
    alike: dict[str, list[Model]] = defaultdict(list)
    for model in models:
        alike[model._begins].append(model)
    names: dict[Model, str] = {}
    for begins, own in alike.items():
        differ = [len(set(parts)) > 1 for parts in zip(*(one._parts for one in own), strict=True)]
        for count in range(len(differ) + 1):
            told = {
                one: [
                    part for part, tells in zip(one._parts[:count], differ, strict=False) if tells
                ]
                for one in own
            }
            found = {one: ", ".join([begins, *filter(None, parts)]) for one, parts in told.items()}
            if len(set(found.values())) == len(own):
                break
        names |= found
    return names


def _read(path: Path, name: str) -> Run:
    file = result_file.read(path, name)
    return Run(**vars(file), columns=columns_of(file))

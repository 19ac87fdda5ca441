"""A results file of the harness, and what it says about the model and how it decoded."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

PARAMETERS_ALIKE = 0.1


class Model(NamedTuple):
    """What a row of the leaderboard stands for; equal for runs of other tasks.

    Attributes:
        label: `label=…` of the model arguments, or the model's name.
        n: `n_future_tokens`; 1 for ordinary models.
        k: heads used in decoding.
        parameters: of the whole model; None where the harness did not count them.
        train_tokens: seen in training; like the next two, None where the run was not told.
        train_step: of the checkpoint.
        train_seed: of the training.
    """

    label: str
    n: int
    k: int
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
        if self.train_tokens is not None:
            parts.append(f"{in_short(self.train_tokens)} tokens")
        told = (("step", self.train_step), ("seed", self.train_seed))
        parts += [f"{name} {value}" for name, value in told if value is not None]
        return ", ".join(parts)

    def is_as_large_as(self, other: "Model") -> bool:
        """Return whether the parameters differ by at most 10 %; False where they are not known."""
        if not self.parameters or not other.parameters:
            return False
        low, high = sorted((self.parameters, other.parameters))
        return high / low <= 1 + PARAMETERS_ALIKE


@dataclass(frozen=True)
class Run:
    """One results file.

    Attributes:
        path: The file.
        content: What it holds.
    """

    path: Path
    content: Mapping[str, Any]

    @property
    def mtp(self) -> Mapping[str, Any]:
        """What our model wrote about itself; empty for other models."""
        told: Mapping[str, Any] = self.content["config"].get("mtp") or {}
        return told

    @cached_property
    def model(self) -> Model:
        """The model."""
        config, mtp = self.content["config"], self.mtp
        name = self.content.get("model_name") or Path(str(mtp.get("pretrained", "?"))).name
        n = int(mtp.get("n_future_tokens", 1))
        return Model(
            label=str(mtp.get("label") or name),
            n=n,
            k=int(mtp.get("draft_heads", 1)) if n > 1 else 1,
            parameters=config.get("model_num_parameters"),
            train_tokens=mtp.get("train_tokens"),
            train_step=mtp.get("train_step"),
            train_seed=mtp.get("train_seed"),
        )

    @property
    def machine(self) -> str:
        """What a speed depends on, in a few words."""
        hardware = self.mtp.get("hardware") or {}
        threads = "" if "gpu" in hardware else f", {hardware.get('threads', '?')} threads"
        batch = self.mtp.get("slots") or self.mtp.get("batch_size", "?")
        name = hardware.get("gpu") or hardware.get("cpu", "unknown machine")
        return f"{name}{threads}, batch {batch}"

    @property
    def tasks(self) -> list[str]:
        """The tasks with documents of their own; groups only pool their members."""
        return [task for task in self.content["results"] if task in self.content["configs"]]

    def metrics(self, task: str) -> dict[tuple[str, str], float]:
        """Return the numbers of a task by (metric, filter), the standard errors left out."""
        found = {}
        for name, value in self.content["results"][task].items():
            metric, comma, filtered = name.partition(",")
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if comma and is_number and not metric.endswith("_stderr"):
                found[metric, filtered] = float(value)
        return found

    def standard_error(self, task: str, metric: str, filtered: str) -> float | None:
        """Return the harness's standard error of a metric, None where it gives none."""
        value = self.content["results"][task].get(f"{metric}_stderr,{filtered}")
        return float(value) if isinstance(value, int | float) else None

    def table(self, task: str, name: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of one of the tables that our probes write; none where there is none."""
        table = (self.mtp.get("tables") or {}).get(task, {}).get(name)
        for row in table["rows"] if table else ():
            yield dict(zip(table["columns"], row, strict=True))

    def samples(self, task: str) -> Path | None:
        """Return the samples file of a task, None where the run logged none."""
        date = self.path.stem.removeprefix("results_")
        written = self.path.with_name(f"samples_{task}_{date}.jsonl")
        graded = written.with_suffix(".graded.jsonl")
        return next((path for path in (graded, written) if path.is_file()), None)


def find(places: Sequence[str]) -> list[Run]:
    """Return the runs in result files, and in all of those below folders.

    Raises:
        FileNotFoundError: A place does not exist, or holds no results.
        ValueError: A file is no results file of the harness.
    """
    paths: dict[Path, None] = {}
    for place in map(Path, places):
        if not place.exists():
            raise FileNotFoundError(f"no {place}: give results_….json files, or folders of them")
        below = sorted(place.rglob("results_*.json")) if place.is_dir() else [place]
        if not below:
            raise FileNotFoundError(
                f"{place} holds no results_….json: run `lm_eval … --output_path {place}` first"
            )
        paths |= dict.fromkeys(below)
    return [_read(path) for path in paths]


def _read(path: Path) -> Run:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not JSON ({error}), expected a results file of lm_eval: was the run "
            "killed while it wrote? remove the file, or run again"
        ) from None
    missing = [key for key in ("results", "configs", "config") if key not in (content or {})]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}, expected a results file of lm_eval: name others"
        )
    return Run(path, content)


def in_short(number: float | None) -> str:
    """Return a count with a letter: 3.86M, 6.74B; a question mark for None."""
    if number is None:
        return "?"
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:g}"

"""Reads and checks one results file of the harness."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar

from mtp_harness.results.find import samples_of
from mtp_harness.results.label import Model, labels_of, model_of

SCHEMAS = (None, 1)
"""Versions of `config.mtp` that can be read; the oldest files have none."""

# Of a task's metadata: shown under other names, or about which documents are read, which their
# hashes say, or how answers are graded. The harness hands every task the options of all others.
_NOT_SETTINGS = frozenset(
    "version config_source grading data_dir source n_samples temperature top_p top_k k num_fewshot "
    "baseline batch column count dataset dataset_config density documents folder heads n_texts on "
    "operations pause_tokens prompt_tokens quick seed sha256 split stories trials".split()
)

_PART = re.compile(r"\d+ of the test split's (\d+) documents")
"""How a loader says that its file is a part of a test split."""

LOSSY = {"all": "unverified", "synthetic": "synthetic acceptance"}
"""Words for `config.mtp.acceptance` if drafts are not verified."""


File = TypeVar("File", bound="ResultFile")


class Unreadable(ValueError):
    """A file that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class ResultFile:
    """A results file."""

    path: Path
    name: str  # the file's path below the folder that was given, for tables
    sha256: str  # hash of its bytes
    content: Mapping[str, Any]
    alias: str = ""  # the model's name beside other models, if it needs a longer one

    @property
    def mtp(self) -> Mapping[str, Any]:
        """The settings and totals that our model wrote; empty for other models."""
        told: Mapping[str, Any] = self.content["config"].get("mtp") or {}
        return told

    @property
    def model_name(self) -> Model:
        """The parts of its model's name."""
        return model_of(self.content)

    @property
    def label(self) -> str:
        """The name of its model."""
        return self.alias or labels_of([self.model_name])[self.model_name]

    @property
    def tasks(self) -> list[str]:
        """The tasks with documents; groups only pool their members."""
        return [task for task in self.content["results"] if task in self.content["configs"]]

    def metrics(self, task: str) -> dict[tuple[str, str], float]:
        """Return the numbers of a task by (metric, filter), without standard errors."""
        stated = self.stated(task).items()
        return {name: float(value) for name, value in stated if is_number(value)}

    @property
    def machine(self) -> str | None:
        """Its hardware in a few words; None if it does not say."""
        hardware = self.mtp.get("hardware") or {}
        if "gpu" in hardware or "cpu" not in hardware:
            return hardware.get("gpu")
        count = hardware.get("threads")
        threads = f", {count} thread{'' if count == 1 else 's'}" if count else ""
        return f"{hardware['cpu']}{threads}"

    def stated(self, task: str) -> dict[tuple[str, str], Any]:
        """Return the stated values of a task by (metric, filter), without standard errors."""
        found = {}
        for name, value in self.content["results"][task].items():
            metric, comma, filtered = name.partition(",")
            if comma and value is not None and not metric.endswith("_stderr"):
                found[metric, filtered] = value
        return found

    def told(self, section: str, task: str) -> Any:
        """Return what a section, such as `n-shot`, says about a task; None if it says nothing."""
        return (self.content.get(section) or {}).get(task)

    def version(self, task: str) -> str:
        """Return a task's version."""
        told = self.told("versions", task)
        return f"{told:g}" if isinstance(told, int | float) else str(told or "unknown")

    def without_tables(self) -> "ResultFile":
        """Return the file without the probes' tables, which are most of its content."""
        config = self.content["config"]
        slim = {**config, "mtp": {**self.mtp, "tables": {}}} if self.mtp else config
        return replace(self, content={**self.content, "config": slim})

    def settings(self, task: str) -> list[tuple[str, Any]]:
        """Return the options of a task, sorted by name."""
        metadata = self.content["configs"][task].get("metadata") or {}
        # The harness copies the model arguments into every task's metadata.
        arguments = self.content["config"].get("model_args") or {}
        if isinstance(arguments, str):  # as given to `simple_evaluate`
            arguments = {part.partition("=")[0].strip(): None for part in arguments.split(",")}
        hidden = _NOT_SETTINGS | set(arguments if isinstance(arguments, dict) else ())
        return sorted((name, value) for name, value in metadata.items() if name not in hidden)

    def samples(self, task: str) -> Path | None:
        """Return what `samples_of` returns for a task."""
        return samples_of(self.path, task)

    def data_sets(self, task: str) -> dict[str, Any]:
        """Return the facts about a task's data sets: hash, source, number of documents."""
        metadata = self.content["configs"].get(task, {}).get("metadata") or {}
        told = (self.mtp.get("documents") or {}).get(task) or metadata.get("documents")
        return told if isinstance(told, dict) else {}

    def counted(self, task: str) -> tuple[int | None, int | None]:
        """Return how many documents of a task were read, and how many its test split has."""
        counts = self.told("n-samples", task) or {}
        sources = [str(about.get("source")) for about in self.data_sets(task).values()]
        wholes = [int(found[1]) for source in sources if (found := _PART.search(source))]
        return counts.get("effective"), wholes[0] if wholes else counts.get("original")

    def require_all(self, task: str, samples: Path, n_documents: int) -> None:
        """Refuse samples of a task whose number of documents is not the scored number.

        Raises:
            ValueError: It differs.
        """
        expected, _ = self.counted(task)
        if expected is not None and n_documents != expected:
            raise ValueError(
                f"{samples} holds {n_documents} documents, expected the {expected} of "
                f"{self.path.name}: run again"
            )


def read(path: Path, name: str) -> ResultFile:
    """Read and check a results file.

    Raises:
        Unreadable: It is not a results file, or has content that no run writes.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        said = (error.strerror or type(error).__name__).lower()
        raise Unreadable(f"{path} cannot be read ({said}), expected a results file") from None
    try:
        content = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        said = "it is empty" if not data.strip() else " ".join(str(error).split())
        raise Unreadable(
            f"{path} is not JSON ({said}), expected a results file of lm_eval: was the run killed "
            "while it wrote? remove the file, or run again"
        ) from None
    file = ResultFile(path, name, hashlib.sha256(data).hexdigest(), content)
    _check(file)
    return file


def told_apart(files: Sequence[File]) -> list[File]:
    """Return files that stand side by side, with different labels for all models."""
    labels = labels_of(file.model_name for file in files)
    return [
        file if file.label == (label := labels[file.model_name]) else replace(file, alias=label)
        for file in files
    ]


def is_number(value: Any) -> bool:
    """Return whether an entry of JSON is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; a name that occurs twice is refused."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{doubled!r} is there twice")
    return content


def _check(file: ResultFile) -> None:
    content = file.content
    parts = ("results", "configs", "config")
    if lacking := [part for part in parts if not isinstance(content, dict) or part not in content]:
        raise Unreadable(
            f"{file.path} has no {', '.join(lacking)}, expected a results file of "
            "lm_eval: name others"
        )
    for part in parts:
        _expect(file, part, content[part], dict, "a table of names")
    if not file.tasks:
        raise Unreadable(f"{file.path} has results of no task, expected one at least: run again")
    for task, metrics in content["results"].items():
        _expect(file, f"results.{task}", metrics, dict, "metrics by name")
    for task, config in content["configs"].items():
        _expect(file, f"configs.{task}", config, dict, "the task's settings")
        own = config.get("metadata") or {}
        _expect(file, f"configs.{task}.metadata", own, dict, "settings by name")
    for name in ("versions", "n-shot", "higher_is_better"):
        _expect(file, name, content.get(name) or {}, dict, "a table of tasks")
    for task, better in (content.get("higher_is_better") or {}).items():
        _expect(file, f"higher_is_better.{task}", better or {}, dict, "metrics by name")
    _expect(file, "n-samples", content.get("n-samples") or {}, dict, "counts by task")
    for task, counted in (content.get("n-samples") or {}).items():
        _expect(file, f"n-samples.{task}", counted or {}, dict, "counts of documents")
    _expect(file, "config.mtp", content["config"].get("mtp") or {}, dict, "the model's settings")
    if file.mtp:
        _check_model(file)


def _check_model(file: ResultFile) -> None:
    mtp = file.mtp
    if mtp.get("schema") not in SCHEMAS:
        raise Unreadable(
            f"{file.path} has schema {mtp['schema']!r}, expected {SCHEMAS[-1]}: it was written by "
            "another version of mtp-harness; update, or run again"
        )
    n = whole(file, "n_future_tokens", mtp.get("n_future_tokens"), least=1)
    k = whole(file, "draft_heads", mtp.get("draft_heads"), least=1)
    if n is None or k is None:
        missing = "n_future_tokens" if n is None else "draft_heads"
        raise Unreadable(f"{file.path} has no config.mtp.{missing}, expected it: run again")
    if k > n:
        raise Unreadable(f"{file.path} has draft_heads={k}, expected at most n = {n}: run again")
    for name in ("train_tokens", "train_step", "train_seed", "vocab_size"):
        whole(file, name, mtp.get(name), least=0)
    for name in ("tables", "totals", "hardware", "documents", "versions"):
        _expect(file, f"config.mtp.{name}", mtp.get(name) or {}, dict, "a table of names")
    for task, sets in (mtp.get("documents") or {}).items():
        where = f"config.mtp.documents.{task}"
        _expect(file, where, sets, dict, "data sets by name")
        for name, about in sets.items():
            _expect(file, f"{where}.{name}", about, dict, "what was read of a data set")
            sha256 = about.get("sha256")  # None where the data set was not at hand
            _expect(file, f"{where}.{name}.sha256", sha256 or "", str, "a hash")
    totals = mtp.get("totals") or {}
    whole(file, "n_answers", totals.get("n_answers"), least=0)
    _expect(file, "config.mtp.totals.timing", totals.get("timing") or {}, dict, "times by name")
    steps = totals.get("n_steps_by_verified_drafts") or []
    _expect(file, "config.mtp.totals.n_steps_by_verified_drafts", steps, list, "a list of counts")
    _expect(file, "config.mtp.engine", mtp.get("engine") or {}, dict, "an engine's name")
    _expect(file, "config.mtp.label", mtp.get("label"), str | None, "a name")


def whole(file: ResultFile, name: str, value: Any, least: int | None = None) -> int | None:
    """Return a whole number or None.

    Raises:
        Unreadable: It is neither, or less than `least`.
    """
    if value is None:
        return None
    # NaN is not below the limit, either.
    if not is_number(value) or not abs(value) < 2**63 or value != int(value):
        raise Unreadable(f"{file.path}: {name} is {value!r}, expected a whole number: run again")
    if least is not None and value < least:
        raise Unreadable(f"{file.path}: {name} is {value}, expected at least {least}: run again")
    return int(value)


def number(file: ResultFile, name: str, value: Any) -> float | None:
    """Return a number; None if nothing was counted (null or NaN).

    Raises:
        Unreadable: It is not a number, or infinite.
    """
    if value is None or value != value:
        return None
    if not is_number(value) or abs(value) > 1e300:
        raise Unreadable(f"{file.path}: {name} is {value!r}, expected a finite number: run again")
    return float(value)


def _expect(file: ResultFile, name: str, value: Any, kind: type | UnionType, expected: str) -> None:
    if not isinstance(value, kind):
        raise Unreadable(f"{file.path}: {name} is {value!r:.60}, expected {expected}: run again")

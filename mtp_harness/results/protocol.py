"""Conditions for showing two runs of a task side by side.

This is the one rule for `leaderboard`, `report`, `figures` and `passk`. Greedy and sampled answers
are different questions, and so are two temperatures: they are shown separately, each under its
name. Within one question everything else must be equal. Documents are compared for the data sets
that both runs read; for timings (`mtp_speed`) they do not count, because those depend on the
machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mtp_harness.results.documents import Documents
from mtp_harness.results.result_file import ResultFile

TIMINGS = "mtp_speed"
GREEDY = "0 (greedy)"
ABSENT = "not at hand"
"""In place of the hash of documents that a run did not have."""


@dataclass(frozen=True)
class Protocol:
    """How a run did a task; values are text, so that a difference can be shown.

    An unknown value is empty, and fits everything. So does the draft rule if nothing was drafted:
    head 1 alone fits any lossless rule.
    """

    task_version: str = ""
    number_of_documents: str = ""
    documents: Mapping[str, str] = field(default_factory=dict)  # hash by data set
    prompts: str = ""
    few_shots: str = ""
    number_of_samples: str = ""
    temperature: str = ""
    top_p: str = ""
    top_k: str = ""
    stops: str = ""
    budget: str = ""
    draft_rule: str = ""
    dtype: str = ""
    engine: str = ""
    settings: str = ""

    @property
    def is_greedy(self) -> bool:
        """Whether nothing was sampled."""
        return self.temperature in ("", GREEDY)

    def is_same_question(self, other: "Protocol") -> bool:
        """Return whether both are greedy, or sampled at one temperature, as far as known."""
        return self.temperature == other.temperature or "" in (self.temperature, other.temperature)

    def differences(self, other: "Protocol") -> list[str]:
        """Return each difference except temperature in words, with both values."""
        found = [
            f"documents of {name} {mine} against {its}"
            for name, mine in self.documents.items()
            if ABSENT not in (mine, its := other.documents.get(name, mine)) and mine != its
        ]
        for one in fields(self):
            mine, its = getattr(self, one.name), getattr(other, one.name)
            if one.name in ("documents", "temperature") or "" in (mine, its):
                continue
            if mine != its:
                found.append(f"{one.name.replace('_', ' ')} {mine} against {its}")
        return found


def protocol_of(file: ResultFile, task: str, documents: Documents | None = None) -> Protocol:
    """Return how a run did a task; `documents` are those it logged, or None."""
    config = file.content["configs"][task]
    generates = bool(config.get("generation_kwargs"))  # probes have none, whatever samples say
    generation = documents.generation if documents else config.get("generation_kwargs")
    drafts = generates and int(file.mtp.get("draft_heads") or 1) > 1
    dtype = file.mtp.get("dtype") or file.content["config"].get("model_dtype") or ""
    texts = _texts(file, task, documents) if task != TIMINGS else {}
    return Protocol(
        task_version=file.version(task),
        few_shots=str((file.content.get("n-shot") or {}).get(task, 0)),
        number_of_samples=str(documents.n_samples if documents else config.get("repeats", 1)),
        draft_rule=str(file.mtp.get("draft_rule", "")) if drafts else "",
        dtype=str(dtype).removeprefix("torch."),
        engine=str((file.mtp.get("engine") or {}).get("name") or "mtp") if file.mtp else "",
        settings=", ".join(f"{key}={value}" for key, value in file.settings(task)) or "none",
        **texts,
        **(_generation(generation or {}) if generates else {}),
    )


def protocol_of_samples(documents: Documents) -> Protocol:
    """Return how a task was done according to its samples, if their results are missing."""
    return Protocol(
        number_of_documents=str(documents.n_documents),
        documents={"samples": documents.documents[:12]},
        prompts=documents.prompts[:12],
        number_of_samples=str(documents.n_samples),
        **_generation(documents.generation or {}),
    )


def _texts(file: ResultFile, task: str, documents: Documents | None) -> dict[str, Any]:
    """Return what was read: documents by data set, their number, prompts."""
    sets = file.data_sets(task)
    hashes = {
        name: str(about.get("sha256") or ABSENT)[:12]
        for name, about in sorted(sets.items())
        if isinstance(about, Mapping)
    }
    told: dict[str, Any] = {"documents": hashes}
    if len(sets) < 2:  # with several, runs may have read different ones
        effective = file.counted(task)[0]
        told["number_of_documents"] = "" if effective is None else str(effective)
        if documents:
            hashes["samples"] = documents.documents[:12]
            told["prompts"] = documents.prompts[:12]
    return told


def _generation(how: Mapping[str, Any]) -> dict[str, Any]:
    sampled, given = bool(how.get("do_sample")), how.get("temperature")
    temperature = 1.0 if given is None else given
    return {
        "temperature": f"{float(temperature):g}" if sampled else GREEDY,
        "top_p": f"{float(how.get('top_p') or 1):g}" if sampled else "1",
        "top_k": f"{int(how.get('top_k') or 0)}" if sampled else "0",
        "stops": repr(how.get("until", [])),
        "budget": str(how.get("max_gen_toks", "none")),
    }

"""What two runs of a task must have in common before their numbers may stand side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mtp_harness.results.documents import Documents
from mtp_harness.results.run import Run


@dataclass(frozen=True)
class Protocol:
    """How a run did a task; values are words, so that a difference can be shown.

    What is not known is empty, and fits everything. So does the draft rule where nothing was
    drafted: head 1 alone fits any lossless rule.
    """

    task_version: str = ""
    documents: str = ""
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

    def differences(self, other: "Protocol") -> list[str]:
        """Return each difference in words, both values named; empty where there is none."""
        found = []
        for field in fields(self):
            mine, its = getattr(self, field.name), getattr(other, field.name)
            if mine != its and "" not in (mine, its):
                found.append(f"{field.name.replace('_', ' ')} {mine} against {its}")
        return found


def protocol_of(run: Run, task: str, documents: Documents | None) -> Protocol:
    """Return how a run did a task, of which it logged `documents`, or None."""
    config = run.content["configs"][task]
    generation = documents.generation if documents else config.get("generation_kwargs")
    generates = config.get("output_type") == "generate_until" or bool(
        documents and documents.generation
    )
    dtype = run.mtp.get("dtype") or run.content["config"].get("model_dtype") or "unknown"
    return Protocol(
        task_version=str((run.content.get("versions") or {}).get(task)),
        documents=_documents(run, task, documents),
        prompts=documents.prompts[:12] if documents else "not logged (--log_samples)",
        few_shots=str((run.content.get("n-shot") or {}).get(task, 0)),
        number_of_samples=str(documents.n_samples if documents else config.get("repeats", 1)),
        draft_rule=str(run.mtp.get("draft_rule", "")) if generates and run.model.k > 1 else "",
        dtype=str(dtype).removeprefix("torch."),
        engine=str((run.mtp.get("engine") or {}).get("name") or "mtp") if run.mtp else "",
        settings=", ".join(f"{key}={value}" for key, value in run.settings(task)) or "none",
        **_generation(dict(generation or {}) if generates else {}),
    )


def protocol_of_samples(documents: Documents) -> Protocol:
    """Return what samples say of how a task was done, where their results are not at hand."""
    return Protocol(
        documents=f"{documents.n_documents} with hash {documents.documents[:12]}",
        prompts=documents.prompts[:12],
        number_of_samples=str(documents.n_samples),
        **_generation(documents.generation or {}),
    )


def _generation(how: Mapping[str, Any]) -> dict[str, str]:
    sampled, given = bool(how.get("do_sample")), how.get("temperature")
    temperature = 1.0 if given is None else given
    return {
        "temperature": f"{float(temperature):g}" if sampled else "0 (greedy)",
        "top_p": f"{float(how.get('top_p') or 1):g}" if sampled else "1",
        "top_k": f"{int(how.get('top_k') or 0)}" if sampled else "0",
        "stops": repr(how.get("until", [])),
        "budget": str(how.get("max_gen_toks", "none")),
    }


def _documents(run: Run, task: str, documents: Documents | None) -> str:
    probed = (run.mtp.get("documents") or {}).get(task)
    if probed:
        return ", ".join(
            f"{name} {(about.get('sha256') or 'not at hand')[:12]}"
            for name, about in sorted(probed.items())
        )
    counted = (run.content.get("n-samples") or {}).get(task) or {}
    count = counted.get("effective", "?")
    if documents is None:
        return f"{count}, not logged (--log_samples)"
    return f"{count} with hash {documents.documents[:12]}"

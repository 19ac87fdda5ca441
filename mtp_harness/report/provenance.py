"""Where the numbers of a report come from, run by run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtp_harness.results.run import Run

_HIDDEN = frozenset({"totals", "tables", "documents", "versions", "hardware", "command"})


def provenance(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the facts of each run, as text.

    Args:
        runs: In the order in which they are shown.
    """
    return [
        {
            "name": f"{run.model.name}: {', '.join(run.tasks)}",
            "facts": [(name, str(value)) for name, value in _facts(run) if value is not None],
        }
        for run in runs
    ]


def _facts(run: Run) -> Iterator[tuple[str, Any]]:
    content, mtp = run.content, run.mtp
    yield "results file", run.path.name
    yield "its SHA-256", run.sha256
    yield "command", mtp.get("command")
    yield "hardware", _listed(mtp.get("hardware"))
    yield "versions", _listed(mtp.get("versions")) or f"lm_eval {content.get('lm_eval_version')}"
    yield "task versions", _listed(content.get("versions"))
    yield "limit", content["config"].get("limit")
    for name, value in mtp.items():
        if name not in _HIDDEN:
            yield name.replace("_", " "), value


def _listed(values: Mapping[str, Any] | None) -> str | None:
    return ", ".join(f"{name} {value}" for name, value in values.items()) if values else None

"""The last lines of a run on the terminal: scores, decoding, and the next command.

    humaneval_mtp  pass@1 0.125 [0.085, 0.171], 164 documents
    decoding       3.811 tokens per forward, 146 tokens/s, k = 4
    next           mtp-harness report results/

They repeat the most important numbers of the harness's table, which has 17 rows.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from mtp_harness.results.result_file import is_number
from mtp_harness.results.schema import QUALITY
from mtp_harness.results.sizes import in_digits

MOST_TASKS = 8
"""Most tasks with a line; the table above has all."""
MOST_SCORES = 3
"""Most scores in a task's line."""

AT_OFFSET = re.compile(r"(?P<name>(?!pass_at_).+)_(?P<offset>\d+)")

COUNTED = {"mtp_arithmetic": "operation"}
"""By task: what the last number of its scores counts, where that is not the offset."""


def closing(content: Mapping[str, Any], output: str | None, logged: bool) -> list[str]:
    """Return the lines; none if the results have no score of ours.

    Args:
        content: of a results file.
        output: the folder that it was written to; None if it was not written.
        logged: whether answers were saved beside it.
    """
    rows = [*_scores(content)]
    if len(rows) > MOST_TASKS:
        rows[MOST_TASKS:] = [("…", f"{len(rows) - MOST_TASKS} more tasks, in the table above")]
    if not rows:
        return []
    rows += _decoding(content.get("config", {}).get("mtp") or {})
    rows.append(("next", _next(output, logged)))
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {said}" for name, said in rows]


def _scores(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (task, its scores) for each task with a score."""
    for task, results in content["results"].items():
        values = {
            key.removesuffix(",none"): value for key, value in results.items() if is_number(value)
        }
        if parts := _parts(task, values)[:MOST_SCORES]:
            n = (content.get("n-samples") or {}).get(task, {}).get("effective")
            documents = [f"{n} document{'s' * (n != 1)}"] if n else []
            yield task, ", ".join(parts + documents)


def _parts(task: str, values: Mapping[str, float]) -> list[str]:
    """Return each score, grouped by offset: those with an interval first, then accuracies."""
    series: dict[str, list[tuple[int, float]]] = {}
    ranked: list[tuple[int, str]] = []
    for name, value in values.items():
        if not QUALITY.fullmatch(name):
            continue
        if found := AT_OFFSET.fullmatch(name):
            series.setdefault(found["name"], []).append((int(found["offset"]), value))
            continue
        low, high = (values.get(f"{name}_{end}90") for end in ("low", "high"))
        error = values.get(f"{name}_stderr")
        around = f" ± {in_digits(error)}" if error is not None else ""
        interval = (
            around if low is None or high is None else f" [{in_digits(low)}, {in_digits(high)}]"
        )
        ranked.append((0 if interval else 2, f"{name} {in_digits(value)}{interval}"))
    for name, by_offset in series.items():
        numbers = " ".join(in_digits(value) for _, value in by_offset)
        at = _at(COUNTED.get(task), [*dict(by_offset)])
        ranked.append((1 if name.endswith("accuracy") else 3, f"{name} {numbers} {at}"))
    return [part for _, part in sorted(ranked, key=lambda one: one[0])]


def _at(counted: str | None, numbers: list[int]) -> str:
    listed = ", ".join(map(str, numbers))
    if counted is None:
        return f"at offset{'s' * (len(numbers) > 1)} {listed}"
    return f"with {listed} {counted}{'s' * (numbers != [1])}"


def _decoding(mtp: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield how the run decoded, if it did."""
    totals = mtp.get("totals") or {}
    if not totals.get("n_steps"):
        return
    k, auto = mtp["draft_heads"], mtp.get("draft_heads_auto")
    speed = (totals.get("timing") or {}).get("tokens_per_s")
    parts = [f"{in_digits(totals['tokens_per_forward'])} tokens per forward"]
    parts += [] if speed is None else [f"{speed:,.0f} tokens/s"]
    parts.append(f"k = {k}" + (", the fastest on the first requests" if auto else ""))
    if "same noise" in str(mtp.get("draft_rule")):  # engines use another rule, with other rates
        parts.append("sampled drafts verified with the same noise")
    if not mtp.get("lossless", True):
        parts.append("lossy: drafts were not verified")
    yield "decoding", ", ".join(parts)


def _next(output: str | None, logged: bool) -> str:
    if output is None:
        return "nothing was saved: add -o results/ --log_samples for a report"
    command = f"mtp-harness report {shlex.quote(output)}"
    return command if logged else f"{command} (with --log_samples it shows every answer)"

"""`mtp-harness export RESULTS`: results in formats that others read.

`--format speculation-profile` writes NVIDIA's `speculation_profile.json`, schema 1.0, from a run of
mtp_speculative: a drafter's acceptance, for serving simulators and vLLM's synthetic acceptance.

    accept length         tokens that a step gives: verified drafts and the bonus, 1 … k
    marginal[i]           share of steps that verified the first i + 1 drafts
    conditional[i]        the same, of those that verified the first i
    mean_accept_length    mean over steps = 1 + sum of marginals; beside it the mean over requests

Speculative tokens are k - 1, the drafts of k heads.

Source of the schema: NVIDIA Model Optimizer, `examples/specdec_bench`, `speculation_profile.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.commands.arguments import Parser
from mtp_harness.files import write_whole
from mtp_harness.results import result_file
from mtp_harness.results.find import read_each, results_below
from mtp_harness.results.result_file import ResultFile

TASK = "mtp_speculative"
TOLERANCE = 0.02
"""Tolerance of the schema's check of the mean."""

_OF_ALL = (
    "conditional_accept_rates marginal_accept_rates mean_accept_length "
    "mean_accept_length_per_request"
).split()


class Steps(NamedTuple):
    """What was measured at one k, of one category or of all."""

    histogram: dict[int, int]  # steps by accept length, 1 … k
    per_request: tuple[float, int]  # (sum over requests of their own mean accept length, requests)

    @property
    def mean(self) -> float:
        """Mean accept length over steps."""
        n_steps = sum(self.histogram.values())
        return sum(length * n for length, n in self.histogram.items()) / n_steps

    def marginal(self) -> list[float]:
        """Return, per draft, the share of steps that verified it and all before it."""
        longer = [
            sum(n for length, n in self.histogram.items() if length > draft)
            for draft in range(1, max(self.histogram))
        ]
        return [n / sum(self.histogram.values()) for n in longer]

    def summary(self) -> dict[str, Any]:
        """Return a profile's entries for one category or for all."""
        marginal = self.marginal()
        before = [1.0, *marginal]
        conditional = [m / b if b else 0.0 for m, b in zip(marginal, before, strict=False)]
        return {
            "mean_accept_length": round(self.mean, 6),
            "mean_accept_length_per_request": round(self.per_request[0] / self.per_request[1], 6),
            "num_requests": self.per_request[1],
            "conditional_accept_rates": [round(rate, 6) for rate in conditional],
            "marginal_accept_rates": [round(rate, 6) for rate in marginal],
            "acceptance_length_histogram": {str(a): b for a, b in self.histogram.items()},
        }


def main(argv: list[str]) -> int:
    """Write an export to a file or the screen."""
    parser = Parser(
        "export",
        "Write results in a format that others read.",
        "results/ --format speculation-profile -o profile.json",
    )
    about = "a results_….json, or a folder with one run of mtp_speculative"
    parser.path("results", about=about)
    about = "what to write: NVIDIA's record of acceptance"
    parser.add_argument("--format", required=True, choices=["speculation-profile"], help=about)
    about = "heads that drafts were made with, from 2 (default: all that the run decoded with)"
    parser.add_argument("-k", "--draft-heads", type=int, metavar="K", help=about)
    about = "write there (default: to the screen)"
    parser.path("-o", "--out", metavar="FILE", about=about)
    args = parser.parse_args(argv)
    file = find_run(args.results)
    try:
        profile = speculation_profile(file.mtp, args.draft_heads, file.path.name)
    except (KeyError, TypeError, AttributeError, IndexError, ZeroDivisionError) as error:
        raise ValueError(
            f"{file.path} has damaged tables of {TASK} ({type(error).__name__}: {error}): run it "
            "again"
        ) from None
    text = json.dumps(profile, indent=2) + "\n"
    if args.out is None:
        sys.stdout.write(text)
    else:
        write_whole(args.out, text)
    return 0


def find_run(place: Path) -> ResultFile:
    """Return the one results file of `TASK` at or below a place.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: there are several, or no file is a results file. Where some are, damaged ones
            are named on stderr and left out.
    """
    if not place.exists():
        raise FileNotFoundError(f"no {place}, expected a results_….json or a folder with one.")
    files = results_below(place) if place.is_dir() else [place]
    read = read_each(files, lambda path: result_file.read(path, path.name))
    found = [file for file in read if TASK in (file.mtp.get("tables") or {})]
    if not found:
        raise FileNotFoundError(
            f"{place} holds no run of {TASK}, expected the output of `lm_eval --model mtp --tasks "
            f"{TASK} --output_path {place}`; run that first."
        )
    if len(found) > 1:
        raise ValueError(
            f"{place} holds {len(found)} runs of {TASK}, expected one: name one of the files, such "
            f"as {found[-1].path}."
        )
    return found[0]


def speculation_profile(
    mtp: Mapping[str, Any], draft_heads: int | None = None, source: str = ""
) -> dict[str, Any]:
    """Return the profile as plain JSON values.

    Args:
        mtp: `config.mtp` of a run of `TASK`.
        draft_heads: k, from 2 to the largest that decoded; None: that one.
        source: the results file's name.

    Raises:
        ValueError: there are no drafts to describe at this k.
    """
    own, engine = int(mtp["n_future_tokens"]), mtp.get("engine") or {}
    n = min(own, _largest_k(mtp["tables"][TASK]["by_k"]))
    k = n if draft_heads is None else draft_heads
    if not 2 <= k <= n:
        heads = f"2 to {n}" if n > 1 else "a model with more than one head, which this is not"
        raise ValueError(f"draft_heads={k} makes no drafts to describe here, expected {heads}.")
    if not mtp.get("lossless", True):
        raise ValueError(
            "this run accepted drafts unverified (acceptance=all), which says nothing about how "
            "many are right; export one with acceptance=exact."
        )
    by_category = steps_of(mtp["tables"][TASK], k)
    pooled = {other: _pooled(steps_of(mtp["tables"][TASK], other)) for other in range(2, n + 1)}
    summary, model = pooled[k].summary(), _short(mtp["pretrained"])
    return {
        "schema_version": "1.0",
        "measured": True,
        "method": mtp.get("method") or "mtp",
        "draft_checkpoint": {"id": model, "heads": mtp.get("heads")},
        "target_model": {"id": model, "dtype": mtp.get("dtype")},
        "num_speculative_tokens": k - 1,
        "block_size": None,
        "max_supported_k": own - 1,
        "verification_method": "longest_prefix",
        **{name: summary[name] for name in _OF_ALL},
        "accept_length_model": "measured_per_k",
        "accept_length_by_k": {
            str(other - 1): round(steps.mean, 6) for other, steps in pooled.items()
        },
        "acceptance_length_histogram": summary["acceptance_length_histogram"],
        "per_category": {name: steps.summary() for name, steps in by_category.items()},
        "measurement_conditions": {
            "dataset": mtp.get("documents", {}).get(TASK),
            "temperature": 0.0,
            "draft_threshold": mtp.get("draft_threshold"),
            "concurrency": mtp.get("batch_size"),
            "engine": " ".join(engine.values()) or "mtp_harness",
            "dtype": mtp.get("dtype"),
            "hardware": mtp.get("hardware"),
            "versions": mtp.get("versions"),
            "results": source,
        },
        "validation": _validation(pooled[k]),
    }


def steps_of(tables: Mapping[str, Any], k: int) -> dict[str, Steps]:
    """Return the steps at k that the task's tables hold, by category."""
    found: dict[str, Steps] = {}
    for row in _rows(tables["histogram"], k):
        steps = found.setdefault(row["category"], Steps({}, (0.0, 0)))
        steps.histogram[row["n_verified"] + 1] = int(row["value"])
    for row in _rows(tables["by_k"], k):
        if row["metric"] == "accept_length_mean" and row["value"] is not None:
            pair = (row["value"] * row["count"], row["count"])
            found[row["category"]] = found[row["category"]]._replace(per_request=pair)
    if not found or not any(sum(steps.histogram.values()) for steps in found.values()):
        raise ValueError(f"the run has no steps with k = {k}, so there is no profile to write.")
    return {name: steps for name, steps in found.items() if sum(steps.histogram.values())}


def _largest_k(table: Mapping[str, Any]) -> int:
    """Return the most heads that decoded; in vLLM they can be fewer than the checkpoint has."""
    return max((int(row["k"]) for row in _rows(table)), default=1)


def _rows(table: Mapping[str, Any], k: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of a table; with `k`, those of that many heads."""
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    return rows if k is None else [row for row in rows if row["k"] == k]


def _pooled(by_category: Mapping[str, Steps]) -> Steps:
    parts = by_category.values()
    lengths = sorted({length for steps in parts for length in steps.histogram})
    return Steps(
        {length: sum(steps.histogram.get(length, 0) for steps in parts) for length in lengths},
        (sum(s.per_request[0] for s in parts), sum(s.per_request[1] for s in parts)),
    )


def _validation(whole: Steps) -> dict[str, Any]:
    marginal = whole.marginal()
    implied = 1 + sum(marginal)
    rises = [
        {"position": i, "value": marginal[i], "previous": marginal[i - 1]}
        for i in range(1, len(marginal))
        if marginal[i] > marginal[i - 1] + 1e-9
    ]
    delta = abs(implied - whole.mean)
    return {
        "mean_consistency": {
            "implied_mean_accept_length": round(implied, 6),
            "reported_mean_accept_length": round(whole.mean, 6),
            "abs_delta": round(delta, 6),
            "tolerance": TOLERANCE,
            "passed": delta <= TOLERANCE,
        },
        "marginal_monotonicity": {"passed": not rises, "violations": rises},
    }


def _short(pretrained: str) -> str:
    """Return the last two parts of a name or path: a published profile shows no local folders."""
    return "/".join([part for part in pretrained.replace("\\", "/").split("/") if part][-2:])

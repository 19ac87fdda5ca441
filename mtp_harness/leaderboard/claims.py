"""The paper's claims beside what runs measured: agree, disagree, inconclusive or not comparable.

`claims.toml` holds the claims, `verdicts.py` the rules.

A claim about a mean is judged by the plain mean of the differences on all tasks that it names; a
task at several temperatures counts with its mean over them.

Everything else is inconclusive. Several pairs of models or tasks agree if all agree, and disagree
if one disagrees and none agrees. Runs without documents do not count, and the finding says what is
missing.

Only runs of models like those of a claim can agree or disagree with it: a claim about 7B models on
a GPU is not comparable with a 4M model on a CPU.

A pair is a model with n heads and one with n = 1 whose parameters differ by at most 10 % and whose
training tokens and seeds are the same (or equally unknown; then their steps are), with one
vocabulary, on documents under one protocol. Runs whose drafts are not verified are ignored. The
verdict is about these runs only: their models are named, because the paper's are far larger.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.leaderboard.board import Board, Drawn, estimate, mean_of
from mtp_harness.leaderboard.table import Leaderboard
from mtp_harness.leaderboard.text import spanned
from mtp_harness.leaderboard.verdicts import (
    ENOUGH,
    Verdict,
    decreases,
    grows,
    of_enough,
    pool,
    reaches,
    side,
)
from mtp_harness.results.run import Model, Run
from mtp_harness.results.samples import family_of
from mtp_harness.results.sizes import in_short

TIMING_SLACK = 0.05
UNPAIRED = "no interval: fewer than two documents, or none logged (--log_samples)"
NO_NUMBER = "the paper prints no number for this"


Claim = dict[str, Any]
"""An entry of `claims.toml`."""


class Finding(NamedTuple):
    """One measurement for a claim; without a verdict, it says what is missing."""

    who: str
    what: str
    verdict: Verdict | None


@dataclass(frozen=True)
class Judged:
    """A claim, what these runs measured, and the verdict."""

    claim: str  # in plain words
    source: str  # where the paper makes it
    setting: str  # what the paper measured it on
    printed: str  # the paper's numbers, or that there are none
    findings: tuple[Finding, ...]  # what these runs measured
    measured: str  # the findings in words, or what is missing
    verdict: Verdict  # by the rules above


def judge(board: Leaderboard) -> list[Judged]:
    """Return every claim with its verdict."""
    text = Path(__file__).with_name("claims.toml").read_text(encoding="utf-8")
    return [_judge(claim, board) for claim in tomllib.loads(text)["claim"]]


def _judge(claim: Claim, board: Leaderboard) -> Judged:
    findings = tuple(_RULES[claim["rule"]](claim, board)) if claim["rule"] in _RULES else ()
    verdict, missing = _without_findings(claim, board)
    if findings:
        verdict = pool([finding.verdict for finding in findings if finding.verdict])
    by_model: dict[str, dict[str, None]] = {}  # each model is named once
    for one in findings:
        by_model.setdefault(one.who, {})[one.what] = None
    measured = "; ".join(f"{', '.join(what)} ({who})" for who, what in by_model.items())
    return Judged(
        claim["claim"],
        claim["source"],
        claim["setting"],
        claim["printed"] or NO_NUMBER,
        findings,
        measured or missing,
        verdict,
    )


def _without_findings(claim: Claim, leaderboard: Leaderboard) -> tuple[Verdict, str]:
    """Return why no run is about a claim: the runs are of another kind, or there are none."""
    beyond: dict[str, None] = {}
    for board in _boards(claim, leaderboard) if claim["rule"] in _RULES else ():
        for run in board.runs:
            if _is_kind(claim, run) and (why := _beyond(claim, run)):
                beyond[why] = None
    if beyond:
        return "not comparable", "; ".join(beyond)
    return "not measured", f"needs {claim['needs']}"


def _differences(claim: Claim, leaderboard: Leaderboard) -> Iterator[Finding]:
    """Yield one finding for each pair, task and metric; or for each pair, over all tasks."""
    compared: dict[str, list[_Gain]] = defaultdict(list)
    nothing: dict[tuple[str, str], list[str]] = defaultdict(list)
    unpaired: dict[tuple[str, str], None] = {}
    for board in _boards(claim, leaderboard):
        for place, base in _pairs(claim, board):
            who = " against ".join(_called(board.runs[one].model) for one in (place, base))
            for name in _metrics(claim, board, place):
                stated = [board.metrics(one).get(name) for one in (place, base)]
                relative = claim["rule"] == "more_by"
                found = board.drawn_gain((place, *name), base, relative)
                if "mean" not in claim and stated == [0, 0]:
                    nothing[who, board.task].append(name[0])
                elif found is None:
                    unpaired[who, board.task] = None
                else:
                    n_documents = board.n_documents((place, *name))
                    compared[who].append(_Gain(board.task, name[0], found, n_documents))
    for who, several in compared.items():
        if "mean" in claim:
            yield Finding(who, *_judged_mean(claim, several))
        else:
            for one in several:
                what = f"{one.task} {one.metric}"
                yield Finding(who, *_judged_gain(claim, what, one.drawn, one.n_documents))
    for (who, task), metrics in nothing.items():
        more = f" and {len(metrics) - 1} more" if len(metrics) > 1 else ""
        yield Finding(who, f"{task} {metrics[0]}{more}: 0 against 0", "inconclusive")
    for who, task in unpaired:
        yield Finding(who, f"{task}: {UNPAIRED}", None)


class _Gain(NamedTuple):
    """What n heads gain over one head on a task."""

    task: str
    metric: str
    drawn: Drawn
    n_documents: int


def _judged_mean(claim: Claim, several: Sequence[_Gain]) -> tuple[str, Verdict | None]:
    """Return the mean over a claim's tasks in words, and the verdict on it."""
    by_family: dict[str, list[Drawn]] = defaultdict(list)
    for one in several:
        by_family[family_of(one.task)].append(one.drawn)
    if lacking := [name for name in claim["mean"] if name not in by_family]:
        return f"no mean without {', '.join(lacking)}", None
    means = [mean_of(by_family[name]) for name in claim["mean"]]
    fewest = min(one.n_documents for one in several)
    return _judged_gain(claim, f"mean of {len(means)} tasks", mean_of(means), fewest)


def _judged_gain(claim: Claim, what: str, drawn: Drawn, n_documents: int) -> tuple[str, Verdict]:
    """Return a gain in words, and the verdict on it."""
    gain = estimate(*drawn)
    if gain is None:
        return f"{what}: a share of 0", "inconclusive"
    if claim["rule"] == "more_by":
        value, low, high = (f"{100 * share:+.3g}" for share in gain)
        said, verdict = f"{what} {value} % [{low}, {high}]", grows(gain, claim["value"])
    else:
        said = f"{what} {spanned(gain, '{:+.4g}'.format)}"
        verdict = side(gain, claim.get("direction", "equal"), claim.get("margin", 0.0))
    return f"{said}{_few(n_documents)}", of_enough(verdict, n_documents)


def _few(n_documents: int) -> str:
    """Return a remark about a number of documents that is too small for a verdict."""
    return "" if n_documents >= ENOUGH else f" on {n_documents} documents, expected {ENOUGH}"


def _metrics(claim: Claim, board: Board, place: int) -> list[tuple[str, str]]:
    """Return the metrics of a claim; for a mean the first one of each task."""
    found = [name for name in board.metrics(place) if re.fullmatch(claim["metrics"], name[0])]
    if "mean" not in claim:
        return found
    order = claim["metrics"].split("|")
    return sorted(found, key=lambda name: order.index(name[0]))[:1]


def _pairs(claim: Claim, board: Board) -> Iterator[tuple[int, int]]:
    """Yield a model with n heads, once for all k, and its n = 1."""
    most: dict[Model, int] = {}
    for place, run in enumerate(board.runs):
        if run.model.n > 1 and _is_about(claim, run):
            same = run.model.text
            if same not in most or board.runs[most[same]].model.k < run.model.k:
                most[same] = place
    for place in most.values():
        for base, run in enumerate(board.runs):
            if run.model.n == 1 and _alike(board.runs[place], run):
                yield place, base


def _alike(one: Run, other: Run) -> bool:
    mine, its = one.model, other.model
    same_training = mine.train_tokens == its.train_tokens and mine.train_seed == its.train_seed
    if mine.train_tokens is None:
        same_training = same_training and mine.train_step == its.train_step
    vocabularies = {one.vocab_size, other.vocab_size} - {None}
    return mine.is_as_large_as(its) and same_training and len(vocabularies) < 2


def _reached(claim: Claim, leaderboard: Leaderboard) -> Iterator[Finding]:
    for board in _boards(claim, leaderboard):
        for place, run in enumerate(board.runs):
            if not _is_about(claim, run):
                continue
            if "table" in claim:
                yield from _reached_in_table(claim, board, run)
            elif run.model.k == claim.get("k", run.model.k):
                for name in _metrics(claim, board, place):
                    found = board.estimate((place, *name))
                    what, verdict = f"{board.task} {name[0]}: {UNPAIRED}", None
                    if found:
                        n_documents = board.n_documents((place, *name))
                        what = f"{board.task} {name[0]} {spanned(found, '{:.4g}'.format)}"
                        what += _few(n_documents)
                        verdict = reaches(found.low, found.high, claim["value"])
                        verdict = of_enough(verdict, n_documents)
                    yield Finding(_called(run.model), what, verdict)


def _reached_in_table(claim: Claim, board: Board, run: Run) -> Iterator[Finding]:
    """Yield the best cell, or the best one of the largest batch if the claim is about that."""
    rows = [
        row
        for row in run.table(board.task, claim["table"], claim["metrics"])
        if row["baseline"] is None and row["category"] == claim.get("category")
    ]
    over = ""
    if claim.get("over_k_1"):
        over = " (prefill included) over k = 1"
        base = next((row["value"] for row in rows if row["k"] == 1), 0.0)
        rows = [
            {**row, "value": row["value"] / base, "low": None, "high": None}
            for row in rows
            if row["k"] != 1 and base > 0
        ]
    if least := claim.get("least_batch"):
        largest = max((row["batch"] for row in rows), default=0)
        rows = [row for row in rows if row["batch"] == largest >= least]
    if not rows:
        return
    best = max(rows, key=lambda row: row["value"])
    low, high = best["low"], best["high"]
    if low is None or high is None:
        low, high = (best["value"] * (1 + sign * TIMING_SLACK) for sign in (-1, 1))
    places = ("category", "batch", "prompt_tokens", "k")
    cell = ", ".join(f"{name} {best[name]}" for name in places if best[name])
    what = f"{board.task} {claim['metrics']}{over} {best['value']:.2f} at {cell}"
    yield Finding(_called(run.model), what, reaches(low, high, claim["value"]))


def _decreasing(claim: Claim, leaderboard: Leaderboard) -> Iterator[Finding]:
    for board in _boards(claim, leaderboard):
        for run in board.runs:
            by_data: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for row in run.table(board.task, claim["table"], claim["metrics"]):
                if row["offset"]:
                    by_data[str(row["data_set"])].append(row)
            for data_set, rows in by_data.items():
                rows.sort(key=lambda row: row["offset"])
                if len(rows) > 1 and all(row["low"] is not None for row in rows):
                    values = ", ".join(f"{row['value']:.3f}" for row in rows)
                    about = run.data_sets(board.task).get(data_set) or {}
                    n_documents = about.get("n_documents") or 0
                    what = f"{claim['metrics']} on {data_set} {values}{_few(n_documents)}"
                    verdict = decreases([(row["low"], row["high"]) for row in rows])
                    verdict = of_enough(verdict, n_documents)
                    yield Finding(_called(run.model), what, verdict)


_RULES = {
    **dict.fromkeys(("difference", "equal", "more_by"), _differences),
    "at_least": _reached,
    "decreasing": _decreasing,
}


def _boards(claim: Claim, leaderboard: Leaderboard) -> list[Board]:
    return [b for b in leaderboard.boards.values() if re.fullmatch(claim["tasks"], b.task)]


def _is_about(claim: Claim, run: Run) -> bool:
    return _is_kind(claim, run) and not _beyond(claim, run)


def _is_kind(claim: Claim, run: Run) -> bool:
    """Return whether a run has as many heads as the claim says, and verified its drafts."""
    return run.model.n == claim.get("n", max(run.model.n, 2)) and run.model.is_lossless


def _beyond(claim: Claim, run: Run) -> str:
    """Return in words why a run is of another kind than the claim's; empty if it is not."""
    told = {**run.model.facts, "vocab_size": run.vocab_size}
    for name, what in _RANGES.items():
        low, high = claim.get(name, (None, None))
        if low is not None and not (told[name] is not None and low <= told[name] <= high):
            about = f"{in_short(low)} to {in_short(high)}" if low else f"at most {in_short(high)}"
            return f"{in_short(told[name])} {what}, the claim is about {about}"
    if claim.get("gpu") and "gpu" not in (run.mtp.get("hardware") or {}):
        return "timed without a GPU, the claim is about one"
    return ""


_RANGES = {"parameters": "parameters", "train_tokens": "training tokens", "vocab_size": "tokens"}
"""Whose numbers a claim may limit, and what is counted."""


def _called(model: Model) -> str:
    return f"{model.name}, {in_short(model.parameters)} parameters"

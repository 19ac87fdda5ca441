"""The paper's claims beside what runs measured: agree, disagree or inconclusive, by fixed rules.

`claims.toml` holds the claims. With d the paired difference of n heads and n = 1, and [low, high]
its 90 % interval by bootstrap over documents:

    higher       agrees where low > 0        disagrees where high < 0
    lower        agrees where high < 0       disagrees where low > 0
    not lower    agrees where low >= 0       disagrees where high < 0
    equal        agrees where -margin <= low and high <= margin     disagrees where 0 is farther
                 than margin from all of [low, high]
    at_least     agrees where low >= value   disagrees where high < value; a timing without an
                 interval counts as [value - 5 %, value + 5 %]
    decreasing   agrees where each offset's low lies above the next one's high; disagrees where some
                 offset's high lies below the next one's low

A claim about a mean is judged by the plain mean of the tasks' differences.

Everything else is inconclusive, and so is a claim that no run can speak to. Several pairs of models
or tasks agree where all agree, and disagree where one disagrees and none agrees.

A pair is a model with n heads and one with n = 1 whose parameters differ by at most 10 % and whose
training tokens and seeds are the same (or equally unknown), on documents under one protocol. The
verdict is about the runs at hand: their models are named, because the paper's are far larger.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mtp_harness.figures.sizes import in_short
from mtp_harness.leaderboard.runs import Model, Run
from mtp_harness.leaderboard.scores import Floats, Key, mean_of
from mtp_harness.leaderboard.table import Board, Leaderboard
from mtp_harness.scoring.bootstrap import Estimate

Verdict = Literal["agree", "disagree", "inconclusive"]

TIMING_SLACK = 0.05
NO_NUMBER = "the paper prints no number for this"


class Finding(NamedTuple):
    """One measurement that speaks to a claim."""

    who: str
    what: str
    verdict: Verdict


@dataclass(frozen=True)
class Judged:
    """A claim, what these runs measured, and the verdict.

    Attributes:
        claim: In a reader's words.
        source: Where it is made.
        setting: What it was measured on there.
        printed: Its numbers there, or that there are none.
        findings: What these runs measured.
        measured: The same in words, or what is missing.
        verdict: By the rules above.
    """

    claim: str
    source: str
    setting: str
    printed: str
    findings: tuple[Finding, ...]
    measured: str
    verdict: Verdict


def judge(board: Leaderboard) -> list[Judged]:
    """Return every claim with its verdict."""
    text = Path(__file__).with_name("claims.toml").read_text(encoding="utf-8")
    return [_judge(claim, board) for claim in tomllib.loads(text)["claim"]]


def _judge(claim: dict[str, Any], leaderboard: Leaderboard) -> Judged:
    rule = claim["rule"]
    findings = () if rule == "none" else tuple(_RULES[rule](claim, leaderboard))
    measured = _in_words(findings) if findings else f"needs {claim['needs']}"
    return Judged(
        claim["claim"],
        claim["source"],
        claim["setting"],
        claim["printed"] or NO_NUMBER,
        findings,
        measured,
        pool([finding.verdict for finding in findings]),
    )


def _in_words(findings: Sequence[Finding]) -> str:
    """Return what was measured, each model named once."""
    by_model: dict[str, dict[str, None]] = {}
    for one in findings:
        by_model.setdefault(one.who, {})[one.what] = None
    return "; ".join(f"{', '.join(measured)} ({who})" for who, measured in by_model.items())


def pool(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict of several findings."""
    if verdicts and all(verdict == "agree" for verdict in verdicts):
        return "agree"
    if "disagree" in verdicts and "agree" not in verdicts:
        return "disagree"
    return "inconclusive"


def side(estimate: Estimate, direction: str, margin: float = 0.0) -> Verdict:
    """Return the verdict on a difference."""
    low, high = estimate.low, estimate.high
    agree, disagree = {
        "higher": (low > 0, high < 0),
        "lower": (high < 0, low > 0),
        "not lower": (low >= 0, high < 0),
        "equal": (-margin <= low and high <= margin, low > margin or high < -margin),
    }[direction]
    return "agree" if agree else "disagree" if disagree else "inconclusive"


def reaches(low: float, high: float, value: float) -> Verdict:
    """Return the verdict on a value that should be reached."""
    return "agree" if low >= value else "disagree" if high < value else "inconclusive"


def decreases(intervals: Sequence[tuple[float, float]]) -> Verdict:
    """Return the verdict on (low, high) that should fall from each to the next."""
    steps = list(zip(intervals, intervals[1:], strict=False))
    if steps and all(near[0] > far[1] for near, far in steps):
        return "agree"
    return "disagree" if any(near[1] < far[0] for near, far in steps) else "inconclusive"


# Findings -----------------------------------------------------------------------------------------


def _differences(claim: dict[str, Any], leaderboard: Leaderboard) -> Iterator[Finding]:
    """Yield one finding for each pair, task and metric; or for each pair, over all tasks."""
    drawn: dict[str, list[tuple[str, tuple[float, Floats]]]] = {}
    for board in _boards(claim, leaderboard):
        for place, base in _pairs(claim, board):
            who = " against ".join(_called(board.runs[one][0].model) for one in (place, base))
            for metric, filtered in _metrics(claim, board, place):
                key, other = Key(place, metric, filtered), Key(base, metric, filtered)
                found = board.scores.drawn_difference(key, other)
                if found is not None:
                    drawn.setdefault(who, []).append((f"{board.task} {metric}", found))
    for who, several in drawn.items():
        if claim.get("mean"):
            several_at_once = [(f"mean of {len(several)} tasks", [one for _, one in several])]
        else:
            several_at_once = [(what, [one]) for what, one in several]
        for what, differences in several_at_once:
            mean = mean_of(differences)
            if mean is not None:
                verdict = side(mean, claim.get("direction", "equal"), claim.get("margin", 0.0))
                yield Finding(who, f"{what} {_signed(mean)}", verdict)


def _metrics(claim: dict[str, Any], board: Board, place: int) -> list[tuple[str, str]]:
    """Return the metrics that a claim is about; for a mean the first one of each task."""
    found = [name for name in board.metrics(place) if re.fullmatch(claim["metrics"], name[0])]
    if not claim.get("mean"):
        return found
    order = claim["metrics"].split("|")
    return sorted(found, key=lambda name: order.index(name[0]))[:1]


def _pairs(claim: dict[str, Any], board: Board) -> Iterator[tuple[int, int]]:
    """Yield the places of a model with n heads, once whatever k, and of its n = 1."""
    models = [run.model for run, _ in board.runs]
    most: dict[Model, int] = {}
    for place, model in enumerate(models):
        if model.n > 1 and _is_about(claim, model):
            same = model._replace(k=0)
            if same not in most or models[most[same]].k < model.k:
                most[same] = place
    for place in most.values():
        for base, model in enumerate(models):
            if model.n == 1 and _alike(models[place], model):
                yield place, base


def _alike(one: Model, other: Model) -> bool:
    return (
        one.is_as_large_as(other)
        and one.train_tokens == other.train_tokens
        and one.train_seed == other.train_seed
    )


def _reached(claim: dict[str, Any], leaderboard: Leaderboard) -> Iterator[Finding]:
    for board in _boards(claim, leaderboard):
        for place, (run, _) in enumerate(board.runs):
            if not _is_about(claim, run.model):
                continue
            if "table" in claim:
                yield from _reached_in_table(claim, board, run)
            elif run.model.k == claim.get("k", run.model.k):
                for metric, filtered in board.metrics(place):
                    found = board.scores.estimate(Key(place, metric, filtered))
                    if re.fullmatch(claim["metrics"], metric) and found is not None:
                        verdict = reaches(found.low, found.high, claim["value"])
                        what = f"{board.task} {metric} {_plain(found)}"
                        yield Finding(_called(run.model), what, verdict)


def _reached_in_table(claim: dict[str, Any], board: Board, run: Run) -> Iterator[Finding]:
    """Yield the best cell, or the best one of the largest batch where the claim is about those."""
    rows = [
        row
        for row in run.table(board.task, claim["table"])
        if row["metric"] == claim["metrics"]
        and row["value"] is not None
        and row.get("model", "self") in ("self", None)
    ]
    if least := claim.get("least_batch"):
        largest = max((row["batch"] for row in rows), default=0)
        rows = [row for row in rows if row["batch"] == largest >= least]
    if not rows:
        return
    best = max(rows, key=lambda row: float(row["value"]))
    low, high = best["low"], best["high"]
    if low is None or high is None:
        low, high = (best["value"] * (1 + sign * TIMING_SLACK) for sign in (-1, 1))
    cell = ", ".join(
        f"{name} {best[name]}" for name in ("batch", "prompt_tokens", "k") if best.get(name)
    )
    what = f"{board.task} {claim['metrics']} {best['value']:.2f} at {cell}"
    yield Finding(_called(run.model), what, reaches(low, high, claim["value"]))


def _decreasing(claim: dict[str, Any], leaderboard: Leaderboard) -> Iterator[Finding]:
    for board in _boards(claim, leaderboard):
        for run, _ in board.runs:
            by_data: dict[str, list[dict[str, Any]]] = {}
            for row in run.table(board.task, claim["table"]):
                if row["metric"] == claim["metrics"] and row.get("offset"):
                    by_data.setdefault(str(row.get("data_set")), []).append(row)
            for data_set, rows in by_data.items():
                rows.sort(key=lambda row: int(row["offset"]))
                if len(rows) > 1 and all(row["low"] is not None for row in rows):
                    values = ", ".join(f"{row['value']:.3f}" for row in rows)
                    what = f"{claim['metrics']} on {data_set} {values}"
                    verdict = decreases([(row["low"], row["high"]) for row in rows])
                    yield Finding(_called(run.model), what, verdict)


_RULES = {
    "difference": _differences,
    "equal": _differences,
    "at_least": _reached,
    "decreasing": _decreasing,
}


def _boards(claim: dict[str, Any], leaderboard: Leaderboard) -> list[Board]:
    return [b for b in leaderboard.boards.values() if re.fullmatch(claim["tasks"], b.task)]


def _is_about(claim: dict[str, Any], model: Model) -> bool:
    if model.n != claim.get("n", model.n):
        return False
    for name in ("parameters", "train_tokens"):
        if name in claim:
            value, (low, high) = getattr(model, name), claim[name]
            if value is None or not low <= value <= high:
                return False
    return True


def _called(model: Model) -> str:
    return f"{model.name}, {in_short(model.parameters)} parameters"


def _signed(one: Estimate) -> str:
    return f"{one.value:+.4g} [{one.low:+.4g}, {one.high:+.4g}]"


def _plain(one: Estimate) -> str:
    return f"{one.value:.4g} [{one.low:.4g}, {one.high:.4g}]"

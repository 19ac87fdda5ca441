"""`mtp-harness verify`: is the text of k heads the text of NTP, token for token?

HumanEval's prompts are decoded greedily with head 1 alone (NTP) and with heads 1..k, at each batch
size; NTP at the other batch sizes is compared with NTP at the first. Differences are near ties or
errors (`mtp_harness.decode.compare` says when), and both sets of answers are graded. The exit
status is 1 where there is an error.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

import torch

from mtp_harness.data.humaneval import read_problems
from mtp_harness.decode.compare import Comparison, Decoded, Verifier
from mtp_harness.decode.engine import Request
from mtp_harness.files import user_path, write_whole
from mtp_harness.models import provenance
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.load import (
    DEFAULT_MODEL,
    SHIPPED_MODELS,
    load_with_tokenizer,
)
from mtp_harness.models.text import shown
from mtp_harness.sandbox import Grader
from mtp_harness.scoring.paired import Score, Scorer

UNTIL = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""The stop strings of the task humaneval_mtp."""

DTYPES = ("float64", "float32", "bfloat16", "float16")

N_SHOWN = 8
"""Differences on the screen; the JSON has all."""


class Row(NamedTuple):
    """One line of the table."""

    comparison: Comparison
    score: Score | None  # None: programs cannot be isolated here

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "draft_heads": self.comparison.draft_heads,
            "batch": self.comparison.batch,
            "ntp_batch": self.comparison.ntp_batch,
            **self.comparison.counts,
            "score": self.score and self.score._asdict(),
            "differences": [
                asdict(one) | {"near_tie": one.near_tie} for one in self.comparison.differences
            ],
        }


def compare_all(
    verifier: Verifier, scorer: Scorer | None, draft_heads: Sequence[int], batches: Sequence[int]
) -> Iterator[Row]:
    """Yield a row per batch size and k, as soon as it is known.

    Args:
        verifier: the model and its requests.
        scorer: None leaves grading out.
        draft_heads: the k to compare with NTP at the same batch size.
        batches: rows decoded together; NTP at the first is what NTP at the others is compared with.
    """

    def row(ntp: Decoded, run: Decoded) -> Row:
        score = scorer.score(ntp.answers, run.answers) if scorer else None
        return Row(verifier.compare(ntp, run), score)

    first = verifier.run(1, batches[0])
    for batch in batches:
        ntp = first
        if batch != batches[0]:
            ntp = verifier.run(1, batch)
            yield row(first, ntp)
        for k in draft_heads:
            yield row(ntp, verifier.run(k, batch))


def main(argv: list[str]) -> int:
    """Verify a model; return 1 if there is an error."""
    args = _parser().parse_args(argv)
    for name in ("prompts", "new_tokens", "batch"):
        value = getattr(args, name)
        if min(value if isinstance(value, list) else [value]) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {value}: expected at least 1; raise it.")
    model, tokenizer = load_with_tokenizer(args.pretrained, _dtype(args))
    model = model.to(args.device)
    ks = _draft_heads(args, model)
    problems = read_problems()[: args.prompts]
    requests = _requests(args, model, [tokenizer.encode(one["prompt"]) for one in problems])
    verifier = Verifier(model, requests, [tokenizer.eos_token_id], shown(tokenizer))
    settings = {
        "pretrained": args.pretrained,
        "n_future_tokens": model.n_future_tokens,
        "dtype": str(model.dtype).removeprefix("torch."),
        "prompts": [one["task_id"] for one in problems],
        "new_tokens": args.new_tokens,
    }
    environment = provenance.environment(model.device)
    _say(_title(settings, environment["hardware"]))
    rows = []
    with _grader() as grader:
        scorer = Scorer(grader, problems, requests, shown(tokenizer)) if grader else None
        for row in compare_all(verifier, scorer, ks, args.batch):
            rows.append(row)
            _say(_line(row))
    _say(_ending(rows, settings["prompts"]))
    if args.out:
        report = {**settings, "comparisons": [row.as_dict() for row in rows], **environment}
        write_whole(args.out, json.dumps(report, indent=1) + "\n")
    return int(any(row.comparison.counts["errors"] for row in rows))


def _whole_numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mtp-harness verify", description=__doc__)
    add = parser.add_argument
    add("pretrained", nargs="?", default=DEFAULT_MODEL, help="default %(default)s")
    add("--draft-heads", type=_whole_numbers, metavar="K,…", help="default: 2 up to all heads")
    add("--batch", type=_whole_numbers, metavar="B,…", default=[1, 16], help="default 1,16")
    add("--prompts", type=int, metavar="N", default=20, help="default %(default)s, at most 164")
    add("--new-tokens", type=int, metavar="N", default=256, help="per answer, default %(default)s")
    add("--dtype", choices=DTYPES, help="default: as `lm_eval --model mtp` chooses it")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("-o", "--out", type=user_path, metavar="FILE", help="write everything there, as JSON")
    return parser


def _dtype(args: argparse.Namespace) -> torch.dtype | None:
    if args.dtype:
        chosen: torch.dtype = getattr(torch, args.dtype)
        return chosen
    exact = args.pretrained in SHIPPED_MODELS or torch.device(args.device).type == "cpu"
    return torch.float32 if exact else None


def _draft_heads(args: argparse.Namespace, model: MultiHeadModel) -> list[int]:
    n = model.n_future_tokens
    ks: list[int] = args.draft_heads or list(range(2, n + 1))
    if wrong := [k for k in ks if not 1 <= k <= n]:
        raise ValueError(
            f"--draft-heads {wrong[0]}, but {args.pretrained} has n = {n}: choose from 1 to {n}."
        )
    if not ks and len(args.batch) == 1:
        raise ValueError(
            f"{args.pretrained} has 1 head, which leaves nothing to compare at one batch size: "
            "name several (--batch 1,16)."
        )
    return ks


def _requests(
    args: argparse.Namespace, model: MultiHeadModel, prompts: list[list[int]]
) -> list[Request]:
    """Return requests whose prompts are cut on the left where they do not fit."""
    room = model.max_positions - args.new_tokens
    if room < 1:
        raise ValueError(
            f"--new-tokens {args.new_tokens} leaves no room for a prompt in a context of "
            f"{model.max_positions} tokens: lower it."
        )
    return [Request(prompt[-room:], args.new_tokens, UNTIL) for prompt in prompts]


@contextmanager
def _grader() -> Iterator[Grader | None]:
    """Open a grader; None, with a message, where programs cannot be graded safely."""
    try:
        grader = Grader()
    except RuntimeError as error:  # an IsolationError, or not Linux
        sys.stderr.write(f"answers are not graded: {error}\n")
        yield None
        return
    with grader:
        yield grader


# The screen -------------------------------------------------------------------------------------

_COLUMNS = ("answers", "tokens", "identical", "near_ties", "errors")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _title(settings: dict[str, Any], hardware: dict[str, Any]) -> str:
    heads = [f"{'batch':>5}{'k':>4}", *(f"{name.replace('_', ' '):>11}" for name in _COLUMNS)]
    return (
        f"{settings['pretrained']}, n = {settings['n_future_tokens']}, {settings['dtype']}, greedy,"
        f" {hardware.get('gpu', hardware['cpu'])}\n{len(settings['prompts'])} prompts of HumanEval,"
        f" up to {settings['new_tokens']} tokens each; against NTP at the same batch size, and NTP"
        f" itself (k = 1) against NTP at the first\n\n{''.join(heads)}   passed (NTP)  wins  losses"
    )


def _line(row: Row) -> str:
    comparison, score = row
    counts = "".join(f"{comparison.counts[name]:>11}" for name in _COLUMNS)
    passed = f"{score.passed} ({score.ntp_passed})" if score else "-"
    wins, losses = (score.wins, score.losses) if score else ("-", "-")
    start = f"{comparison.batch:>5}{comparison.draft_heads:>4}"
    return f"{start}{counts}{passed:>15}{wins:>6}{losses:>8}"


def _ending(rows: Sequence[Row], names: Sequence[str]) -> str:
    found = [(row.comparison, one) for row in rows for one in row.comparison.differences]
    found.sort(key=lambda pair: pair[1].near_tie)  # errors first
    lines = [""]
    for comparison, one in found[:N_SHOWN]:
        sizes = "an answer had ended"
        if one.gap is not None:
            sizes = f"gap {one.gap:.2g}, logits differ by {one.logit_difference:.2g}"
            sizes += f", rounding {one.rounding:.2g}"
        lines.append(
            f"{'near tie' if one.near_tie else 'ERROR'}: batch {comparison.batch}, "
            f"k = {comparison.draft_heads}, {names[one.prompt]}, token {one.position}: "
            f"{one.other}, NTP {one.ntp}; {sizes}"
        )
    if len(found) > N_SHOWN:
        lines.append(f"and {len(found) - N_SHOWN} more (-o FILE writes all)")
    n_tokens = sum(row.comparison.n_tokens for row in rows)
    n_errors = sum(not one.near_tie for _, one in found)
    lines.append(f"{n_tokens} tokens: {len(found) - n_errors} near ties, {n_errors} errors")
    return "\n".join(lines)

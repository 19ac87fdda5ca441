"""`mtp-harness verify`: does decoding with k heads give the tokens of plain decoding (NTP)?

HumanEval's prompts are decoded greedily with head 1 alone (NTP) and with heads 1..k, at each batch
size; NTP at the other batch sizes is compared with NTP at the first. Differences are near ties or
errors (`mtp_harness.decode.compare` says when), and both sets of answers are graded. The exit
status is 1 where there is an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from mtp_harness.commands.arguments import Parser, device_of
from mtp_harness.commands.model_options import (
    add_model_options,
    drafter_facts,
    named,
    open_from_options,
)
from mtp_harness.commands.view import say
from mtp_harness.files import write_whole

if TYPE_CHECKING:
    import torch

    from mtp_harness.decode.compare import Comparison, Decoded, Verifier
    from mtp_harness.decode.engine import Request
    from mtp_harness.models.interface import MultiHeadModel
    from mtp_harness.sandbox import Grader
    from mtp_harness.scoring.paired import Score, Scorer

UNTIL = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""The stop strings of the task humaneval_mtp."""

DTYPES = ("float64", "float32", "bfloat16", "float16")

N_SHOWN = 8
"""Differences on the screen; the JSON has all."""


def _whole_numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _parser() -> Parser:
    parser = Parser("verify", __doc__, "/ckpt/7B_200B_4 --draft-heads 2,4 --dtype bfloat16")
    add = parser.add_argument
    about = "a checkpoint with heads, or a shipped model (default: mtp-bytes-n4)"
    add("pretrained", nargs="?", help=about)
    add_model_options(parser)
    about = "numbers of heads to compare with 1 (default: 2 up to all)"
    add("--draft-heads", type=_whole_numbers, metavar="K,…", help=about)
    about = (
        "prompts decoded together; with vLLM, the first number is for our engine (default: 1,16)"
    )
    add("--batch", type=_whole_numbers, metavar="B,…", default=[1, 16], help=about)
    parser.number("--prompts", 20, "prompts of HumanEval, at most 164", metavar="N")
    parser.number("--new-tokens", 256, "tokens of an answer, at most", metavar="N")
    about = "type to compute in (default: as `lm_eval --model mtp` chooses it)"
    add("--dtype", choices=DTYPES, help=about)
    parser.device()
    about = "vllm: compare with vLLM's text (default: %(default)s)"
    add("--engine", choices=("mtp", "vllm"), default="mtp", help=about)
    about = "let vLLM run code that comes with the checkpoint, as with MiMo (default: refuse)"
    parser.switch("--trust-remote-code", about)
    about = "write everything there, as JSON (default: a table on the screen alone)"
    parser.path("-o", "--out", metavar="FILE", about=about)
    return parser


def main(argv: list[str]) -> int:
    """Verify a model; return 1 if there is an error."""
    args = _parser().parse_args(argv)
    for name in ("prompts", "new_tokens", "batch"):
        value = getattr(args, name)
        if min(value if isinstance(value, list) else [value]) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {value}: expected at least 1; raise it.")
    return _verify(args)


def _verify(args: argparse.Namespace) -> int:
    from mtp_harness.data.humaneval import read_problems
    from mtp_harness.decode.compare import Verifier
    from mtp_harness.models import provenance
    from mtp_harness.models.load import DEFAULT_MODEL
    from mtp_harness.models.text import end_ids, shown
    from mtp_harness.scoring.paired import Scorer

    if not (args.pretrained or args.loader):
        args.pretrained = DEFAULT_MODEL
    if args.engine == "vllm":
        import mtp_harness.vllm  # noqa: F401 - says at once if vLLM is missing
        from mtp_harness.commands import verify_vllm

        verify_vllm.require_modules(args.pretrained, args.loader, args.drafter)
    args.device = device_of(args)
    model, tokenizer = open_from_options(
        args, dtype=_dtype(args), device=args.device, heads=max(args.draft_heads or [0]) or None
    )
    name = args.pretrained or args.loader
    ks = _draft_heads(args, name, model.n_future_tokens)
    problems = read_problems()[: args.prompts]
    requests = _requests(args, model, [tokenizer.encode(one["prompt"]) for one in problems])
    verifier = Verifier(model, requests, end_ids(model, tokenizer), shown(tokenizer))
    settings = {
        "pretrained": name,
        **drafter_facts(args),
        "n_future_tokens": model.n_future_tokens,
        "dtype": str(model.dtype).removeprefix("torch."),
        "prompts": [one["task_id"] for one in problems],
        "new_tokens": args.new_tokens,
    }
    environment = provenance.environment(model.device)
    if args.engine == "vllm":
        return _beside_vllm(args, verifier, ks, settings, environment)
    say(_title(settings, environment["hardware"]))
    rows = []
    with _grader() as grader:
        scorer = Scorer(grader, problems, requests, shown(tokenizer)) if grader else None
        for row in _compare_all(verifier, scorer, ks, args.batch):
            rows.append(row)
            say(_line(row))
    say(_ending(rows, settings["prompts"]))
    if args.out:
        report = {**settings, "comparisons": [row.as_dict() for row in rows], **environment}
        write_whole(args.out, json.dumps(report, indent=1) + "\n")
    return int(any(row.comparison.counts["errors"] for row in rows))


def _beside_vllm(
    args: argparse.Namespace,
    verifier: Verifier,
    draft_heads: Sequence[int],
    settings: dict[str, Any],
    environment: dict[str, Any],
) -> int:
    """Compare with vLLM's text and acceptance; return 1 if there is an error."""
    from mtp_harness.commands import verify_vllm

    hardware = environment["hardware"]
    say(verify_vllm.title(settings, hardware.get("gpu", hardware["cpu"])))
    ks, found = [k for k in draft_heads if k > 1], []
    how = {"dtype": settings["dtype"], "trust_remote_code": args.trust_remote_code}
    for both in verify_vllm.verify(verifier, args.pretrained, ks, args.batch[0], how):
        found.append(both)
        say("\n".join(verify_vllm.as_lines(both, settings["prompts"])))
    say(verify_vllm.ending(found))
    if args.out:
        report = {**settings, "vllm": [verify_vllm.as_json(both) for both in found], **environment}
        write_whole(args.out, json.dumps(report, indent=1) + "\n")
    return int(any(pair.comparison.counts["errors"] for both in found for pair in both.pairs))


class Row(NamedTuple):
    """One line of the table."""

    comparison: Comparison
    score: Score | None  # None: programs cannot be isolated here

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        compared = self.comparison
        return {
            "draft_heads": compared.draft_heads,
            "batch": compared.batch,
            "ntp_batch": compared.ntp_batch,
            **compared.counts,
            "score": self.score and self.score._asdict(),
            "differences": [asdict(d) | {"near_tie": d.near_tie} for d in compared.differences],
        }


def _compare_all(
    verifier: Verifier, scorer: Scorer | None, draft_heads: Sequence[int], batches: Sequence[int]
) -> Iterator[Row]:
    """Yield a row per batch size and k, as soon as it is known; NTP's own against the first NTP."""

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


def _dtype(args: argparse.Namespace) -> torch.dtype | None:
    import torch

    from mtp_harness.models.load import SHIPPED_MODELS

    if args.dtype:
        chosen: torch.dtype = getattr(torch, args.dtype)
        return chosen
    exact = args.pretrained in SHIPPED_MODELS or torch.device(args.device).type == "cpu"
    return torch.float32 if exact else None


def _draft_heads(args: argparse.Namespace, name: str, n: int) -> list[int]:
    ks: list[int] = args.draft_heads or list(range(2, n + 1))
    if wrong := [k for k in ks if not 1 <= k <= n]:
        raise ValueError(f"--draft-heads {wrong[0]}, but {name} has n = {n}: choose from 1 to {n}.")
    if not ks and len(args.batch) == 1:
        raise ValueError(
            f"{name} has 1 head, which leaves nothing to compare at one batch size: "
            "name several (--batch 1,16)."
        )
    return ks


def _requests(
    args: argparse.Namespace, model: MultiHeadModel, prompts: list[list[int]]
) -> list[Request]:
    """Return requests whose prompts are cut on the left where they do not fit."""
    from mtp_harness.decode.engine import Request

    # vLLM rejects drafts of all rows while one of them is at the very end of the context.
    spare = model.n_future_tokens if args.engine == "vllm" else 0
    room = model.max_positions - args.new_tokens - spare
    if room < 1:
        raise ValueError(
            f"--new-tokens {args.new_tokens} leaves no room for a prompt in a context of "
            f"{model.max_positions} tokens: lower it."
        )
    return [Request(prompt[-room:], args.new_tokens, UNTIL) for prompt in prompts]


@contextmanager
def _grader() -> Iterator[Grader | None]:
    """Open a grader; None, with a message, where programs cannot be graded safely."""
    from mtp_harness.sandbox import Grader

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


def _title(settings: dict[str, Any], hardware: dict[str, Any]) -> str:
    heads = [f"{'batch':>5}{'k':>4}", *(f"{name.replace('_', ' '):>11}" for name in _COLUMNS)]
    return (
        f"{named(settings)}, n = {settings['n_future_tokens']}, "
        f"{settings['dtype']}, greedy, {hardware.get('gpu', hardware['cpu'])}\n"
        f"{len(settings['prompts'])} prompts of HumanEval,"
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
    pairs = [(row.comparison, d) for row in rows for d in row.comparison.differences]
    pairs.sort(key=lambda pair: pair[1].near_tie)  # errors first
    lines = [""]
    for comparison, difference in pairs[:N_SHOWN]:
        sizes = "an answer had ended"
        if difference.gap is not None:
            sizes = f"gap {difference.gap:.2g}, logits differ by {difference.logit_difference:.2g}"
            sizes += f", rounding {difference.rounding:.2g}"
        lines.append(
            f"{'near tie' if difference.near_tie else 'ERROR'}: batch {comparison.batch}, "
            f"k = {comparison.draft_heads}, {names[difference.prompt]}, token "
            f"{difference.position}: {difference.other}, NTP {difference.ntp}; {sizes}"
        )
    if len(pairs) > N_SHOWN:
        lines.append(f"and {len(pairs) - N_SHOWN} more (-o FILE writes all)")
    n_tokens = sum(row.comparison.n_tokens for row in rows)
    n_errors = sum(not difference.near_tie for _, difference in pairs)
    n_near = len(pairs) - n_errors
    if not pairs:
        lines.append(f"identical: all {n_tokens} tokens are those of NTP")
    else:
        lines.append(
            f"{'ERROR' if n_errors else 'different by rounding alone'}: in {n_tokens} tokens "
            f"{n_near} near tie{'s' * (n_near != 1)}, which rounding explains, and {n_errors} "
            f"error{'s' * (n_errors != 1)}, which it does not"
        )
    return "\n".join(lines)

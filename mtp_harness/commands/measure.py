"""`mtp-harness measure`: accuracy and loss of each head, and the speed of decoding.

The numbers of the model cards. Teacher-forced accuracy and loss of every head and the text walk, on
windows of the running Python's standard library; greedy decoding of prompts from it with heads
1..k, checked against NTP. Text of other Pythons differs: versions and the corpus hash are printed.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from mtp_harness.commands.arguments import Parser, device_of
from mtp_harness.commands.model_options import (
    add_model_options,
    drafter_facts,
    named,
    open_from_options,
)
from mtp_harness.commands.view import acceptance_rows, by_k, decoding_rows
from mtp_harness.files import write_whole


def _parser() -> Parser:
    example = "mtp-bytes-n4 --windows 20 --prompts 20 -o card.json"
    parser = Parser("measure", __doc__, example)
    about = "a checkpoint with heads, or a shipped model's name"
    parser.add_argument("pretrained", nargs="?", help=about)
    add_model_options(parser)
    about = "windows of text to score (default: the whole corpus)"
    parser.add_argument("--windows", type=int, help=about)
    parser.number("--window", 4096, "tokens of a window")
    parser.number("--prompts", 100, "prompts to continue")
    parser.number("--prompt-tokens", 512, "tokens of a prompt")
    parser.number("--new-tokens", 256, "tokens of an answer, at most")
    parser.number("--batch", 20, "prompts decoded together")
    parser.device()
    parser.number("--trials", 3, "timings of every number of heads")
    about = "write everything there, as JSON (default: a table on the screen alone)"
    parser.path("-o", "--out", about=about)
    return parser


def main(argv: list[str]) -> int:
    """Measure a model, print a table and, with `-o`, write JSON."""
    parser = _parser()
    args = parser.parse_args(argv)
    if not (args.pretrained or args.loader):
        parser.error("the following arguments are required: pretrained")
    for name in ("windows", "window", "prompts", "prompt_tokens", "new_tokens", "batch", "trials"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(args, name)}: at least 1")
    found = measure(args)
    sys.stdout.write(screen(found))
    if args.out:
        write_whole(args.out, json.dumps(found, indent=1) + "\n")
    return 0


def screen(found: Mapping[str, Any]) -> str:
    """Return what was measured as a table."""
    from mtp_harness.models import provenance

    heads, decoding, hardware = (found[name] for name in ("heads", "decoding", "hardware"))
    n_prompts, batch = decoding["n_prompts"], decoding["batch_size"]
    same = [f"{row['identical_to_ntp']}/{n_prompts}" for row in decoding["by_k"].values()]
    walked, lost = heads["text_walk_tokens_per_forward"], heads.get("unsayable")
    rows = [
        ("head k", map(str, decoding["by_k"])),
        ("accuracy", [f"{value:.3f}" for value in heads["accuracy"]]),
        ("bits per token", ["-" if b is None else f"{b:.3f}" for b in heads["bits_per_token"]]),
        *([("  tokens it cannot draft", [f"{one:.1%}" for one in lost])] if lost else []),
        *acceptance_rows(decoding["by_k"]),
        ("  text walk (real text)", [f"{value:.3f}" for value in walked.values()]),
        ("answers identical to NTP", same),
        *decoding_rows(decoding["by_k"], f"batch {batch}"),
    ]
    lines = [
        f"{named(found)}, {found['parameters']:,} parameters, greedy, float32, "
        f"{hardware.get('gpu', hardware['cpu'])}, {hardware['threads']} CPU thread(s)",
        f"the standard library of Python {found['corpus']['python_version']}: "
        f"{heads['n_windows']} windows of {heads['window_tokens']} tokens scored, {n_prompts} "
        "prompts continued",
        "",
        by_k(rows),
        *filter(None, [provenance.busy()]),
    ]
    return "\n".join(lines) + "\n"


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return everything `main` prints."""
    import torch

    from mtp_harness.data.corpus import code_corpus
    from mtp_harness.decode.engine import Request
    from mtp_harness.models import provenance
    from mtp_harness.models.text import plain_encode
    from mtp_harness.probes.model_card import measure_decoding, measure_heads
    from mtp_harness.probes.windows import prompts, windows

    model, tokenizer = open_from_options(args, dtype=torch.float32, device=device_of(args))
    if max(args.window, args.prompt_tokens + args.new_tokens) > model.max_positions:
        raise ValueError(
            f"--window {args.window}, --prompt-tokens {args.prompt_tokens} and --new-tokens "
            f"{args.new_tokens}: this model's context has {model.max_positions} tokens"
        )
    corpus, to_ids = code_corpus(), plain_encode(tokenizer)
    text = windows(corpus, to_ids, tokenizer.bos_token_id, args.window, args.windows)
    chosen = prompts(corpus, to_ids, args.prompt_tokens, args.prompts, args.new_tokens)
    requests = [Request(prompt, args.new_tokens) for prompt in chosen]
    described = {k: v for k, v in corpus.describe().items() if k != "documents"}
    return {
        "pretrained": args.pretrained or args.loader,
        **drafter_facts(args),
        "parameters": sum(p.numel() for p in model.parameters()),
        "corpus": described,
        "heads": measure_heads(model, text),
        "decoding": measure_decoding(model, tokenizer, requests, args.batch, args.trials)[0],
        "versions": provenance.versions(),
        "hardware": provenance.hardware(model.device),
        "command": provenance.command(),
    }

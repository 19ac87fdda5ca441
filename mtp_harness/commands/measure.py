"""`mtp-harness measure`: what a model's heads know, and how fast they make it.

The numbers of the model cards. Teacher-forced accuracy and loss of every head and the text walk, on
windows of the running Python's standard library; greedy decoding of prompts from it with heads
1..k, checked against NTP. Text of other Pythons differs: versions and the corpus hash are printed.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mtp_harness.data.corpus import code_corpus
from mtp_harness.decode.engine import Answer, Engine, Request
from mtp_harness.decode.records import Acceptance
from mtp_harness.files import user_path, write_whole
from mtp_harness.models import provenance
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.load import load_with_tokenizer
from mtp_harness.models.text import plain_encode, shown
from mtp_harness.probes.teacher_forced import Reading, Walk, read, score_heads, walk
from mtp_harness.probes.windows import prompts, windows


def measure_heads(model: MultiHeadModel, text: Tensor) -> dict[str, Any]:
    """Return accuracy and bits per offset, and the text walk with heads 1..k for every k.

    Args:
        model: in eval mode.
        text: windows of tokens, int64 [N, T].
    """
    n, length = model.n_future_tokens, text.shape[1]
    walks = {k: Walk(0, 0) for k in range(1, n + 1)}

    def read_and_walk() -> Iterator[Reading]:
        for row in text:
            reading = read(model, row[None].to(model.device))
            right = reading.right[0].cpu()  # [T, n]
            for k, so_far in walks.items():
                one = walk(right[:, :k], start=min(512, length // 2), end=length)
                walks[k] = Walk(so_far.n_kept + one.n_kept, so_far.n_steps + one.n_steps)
            yield reading

    scores = score_heads(read_and_walk())  # one window in memory at a time
    return {
        "n_windows": len(text),
        "window_tokens": length,
        "n_states": scores.n_states,
        "accuracy": scores.accuracy(),
        "bits_per_token": scores.bits(),
        "text_walk_tokens_per_forward": {k: w.tokens_per_forward for k, w in walks.items()},
    }


def measure_decoding(
    model: MultiHeadModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    batch: int,
) -> tuple[dict[str, Any], list[Answer]]:
    """Decode the requests with every k; return what each gave, and NTP's answers.

    Every k is timed on the same requests after one short run of it; wall time includes the prefill.
    """
    warm_up = [Request(request.prompt, 8) for request in requests[:batch]]
    to_text = shown(tokenizer)
    by_k: dict[int, dict[str, Any]] = {}
    ntp: list[Answer] = []
    for k in range(1, model.n_future_tokens + 1):
        engine = Engine(model, k, [tokenizer.eos_token_id], to_text, slots=batch)
        engine.generate(warm_up)
        began = time.perf_counter()
        answers = engine.generate(requests)
        wall_s = time.perf_counter() - began
        ntp = ntp or answers
        by_k[k] = _summary(answers, ntp, wall_s)
        by_k[k]["speedup"] = by_k[1]["wall_s"] / wall_s
    return {"n_prompts": len(requests), "batch_size": batch, "by_k": by_k}, ntp


def _summary(answers: list[Answer], ntp: list[Answer], wall_s: float) -> dict[str, Any]:
    records = [answer.record for answer in answers]
    lines = [record for record in records if not record.looping]
    pooled = Acceptance.pool(records)
    n_tokens = sum(len(answer.tokens) for answer in answers)
    return {
        "identical_to_ntp": sum(a.tokens == b.tokens for a, b in zip(answers, ntp, strict=True)),
        "n_looping": len(records) - len(lines),
        "tokens_per_forward": pooled.tokens_per_forward,
        "tokens_per_forward_no_loops": Acceptance.pool(lines).tokens_per_forward if lines else None,
        "accept_rate_prefix": pooled.accept_rate_prefix(),
        "wall_s": wall_s,
        "tokens_per_s": n_tokens / wall_s,
    }


def main(argv: list[str]) -> int:
    """Measure a model and print or write JSON."""
    parser = argparse.ArgumentParser(prog="mtp-harness measure", description=__doc__)
    parser.add_argument("pretrained", help="a checkpoint with heads, or a shipped model's name")
    parser.add_argument("--windows", type=int, help="windows to score (default: the whole corpus)")
    parser.add_argument("--window", type=int, default=4096, help="tokens (default %(default)s)")
    parser.add_argument("--prompts", type=int, default=100, help="default %(default)s")
    parser.add_argument("--prompt-tokens", type=int, default=512, help="default %(default)s")
    parser.add_argument("--new-tokens", type=int, default=256, help="default %(default)s")
    parser.add_argument("--batch", type=int, default=20, help="rows together (default %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("-o", "--out", type=user_path, help="write the JSON here")
    args = parser.parse_args(argv)
    for name in ("windows", "window", "prompts", "prompt_tokens", "new_tokens", "batch"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(args, name)}: at least 1")
    text = json.dumps(measure(args), indent=1) + "\n"
    sys.stdout.write(text)
    if args.out:
        write_whole(args.out, text)
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return everything `main` prints."""
    model, tokenizer = load_with_tokenizer(args.pretrained, torch.float32)
    model = model.to(args.device)
    if max(args.window, args.prompt_tokens + args.new_tokens) > model.max_positions:
        raise ValueError(
            f"--window {args.window}, --prompt-tokens {args.prompt_tokens} and --new-tokens "
            f"{args.new_tokens}: this model's context has {model.max_positions} tokens"
        )
    corpus = code_corpus()

    to_ids = plain_encode(tokenizer)
    text = windows(corpus, to_ids, tokenizer.bos_token_id, args.window, args.windows)
    chosen = prompts(corpus, to_ids, args.prompt_tokens, args.prompts, args.new_tokens)
    requests = [Request(prompt, args.new_tokens) for prompt in chosen]
    described = {k: v for k, v in corpus.describe().items() if k != "documents"}
    return {
        "pretrained": args.pretrained,
        "parameters": sum(p.numel() for p in model.parameters()),
        "corpus": described,
        "heads": measure_heads(model, text),
        "decoding": measure_decoding(model, tokenizer, requests, args.batch)[0],
        "versions": provenance.versions(),
        "hardware": provenance.hardware(model.device),
        "command": provenance.command(),
    }

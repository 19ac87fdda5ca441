"""`mtp-harness demo RESULTS`: a `humaneval_mtp` run of the shipped model, summed up on one screen.

Reads the run's samples, decodes the same prompts again with heads 1..k for every k, and compares.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtp_harness.commands.arguments import Parser
from mtp_harness.commands.model_options import add_model_options, named, open_from_options
from mtp_harness.commands.view import acceptance_rows, by_k, decoding_rows
from mtp_harness.results import result_file
from mtp_harness.results.find import results_below, written_samples
from mtp_harness.results.samples import read

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mtp_harness.decode.engine import Request
    from mtp_harness.models.load import Opened

WINDOWS, WINDOW = 16, 2048
"""Windows of code, and bytes of one, that the heads read here: few, to be quick."""

ALONE = 5
"""Problems decoded at batch size 1."""

TRIALS = 2
"""Timings for every k."""


TASK = "humaneval_mtp"


def newest(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
    """Return `config.mtp` and the samples of the newest run of `TASK` below `folder`, and its file.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: its files are damaged, or it is a run of another model.
    """
    run = (
        f"expected the output of `lm_eval --model mtp --tasks {TASK} --log_samples --output_path "
        f"{folder}`; run that first"
    )
    found = sorted(results_below(folder), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"{folder} holds no results, {run}")
    file = result_file.read(found[-1], found[-1].name)
    if not file.mtp:
        raise ValueError(
            f"{file.path} is not a run of --model mtp; expected one of a shipped model"
        )
    samples = written_samples(file.path, TASK)
    if not samples.is_file():
        raise FileNotFoundError(f"{file.path} has no {samples.name} beside it, {run}")
    return dict(file.mtp), list(read(samples)), file.path


def main(argv: list[str]) -> int:
    """Print the summary."""
    parser = Parser("demo", __doc__, "results/")
    parser.path("results", about="folder that the run wrote to (its --output_path)")
    add_model_options(parser)
    args = parser.parse_args(argv)
    config, samples, path = newest(args.results)
    opened = _open(config, args)
    sys.stdout.write(screen(config, samples, opened) + f"\nresults: {path}\n")
    return 0


def _open(config: dict[str, Any], args: argparse.Namespace) -> Opened:
    """Open the model of a run, with the run's loader unless `--loader` names another."""
    import torch

    args.loader = args.loader or config.get("loader")
    args.drafter = args.drafter or config.get("drafter")
    args.pretrained, config["drafter"] = config["pretrained"], args.drafter
    if args.pretrained == args.loader:  # the run named none: it carries the loader's name
        args.pretrained = None
    return open_from_options(
        args,
        dtype=getattr(torch, config["dtype"]),
        device=torch.device(config["device"]),
        heads=config["n_future_tokens"],
    )


def screen(config: dict[str, Any], samples: list[dict[str, Any]], opened: Opened) -> str:
    """Return the text; `config` is the results' `config.mtp`, `samples` the run's samples."""
    from lm_eval.models.utils import postprocess_generated_text

    from mtp_harness.data.corpus import code_corpus
    from mtp_harness.decode.stopping import continuation_text
    from mtp_harness.models import provenance
    from mtp_harness.models.text import plain_encode, shown
    from mtp_harness.probes.model_card import measure_decoding, measure_heads
    from mtp_harness.probes.windows import windows

    name, (model, tokenizer) = named(config), opened
    requests = [_request(sample, tokenizer) for sample in samples]
    together, ntp = measure_decoding(model, tokenizer, requests, len(requests), TRIALS)
    alone, _ = measure_decoding(model, tokenizer, requests[:ALONE], 1, TRIALS)
    length = min(WINDOW, model.max_positions)
    text = windows(code_corpus(), plain_encode(tokenizer), tokenizer.bos_token_id, length, WINDOWS)
    heads = measure_heads(model, text)
    n_passed = sum(sample["pass@1"] == 1 for sample in samples)
    to_text = shown(tokenizer)
    ntp_texts = [
        postprocess_generated_text(
            continuation_text(to_text, request.prompt[-1], answer.tokens), list(request.until), None
        )
        for answer, request in zip(ntp, requests, strict=True)
    ]
    n_same = sum(s["resps"][0][0] == text for s, text in zip(samples, ntp_texts, strict=True))
    hardware, walked = provenance.hardware(model.device), heads["text_walk_tokens_per_forward"]
    rows = [
        *acceptance_rows(together["by_k"]),
        ("  text walk (real code)", [f"{value:.3f}" for value in walked.values()]),
        *decoding_rows(together["by_k"], f"{len(samples)} prompts together"),
        *decoding_rows(alone["by_k"], f"{len(requests[:ALONE])} prompts one by one"),
        ("accuracy of head k (real code)", [f"{value:.3f}" for value in heads["accuracy"]]),
    ]
    head = [
        f"{name}, {config['n_future_tokens']} heads, greedy, {config['dtype']}, "
        f"{hardware.get('gpu', hardware['cpu'])}, {hardware['threads']} CPU thread(s)",
        "",
        f"pass@1                   {n_passed} of {len(samples)}",
        f"text identical to NTP    {n_same} of {len(samples)}",
        "",
    ]
    return "\n".join([*head, by_k(rows), *filter(None, [provenance.busy()])])


def _request(sample: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Request:
    from mtp_harness.decode.engine import Request

    arguments = sample["arguments"]["gen_args_0"]
    prompt, kwargs = arguments["arg_0"], arguments["arg_1"]
    return Request(tokenizer.encode(prompt), kwargs["max_gen_toks"], tuple(kwargs["until"]))

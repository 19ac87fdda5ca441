"""What `mtp_heads` costs for sequential modules, beside lm_eval's rolling log-likelihood.

    python -m tests.benchmarks.bench_sequential_heads -o .../results/sequential_heads_cpu.json
    python -m tests.benchmarks.bench_sequential_heads PRETRAINED --device cuda --batch 8 -o OUT

Without PRETRAINED there are two random checkpoints in MiMo's layout, of one module (which is read
on by itself, and chained where `mtp_heads` reports both) and of three (chained). Trials and ratio
are those of `bench_heads`. It fails above 1.25 x the multiply-adds that are asked for,

    (trunk + unembedding + passes (module + unembedding)) / (trunk + unembedding),

counted by torch for one causal text; `passes` is how often a token goes through a module.
"""

import argparse
import json
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from mtp_harness.data.texts import load
from mtp_harness.lm import MTPLM
from mtp_harness.models import provenance
from mtp_harness.models.byte_tokenizer import byte_tokenizer

from ..models.family_checkpoints import write
from .bench_heads import ALLOWED, compare, one_trial

SIZES = {
    "vocab_size": 32_768,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
}


@contextmanager
def counted(model):
    """Count the tokens that go through trunk and modules."""
    tokens = {"trunk": 0, "modules": 0}
    trunk, head = model.trunk, model.head

    def count_trunk(given, *rest):
        tokens["trunk"] += given.numel()
        return trunk(given, *rest)

    def count_head(offset, states, *rest):
        tokens["modules"] += (offset > 1) * states.shape[0] * states.shape[1]
        return head(offset, states, *rest)

    model.trunk, model.head = count_trunk, count_head
    yield tokens
    del model.trunk, model.head


@torch.no_grad()
def share_of_multiply_adds(model, passes, length=512):
    """Return those of trunk, modules and unembeddings over those of head 1."""

    def count(call):
        with FlopCounterMode(display=False) as counter:
            found = call()
        return counter.get_total_flops() / 2, found

    tokens = torch.zeros(1, length, dtype=torch.int64, device=model.device)
    trunk, states = count(lambda: model.trunk(tokens))
    first = model.head(1, states)
    unembedding, _ = count(lambda: model.logits(1, first))
    module, _ = count(lambda: model.head(2, first, tokens))
    one = trunk + unembedding
    return (one + passes * (module + unembedding)) / one


def measure(name, pretrained, args):
    """Return what one checkpoint takes."""
    lm = MTPLM(pretrained=pretrained, device=args.device, batch_size=args.batch)
    rows = [row for row in load(max_bytes=args.bytes)["test"] if row["data_set"] == "code"]
    texts, size = [], 0
    for row in rows:
        if size < args.bytes:
            texts.append(row["text"][: args.bytes - size])
            size += len(texts[-1])
    with counted(lm.model) as tokens:
        one_trial(lm, "head_logprobs", texts)
    passes = tokens["modules"] / tokens["trunk"]
    trials, ratio = compare(lm, texts, args.trials)
    limit = ALLOWED * share_of_multiply_adds(lm.model, passes)
    sys.stdout.write(
        f"{name}: mtp_heads takes {ratio:.2f} times as long as loglikelihood_rolling, of at most "
        f"{limit:.2f} for {passes:.2f} passes of a module (n = {lm.model.n_future_tokens})\n"
    )
    return {
        "pretrained": name,
        "n_future_tokens": lm.model.n_future_tokens,
        "passes": passes,
        "n_texts": len(texts),
        "n_characters": size,
        "ratio": ratio,
        "limit": limit,
        "trials": trials,
        **provenance.environment(lm.device),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pretrained", nargs="?")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--bytes", type=int, default=4000, help="of text (default %(default)s)")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    found = []
    if args.pretrained:
        found.append(measure(args.pretrained, args.pretrained, args))
    else:
        for n in (1, 3):
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder), "mimo", n, dtype=torch.float32, **SIZES)
                byte_tokenizer(1024).save_pretrained(folder)
                found.append(measure(f"random, {n} module{'s' * (n > 1)}", folder, args))
    args.out.write_text(json.dumps({"batch": args.batch, "found": found}, indent=1) + "\n")
    return 0 if all(one["ratio"] <= one["limit"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())

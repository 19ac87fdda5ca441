"""What `mtp_heads` costs beside lm_eval's rolling log-likelihood, on the same model and texts.

    python -m tests.benchmarks.bench_heads -o tests/benchmarks/results/heads_cpu.json
    python -m tests.benchmarks.bench_heads PRETRAINED --device cuda --batch 16 -o OUT.json

`loglikelihood_rolling` scores head 1, `head_logprobs` with the measure of `mtp_heads` all n heads,
both in windows of the whole context, in batches of the same size. Trials run in the order A B, B A,
...; the ratio is the median of the ratios within a trial. The limit is 1.25 x the share of extra
layers: blocks and unembeddings that n heads run / those of head 1. Peak memory is that of a trial.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from lm_eval.api.instance import Instance

from mtp_harness.data.texts import load
from mtp_harness.lm import MTPLM
from mtp_harness.models import provenance
from mtp_harness.models.load import DEFAULT_MODEL
from mtp_harness.probes.hardware import PeakMemory
from mtp_harness.probes.head_logprobs import TextQuestion
from mtp_harness.probes.heads import measure

ALLOWED = 1.25


def share_of_layers(model):
    """Return blocks and unembeddings of n heads over those of head 1, by their parameters."""
    own = [*model.model.layers, model.lm_head]
    blocks = list(model.extra_heads)
    unembeddings = list(model.extra_lm_heads) or [model.lm_head] * (model.n_future_tokens - 1)

    def size(modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    return size([*own, *blocks, *unembeddings]) / size(own)


def requests(kind, texts):
    made = []
    for i, text in enumerate(texts):
        arguments = (text,) if kind == "loglikelihood_rolling" else (text, TextQuestion(measure))
        made.append(Instance(kind, {}, arguments, 0, metadata=("bench", i, 1)))
    return made


def one_trial(lm, kind, texts):
    """Return seconds and peak bytes of answering all texts."""
    if lm.device.type == "cuda":
        torch.cuda.synchronize(lm.device)
    peak, began = PeakMemory(lm.device), time.perf_counter()
    getattr(lm, kind)(requests(kind, texts), disable_tqdm=True)
    if lm.device.type == "cuda":
        torch.cuda.synchronize(lm.device)
    return {"wall_s": time.perf_counter() - began, "peak_bytes": peak.read()}


KINDS = ("loglikelihood_rolling", "head_logprobs")


def compare(lm, texts, n_trials):
    """Return trials of both kinds in turn, by kind, and the median of the ratios within a trial."""
    trials = {kind: [] for kind in KINDS}
    for trial in range(-1, n_trials):  # the first warms up
        for kind in KINDS if trial % 2 else KINDS[::-1]:
            found = one_trial(lm, kind, texts)
            if trial >= 0:
                trials[kind].append(found)
    theirs, ours = (trials[kind] for kind in KINDS)
    return trials, statistics.median(
        one["wall_s"] / other["wall_s"] for one, other in zip(ours, theirs, strict=True)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pretrained", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--bytes", type=int, default=100_000, help="of text (default %(default)s)")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    lm = MTPLM(pretrained=args.pretrained, device=args.device, batch_size=args.batch)
    rows = [row for row in load(max_bytes=args.bytes)["test"] if row["data_set"] == "code"]
    texts = [row["text"] for row in rows]
    trials, ratio = compare(lm, texts, args.trials)
    share = share_of_layers(lm.model)
    out = {
        "pretrained": args.pretrained,
        "batch": args.batch,
        "n_texts": len(texts),
        "n_bytes": sum(len(text.encode()) for text in texts),
        "share_of_layers": share,
        "ratio": ratio,
        "limit": ALLOWED * share,
        "trials": trials,
        **provenance.environment(lm.device),
    }
    args.out.write_text(json.dumps(out, indent=1) + "\n")
    memory = {
        kind: max((trial["peak_bytes"] or 0) for trial in trials[kind]) / 2**20 for kind in KINDS
    }
    sys.stdout.write(
        f"mtp_heads takes {ratio:.2f} times as long as loglikelihood_rolling, of at most "
        f"{ALLOWED * share:.2f}; peak memory {memory[KINDS[1]]:.0f} MiB beside "
        f"{memory[KINDS[0]]:.0f}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

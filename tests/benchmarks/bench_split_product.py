"""A product in two halves and the kernel that adds them, beside the whole product, on one GPU.

    python -m tests.benchmarks.bench_split_product -o OUT.json

`o`: a product and `add_norm`; `down`: `addmm_` beside halves and `add_parts`. Microseconds, in
bfloat16, of CUDA graphs over at least 600 MB of weights, so that none are in the GPU's cache;
medians of three trials of eight replays, both ways in turn.
"""

import argparse
import json
import math
import sys
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import linear

from mtp_harness.models import provenance
from mtp_harness.models.gpu.current import captured
from mtp_harness.models.gpu.kernels import add_norm, add_parts
from mtp_harness.models.gpu.split_product import halves

from .one_step import timed

TOKENS = (1, 5, 16, 42, 64, 128, 168, 256, 320, 384)
SQUARE = (768, 1024, 2048, 2560, 3072, 4096, 5120, 8192)
DOWN = (
    (2048, 768),
    (3072, 1024),
    (6144, 2048),
    (9728, 2560),
    (8192, 3072),
    (11008, 4096),
    (12288, 4096),
    (17408, 5120),
    (28672, 8192),
)


def o_ways(x, states, by):
    """Return both ways of a product, the sum and the norm."""
    return {
        "whole": lambda weight: add_norm(states, linear(x, weight)[None], by, 1e-5),
        "halves": lambda weight: add_norm(states, halves(x, weight), by, 1e-5),
    }


def down_ways(x, states, by):
    """Return both ways of a product that is added to states in place."""
    return {
        "whole": lambda weight: states.addmm_(x, weight.t()),
        "halves": lambda weight: add_parts(states, halves(x, weight)),
    }


def each(run, weights):
    """Run one way with every weight."""
    for weight in weights:
        run(weight)


def randn(*shape):
    return torch.randn(shape, dtype=torch.bfloat16, device="cuda")


@torch.inference_mode()
def measured(kind, inner, outer):
    """Yield the times of one shape for every number of tokens."""
    copies = max(4, math.ceil(6e8 / (2 * inner * outer)))
    weights = [randn(outer, inner) * inner**-0.5 for _ in range(copies)]
    for n_tokens in TOKENS:
        ways = (o_ways if kind == "o" else down_ways)(
            randn(n_tokens, inner), randn(n_tokens, outer), randn(outer)
        )
        graphs = {way: captured(partial(each, run, weights))[0] for way, run in ways.items()}
        trials = [{way: timed(graph.replay, 8) for way, graph in graphs.items()} for _ in range(4)]
        us = {way: 1e3 / copies * median(trial[way] for trial in trials[1:]) for way in ways}
        yield {"kind": kind, "from": inner, "to": outer, "tokens": n_tokens, "us": us}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    rows = []
    for shape in [("o", width, width) for width in SQUARE] + [("down", *sizes) for sizes in DOWN]:
        for row in measured(*shape):
            rows.append(row)
            ratio = row["us"]["halves"] / row["us"]["whole"]
            sys.stdout.write(
                f"{shape[0]} {shape[1]} to {shape[2]}, {row['tokens']} tokens: {ratio:.2f}\n"
            )
    content = {"rows": rows, **provenance.environment(torch.device("cuda"))}
    given.out.write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

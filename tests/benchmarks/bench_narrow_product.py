"""A decoding step of a narrow float32 model on one GPU, with and without `narrow_product`'s care.

    python -m tests.benchmarks.bench_narrow_product -o OUT.json

`mtp-bytes-n4` in float32, one step as a CUDA graph, replayed 20 times per trial; the two ways in
turn, five trials each.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch

from mtp_harness.decode.sampling import Sampling
from mtp_harness.models import provenance
from mtp_harness.models.gpu import layer, narrow_product
from mtp_harness.models.load import load_model

from .one_step import captured

GRID = [(k, batch) for k in (1, 2, 4) for batch in (1, 2, 4, 8, 16, 32)]


def cared_for(model, k, batch, is_narrow):
    """Return what replays a step that was captured with a rule for narrow products."""
    layer.is_narrow = narrow_product.is_narrow = is_narrow
    return captured(model, k, batch, Sampling(), 768)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    model = load_model("mtp-bytes-n4", torch.float32).cuda().eval()
    real = narrow_product.is_narrow
    rows = []
    for k, batch in GRID:
        ways = {
            "without": cared_for(model, k, batch, lambda states, weight: False),
            "with": cared_for(model, k, batch, real),
        }
        times = {way: [] for way in ways}
        for trial in range(6):
            for way in ways if trial % 2 == 0 else reversed(ways):
                ms = ways[way]()
                if trial:  # the first one warms up
                    times[way].append(ms)
        ratio = statistics.median(times["without"]) / statistics.median(times["with"])
        rows.append({"k": k, "batch": batch, "ms": times, "speedup": ratio})
        sys.stdout.write(f"k {k}, {batch} rows: {ratio:.2f}\n")
    content = {"rows": rows, **provenance.environment(model.device)}
    given.out.write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""A window through one Gated DeltaNet layer of Qwen3.5-9B's shape on one GPU: kernels or not.

    python -m tests.benchmarks.bench_gated_delta -o OUT.json

Random weights in bfloat16; a CUDA graph holds the layer and `keep`, replayed 200 times a trial,
the two ways in turn. First both ways are compared in float32 and bfloat16. `floor_ms` is what
reading the weights takes at the bandwidth measured here. `--sweep` times other shapes of programs.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from transformers import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet

from mtp_harness.decode.cache import SlotCache
from mtp_harness.decode.slots import StepGraph
from mtp_harness.models import provenance
from mtp_harness.models.gated_delta import serve_slots, state_shapes
from mtp_harness.models.gpu import delta_kernels, delta_window
from mtp_harness.models.interface import LayerShape

from .one_step import by_kernel, read_bandwidths, timed

GRID = [(batch, length) for batch in (1, 16, 64) for length in (1, 4)]
PROGRAMS = [(32, 4), (32, 2), (32, 1), (16, 2), (16, 1), (8, 1), (64, 4), (64, 2), (128, 4)]
CONFIG = Qwen3_5TextConfig(
    hidden_size=4096,
    linear_num_key_heads=16,
    linear_num_value_heads=32,
    linear_key_head_dim=128,
    linear_value_head_dim=128,
    linear_conv_kernel_dim=4,
    num_hidden_layers=1,
    layer_types=["linear_attention"],
)


def new_net(dtype):
    torch.manual_seed(0)
    net = Qwen3_5GatedDeltaNet(CONFIG, 0).to(dtype).cuda().eval()
    serve_slots(SimpleNamespace(layers=[SimpleNamespace(linear_attn=net)]))
    return net


def new_cache(batch, length, dtype):
    """Return a cache whose rows stand at 100 and have random states."""
    shape = LayerShape(0, 0, states=state_shapes(CONFIG))
    cache = SlotCache([shape], batch, 200, dtype, torch.device("cuda"))
    generator = torch.Generator("cuda").manual_seed(1)
    for held in cache.states[0]:
        held.copy_(torch.randn(held.shape, generator=generator, device="cuda").to(dtype))
    cache.at(torch.arange(100, 100 + length, device="cuda").expand(batch, -1).contiguous(), 200)
    return cache


def way(kernels):
    """Return what makes layers run by the kernels, or without them."""
    serves = delta_window.serves if kernels else lambda *_: False
    return mock.patch.object(delta_window, "serves", serves)


@torch.inference_mode()
def difference(dtype, batch, length):
    """Return by how much outputs and states of the ways differ at most, as shares of the largest.

    Rows keep different numbers of tokens.
    """
    net = new_net(dtype)
    hidden = torch.randn(batch, length, 4096, device="cuda").to(dtype)
    count = (length - torch.arange(batch, device="cuda")) % (length + 1)
    both = []
    for kernels in (False, True):
        cache = new_cache(batch, length, dtype)
        with way(kernels):
            out = net(hidden, cache_params=cache)
        cache.keep(count)
        both.append((out, *cache.states[0]))
    return [float((a - b).abs().max() / a.abs().max()) for a, b in zip(*both, strict=True)]


@torch.inference_mode()
def captured(net, batch, length, kernels):
    """Return what replays a window all of whose tokens stay."""
    hidden = torch.randn(batch, length, 4096, device="cuda").bfloat16()
    cache = new_cache(batch, length, torch.bfloat16)
    count = torch.full((batch,), length, device="cuda")

    def step():
        out = net(hidden, cache_params=cache)
        cache.keep(count)
        return out

    with way(kernels):
        graph = StepGraph(step)
    graph.reads = hidden, cache, count  # a graph does not keep alive what it reads
    return graph.replay


def us_by_kernel(replay):
    """Return microseconds per replay by kernel."""
    found = by_kernel(lambda: [replay() for _ in range(20)], 20)
    return {name[:60]: us for name, us, _ in found if us}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--sweep", action="store_true")
    given = parser.parse_args()
    content = {"differences": [], "rows": [], "programs": []}
    for dtype, batch, length in (
        (torch.float32, 3, 4),
        (torch.bfloat16, 3, 4),
        (torch.float32, 1, 1),
    ):
        found = difference(dtype, batch, length)
        content["differences"].append([str(dtype), batch, length, found])
        sys.stdout.write(
            f"{dtype}, {batch} rows of {length}: output, inputs, S differ by {found}\n"
        )
    bandwidth = max(read_bandwidths().values())
    net = new_net(torch.bfloat16)
    floor = sum(one.numel() for one in net.parameters()) * 2 / bandwidth * 1e3
    sys.stdout.write(f"reading the weights takes {floor:.4f} ms\n")
    for batch, length in GRID:
        graphs = {  # the kernels join weights, and free what an earlier graph would read
            name: captured(net, batch, length, name == "kernels") for name in ("kernels", "plain")
        }
        times = {name: [] for name in graphs}
        for trial in range(6):
            for name in graphs if trial % 2 == 0 else reversed(graphs):
                ms = timed(graphs[name], 200)
                if trial:  # the first one warms up
                    times[name].append(ms)
        row = {"batch": batch, "length": length, "ms": times, "floor_ms": floor}
        row["us_by_kernel"] = us_by_kernel(graphs["kernels"])
        content["rows"].append(row)
        middle = {name: round(statistics.median(each), 4) for name, each in times.items()}
        sys.stdout.write(f"{batch} rows of {length}: ms {middle}, µs {row['us_by_kernel']}\n")
    for columns, warps in PROGRAMS if given.sweep else []:
        for name in ("READ_COLUMNS", "KEEP_COLUMNS"):
            setattr(delta_kernels, f"_{name}", columns)
        for name in ("READ_WARPS", "TOKEN_WARPS", "KEEP_WARPS"):
            setattr(delta_kernels, f"_{name}", warps)
        for batch, length in GRID:
            us = us_by_kernel(captured(net, batch, length, True))
            us = {
                name: each for name, each in us.items() if name in ("_read_window", "_keep_tokens")
            }
            content["programs"].append([columns, warps, batch, length, us])
            sys.stdout.write(f"{columns} columns, {warps} warps, {batch} rows of {length}: {us}\n")
    content |= provenance.environment(torch.device("cuda"))
    given.out.write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

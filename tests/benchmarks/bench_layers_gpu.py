"""A layer's decoding step on one GPU: of 1 to 4 tokens all, of many rows the attention.

    python -m tests.benchmarks.bench_layers_gpu -o OUT.json [--only products attention layers rows]

Random weights in bfloat16. What is timed runs as a CUDA graph over copies of its weights, a
gigabyte of them, so that none is in the second-level cache: microseconds a call, the least of five
replays. First every candidate is compiled and compared with torch, in processes beside each other;
those that fail are recorded. The fastest over shapes and numbers of tokens go into `best`: the
constants of `few_rows` and `few_attention`, in the JSON only. The part `rows`, attention of many
rows, gives no constants, but a line for each number of rows.

`--tiny` runs all of it on little numbers, without a GPU by Triton's interpreter.
"""

import argparse
import functools
import json
import math
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
from torch.nn.functional import linear, scaled_dot_product_attention, silu
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from mtp_harness.decode.cache import SlotCache
from mtp_harness.models import provenance
from mtp_harness.models.decoding_weights import rotation
from mtp_harness.models.gpu import attention, few_attention, few_rows, layer
from mtp_harness.models.gpu.attention import attend_rows
from mtp_harness.models.gpu.few_rows import Norm, Tile
from mtp_harness.models.gpu.kernels import rotate_and_store
from mtp_harness.models.interface import LayerShape

from .one_step import timed

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
DTYPE = torch.bfloat16 if ON_GPU else torch.float16  # the interpreter's bfloat16 is not exact
CONTEXT = 768 if ON_GPU else 40  # columns before the step
SHAPES = {
    "7B": LlamaConfig(num_attention_heads=32, num_key_value_heads=32),
    "MiMo": LlamaConfig(num_attention_heads=32, num_key_value_heads=8, attention_bias=True),
}
TINY = {"tiny": LlamaConfig(hidden_size=64, intermediate_size=96, num_attention_heads=4)}
KINDS = ("qkv", "narrow_qkv", "o", "gate_up", "down")
ONE = [
    Tile(4, 4096, 8, 1, 1),
    Tile(4, 2048, 8, 1, 1),
    Tile(4, 1024, 4, 1, 1),
    Tile(4, 512, 2, 1, 1),
]
ONE += [
    Tile(2, 4096, 8, 1, 1),
    Tile(2, 2048, 8, 1, 1),
    Tile(2, 2048, 4, 1, 1),
    Tile(8, 256, 1, 1, 1),
]
ONE += [Tile(4, 1024, 4, stages, 1) for stages in (4, 6)] + [Tile(2, 1024, 4, 6, 1)]
ONE += [Tile(8, 512, 2, stages, 1) for stages in (4, 6)] + [Tile(4, 512, 2, 6, 1)]
ONE += [Tile(8, 1024, 4, stages, 1) for stages in (3, 4)] + [Tile(16, 512, 2, 4, 1)]
ONE += [Tile(8, 256, 1, 6, 1), Tile(16, 256, 1, 4, 1)]
MORE = [Tile(32, 256, 4, 3, 8), Tile(32, 256, 4, 4, 8), Tile(64, 256, 4, 3, 8)]
MORE += [Tile(16, 256, 1, 5, 8), Tile(16, 256, 2, 4, 8), Tile(32, 128, 2, 5, 8)]
MORE += [Tile(8, 256, 1, stages, 1) for stages in (1, 4)]
MORE += [Tile(8, 512, 2, stages, 1) for stages in (1, 3, 4)]
MORE += [Tile(16, 256, 1, stages, 1) for stages in (1, 3, 4)]
MORE += [Tile(16, 512, 2, stages, 1) for stages in (1, 3)]
MORE += [Tile(8, 1024, 4, 1, 1), Tile(4, 512, 2, 1, 1), Tile(4, 1024, 4, 4, 1)]
TILES = {kind: (ONE, MORE) for kind in KINDS}
ROWS = (16, 42, 64) if ON_GPU else (3,)  # whose attention is timed
OF_ROWS = [(64, 2), (64, 3), (64, 4), (32, 4), (128, 2)] if ON_GPU else [(16, 2), (16, 3)]
DIED = "its process died"
ATTENTION = [(p, b, w) for p in (66, 132, 264) for b, w in ((64, 4), (32, 4), (32, 2), (128, 4))]


class Constants(NamedTuple):
    """What may be tuned."""

    tiles: dict
    most_tokens: int = 16
    attention: tuple = (few_attention.PROGRAMS, few_attention.BLOCK, few_attention.WARPS)
    of_rows: tuple | None = None  # columns at a time, stages

    def set(self):
        few_rows.TILES, few_rows.FEW_ROWS = self.tiles, self.most_tokens
        programs, block, warps = self.attention
        few_attention.PROGRAMS, few_attention.BLOCK, few_attention.WARPS = programs, block, warps
        if self.of_rows is not None:
            attention._BLOCK, stages = self.of_rows
            attention._stages = lambda *_: stages

    def with_tile(self, kind, n_tokens, tile):
        one, more = self.tiles[kind]
        pair = (tile, more) if n_tokens == 1 else (one, tile)
        return self._replace(tiles=self.tiles | {kind: pair})


class Case(NamedTuple):
    """What is timed: a launch of a kind, "attention", that of "rows N", or a "layer"."""

    what: str
    shape: str
    n_tokens: int
    constants: Constants


def randn(*shape, scale=1.0):
    return torch.randn(*shape, device=DEVICE).mul_(scale).to(DTYPE)


# What is timed: each returns calls, one per copy of the weights, and what the first one must give


def products(kind, config, n_tokens, copies):
    width, heads, head_dim = config.hidden_size, config.num_attention_heads, config.head_dim
    of_qkv = (heads + 2 * config.num_key_value_heads) * head_dim
    n_out, n_in = {
        "qkv": (of_qkv, width),
        "narrow_qkv": (of_qkv, width),
        "o": (width, heads * head_dim),
        "gate_up": (2 * config.intermediate_size, width),
        "down": (width, config.intermediate_size),
    }[kind]
    copies = min(copies, math.ceil(2**30 / (n_out * n_in * 2)))
    weights = [randn(n_out, n_in, scale=n_in**-0.5) for _ in range(copies)]
    states, before, norm = randn(n_tokens, n_in), randn(n_tokens, width), Norm(randn(n_in), 1e-5)
    wide = states.float()
    normed = (wide * (wide.square().mean(-1, keepdim=True) + 1e-5).rsqrt()).to(DTYPE) * norm.weight
    size = weights[0].numel() * 2
    if kind in ("qkv", "narrow_qkv"):
        calls = [lambda w=w: few_rows.normed_product(states, norm, w, None) for w in weights]
        return calls, lambda: linear(normed, weights[0]), size
    if kind == "gate_up":
        calls = [lambda w=w: few_rows.gated_product(states, norm, w, None) for w in weights]

        def expected():
            gate, up = linear(normed, weights[0]).chunk(2, -1)
            return silu(gate) * up

        return calls, expected, size
    calls = [lambda w=w: few_rows.summed_product(kind, states, w, None, before) for w in weights]
    return calls, lambda: before + linear(states, weights[0]), size


def attentions(config, n_tokens, copies):
    heads, kv_heads, head_dim = (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
    )
    size = 2 * CONTEXT * kv_heads * head_dim * 2
    shape = LayerShape(kv_heads, head_dim)
    cache = new_cache([shape] * min(copies, math.ceil(2**30 / size)), n_tokens)
    projected = randn(n_tokens, (heads + 2 * kv_heads) * head_dim)
    cos, sin = (each.flatten(0, 2) for each in rotated_by(config, cache))
    lengths, positions, scale = cache.lengths(), cache.positions, head_dim**-0.5

    def call(index):
        stored = cache.stored(index)
        return few_attention.rotate_and_attend(
            projected, cos, sin, *stored, cache.places, lengths, positions, scale
        )

    def expected():
        stored = cache.stored(0)
        flat = [each.flatten(0, 1) for each in stored]
        query = rotate_and_store(projected, cos, sin, cache.places, *flat, heads)
        query = query.view(1, n_tokens, heads, head_dim)
        return attend_rows(query, *stored, lengths, positions, scale)

    return [lambda i=i: call(i) for i in range(len(cache.keys))], expected, size


def attentions_of_rows(config, n_rows, n_tokens, copies):
    heads, kv_heads, head_dim = 32 if ON_GPU else 4, config.num_key_value_heads, config.head_dim
    size = 2 * n_rows * CONTEXT * kv_heads * head_dim * 2
    shape = LayerShape(kv_heads, head_dim)
    cache = new_cache([shape] * min(copies, math.ceil(2**30 / size)), n_tokens, n_rows)
    query = randn(n_rows, n_tokens, heads, head_dim)
    lengths, positions = cache.lengths(), cache.positions.contiguous()

    def call(index):
        return attend_rows(query, *cache.stored(index), lengths, positions, head_dim**-0.5)

    def expected():
        keys, values = (
            each.transpose(1, 2).repeat_interleave(heads // kv_heads, 1) for each in cache.stored(0)
        )
        columns = torch.arange(keys.shape[2], device=DEVICE)
        seen = columns <= positions[:, None, :, None]
        found = scaled_dot_product_attention(query.transpose(1, 2), keys, values, attn_mask=seen)
        return found.transpose(1, 2).flatten(2)

    return [lambda i=i: call(i) for i in range(len(cache.keys))], expected, size


def layers(config, n_tokens, copies):
    copies = min(copies, 4)
    states, blocks = randn(1, n_tokens, config.hidden_size), []
    for index in range(copies):
        with DEVICE:
            blocks.append(LlamaDecoderLayer(config, index).to(DTYPE).eval())
        for parameter in blocks[-1].parameters():
            parameter.data.normal_(0, parameter.shape[-1] ** -0.5)
    shape = LayerShape(config.num_key_value_heads, config.head_dim)
    cache = new_cache([shape] * copies, n_tokens)
    turned = rotated_by(config, cache)
    cache.remember("lengths", cache.lengths)
    calls = [lambda b=b: layer.run(b, states, turned, cache) for b in blocks]

    def expected():
        few_rows.FEW_ROWS = 0
        return calls[0]()

    return calls, expected, sum(each.numel() * 2 for each in blocks[0].parameters())


def new_cache(shapes, n_tokens, n_rows=1):
    cache = SlotCache(shapes, n_rows, CONTEXT + 32, DTYPE, DEVICE)
    for stored in (*cache.keys, *cache.values):
        stored.normal_()
    positions = torch.arange(CONTEXT, CONTEXT + n_tokens, device=DEVICE).expand(n_rows, -1)
    cache.at(positions, CONTEXT + n_tokens)
    return cache


def rotated_by(config, cache):
    states = torch.empty(1, dtype=DTYPE, device=DEVICE)
    return rotation(LlamaRotaryEmbedding(config).to(DEVICE), states, cache.positions)


@functools.lru_cache(maxsize=1)
def calls_of(what, shape, n_tokens, copies):
    """Return calls, what the first gives by other ways, and the bytes that one reads."""
    torch.manual_seed(0)
    config = (SHAPES | TINY)[shape]
    if what in KINDS:
        return products(what, config, n_tokens, copies)
    if what.startswith("rows"):
        return attentions_of_rows(config, int(what.removeprefix("rows")), n_tokens, copies)
    return (layers if what == "layer" else attentions)(config, n_tokens, copies)


# Trying and timing


@torch.inference_mode()
def failure(case):
    """Return why a candidate cannot be used, or None: it compiles, runs, and is right."""
    try:
        calls, expected, _ = calls_of(*case[:3], 1)
        case.constants.set()
        found = calls[0]().clone()
        expected = expected().float()
        worst = ((found.float() - expected).abs().max() / expected.abs().max()).item()
        return None if worst < 0.03 else f"wrong by {worst:.3f} of the largest"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"


class Workers:
    """Processes that try candidates beside each other; none: this process does it."""

    def __init__(self, count):
        self.count, self.pool = count, None

    def failures(self, cases):
        """Return `failure` of every case; a process that dies is a failure, too."""
        if not self.count:
            return [failure(case) for case in cases]
        found = self._failures(cases)
        for index, why in enumerate(found):
            if why == DIED:  # one may have taken all others with it
                [found[index]] = self._failures([cases[index]])
        return found

    def _failures(self, cases):
        if self.pool is None:
            context = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(self.count, mp_context=context)
        futures = [self.pool.submit(failure, case) for case in cases]
        try:
            return [DIED if future.exception() else future.result() for future in futures]
        finally:
            if any(future.exception() for future in futures):
                self.stop()

    def stop(self):
        if self.pool is not None:
            self.pool.shutdown()
            self.pool = None


@torch.inference_mode()
def microseconds(case):
    """Return microseconds per call, and bytes per second of what it must read."""
    calls, _, size = calls_of(*case[:3], 1000 if ON_GPU else 2)
    case.constants.set()

    def run():
        for call in calls:
            call()

    run()
    if not ON_GPU:
        begin = time.perf_counter()
        run()
        us = (time.perf_counter() - begin) / len(calls) * 1e6
        return us, size / us * 1e6
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    us = min(timed(graph.replay, 3) for _ in range(5)) / len(calls) * 1e3
    return us, size / us * 1e6


class Bench:
    """What was timed so far."""

    def __init__(self, shapes, tokens, workers, tiles):
        self.shapes, self.tokens = shapes, tokens
        self.workers, self.tiles = workers, tiles
        self.rows, self.failed = [], []
        self.best = Constants(dict(few_rows.TILES))

    def race(self, what, shapes, tokens, candidates, name):
        """Return the candidate whose times over shapes and tokens are the best by mean logarithm.

        `candidates` are constants by names.
        """
        cases = {
            (label, shape, n): Case(what, shape, n, constants)
            for shape in shapes
            for n in tokens
            for label, constants in candidates.items()
        }
        logs = {label: [] for label in candidates}
        whys = self.workers.failures(list(cases.values()))
        for ((label, shape, n), case), why in zip(cases.items(), whys, strict=True):
            row = {"what": what, "shape": shape, "tokens": n, name: label}
            us = math.inf
            if why is None:
                try:
                    us, rate = microseconds(case)
                    self.rows.append(row | {"us": us, "bytes_per_s": rate})
                except Exception as error:
                    why = f"timing: {type(error).__name__}: {error}"[:200]
            if why is not None:
                self.failed.append(row | {"why": why})
            logs[label].append((math.log(us), shape, n))
        return self._fastest(what, logs)

    def _fastest(self, what, logs):
        """Print the three fastest of every column of a race; return the fastest over all."""
        for column in zip(*logs.values(), strict=True):
            ranked = sorted(zip((each[0] for each in column), logs, strict=True))[:3]
            times = ", ".join(f"{math.exp(log):.2f} ({label})" for log, label in ranked)
            say(f"{what} {column[0][1]}, {column[0][2]} tokens, microseconds: {times}")
        means = {label: sum(each[0] for each in column) for label, column in logs.items()}
        fastest = min(means, key=means.get)
        say(f"  {what}: {fastest}\n")
        return fastest if means[fastest] < math.inf else None

    def race_products(self):
        for kind in KINDS:
            # Others than queries, keys and values are the same in both.
            shapes = self.shapes[-1:] if kind == "narrow_qkv" else self.shapes[:1]
            for index, tokens in enumerate(([1], [2, 4])):
                self._race_tiles(kind, shapes, tokens, self.tiles[kind][index])

    def _race_tiles(self, kind, shapes, tokens, tiles):
        candidates = {
            " ".join(map(str, tile)): self.best.with_tile(kind, tokens[0], tile) for tile in tiles
        }
        self._keep(candidates, self.race(kind, shapes, tokens, candidates, "tile"))

    def _keep(self, candidates, fastest):
        if fastest is not None:
            self.best = candidates[fastest]

    def race_attention(self, choices):
        candidates = {
            " ".join(map(str, choice)): self.best._replace(attention=choice) for choice in choices
        }
        self._keep(candidates, self.race("attention", self.shapes, [1, 4], candidates, "programs"))

    def race_attention_of_rows(self):
        candidates = {" ".join(map(str, one)): self.best._replace(of_rows=one) for one in OF_ROWS}
        for n_rows in ROWS:
            for n in (1, 4):
                for shape in self.shapes:
                    self.race(f"rows {n_rows}", [shape], [n], candidates, "block, stages")

    def race_layers(self):
        ways = {"few rows": self.best, "ten launches": self.best._replace(most_tokens=0)}
        self.race("layer", self.shapes, self.tokens, ways, "way")


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write(bench, out, wall_s):
    content = {
        "best": bench.best._asdict(),
        "rows": bench.rows,
        "failed": bench.failed,
        "wall_s": wall_s,
        **provenance.environment(DEVICE),
    }
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parts = ("products", "attention", "layers", "rows")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    if not (ON_GPU or given.tiny):
        parser.error("there is no GPU here; --tiny runs little numbers by Triton's interpreter")
    begin = time.time()
    if given.tiny:
        tiles = {kind: ([Tile(4, 64, 4, 2, 1)], [Tile(16, 64, 4, 2, 8)]) for kind in KINDS}
        bench = Bench(["tiny"], [1, 4], Workers(0), tiles)
        bench.best = Constants({kind: (one[0], more[0]) for kind, (one, more) in tiles.items()})
    else:
        workers = Workers(min(14, len(os.sched_getaffinity(0))))
        bench = Bench(list(SHAPES), [1, 2, 4], workers, TILES)
    races = {
        "products": bench.race_products,
        "attention": lambda: bench.race_attention([(4, 32, 4)] if given.tiny else ATTENTION),
        "layers": bench.race_layers,
        "rows": bench.race_attention_of_rows,
    }
    for part in parts:
        if part in given.only:
            races[part]()
            write(bench, given.out, time.time() - begin)
    bench.workers.stop()
    say(f"best: {bench.best}\n{len(bench.failed)} candidates failed; {time.time() - begin:.0f} s")


if __name__ == "__main__":
    main()

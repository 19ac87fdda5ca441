"""One decoding step alone on a GPU, as a CUDA graph: its time, its kernels, the GPU's rates."""

import torch
from torch.profiler import ProfilerActivity, profile

from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.slots import Slots


def timed(call, count):
    """Return milliseconds per call on the GPU."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / count


def read_bandwidths():
    """Return bytes per second: summing 4 GiB, and one row times 2 GiB of weights; best of 10."""
    numbers = torch.zeros(2**29, dtype=torch.int64, device="cuda")
    summing = min(timed(numbers.sum, 3) for _ in range(10))
    del numbers
    weights = [torch.randn(16384, 16384, device="cuda").bfloat16() for _ in range(4)]
    row = torch.randn(1, 16384, dtype=torch.bfloat16, device="cuda")
    gemv = min(timed(lambda: [row @ w for w in weights], 3) for _ in range(10))
    return {"sum": 2**32 / summing * 1e3, "gemv": 2**31 / gemv * 1e3}


def measured_rates():
    """Return what `roofline.floor_ms` needs: bytes and operations per second of this GPU.

    Operations are those of a product of 8192 x 8192 in bfloat16, best of 10.
    """
    bandwidth = max(read_bandwidths().values())
    square = torch.randn(8192, 8192, device="cuda").bfloat16()
    product = min(timed(lambda: square @ square, 3) for _ in range(10))
    torch.cuda.empty_cache()
    return {"bandwidth": bandwidth, "rate": 2 * 8192**3 / product * 1e3}


@torch.inference_mode()
def captured(model, k, batch, sampling, length):
    """Return a function that replays a step of rows of `length` tokens `count` times: ms a step."""
    slots = Slots(model, k, Rule(), sampling, batch, 4 * length // 3 + k)
    graphs = slots.graphs(length + k)
    graph = graphs[min(graphs)]
    for stored in (*slots.cache.keys, *slots.cache.values):
        stored.normal_()
    slots.limit.fill_(slots.cache.trash)
    slots.n_draft.fill_(k - 1)

    @torch.inference_mode()
    def run(count=20):
        slots.pending.fill_(length)
        return timed(graph.replay, count)

    return run


def by_kernel(call, count):
    """Return (kernel, microseconds, launches) of one of a call's `count` replays, longest first."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    events = profiler.key_averages()
    rows = [(e.key, e.self_device_time_total / count, e.count / count) for e in events]
    return sorted(rows, key=lambda row: -row[1])


@torch.inference_mode()
def kernels(run, top=12):
    """Return where the time of a step that `captured` replays goes: microseconds and launches."""
    run()
    rows = by_kernel(lambda: run(3), 3)
    return {
        "us": sum(row[1] for row in rows),
        "launches": sum(row[2] for row in rows),
        "top": [(name[:90], us, count) for name, us, count in rows[:top] if us],
    }

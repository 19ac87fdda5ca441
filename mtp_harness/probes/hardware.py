"""Memory bandwidth of this machine, bytes that decoding reads, and peak memory.

A decoding step reads every weight of the trunk and of heads 1..k once, whatever the batch, and the
keys and values of each row's earlier tokens. These bytes per second, divided by the bandwidth
measured here, are the share that decoding reaches: close to 1 for a step limited by memory. Weights
in a cache are read faster than memory, so the share of a small model exceeds 1.
"""

import ctypes
import re
import time
from pathlib import Path
from typing import NamedTuple

import torch

from mtp_harness.decode.cache import bytes_per_slot
from mtp_harness.models.head_states import head_states
from mtp_harness.models.interface import MultiHeadModel

BUFFER_BYTES = {"cpu": 2**28, "cuda": 2**31}
"""Size of the buffer to read: far more than caches hold."""

REPEATS = 10

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def read_bandwidth(device: torch.device) -> float:
    """Return the most bytes per second that a sum over a large buffer reads, with all threads."""
    n_bytes = BUFFER_BYTES[device.type]
    if device.type == "cuda":
        n_bytes = min(n_bytes, torch.cuda.mem_get_info(device)[0] // 4)
    buffer = torch.ones(n_bytes // 4, device=device)
    seconds = []
    for _ in range(REPEATS + 1):
        synchronize(device)
        began = time.perf_counter()
        buffer.sum()
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return n_bytes / min(seconds)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def weight_bytes(model: MultiHeadModel, k: int) -> int:
    """Return the bytes of all weights that a step with heads 1..k reads.

    They are found by running one token: every module that takes part is read, except embeddings, of
    which a step looks up a few rows.
    """
    used: dict[int, int] = {}

    def note(module: torch.nn.Module, *_: object) -> None:
        if not isinstance(module, torch.nn.Embedding):
            used.update({id(p): p.numel() * p.element_size() for p in module.parameters(False)})

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        one = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
        for offset, state in head_states(model, one, k):
            model.logits(offset, state)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(used.values())


class Traffic(NamedTuple):
    """Bytes that decoding with heads 1..k reads per step, and per row for every earlier token."""

    weight_bytes: int
    cache_bytes_per_token: int
    state_bytes: int = 0  # of a row's linear layers
    state_reads: int = 2  # of these, a step: by its forward, and with drafts when tokens stay

    @classmethod
    def of(cls, model: MultiHeadModel, k: int) -> "Traffic":
        """Return the traffic of a model."""
        shapes = model.layer_shapes(k)
        one, two = (bytes_per_slot(shapes, length, model.dtype) for length in (0, 1))
        return cls(weight_bytes(model, k), two - one, one - (two - one), min(k, 2))

    def read(self, steps: list[int], prompt_tokens: int, new_tokens: int) -> float:
        """Return the bytes that decoding a batch reads.

        The batch takes as many steps as its longest row; on average, half of a row's `new_tokens`
        precede a step.
        """
        before = prompt_tokens + new_tokens / 2
        of_row = self.cache_bytes_per_token * before + self.state_reads * self.state_bytes
        return self.weight_bytes * max(steps) + of_row * sum(steps)


class PeakMemory:
    """Peak memory since this was made: allocated on a GPU, of the process on the CPU."""

    def __init__(self, device: torch.device) -> None:
        """Reset the peak, where the system allows it."""
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._fresh = True
            return
        # Freed memory that the C library keeps would be used again, and hide what is taken next.
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)
        try:
            _CLEAR.write_text("5")  # Linux: the peak begins again at what is resident now
            self._fresh = True
        except OSError:
            self._fresh = False

    def read(self) -> int | None:
        """Return the peak in bytes; None if it cannot be separated from earlier ones."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text()) if self._fresh else None
        return int(found[1]) * 1024 if found else None

"""How fast this machine reads memory, how much decoding has to read, and the most that it takes.

A decoding step reads every weight of the trunk and of heads 1..k once, whatever the batch, and of
each row the keys and values before it. That many bytes per second, over the bandwidth measured
here, is the share that decoding reaches: a step that is limited by reading memory comes close to 1.
Weights that stay in a cache are read faster than memory is, and the share of a small model exceeds
1.
"""

import re
import time
from pathlib import Path
from typing import NamedTuple

import torch

from mtp_harness.decode.cache import bytes_per_slot
from mtp_harness.models.head_states import head_states
from mtp_harness.models.interface import MultiHeadModel

BUFFER_BYTES = {"cpu": 2**28, "cuda": 2**31}
"""Read in one go: far more than caches hold."""

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
    """Wait until the device has done all it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def weight_bytes(model: MultiHeadModel, k: int) -> int:
    """Return the bytes of all weights that a step with heads 1..k reads.

    They are found by running one token: whatever module takes part is read, but for embeddings,
    of which a step looks up a few rows.
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
    """What decoding with heads 1..k reads per step, and of each row for every token before it."""

    weight_bytes: int
    cache_bytes_per_token: int
    state_bytes: int = 0  # of a row's linear layers, read by a step's forward and when tokens stay

    @classmethod
    def of(cls, model: MultiHeadModel, k: int) -> "Traffic":
        """Return that of a model."""
        shapes = model.layer_shapes(k)
        one, two = (bytes_per_slot(shapes, length, model.dtype) for length in (0, 1))
        return cls(weight_bytes(model, k), two - one, one - (two - one))

    def read(self, steps: list[int], prompt_tokens: int, new_tokens: int) -> float:
        """Return the bytes that decoding a batch reads.

        The batch goes on for as many steps as its longest row; on average half of a row's
        `new_tokens` stand before a step.
        """
        before = prompt_tokens + new_tokens / 2
        of_row = self.cache_bytes_per_token * before + 2 * self.state_bytes
        return self.weight_bytes * max(steps) + of_row * sum(steps)


class PeakMemory:
    """The most memory taken since this was made: allocated on a GPU, of the process on the CPU."""

    def __init__(self, device: torch.device) -> None:
        """Forget the peaks so far, where the system allows it."""
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._fresh = True
            return
        try:
            _CLEAR.write_text("5")  # Linux: the peak begins anew at what is resident now
            self._fresh = True
        except OSError:
            self._fresh = False

    def read(self) -> int | None:
        """Return bytes; None where a peak cannot be told from earlier ones."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text()) if self._fresh else None
        return int(found[1]) * 1024 if found else None

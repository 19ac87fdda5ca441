"""How fast this machine reads memory, and how much of it decoding has to read.

A decoding step reads every weight of the trunk and of heads 1..k once, whatever the batch, and of
each row the keys and values before it. That many bytes per second, over the bandwidth measured
here, is the share that decoding reaches: a step that is limited by reading memory comes close to 1.
Weights that stay in a cache are read faster than memory is, and the share of a small model exceeds
1.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from mtp_harness.decode.cache import bytes_per_slot
from mtp_harness.models.interface import MultiHeadModel, head_states

BUFFER_BYTES = {"cpu": 2**28, "cuda": 2**31}
"""Read in one go: far more than caches hold."""

REPEATS = 10


def read_bandwidth(device: torch.device) -> float:
    """Return the most bytes per second that a sum over a large buffer reads here.

    Args:
        device: the CPU (all threads that torch uses) or a GPU.
    """
    n_bytes = BUFFER_BYTES[device.type]
    if device.type == "cuda":
        n_bytes = min(n_bytes, torch.cuda.mem_get_info(device)[0] // 4)
    buffer = torch.ones(n_bytes // 4, device=device)
    seconds = min(_timed(lambda: buffer.sum(), device) for _ in range(REPEATS + 1))
    return n_bytes / seconds


def _timed(work: Callable[[], torch.Tensor], device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


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
            for parameter in module.parameters(recurse=False):
                used[id(parameter)] = parameter.numel() * parameter.element_size()

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
    """What decoding with heads 1..k reads."""

    weight_bytes: int
    """Per step."""
    cache_bytes_per_token: int
    """Per step and row, for each token before it."""

    @classmethod
    def of(cls, model: MultiHeadModel, k: int) -> "Traffic":
        """Return that of a model."""
        shapes = model.layer_shapes(k)
        per_token = bytes_per_slot(shapes, 1, model.dtype) - bytes_per_slot(shapes, 0, model.dtype)
        return cls(weight_bytes(model, k), per_token)

    def read(self, steps: list[int], prompt_tokens: int, new_tokens: int) -> float:
        """Return the bytes that decoding a batch reads.

        Args:
            steps: of each row; the batch goes on for as many as the longest.
            prompt_tokens: of each row.
            new_tokens: of each row; on average half of them stand before a step.
        """
        before = prompt_tokens + new_tokens / 2
        return self.weight_bytes * max(steps) + self.cache_bytes_per_token * before * sum(steps)

"""The current GPU, on which Triton's kernels and CUDA graphs run, wherever their tensors are."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

_R = TypeVar("_R")


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Return what makes a device the current one, if it is a GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@cache
def _aside(gpu: int) -> torch.cuda.Stream:
    """Return the stream of a GPU's captures, one for all: only so can graphs share memory.

    torch's own is on the GPU of the process's first capture.
    """
    return torch.cuda.Stream(gpu)  # type: ignore[no-untyped-call]


def captured(
    run: Callable[[], _R], first: int = 1, pool: Any = None
) -> tuple[torch.cuda.CUDAGraph, _R]:
    """Return a call as a CUDA graph of the current GPU, and what the captured call returned.

    Args:
        run: reads and writes tensors that live as long as the graph.
        first: calls before the captured one, which compile and allocate what it needs.
        pool: of a graph that never runs at the same time, whose memory this one uses, too.

    Raises:
        RuntimeError: a graph cannot hold the call, for example because it reads a value.
    """
    aside = _aside(torch.cuda.current_device())
    aside.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(aside):  # where a capture fails, torch leaves its stream current
            for _ in range(first):
                run()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=aside):
                out = run()
    finally:
        torch.cuda.current_stream().wait_stream(aside)
    return graph, out


def on_its_device(run: Callable[..., _R]) -> Callable[..., _R]:
    """Let a function of a module, its states and more run with the states' device as current."""

    @wraps(run)
    def there(module: Any, states: Tensor, *args: Any, **kwargs: Any) -> _R:
        with current(states.device):
            return run(module, states, *args, **kwargs)

    return there

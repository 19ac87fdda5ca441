"""The current GPU, on which Triton's kernels and CUDA graphs run, wherever their tensors are."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

_R = TypeVar("_R")


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Return what makes a device the current one, if it is a GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def on_its_device(run: Callable[..., _R]) -> Callable[..., _R]:
    """Let a function of a module, its states and more run with the states' device as current."""

    @wraps(run)
    def there(module: Any, states: Tensor, *args: Any, **kwargs: Any) -> _R:
        with current(states.device):
            return run(module, states, *args, **kwargs)

    return there

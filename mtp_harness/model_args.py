"""Checks of `--model_args` before anything is loaded."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import torch

_LOADED_ELSEWHERE = {"attn_implementation"}
"""Arguments beyond `HFLM`'s own that loading a checkpoint with heads understands."""


def refuse_unknown(kwargs: dict[str, Any], *initialisers: Callable[..., Any]) -> None:
    """Name arguments that none of `initialisers` has, with the one that was probably meant."""
    known = {name for f in initialisers for name in inspect.signature(f).parameters}
    known = (known | _LOADED_ELSEWHERE) - {"self", "kwargs"}
    for name in kwargs:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(sorted(known))}."
            raise ValueError(f"unknown model argument {name}={kwargs[name]}{hint}")


def refuse_odd_values(draft_heads: Any, batch_size: Any, dtype: Any) -> None:
    """Refuse values that would fail later, far from the argument they came from."""
    if draft_heads not in (None, "auto") and type(draft_heads) is not int:
        raise ValueError(
            f"draft_heads={draft_heads}, expected a whole number from 1 to n, or auto."
        )
    automatic = batch_size is None or str(batch_size).startswith("auto")
    if not automatic and not (str(batch_size).isdigit() and int(batch_size) > 0):
        raise ValueError(f"batch_size={batch_size}, expected a whole number from 1, or auto.")
    if isinstance(dtype, str) and dtype != "auto":
        known = getattr(torch, dtype.removeprefix("torch."), None)
        if not isinstance(known, torch.dtype):
            raise ValueError(
                f"dtype={dtype}, expected auto, float32, bfloat16, float16 or float64."
            )

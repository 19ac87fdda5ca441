"""Checks of `--model_args` before anything is loaded."""

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from mtp_harness.files import expanded

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

HARNESS_DEVICE = "cuda:0"
"""What the harness's command line passes where no device is named, GPU or not: the CPU will do."""

_LOADED_ELSEWHERE = {"attn_implementation"}
"""Arguments beyond `HFLM`'s own that loading a checkpoint with heads understands."""

_NOT_WITH_HEADS: dict[str, tuple[Any, ...]] = {
    "attn_implementation": ("eager", "sdpa"),  # the heads' masks suit these
    "autogptq": (False,),
    "backend": ("causal", "default"),
    "delta": (),
    "gguf_file": ("",),
    "gptqmodel": (False,),
    "max_cpu_memory": (),
    "max_memory_per_gpu": (),
    "mixed_precision_dtype": (),  # the heads' caches are of one type
    "offload_folder": ("./offload",),
    "peft": (),
    "revision": ("main",),
    "subfolder": ("",),
    "tp_plan": (),
    "use_fast_tokenizer": (True,),
}
"""`HFLM`'s arguments that loading a checkpoint with heads does not use, but for these values."""


_PATHS = frozenset({"delta", "gguf_file", "offload_folder", "peft", "tokenizer"})
"""`HFLM`'s arguments that may be paths, `pretrained` aside."""


class _Rule(NamedTuple):
    """Which values an argument may have; None is left to its default."""

    fits: Callable[[Any], bool]
    expected: str


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_count(value: Any) -> bool:
    return _is_whole(value, 0) or (isinstance(value, float) and value >= 0 and value.is_integer())


def _is_batch_size(value: Any) -> bool:
    text = str(value)
    automatic = re.fullmatch(r"auto(?::(\d+(?:\.\d+)?))?", text)
    if automatic:
        return automatic[1] is None or float(automatic[1]) > 0
    return re.fullmatch(r"[0-9]+", text) is not None and int(text) > 0


def _is_dtype(value: Any) -> bool:
    names = {str(dtype).removeprefix("torch.") for dtype in DTYPES}
    return value in DTYPES or (isinstance(value, str) and value.removeprefix("torch.") in names)


_DTYPE_NAMES = "float32, bfloat16, float16 or float64"
_SWITCH = _Rule(lambda value: value in (True, False), "True or False")
_DTYPE = _Rule(_is_dtype, _DTYPE_NAMES)
_RULES = {
    "draft_heads": _Rule(
        lambda value: value == "auto" or type(value) is int, "a whole number from 1 to n, or auto"
    ),
    "batch_size": _Rule(_is_batch_size, "a whole number from 1, or auto"),
    "max_batch_size": _Rule(lambda value: _is_whole(value, 1), "a whole number from 1"),
    "max_length": _Rule(lambda value: _is_whole(value, 1), "a whole number from 1"),
    "label": _Rule(lambda value: type(value) in (str, int, float), "a name for this checkpoint"),
    "train_tokens": _Rule(_is_count, "a whole number of tokens, such as 200000000000 or 2e11"),
    "train_step": _Rule(_is_count, "a whole number from 0"),
    "train_seed": _Rule(_is_count, "a whole number from 0"),
    "prefix_token_id": _Rule(lambda value: _is_whole(value, 0), "a whole number from 0"),
    "dtype": _Rule(lambda value: value == "auto" or _is_dtype(value), f"auto, {_DTYPE_NAMES}"),
    "softmax_dtype": _DTYPE,
    "mixed_precision_dtype": _DTYPE,
    "backend": _Rule(lambda value: value in ("default", "causal", "seq2seq"), "default or causal"),
    "think_end_token": _Rule(lambda value: type(value) in (str, int), "a token or its id"),
    "chat_template_args": _Rule(lambda value: isinstance(value, dict), "names and values as JSON"),
    "add_bos_token": _SWITCH,
    "enable_thinking": _SWITCH,
    "gptqmodel": _SWITCH,
    "logits_cache": _SWITCH,
    "parallelize": _SWITCH,
    "truncation": _SWITCH,
    "trust_remote_code": _SWITCH,
    "use_fast_tokenizer": _SWITCH,
}


def refuse_unknown(kwargs: Mapping[str, Any], *initialisers: Callable[..., Any]) -> None:
    """Name arguments that none of `initialisers` has, with the one that was probably meant.

    Raises:
        ValueError: there is such an argument.
    """
    known = {name for f in initialisers for name in inspect.signature(f).parameters}
    known = (known | _LOADED_ELSEWHERE) - {"self", "kwargs"}
    for name in kwargs:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            useful = ", ".join(sorted(known - _NOT_WITH_HEADS.keys() | _LOADED_ELSEWHERE))
            hint = f"; did you mean {near[0]}?" if near else f"; known: {useful}."
            raise ValueError(f"unknown model argument {name}={kwargs[name]}{hint}")


def refuse_odd_values(draft_heads: Any, device: Any, kwargs: Mapping[str, Any]) -> None:
    """Refuse values that would fail later, far from the argument they came from.

    Args:
        draft_heads: k, `auto`, or None.
        device: as for `HFLM`; None means the default.
        kwargs: the other arguments; those without a rule here are left alone.

    Raises:
        ValueError: a value is none that its argument can have, or the device is not there.
    """
    for name, value in {"draft_heads": draft_heads, **kwargs}.items():
        rule = _RULES.get(name)
        if rule and value is not None and not rule.fits(value):
            raise ValueError(f"{name}={value}, expected {rule.expected}.")
    if device is not None:
        _refuse_absent_device(device)


def refuse_without_effect(kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments of `--model hf` that do nothing for a checkpoint with heads.

    Raises:
        ValueError: there is one, with another value than its default.
    """
    for name, harmless in _NOT_WITH_HEADS.items():
        value = kwargs.get(name)
        if value is not None and value not in harmless:
            expected = " or ".join(str(v) for v in harmless if v != "") or "none"
            raise ValueError(
                f"{name}={value} does not work with a checkpoint that has heads, expected "
                f"{expected}: leave it out."
            )


def plain_paths(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with `~` expanded in those that may be paths."""
    return {
        name: expanded(value) if name in _PATHS and isinstance(value, str) else value
        for name, value in kwargs.items()
    }


def plain_dtypes(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with `torch.` cut off their types, which `HFLM` does not understand."""
    return {
        name: value.removeprefix("torch.")
        if name.endswith("dtype") and type(value) is str
        else value
        for name, value in kwargs.items()
    }


def _refuse_absent_device(device: Any) -> None:
    """Refuse a device that is not there; `HFLM` would silently take another."""
    kind, _, index = device.partition(":") if isinstance(device, str) else ("", "", "")
    if device == "cpu" or (device == HARNESS_DEVICE and not torch.cuda.device_count()):
        return
    if kind not in ("cuda", "mps", "npu", "xpu", "hpu") or not re.fullmatch(r"\w+(:\d+)?", device):
        raise ValueError(f"device={device}, expected cpu, cuda, cuda:N or mps.")
    module = getattr(torch, kind, None)  # not every build of torch has every kind
    n_devices = module.device_count() if module else 0
    if not n_devices:
        raise ValueError(
            f"device={device}, but torch finds no {kind} device here, expected one that is "
            "there: use cpu, or install torch for that device."
        )
    if int(index or 0) >= n_devices:
        raise ValueError(f"device={device}, expected {kind}:0 to {kind}:{n_devices - 1}.")

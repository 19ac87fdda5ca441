"""Checks of `--model_args` before anything is loaded."""

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mtp_harness.files import expanded
from mtp_harness.harness.numbers import as_number, as_whole, is_number, is_whole

ACCEPTANCE = ("exact", "all")

_SHOWN = 100
"""Characters of a value in a message."""

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
    """Which values an argument may have, and how one is read first; None means its default."""

    fits: Callable[[Any], bool]
    expected: str
    read: Callable[[Any], Any] = lambda value: value


def _whole_from(least: int, what: str = "") -> _Rule:
    return _Rule(
        lambda value: is_whole(value, least), what or f"a whole number from {least}", as_whole
    )


def _read_switch(value: Any) -> Any:
    return bool(value) if type(value) is int and value in (0, 1) else value


def _read_token(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value  # as `HFLM`


def _is_token(value: Any) -> bool:
    return is_whole(value, 0) or (isinstance(value, str) and bool(value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _read_path(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _is_tokenizer(value: Any) -> bool:
    return _is_name(value) or hasattr(value, "get_vocab")


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
_SWITCH = _Rule(lambda value: isinstance(value, bool), "True or False", _read_switch)
_DTYPE = _Rule(_is_dtype, _DTYPE_NAMES)
_RULES = {
    "pretrained": _Rule(
        _is_name,
        "a folder, a name on the hub or a shipped model (a folder called 10 is ./10)",
        _read_path,
    ),
    "loader": _Rule(_is_name, "module:function"),
    "tokenizer": _Rule(
        _is_tokenizer, "a folder or a name on the hub (a folder called 10 is ./10)", _read_path
    ),
    "journal": _Rule(_is_name, "a file (one called 10 is ./10)", _read_path),
    "draft_heads": _Rule(
        lambda value: value == "auto" or type(value) is int,
        "a whole number from 1 to n, or auto",
        as_whole,
    ),
    "draft_threshold": _Rule(
        lambda value: is_number(value) and 0 <= value < 1,
        "a probability from 0 to below 1",
        as_number,
    ),
    "acceptance": _Rule(
        lambda value: value in ACCEPTANCE, "exact (the default) or all (unverified)"
    ),
    "seed": _whole_from(-(2**63), "a whole number"),
    "batch_size": _Rule(_is_batch_size, "a whole number from 1, or auto", as_whole),
    "max_batch_size": _whole_from(1),
    "max_length": _whole_from(1),
    "label": _Rule(lambda value: type(value) in (str, int, float), "a name for this checkpoint"),
    "train_tokens": _whole_from(0, "a whole number of tokens, such as 200000000000 or 2e11"),
    "train_step": _whole_from(0),
    "train_seed": _whole_from(0),
    "prefix_token_id": _whole_from(0),
    "dtype": _Rule(lambda value: value == "auto" or _is_dtype(value), f"auto, {_DTYPE_NAMES}"),
    "softmax_dtype": _DTYPE,
    "mixed_precision_dtype": _DTYPE,
    "backend": _Rule(lambda value: value in ("default", "causal", "seq2seq"), "default or causal"),
    "think_end_token": _Rule(_is_token, "a token or its id", _read_token),
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


def read_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as they are meant: None, which means the default, is left out.

    Numbers that YAML or JSON give as text are numbers where an argument takes one.
    """
    return {
        name: _RULES[name].read(value) if name in _RULES else value
        for name, value in given.items()
        if value is not None
    }


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
        if rule and value is not None and not rule.fits(rule.read(value)):
            raise ValueError(f"{name}={str(value)[:_SHOWN]}, expected {rule.expected}.")
    if device is not None:
        _refuse_absent_device(device)


def refuse_heads(pretrained: str, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments about several heads for an ordinary model.

    Raises:
        ValueError: there is one, with another value than its default.
    """
    harmless = {"draft_heads": 1, "draft_threshold": 0, "acceptance": "exact", "journal": None}
    for name, value in harmless.items():
        if arguments.get(name, value) != value:
            raise ValueError(
                f"{pretrained} is an ordinary causal language model with 1 head; leave "
                "draft_heads, draft_threshold, acceptance and journal out "
                f"({name}={arguments[name]})."
            )


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

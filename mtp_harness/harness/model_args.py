"""Checks of `--model_args` before anything is loaded."""

import difflib
import inspect
import re
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

import torch

from mtp_harness.files import expanded
from mtp_harness.harness.rules import (
    Rule,
    as_number,
    as_whole,
    is_name,
    is_number,
    is_switch,
    is_whole,
    whole,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

HARNESS_DEVICE = "cuda:0"
"""The harness's default on the command line, even without a GPU: then the CPU is used."""

_MISSPELT = 0.85
"""Similarity from which an unknown argument counts as a misspelt known one."""

_LOADED_ELSEWHERE = {"attn_implementation"}
"""Arguments beyond `HFLM`'s own that are used to load a checkpoint with heads."""

_NOT_WITH_HEADS: dict[str, tuple[Any, ...]] = {
    "attn_implementation": ("eager", "sdpa"),  # that support the heads' masks
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
"""`HFLM`'s arguments that have no effect for a checkpoint with heads, and the values allowed."""


OWN = (
    *("pretrained", "draft_heads", "draft_threshold", "acceptance", "seed", "journal", "loader"),
    "drafter",
    *("label", "train_tokens", "train_step", "train_seed"),
)
"""`MTPLM`'s arguments in addition to `HFLM`'s; see `mtp_harness.lm`."""

_TREES = re.compile(r".*tree.*|medusa_choices|eagle_topk|speculative_eagle_topk")
"""Arguments of engines that draft trees: several drafts at one position."""

AFTER_LOADING = frozenset(
    "acceptance draft_heads draft_threshold journal label seed train_seed train_step "
    "train_tokens".split()
)
"""Arguments about how a loaded model decodes, or about its name."""

_PATHS = frozenset({"delta", "gguf_file", "offload_folder", "peft", "tokenizer"})
"""`HFLM`'s arguments that may be paths, except `pretrained`."""


def _read_switch(value: Any) -> Any:
    return bool(value) if type(value) is int and value in (0, 1) else value


def _read_token(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value  # as `HFLM`


def _read_path(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


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
_SWITCHES = (
    *("add_bos_token", "enable_thinking", "gptqmodel", "logits_cache", "parallelize"),
    *("truncation", "trust_remote_code", "use_fast_tokenizer"),
)
_DTYPE = Rule(_is_dtype, _DTYPE_NAMES)
_RULES = {
    "pretrained": Rule(
        is_name,
        "a folder, a name on the hub or a shipped model (a folder called 10 is ./10)",
        _read_path,
    ),
    "loader": Rule(is_name, "module:function"),
    "drafter": Rule(
        is_name, "a file, a folder or a name on the hub (one called 10 is ./10)", _read_path
    ),
    "tokenizer": Rule(
        lambda value: is_name(value) or hasattr(value, "get_vocab"),
        "a folder or a name on the hub (a folder called 10 is ./10)",
        _read_path,
    ),
    "journal": Rule(is_name, "a file (one called 10 is ./10)", _read_path),
    "draft_heads": Rule(
        lambda value: value == "auto" or type(value) is int,
        "a whole number from 1 to n, or auto",
        as_whole,
    ),
    "draft_threshold": Rule(
        lambda value: is_number(value) and 0 <= value < 1,
        "a probability from 0 to below 1",
        as_number,
    ),
    "acceptance": Rule(
        lambda value: value in ("exact", "all"), "exact (the default) or all (unverified)"
    ),
    "seed": whole(),
    "batch_size": Rule(_is_batch_size, "a whole number from 1, or auto", as_whole),
    **dict.fromkeys(("max_batch_size", "max_length"), whole(1)),
    "label": Rule(lambda value: type(value) in (str, int, float), "a name for this checkpoint"),
    "train_tokens": whole(0, "a whole number of tokens, such as 200000000000 or 2e11"),
    **dict.fromkeys(("train_step", "train_seed", "prefix_token_id"), whole(0)),
    "dtype": Rule(lambda value: value == "auto" or _is_dtype(value), f"auto, {_DTYPE_NAMES}"),
    "softmax_dtype": _DTYPE,
    "mixed_precision_dtype": _DTYPE,
    "backend": Rule(lambda value: value in ("default", "causal", "seq2seq"), "default or causal"),
    "think_end_token": Rule(
        lambda value: is_whole(value, 0) or is_name(value), "a token or its id", _read_token
    ),
    "chat_template_args": Rule(lambda value: isinstance(value, dict), "names and values as JSON"),
    **dict.fromkeys(_SWITCHES, Rule(is_switch, "True or False", _read_switch)),
}


def refuse_unknown(kwargs: Mapping[str, Any], *initialisers: Callable[..., Any]) -> None:
    """Raise a ValueError for an argument that no `initialisers` has, and suggest a similar one."""
    known = {name for f in initialisers for name in inspect.signature(f).parameters}
    known = (known | _LOADED_ELSEWHERE | set(OWN)) - {"self", "kwargs"}
    for name in kwargs:
        if name not in known and _TREES.fullmatch(name):
            raise ValueError(
                f"{name}={kwargs[name]} asks for a tree of drafts, expected one draft per position "
                "(draft_heads=k): trees are not supported, leave it out."
            )
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            useful = ", ".join(sorted(known - _NOT_WITH_HEADS.keys() | _LOADED_ELSEWHERE))
            hint = f"; did you mean {near[0]}?" if near else f"; known: {useful}."
            raise ValueError(f"unknown model argument {name}={kwargs[name]}{hint}")


def read_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments without None, which means the default."""
    return {
        name: _RULES[name].read(value) if name in _RULES else value
        for name, value in given.items()
        if value is not None
    }


def refuse_odd_values(draft_heads: Any, device: Any, kwargs: Mapping[str, Any]) -> None:
    """Refuse values that would fail later, far from the argument that they came from.

    None means an argument's default; arguments without a rule here are left alone.

    Raises:
        ValueError: an argument has an invalid value, or the device does not exist.
    """
    for name, value in {"draft_heads": draft_heads, **kwargs}.items():
        if name in _RULES and value is not None:
            _RULES[name].checked(name, value)
    if device is not None:
        _refuse_absent_device(device)


def refuse_misspelt(arguments: Mapping[str, Any], known: Set[str]) -> None:
    """Raise a ValueError for an argument that is likely a misspelling of a known one."""
    for name in arguments:
        near = difflib.get_close_matches(name, known, 1, _MISSPELT)
        if near and name not in known:
            raise ValueError(
                f"unknown model argument {name}={arguments[name]}; did you mean {near[0]}?"
            )


def refuse_heads(
    pretrained: str, arguments: Mapping[str, Any], initialiser: Callable[..., Any]
) -> None:
    """Raise a ValueError for an argument about several heads, given for an ordinary model.

    Arguments that `initialiser` (of `--model hf`) lacks go to transformers; a likely misspelling is
    refused, because transformers would ignore it or fail far from here.
    """
    refuse_misspelt(arguments, {*inspect.signature(initialiser).parameters, *OWN})
    harmless = {"draft_heads": 1, "draft_threshold": 0, "acceptance": "exact", "journal": None}
    for name, value in harmless.items():
        if arguments.get(name, value) != value:
            raise ValueError(
                f"{pretrained} is an ordinary causal language model with 1 head; leave "
                "draft_heads, draft_threshold, acceptance and journal out "
                f"({name}={arguments[name]})."
            )


def refuse_without_effect(kwargs: Mapping[str, Any], local: bool = True) -> None:
    """Raise a ValueError for an argument of `--model hf` that a checkpoint with heads ignores.

    `local`: it is not a hub name, which would have revisions.
    """
    for name, harmless in _NOT_WITH_HEADS.items():
        value = kwargs.get(name)
        if name == "revision" and not local:
            continue
        if value is not None and value not in harmless:
            expected = " or ".join(str(v) for v in harmless if v != "") or "none"
            raise ValueError(
                f"{name}={value} does not work with a checkpoint that has heads, expected "
                f"{expected}: leave it out."
            )


def plain(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as `HFLM` reads them: `~` expanded, types without `torch.`."""
    plain = dict(kwargs)
    for name, value in kwargs.items():
        if name in _PATHS and isinstance(value, str):
            plain[name] = expanded(value)
        elif name.endswith("dtype") and isinstance(value, str):
            plain[name] = value.removeprefix("torch.")
    return plain


def _refuse_absent_device(device: Any) -> None:
    """Refuse a device that does not exist; `HFLM` would silently take another."""
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

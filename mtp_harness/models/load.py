"""From the `pretrained` argument to a model and its tokenizer: which layout, which loader.

    params.json, consolidated*.pth      Meta's release           meta.py
    config.json, model_type mtp_llama   this package's folders   safetensors_folder.py
    any other config.json, or a name    an ordinary causal LM    transformers (n = 1)

A path never reaches the hub, whatever is wrong with it; nor does the name of a shipped model.
"""

import difflib
import os
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mtp_harness.errors import in_words
from mtp_harness.files import expanded
from mtp_harness.models.checkpoints.adapter import refuse_adapter
from mtp_harness.models.checkpoints.checks import listing, local_folder, read_json
from mtp_harness.models.checkpoints.config_file import CONFIG_FILE, read_config
from mtp_harness.models.checkpoints.meta import load_meta, meta_tokenizer
from mtp_harness.models.checkpoints.meta_params import PARAMS_FILE, read_params
from mtp_harness.models.checkpoints.ordinary_folder import read_ordinary_config
from mtp_harness.models.checkpoints.safetensors_folder import load_folder
from mtp_harness.models.checkpoints.tokenizer_folder import (
    check_vocabulary,
    folder_tokenizer,
    holds_tokenizer,
)
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.llama.mtp_llama import MTPLlamaConfig

SHIPPED_MODELS = ("mtp-bytes-n4", "mtp-bytes-n1")
"""The small trained models inside the package; the first is the default."""

DEFAULT_MODEL = SHIPPED_MODELS[0]

_SHIPPED_FOLDER = Path(__file__).parent / "reference"


class Layout(StrEnum):
    """How a checkpoint is stored."""

    META = "meta"
    MTP_LLAMA = "mtp_llama"
    TRANSFORMERS = "transformers"


def resolve(pretrained: str) -> str:
    """Return the folder of a shipped model for its name, anything else as it is (`~` expanded).

    A folder of your own that is called like a shipped model is meant by `./NAME`.
    """
    if pretrained in SHIPPED_MODELS:
        return str(_SHIPPED_FOLDER / pretrained)
    return expanded(pretrained)


@in_words()
def is_local(pretrained: str) -> bool:
    """Return whether `pretrained` means a path: it exists or is written like one.

    `NAME` and `OWNER/NAME`, where no such folder exists, are names on the hub.
    """
    pretrained = resolve(pretrained)
    looks_like_path = pretrained.startswith((".", os.sep)) or pretrained.count("/") > 1
    return looks_like_path or pretrained.endswith("/") or Path(pretrained).exists()


@in_words()
def detect(pretrained: str) -> Layout:
    """Return the layout of a checkpoint.

    Args:
        pretrained: a folder, the name of a shipped model, or a name on the hub. A hub name counts
            as an ordinary causal LM, and is not looked up.

    Raises:
        FileNotFoundError: a path to nothing, to an empty folder, or an incomplete installation.
        ValueError: a path to a file, or a folder that holds no checkpoint.
    """
    if not is_local(pretrained):
        if near := difflib.get_close_matches(pretrained, SHIPPED_MODELS, 1, 0.8):
            raise ValueError(
                f"there is no model {pretrained}, expected a folder, a name on the hub, or a "
                f"shipped model: did you mean {near[0]}?"
            )
        return Layout.TRANSFORMERS
    folder = _folder(pretrained)
    refuse_adapter(folder)
    if (folder / CONFIG_FILE).is_file():
        is_ours = read_json(folder / CONFIG_FILE).get("model_type") == MTPLlamaConfig.model_type
        return Layout.MTP_LLAMA if is_ours else Layout.TRANSFORMERS
    if (folder / PARAMS_FILE).is_file() or any(folder.glob("consolidated*.pth")):
        return Layout.META
    if any(folder.glob("*.gguf")):  # transformers reads these without a config.json
        return Layout.TRANSFORMERS
    inner = sorted(p.parent.name for n in (PARAMS_FILE, CONFIG_FILE) for p in folder.glob(f"*/{n}"))
    cure = f"name one of its folders: {listing(inner, 6)}" if inner else "check the path"
    raise ValueError(
        f"{folder} holds no checkpoint, expected {PARAMS_FILE} with consolidated*.pth (Meta's "
        f"layout) or {CONFIG_FILE} with model.safetensors (transformers): {cure}"
    )


@in_words()
def n_future_tokens(pretrained: str) -> int:
    """Return how many heads a local checkpoint says it has, without reading its weights.

    Args:
        pretrained: as for `detect`; an ordinary causal LM has 1.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its configuration is malformed.
    """
    layout = detect(pretrained)
    if layout is Layout.META:
        return read_params(_folder(pretrained)).n_future_tokens
    if layout is Layout.MTP_LLAMA:
        return read_config(_folder(pretrained)).n_future_tokens
    return 1


@in_words()
def load_model(pretrained: str, dtype: torch.dtype | None = None) -> MultiHeadModel:
    """Load a checkpoint with heads, on the CPU and in evaluation mode.

    Args:
        pretrained: a folder in Meta's or this package's layout, or the name of a shipped model.
        dtype: type of the weights; None means as stored.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: it is an ordinary causal LM, or the loader of its layout refuses it.
    """
    if not is_local(pretrained):
        raise ValueError(
            f"{pretrained} is neither a folder here nor a shipped model, expected a checkpoint "
            f"with several heads: check the path, or name {' or '.join(SHIPPED_MODELS)}"
        )
    layout = detect(pretrained)
    if layout is Layout.META:
        return load_meta(_folder(pretrained), dtype)
    if layout is Layout.MTP_LLAMA:
        return load_folder(_folder(pretrained), dtype)
    raise ValueError(
        f"{pretrained} is an ordinary causal language model, expected a checkpoint with several "
        "heads: load it with transformers' AutoModelForCausalLM"
    )


@in_words()
def load_tokenizer(pretrained: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a checkpoint of any layout.

    Args:
        pretrained: as for `detect`, or a folder with a tokenizer alone; a hub name is looked up on
            the hub.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: it is broken.
    """
    if not is_local(pretrained):
        detect(pretrained)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(pretrained)
        return tokenizer
    folder = _folder(pretrained)
    found = holds_tokenizer(folder)
    try:
        layout = detect(pretrained)
    except ValueError:
        if not found:
            raise
        layout = Layout.MTP_LLAMA  # a tokenizer alone
    if layout is Layout.META:
        return meta_tokenizer(folder)
    if layout is Layout.TRANSFORMERS:
        return folder_tokenizer(folder, read_ordinary_config, raw=False)
    if not found:
        raise FileNotFoundError(
            f"{folder} has no tokenizer, expected tokenizer.json: copy it there or pass tokenizer=…"
        )
    return folder_tokenizer(folder, read_config, raw=True)


def load_with_tokenizer(
    pretrained: str, dtype: torch.dtype | None = None
) -> tuple[MultiHeadModel, PreTrainedTokenizerBase]:
    """Return what `load_model` and `load_tokenizer` do, once it is sure that they fit.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: they cannot be loaded, or the tokenizer has ids for which the model has no row.
    """
    model, tokenizer = load_model(pretrained, dtype), load_tokenizer(pretrained)
    config: Any = model.config  # the layouts' own models are transformers' too
    check_vocabulary(tokenizer, config.vocab_size, pretrained)
    return model, tokenizer


def _folder(pretrained: str) -> Path:
    """Return the folder that a local `pretrained` means."""
    folder = Path(resolve(pretrained))
    if pretrained in SHIPPED_MODELS and not folder.is_dir():
        raise FileNotFoundError(
            f"the shipped model {pretrained} is not in this installation, expected {folder}: "
            "reinstall mtp-harness"
        )
    return local_folder(folder)

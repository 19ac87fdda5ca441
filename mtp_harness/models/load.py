"""From the `pretrained` argument to a model and its tokenizer: chooses layout and loader.

    params.json, consolidated*.pth      Meta's release           checkpoints/meta.py
    config.json, model_type mtp_llama   this package's folders   checkpoints/safetensors_folder.py
    config.json of a family, modules    DeepSeek-V3, GLM-4.5, …  checkpoints/sequential_folder.py
    any other config.json               an ordinary causal LM    checkpoints/ordinary_folder.py
    anything else                       with the user's function checkpoints/user_loader.py

With a drafter (`trained_apart`), the checkpoint is the trunk, whatever heads it has.
A name on the hub has the layout of its config.json. A path is never looked up on the hub, nor is
the name of a shipped model. A missing file is a FileNotFoundError, a wrong one a ValueError, in one
sentence each.
"""

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mtp_harness.errors import in_words
from mtp_harness.files import expanded
from mtp_harness.models.checkpoints.adapter import refuse_adapter
from mtp_harness.models.checkpoints.checks import listing, local_folder
from mtp_harness.models.checkpoints.hub import fetched, looked_up
from mtp_harness.models.checkpoints.layout import Layout
from mtp_harness.models.checkpoints.meta import META
from mtp_harness.models.checkpoints.meta_params import PARAMS_FILE
from mtp_harness.models.checkpoints.ordinary_folder import ORDINARY
from mtp_harness.models.checkpoints.safetensors_files import CONFIG_FILE
from mtp_harness.models.checkpoints.safetensors_folder import MTP_LLAMA, tokenizer_of_ours
from mtp_harness.models.checkpoints.sequential_folder import SEQUENTIAL
from mtp_harness.models.checkpoints.tokenizer_folder import check_vocabulary, holds_tokenizer
from mtp_harness.models.checkpoints.user_loader import load_with
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.trained_apart.kinds import layout_with

LAYOUTS = (MTP_LLAMA, META, SEQUENTIAL, ORDINARY)
"""The first that recognises a folder is used; a new one is a file in `checkpoints/` and a line."""

SHIPPED_MODELS = ("mtp-bytes-n4", "mtp-bytes-n1", "mtp-bytes-qwen")
"""The small trained models inside the package; the first is the default."""

DEFAULT_MODEL = SHIPPED_MODELS[0]

SHIPPED_DRAFTERS = ("mtp-bytes-n1-eagle3", "mtp-bytes-n1-medusa")
"""Drafters inside the package, each trained on the model that its name begins with."""

_SHIPPED_FOLDER = Path(__file__).parent / "reference"


class Opened(NamedTuple):
    """A model, on its device and in evaluation mode, and the tokenizer that fits it."""

    model: MultiHeadModel
    tokenizer: PreTrainedTokenizerBase


def open_model(
    pretrained: str | None = None,
    loader: str | None = None,
    *,
    tokenizer: str | PreTrainedTokenizerBase | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    heads: int | None = None,
    drafter: str | None = None,
) -> Opened:
    """Load a model with all its heads, and its tokenizer, after checking that they fit.

    Args:
        pretrained: a folder with several heads, or the name of a shipped model;
            None means the first of these, or is passed to the loader.
        loader: `module:function` of the user's, called with `pretrained`; returns a model.
        tokenizer: its name or folder, or the tokenizer itself; None means the checkpoint's own.
        dtype: type of the weights; None means as stored, or as the loader has it.
        device: None means the CPU, or where the loader put it.
        heads: n, if one module drafts repeatedly; otherwise n is the checkpoint's, which must have
            as many. A loader knows its own.
        drafter: as for `detect`; never with a loader.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: they cannot be loaded or are too large for the device, there are fewer heads
            than asked for, a loader came without a tokenizer, or the tokenizer has ids beyond the
            model's vocabulary.
    """
    name = pretrained or loader or DEFAULT_MODEL
    if not loader:
        name = located(name, drafter=drafter)
    elif drafter:
        raise ValueError(
            f"drafter={drafter} with loader={loader}, expected one of them: a loader returns a "
            "model with all its heads; leave the other out."
        )
    if loader:
        model = load_with(loader, pretrained and expanded(pretrained))
        if tokenizer is None:
            raise ValueError(
                f"loader={loader} gives no tokenizer, expected tokenizer=NAME or FOLDER in the "
                "model arguments: add it."
            )
        model = model.to(dtype=dtype).eval()
    else:
        model = load_model(name, dtype, heads, drafter)
    if tokenizer is None or isinstance(tokenizer, str):
        tokenizer = (
            load_tokenizer(tokenizer) if tokenizer else load_tokenizer(name, drafter=drafter)
        )
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", None)
    if isinstance(vocabulary, int):
        check_vocabulary(tokenizer, vocabulary, name)
    with within_memory(name, device):
        return Opened(model.to(device=device), tokenizer)


@contextmanager
def within_memory(name: str, device: torch.device | str | None) -> Iterator[None]:
    """Say in a sentence, as a ValueError, that a device's memory does not hold a checkpoint."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"the free memory of {device} does not hold {name}: give a smaller dtype or another "
            "device, or end what else is there."
        ) from error


def resolve(pretrained: str) -> str:
    """Return the folder of what is shipped for its name, anything else as it is (`~` expanded).

    A folder of the user's with a shipped model's name is written `./NAME`.
    """
    if pretrained in SHIPPED_MODELS + SHIPPED_DRAFTERS:
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
def detect(pretrained: str, revision: str | None = None, drafter: str | None = None) -> Layout:
    """Return the layout of a checkpoint.

    Args:
        pretrained: a folder, the name of a shipped model, or a name on the hub, whose configuration
            is in the hub's cache or fetched into it. A name without one counts as an ordinary
            causal LM, which transformers then loads or refuses.
        revision: of a name on the hub.
        drafter: a file, a folder or a name on the hub with heads, used instead of the checkpoint's
            own.

    Raises:
        FileNotFoundError: a path that does not exist, an empty folder, or an incomplete
            installation.
        ValueError: a path to a file, or a folder that holds no checkpoint.
    """
    if not is_local(pretrained):
        _refuse_near(pretrained)
        if drafter:
            return layout_with(drafter_place(drafter))
        seen = looked_up(pretrained, revision)
        with_heads = (MTP_LLAMA, SEQUENTIAL) if seen else ()
        return next((one for one in with_heads if seen and one.recognises(seen)), ORDINARY)
    folder = _folder(pretrained)
    refuse_adapter(folder)
    if drafter:
        return layout_with(drafter_place(drafter))
    for layout in LAYOUTS:
        if layout.recognises(folder):
            return layout
    inner = sorted(p.parent.name for n in (PARAMS_FILE, CONFIG_FILE) for p in folder.glob(f"*/{n}"))
    cure = f"name one of its folders: {listing(inner, 6)}" if inner else "check the path"
    raise ValueError(
        f"{folder} holds no checkpoint, expected {PARAMS_FILE} with consolidated*.pth (Meta's "
        f"layout) or {CONFIG_FILE} with model.safetensors (transformers): {cure}"
    )


def drafter_place(drafter: str) -> Path:
    """Return the file or folder of a drafter; a name on the hub is fetched.

    Raises:
        FileNotFoundError: as `located`.
        ValueError: as `located`.
    """
    if is_local(drafter):
        return Path(resolve(drafter))
    _refuse_near(drafter, SHIPPED_DRAFTERS, "drafter")
    return fetched(drafter)


@in_words()
def located(pretrained: str, revision: str | None = None, drafter: str | None = None) -> str:
    """Return the folder of a checkpoint with heads on the hub, fetched; anything else as it is.

    With a drafter (see `detect`) a trunk without heads is fetched, too.

    Raises:
        FileNotFoundError: its weights are neither in the hub's cache nor available on the hub.
        ValueError: as `detect`, or the hub does not give them.
    """
    if is_local(pretrained) or detect(pretrained, revision, drafter).ordinary:
        return pretrained
    return str(fetched(pretrained, revision))


@in_words()
def n_future_tokens(pretrained: str, heads: int | None = None, drafter: str | None = None) -> int:
    """Return n of a checkpoint, without reading its weights; see `detect`.

    One module that drafts repeatedly has four heads, or more if more are asked for, up to 8.

    Args:
        pretrained: as for `detect`.
        heads: how many will be used; None: no particular number.
        drafter: as for `detect`.

    Raises:
        FileNotFoundError: as `detect`.
        ValueError: as `detect`, or the checkpoint has fewer heads.
    """
    layout, folder = detect(pretrained, drafter=drafter), Path(resolve(pretrained))
    n = most = layout.n_future_tokens(folder)
    if heads is None:
        return n
    if layout.most_heads:
        most = layout.most_heads(folder)
    if not 1 <= heads <= most:
        raise ValueError(
            f"draft_heads={heads}, but this checkpoint has {'at most ' * (most > n)}{most} "
            f"{'head' if most == 1 else 'heads'}; choose 1{f' to {most}' if most > 1 else ''}."
        )
    return max(n, heads)


@in_words()
def load_model(
    pretrained: str,
    dtype: torch.dtype | None = None,
    heads: int | None = None,
    drafter: str | None = None,
) -> MultiHeadModel:
    """Load a checkpoint with heads, on the CPU and in evaluation mode; see `open_model`."""
    pretrained = located(pretrained, drafter=drafter)
    if not is_local(pretrained):
        raise ValueError(
            f"{pretrained} is neither a folder here nor a shipped model, and the hub has or gives "
            "no configuration of this name with several heads: check the path or the name, or take "
            f"{' or '.join(SHIPPED_MODELS)}"
        )
    layout = detect(pretrained, drafter=drafter)
    if layout.load is None:
        raise ValueError(
            f"{pretrained} is an ordinary causal language model, expected a checkpoint with "
            "several heads: load it with transformers' AutoModelForCausalLM"
        )
    place = Path(resolve(pretrained))
    n = None if heads is None else n_future_tokens(pretrained, heads, drafter)
    if layout.most_heads is None:
        return layout.load(place, dtype)
    chosen = layout.most_heads(place) > layout.n_future_tokens(place)
    return layout.load(place, dtype, heads if chosen else n)


@in_words()
def load_tokenizer(pretrained: str, drafter: str | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a checkpoint, or one alone in a folder; a hub name is looked up."""
    if not is_local(pretrained):
        _refuse_near(pretrained)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(pretrained)
        return tokenizer
    folder = _folder(pretrained)
    try:
        layout = detect(pretrained, drafter=drafter)
    except ValueError:
        if not holds_tokenizer(folder):
            raise
        return tokenizer_of_ours(folder)
    return layout.tokenizer(folder)


def _refuse_near(name: str, shipped: tuple[str, ...] = SHIPPED_MODELS, what: str = "model") -> None:
    """Refuse a name that is a likely misspelling of a shipped one."""
    if near := difflib.get_close_matches(name, shipped, 1, 0.8):
        raise ValueError(
            f"there is no {what} {name}, expected a folder, a name on the hub, or a "
            f"shipped {what}: did you mean {near[0]}?"
        )


def _folder(pretrained: str) -> Path:
    """Return the folder of a local `pretrained`, checked not to be empty."""
    if pretrained in SHIPPED_DRAFTERS:
        trunk = pretrained.rsplit("-", 1)[0]
        raise ValueError(
            f"{pretrained} is a drafter, expected a model with it: "
            f"pretrained={trunk},drafter={pretrained}"
        )
    folder = Path(resolve(pretrained))
    if pretrained in SHIPPED_MODELS and not folder.is_dir():
        raise FileNotFoundError(
            f"the shipped model {pretrained} is not in this installation, expected {folder}: "
            "reinstall mtp-harness"
        )
    return local_folder(folder)

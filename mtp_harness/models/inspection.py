"""What `mtp-harness inspect` finds in a checkpoint, as a `Summary`."""

from math import prod
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mtp_harness.models.checkpoints.checks import is_finite, listing
from mtp_harness.models.checkpoints.layout import Summary
from mtp_harness.models.checkpoints.tokenizer_folder import check_vocabulary
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.load import detect, is_local, load_tokenizer, resolve

LOADER = "loader"
"""The layout's name for a user's loader."""


def summarise(pretrained: str, tokenizer: str | None = None, drafter: str | None = None) -> Summary:
    """Return a description of a local checkpoint and its problems, without building a model.

    `tokenizer` is the name or folder of another tokenizer than the checkpoint's own; `drafter` is
    as for `load.detect`.
    """
    if not is_local(pretrained):
        raise ValueError(
            f"{pretrained} is not a folder here, and no name on the hub whose configuration has "
            "several heads and can be fetched: download the checkpoint first"
        )
    folder, layout = Path(resolve(pretrained)), detect(pretrained, drafter=drafter)
    summary = Summary(path=str(folder), layout=layout.name, drafter=drafter)
    location = layout.describe(summary, folder)
    found = summary.attempt(
        lambda: load_tokenizer(tokenizer) if tokenizer else load_tokenizer(pretrained, drafter)
    )
    if found is not None:
        _compare_tokenizer(summary, found, str(tokenizer or location or folder), layout.ordinary)
    return summary


def summarise_loaded(
    name: str, model: MultiHeadModel, tokenizer: PreTrainedTokenizerBase, location: str
) -> Summary:
    """Return a description of the model of a user's loader."""
    summary = Summary(name, LOADER, type(model).__name__, model.n_future_tokens)
    summary.context = model.max_positions
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", None)
    summary.vocabulary = vocabulary if isinstance(vocabulary, int) else None
    weights = {key: weight.detach() for key, weight in model.named_parameters()}
    summary.parameters["total"] = sum(prod(weight.shape) for weight in weights.values())
    summary.not_finite = [key for key, weight in weights.items() if not is_finite(weight)]
    if summary.not_finite:
        summary.problems.append(f"NaN or infinity in {listing(summary.not_finite)}")
    _compare_tokenizer(summary, tokenizer, location, ordinary=False)
    return summary


def _compare_tokenizer(
    summary: Summary, tokenizer: PreTrainedTokenizerBase, location: str, ordinary: bool
) -> None:
    """Fill in the tokenizer, and whether it has ids beyond the vocabulary."""
    summary.tokenizer = f"{location} ({len(tokenizer)} tokens)"
    vocabulary = summary.vocabulary
    if not isinstance(vocabulary, int):
        return
    summary.attempt(
        lambda: check_vocabulary(tokenizer, vocabulary, "the model", padding=not ordinary)
    )
    padding = tokenizer.pad_token_id
    if ordinary and padding is not None and padding >= vocabulary:
        summary.notes.append(
            f"the padding token has the id {padding}, beyond the model's vocabulary: the end of "
            "text is used instead"
        )

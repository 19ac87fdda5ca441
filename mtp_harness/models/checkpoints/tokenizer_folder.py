"""The tokenizer in a transformers folder, or in a folder without a model, and its checks."""

from collections.abc import Callable
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mtp_harness.models.checkpoints.checks import one_line, read_json
from mtp_harness.models.checkpoints.meta_tokenizer import TOKENIZER_FILE, sentencepiece_tokenizer
from mtp_harness.models.checkpoints.safetensors_files import CONFIG_FILE


def holds_tokenizer(folder: Path) -> bool:
    """Return whether there is a tokenizer of any kind in a folder."""
    return any(folder.glob("tokenizer*"))


def tokenizer_file(folder: Path) -> Path | None:
    """Return the name of the folder's first tokenizer file, for messages."""
    return min(folder.glob("tokenizer.*"), default=None)


def folder_tokenizer(
    folder: Path, read_config: Callable[[Path], object], raw: bool
) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a folder, as `save_pretrained` writes it with or without a model.

    `read_config` raises for a broken `config.json`, which transformers reads as well. `raw`: a lone
    `tokenizer.model` is read as Meta's, not by transformers.
    """
    if raw and {path.name for path in folder.glob("tokenizer*")} == {TOKENIZER_FILE}:
        return sentencepiece_tokenizer(folder / TOKENIZER_FILE)
    tokenizer: PreTrainedTokenizerBase
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a broken tokenizer fails in many ways inside transformers
        if isinstance(error, OSError) and error.errno is not None:
            raise
        path = folder / "tokenizer.json"  # malformed or empty: transformers does not say so
        if path.is_file() and not isinstance(read_json(path).get("model"), dict):
            raise ValueError(
                f"{path} has no entry 'model', expected a tokenizer as save_pretrained writes it: "
                "fetch it again or pass tokenizer=…"
            ) from error
        if (folder / CONFIG_FILE).is_file():
            read_config(folder)
        raise ValueError(
            f"the tokenizer in {folder} cannot be loaded ({one_line(error)}): fetch it again or "
            "pass tokenizer=…"
        ) from error
    # Without files, transformers makes an empty tokenizer of the model's type.
    if not set(tokenizer.get_vocab().values()) - tokenizer.added_tokens_decoder.keys():
        raise ValueError(
            f"the tokenizer in {folder} has no vocabulary, expected tokenizer.json or what else "
            "the model's has: fetch it or pass tokenizer=…"
        )
    return tokenizer


def check_vocabulary(
    tokenizer: PreTrainedTokenizerBase, vocabulary: int, name: str, padding: bool = True
) -> None:
    """Refuse a tokenizer with ids (added ones included) of V or more, which the model lacks.

    `name` is the model's. Without `padding`, the padding token does not count: many ordinary models
    have no row for it.
    """
    ids = set(tokenizer.get_vocab().values()) - (set() if padding else {tokenizer.pad_token_id})
    largest = max(ids, default=0)
    if largest >= vocabulary:
        raise ValueError(
            f"the tokenizer has ids up to {largest} but {name} has a vocabulary of {vocabulary}, "
            f"expected ids below {vocabulary}: use the tokenizer that the model was trained with"
        )

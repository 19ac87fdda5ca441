"""Text to token ids and back, as prompts, probes and stop strings need it."""

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedTokenizerBase


def plain_encode(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], list[int]]:
    """Return the function from text to token ids, special tokens left out."""

    def encode(text: str) -> list[int]:
        # Not verbose: documents longer than the context are cut later.
        ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    return encode


def shown(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[int]], str]:
    """Return the function from token ids to text, special tokens left out."""
    return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True))


def end_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that end an answer: all that a checkpoint's files name.

    As for transformers' `generate`, `generation_config.json` counts, which has the ends of chat
    turns where `config.json` has the end of a text alone.
    """
    model = getattr(model, "main", model)
    found = {tokenizer.eos_token_id}
    for name in ("config", "generation_config"):
        declared = getattr(getattr(model, name, None), "eos_token_id", None)
        found |= set(declared if isinstance(declared, list) else [declared])
    return sorted(found - {None})

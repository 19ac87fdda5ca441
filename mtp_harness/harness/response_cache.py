"""Whose answers `--use_cache FILE` holds: the harness's own keys do not say which model gave them.

The first run writes what its answers depend on into the file, beside them; a run that differs is
refused. So is a file with answers of which nothing is known.
"""

import hashlib
import json
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

OWNER = "mtp_harness: whose answers these are"
"""A key of the file; the harness's own are hashes."""

_HOW = frozenset(
    "batch_size device dtype label logits_cache max_batch_size max_cpu_memory max_length "
    "max_memory_per_gpu offload_folder parallelize".split()
)
"""Model arguments that answers do not depend on, or that an identity holds as they turned out."""


def identity(
    model: Mapping[str, Any], arguments: Mapping[str, Any], decoding: Mapping[str, Any], lm: Any
) -> dict[str, Any]:
    """Return everything that a model's answers depend on, as plain JSON.

    Args:
        model: `MTPLM.identity()`.
        arguments: the model arguments of `HFLM`.
        decoding: those of decoding.
        lm: the model, with its tokenizer and configuration.
    """
    folder = Path(lm.checkpoint_folder)
    files = sorted(path for path in folder.glob("*") if path.is_file()) if folder.is_dir() else []
    vocabulary = json.dumps(sorted(lm.tokenizer.get_vocab().items()))
    found = {
        **model,
        **decoding,
        **{name: str(value) for name, value in arguments.items() if name not in _HOW},
        # Over a gigabyte the weights have no hash: then the files stand for them.
        "files": None
        if model["weights_sha256"]
        else [
            [str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files
        ],
        "commit": getattr(lm.config, "_commit_hash", None),
        "tokenizer_sha256": hashlib.sha256(vocabulary.encode()).hexdigest(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def claim(cache: MutableMapping[str, Any], file: str, mine: dict[str, Any]) -> None:
    """Write a model into an empty cache, or compare it with the one that is there.

    Args:
        cache: what the harness opened.
        file: its name, for the message.
        mine: see `identity`.

    Raises:
        ValueError: the answers are another model's, or of an unknown one.
    """
    if OWNER not in cache and not cache:
        cache[OWNER] = mine
        return
    there: dict[str, Any] = cache.get(OWNER) or {}
    if not there:
        raise ValueError(
            f"--use_cache: {file} holds answers and does not say of which model, expected this "
            "model's: name another file, or remove it."
        )
    names = sorted({*there, *mine})
    if differing := [name for name in names if there.get(name) != mine.get(name)]:
        shown = ", ".join(
            f"{name} ({str(there.get(name))[:60]} there, {str(mine.get(name))[:60]} now)"
            for name in differing[:3]
        )
        raise ValueError(
            f"--use_cache: {file} holds the answers of another model or of other settings, "
            f"differing in {shown}: name another file, or remove it."
        )

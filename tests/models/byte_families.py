"""Tiny random checkpoints of sequential families over bytes, with a tokenizer: for whole runs."""

from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file

from mtp_harness.models.byte_tokenizer import byte_tokenizer

from . import family_checkpoints

CONTEXT = 512
UNEMBEDDINGS = ("lm_head.weight", "shared_head.head.weight")


def write_bytes(folder, family, n=1, letters=None, dtype=torch.float32):
    """Write a checkpoint of n modules over 256 bytes; return its folder as text.

    Args:
        folder: where to.
        family: of `family_checkpoints.CONFIGS`.
        n: modules.
        letters: bytes that it predicts alone, so that every head is right now and then.
        dtype: of the weights.
    """
    with patch.dict(family_checkpoints.BASE, vocab_size=256):
        family_checkpoints.write(folder, family, n, dtype=dtype)
    if letters is not None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        others = [i for i in range(256) if i not in letters]
        for key, tensor in tensors.items():
            if key.endswith(UNEMBEDDINGS):
                tensor[others] *= 0.02
        save_file(tensors, path, metadata={"format": "pt"})
    byte_tokenizer(CONTEXT).save_pretrained(folder)
    return str(folder)

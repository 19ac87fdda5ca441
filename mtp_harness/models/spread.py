"""One model on several devices: its blocks, in order, in shares of about equal size.

    first device     embedding, norm, unembeddings, and the first blocks
    other devices    the following blocks: the rest of the trunk, then the heads

A block's input is moved to its device, and the cache holds its keys and values there (`blocks`,
`decode.cache`). The outputs of trunk and heads are on the first device again, so nothing else in
the package needs to know.
"""

import os
from collections.abc import Sequence

import torch
from torch import nn

from mtp_harness.models.checkpoints.layout import Layout
from mtp_harness.models.llama.mtp_llama import MTPLlamaForCausalLM


def spread(model: MTPLlamaForCausalLM, devices: Sequence[torch.device]) -> MTPLlamaForCausalLM:
    """Move a model, converted to its final type, onto several devices, its own first."""
    blocks, inner = [*model.model.layers, *model.extra_heads], model.model
    outside = [inner.embed_tokens, inner.norm, inner.rotary_emb]
    outside += [model.lm_head, model.extra_lm_heads]
    indices = shares([*map(_n_bytes, blocks)], sum(map(_n_bytes, outside)), len(devices))
    for block, index in zip(blocks, indices, strict=True):
        block.to(devices[index])
    for module in outside:
        module.to(devices[0])
    return model


def shares(sizes: Sequence[int], outside: int, n: int) -> list[int]:
    """Return which of n devices each of several consecutive blocks goes to.

    Everything (parts outside the blocks first) is laid end to end and cut into n equal pieces; a
    block goes to the device of its middle.
    """
    total, before = outside + sum(sizes), outside
    indices = []
    for size in sizes:
        indices.append(min(n - 1, int((before + size / 2) * n / total)))
        before += size
    return indices


def gpus() -> list[torch.device]:
    """Return the GPUs to spread a model over.

    Raises:
        ValueError: there are fewer than two.
    """
    n = torch.cuda.device_count()
    if n < 2:
        raise ValueError(
            f"parallelize=True spreads a model over several GPUs, and torch finds {n} here: leave "
            "it out, or show more (CUDA_VISIBLE_DEVICES)."
        )
    return [torch.device("cuda", index) for index in range(n)]


def require_spreadable(layout: Layout | None, model: object | None, loader: str | None) -> None:
    """Refuse what cannot be spread, before weights are read; a loader may have made a model.

    Raises:
        ValueError: it is not an `MTPLlamaForCausalLM`, GPUs are missing, or each of several
            processes has the whole model already.
    """
    if layout and not layout.spreads:
        raise ValueError(
            f"parallelize=True does not work with a {layout.title}, expected one whose blocks this "
            "package spreads (Meta's release or a folder made from it): leave it out and use one "
            "GPU, or use --model hf for the trunk alone."
        )
    if model is not None and not isinstance(model, MTPLlamaForCausalLM):
        raise ValueError(
            f"parallelize=True only supports the blocks of MTPLlamaForCausalLM, and {loader} gives "
            f"a {type(model).__name__}: place its parts in the loader, and leave this out."
        )
    if (n := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise ValueError(
            f"parallelize=True in {n} processes, each with its own GPU: start one "
            "process, or leave it out."
        )
    gpus()


def _n_bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())

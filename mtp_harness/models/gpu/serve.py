"""Lets layers and norms of transformers decode by the kernels, where a GPU has their states.

Their `forward` is replaced; hooks and callers stay as they are. Everything else, calls without a
cache, training and other devices included, gets the `forward` of transformers.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mtp_harness.models.decoding_weights import Rotation, signed
from mtp_harness.models.interface import KeyValueCache


def serve_layers(layers: Iterable[Any]) -> None:
    """Let decoder layers run by `layer.run` while decoding, prompts included.

    They take an empty mask for none.
    """
    for layer in layers:
        layer.forward = partial(_layer, layer, layer.forward)


def serve_norms(norms: Iterable[Any]) -> None:
    """Let norms run as one kernel."""
    for norm in norms:
        norm.forward = partial(_norm, norm, norm.forward)


def serve_rotary(rotary: Any) -> None:
    """Let cos and sin of positions come from one kernel."""
    rotary.forward = partial(_rotary, rotary, rotary.forward)


def normed(norm: Any, states: Tensor) -> Tensor:
    """Return the norm of states [..., D], as one kernel where that can be and nobody listens."""
    heard = norm._forward_hooks or norm._forward_pre_hooks or hasattr(norm, "_hf_hook")
    normed: Tensor = norm(states) if heard else _norm(norm, norm, states)
    return normed


def _on_gpu(states: Tensor) -> bool:
    return states.is_cuda and not torch.compiler.is_compiling()


def _layer(
    layer: Any,
    own: Callable[..., Tensor],
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    past_key_values: KeyValueCache | None = None,
    **others: Any,
) -> Tensor:
    cache, turned = past_key_values, position_embeddings
    mask = others.get("attention_mask")
    if mask is not None and not mask.numel():  # see `TrunkModel._served_mask`
        others["attention_mask"] = None
    if cache is not None and turned is not None and _on_gpu(hidden_states):
        from mtp_harness.models.gpu import layer as gpu  # here, because Triton may be missing

        if gpu.serves(layer, hidden_states, cache):
            _, rotated_by = _rotation(cache, turned)
            others["position_embeddings"] = turned
            return gpu.run(layer, hidden_states, rotated_by, cache, **others)
    return own(hidden_states, position_embeddings=turned, past_key_values=cache, **others)


def _rotation(cache: KeyValueCache, turned: tuple[Tensor, Tensor]) -> tuple[Tensor, Rotation]:
    """Return cos, and the rotation of a call's tokens, made once for all layers."""
    cos, sin = turned
    # Named by its cos, which is kept, so that no other one can have its id.
    found: tuple[Tensor, Rotation] = cache.remember(
        ("rotation", id(cos)), lambda: (cos, signed(cos, sin))
    )
    return found


def _norm(norm: Any, own: Callable[[Tensor], Tensor], hidden_states: Tensor) -> Tensor:
    if _on_gpu(hidden_states) and not torch.is_grad_enabled():
        from mtp_harness.models.gpu import layer as gpu

        if gpu.knows_norm(norm, hidden_states):
            return gpu.norm(norm, hidden_states)
    return own(hidden_states)


def _rotary(
    rotary: Any,
    own: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    position_ids: Tensor,
) -> tuple[Tensor, Tensor]:
    if _on_gpu(x) and position_ids.dim() == 2:
        from mtp_harness.models.gpu import layer as gpu

        if gpu.knows_rotary(rotary, x):
            return gpu.rotated(rotary, x, position_ids, negated=False)
    return own(x, position_ids)

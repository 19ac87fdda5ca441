"""Joined weights and the rotation, for the ways of running a layer in decoding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Rotation = tuple[Tensor, Tensor]
"""cos and sin, each [B, T, 1, d]; the first half of sin is negated (`signed`)."""


class Joined:
    """Several layers' weights in one piece; the layers' own parameters become views of it.

    Nothing is stored twice, and a parameter changed in place is changed here, too. Moving the model
    to another device or type separates them again: `joined` notices and joins them anew.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        """Join weights and biases; either all layers have a bias or none."""
        self.weight = _in_one_piece([layer.weight for layer in layers])  # [sum of O, D]
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = _in_one_piece(biases) if biases else None

    def serve(self, first: nn.Linear) -> bool:
        """Return whether the first layer's weight is still a view of these."""
        return self.weight.data_ptr() == first.weight.data_ptr()


def _in_one_piece(parameters: Sequence[Tensor]) -> Tensor:
    """Return parameters one behind the other; they become views of it."""
    whole = torch.cat([each.detach() for each in parameters])
    parts = torch.split(whole, [len(each) for each in parameters])
    for each, part in zip(parameters, parts, strict=True):
        each.data = part
    return whole


def are_linear(owner: nn.Module, *names: str) -> bool:
    """Return whether these parts are plain linear layers: not quantised, wrapped, or missing."""
    return all(type(getattr(owner, name, None)) is nn.Linear for name in names)


def joined(owner: nn.Module, *names: str) -> Joined:
    """Return the joined weights of a module's linear layers, made at the first call.

    A module has one set of names.
    """
    found: Joined | None = owner.__dict__.get("_joined_weights")
    first: Any = getattr(owner, names[0])
    if found is None or not found.serve(first):
        with torch.inference_mode(False):  # the weights may be trained later
            found = Joined([getattr(owner, name) for name in names])
        owner.__dict__["_joined_weights"] = found
    return found


def rotation(rotary: nn.Module, states: Tensor, positions: Tensor) -> Rotation:
    """Return cos and sin of int64 positions [B, T], made for `cached_block` and `gpu.layer`."""
    return signed(*rotary(states, position_ids=positions))


def signed(cos: Tensor, sin: Tensor) -> Rotation:
    """Return transformers' cos and sin [B, T, d], made for `cached_block` and `gpu.layer`."""
    half = sin.shape[-1] // 2
    sin = torch.cat((-sin[..., :half], sin[..., half:]), -1)
    return cos[:, :, None], sin[:, :, None]

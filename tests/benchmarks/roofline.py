"""The least time that a decoding step can take on a GPU, kernel by kernel.

    sum over kernels of max(bytes / read bandwidth, operations / rate of a large product)

Kernels are the matrix products with their inputs and outputs, attention over the keys and values
of a row's own length, and the states of linear attention, read and written once. Everything else is
left out. The step is counted on the meta device, where tensors have shapes and no content, so that
a 7B model needs no memory. transformers' own layers are counted, not this package's kernels, which
the result is meant to judge. Both rates are measured in the same run as the step's time.
"""

from typing import NamedTuple

import torch
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.sampling import Sampling
from mtp_harness.decode.slots import Slots


def nbytes(tensor):
    """Return what a tensor has in bytes, also on the meta device."""
    return tensor.numel() * tensor.element_size()


class Work(NamedTuple):
    """What one kernel must move and compute."""

    kind: str  # product, attention or state
    bytes: int
    operations: int


class Counter(TorchFunctionMode):
    """Notes the products and attentions that are called."""

    def __init__(self, n_kv_heads, length):
        """Take the model's key/value heads, and the tokens that a row has."""
        super().__init__()
        self.n_kv_heads, self.length, self.found = n_kv_heads, length, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Note a call, then make it."""
        out = function(*args, **(kwargs or {}))
        if function is linear:
            states, weight = args[:2]
            moved = sum(map(nbytes, (states, weight, out)))
            self.found.append(Work("product", moved, 2 * states.numel() * len(weight)))
        elif function is scaled_dot_product_attention:
            query, _, value = args[:3]  # [B, H, T, d], or heads of a group as tokens; [.., d_v]
            width, n_rows = query.shape[-1] + value.shape[-1], len(query)
            read = n_rows * self.length * self.n_kv_heads * width * query.element_size()
            pairs = query.shape[:-1].numel() * self.length
            self.found.append(Work("attention", read, 2 * pairs * width))
        return out


@torch.inference_mode()
def work_of_step(model, k, batch, length):
    """Return the work of a step of k tokens in rows of so many tokens.

    `model` is on the meta device and in eval mode, with as many key/value heads in all layers.
    """
    slots = Slots(model, k, Rule(), Sampling(), batch, length + k)
    (n_kv_heads,) = {one.n_kv_heads for one in model.layer_shapes(k) if not one.states}
    with Counter(n_kv_heads, length) as counter:
        slots.step(k, slots.cache.trash)
    held = [sum(map(nbytes, of_layer)) for of_layer in slots.cache.states.values()]
    return counter.found + [Work("state", 2 * one, 0) for one in held]


def floor_ms(work, bandwidth, rate):
    """Return milliseconds, from bytes and operations per second."""
    return sum(max(one.bytes / bandwidth, one.operations / rate) for one in work) * 1e3

"""What stays in full precision in a model of half precision, also when it is converted later.

Rotary frequencies: bfloat16 rounds them by up to 0.4 %, which rotates a query thousands of tokens
later by radians. And what a model of transformers names: the routing bias of experts (DeepSeek,
GLM), which decides between scores that are close. `from_pretrained` keeps both, `to` neither.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

_FREQUENCIES = ("inv_freq", "original_inv_freq")


@contextmanager
def keeping_precision(model: nn.Module) -> Iterator[None]:
    """Give back to these parts what a conversion of the model within takes off their precision."""
    before = {name: tensor.detach() for name, tensor in _kept(model)}
    yield
    for name, tensor in before.items():
        place, _, leaf = name.rpartition(".")
        owner = model.get_submodule(place)
        after = getattr(owner, leaf)
        if after.dtype.itemsize < tensor.dtype.itemsize:
            exact = tensor.to(after.device)
            if leaf in owner._buffers:
                owner._buffers[leaf] = exact
            else:
                after.data = exact


def _kept(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and tensors of these parts."""
    kept = set(_FREQUENCIES)
    for module in model.modules():
        named = getattr(module, "_keep_in_fp32_modules_strict", None)
        kept.update(named if isinstance(named, list | set | tuple) else ())
    for name, tensor in [*model.named_buffers(), *model.named_parameters()]:
        if kept.intersection(name.split(".")) and tensor.is_floating_point():
            yield name, tensor

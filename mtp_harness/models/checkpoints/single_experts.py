"""Experts that a checkpoint stores one by one: those that cannot be joined.

transformers joins the experts of a layer, and fails without naming the keys that are missing or do
not fit.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]
"""Of stored tensors, by key."""

_EXPERT = re.compile(r"(.*\.experts\.\d+\.)\w+\.weight$")
_PARTS = ("gate_proj.weight", "up_proj.weight", "down_proj.weight")


def absent(shapes: Shapes) -> list[str]:
    """Return the keys missing among experts that are stored one by one."""
    found = [match for key in shapes if (match := _EXPERT.match(key))]
    keys = (f"{at}{part}" for at in sorted({m[1] for m in found}) for part in _PARTS)
    return [key for key in keys if key not in shapes]


def uneven(shapes: Shapes) -> list[str]:
    """Return the keys of such experts whose shapes are not those of their layer's others."""
    found = [match for key in shapes if (match := _EXPERT.match(key))]
    usual: dict[str, Counter[tuple[int, ...]]] = defaultdict(Counter)
    for match in found:
        usual[_of_layer(match)][shapes[match[0]]] += 1
    return [m[0] for m in found if shapes[m[0]] != usual[_of_layer(m)].most_common(1)[0][0]]


def _of_layer(expert: re.Match[str]) -> str:
    """Return the common part of the keys of one part of all experts of a layer."""
    return re.sub(r"\.experts\.\d+\.", ".experts.", expert[0])

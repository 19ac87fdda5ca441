"""Kernels that start before the kernel before them has ended (programmatic dependent launch).

    A  |---- reads its weights ----|tail|
    B                    |start, asks for its first weights|wait|---- ... ----|

Between two kernels memory is idle for some microseconds: one ends block by block, the next starts,
and its first bytes take a microsecond to come. Here the next one starts while the first runs, asks
for weights, which do not depend on the first, and waits only then. From Hopper (9.0) on.

What makes it safe: every program of every kernel waits before it reads what a kernel has computed,
and before it writes anything; it lets the next kernel start only after that. So, when a kernel
starts, all kernels but the one before it have ended.
"""

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

EARLY = True
"""Whether kernels start early where the device can do so."""


def starts_early(states: Tensor) -> bool:
    """Return whether kernels on these states start early."""
    return EARLY and states.is_cuda and _is_able(states.device)


@functools.cache
def _is_able(device: torch.device) -> bool:
    # AMD's devices count otherwise: theirs have a 9.0, too.
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)


def launch_options(early: bool) -> dict[str, Any]:
    """Return what a launch of a kernel that starts early needs."""
    return {"launch_pdl": True} if early else {}


@triton.jit
def wait(early: tl.constexpr):
    """Wait for what the kernels before have computed; let the next kernel start."""
    if early:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def ask_for(pointers):
    """Have 32 bytes, the least that memory gives, at each pointer brought into the L2 cache.

    Not by `cp.async.bulk.prefetch`, whose address is one for a warp: it would loop over its lanes.
    """
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [pointers.to(tl.int64)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )

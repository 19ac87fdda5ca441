"""The norm behind a Gated DeltaNet layer's recurrence, times silu of its gate, as one kernel."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _gated_norm(
    states,
    z,
    weight,
    out,
    epsilon,
    step,
    of_values,
    n_heads: tl.constexpr,
    group: tl.constexpr,
    value_dim: tl.constexpr,
    block: tl.constexpr,
):
    token = tl.program_id(0)
    head = (tl.program_id(1) * block + tl.arange(0, block))[:, None]
    inside = head < n_heads
    dim = tl.arange(0, value_dim)[None, :]
    at = (token * n_heads + head) * value_dim + dim
    x = tl.load(states + at, mask=inside, other=0.0)
    wide = x.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 1) / value_dim + epsilon)
    w = tl.load(weight + dim)
    normed = ((wide * scale[:, None]).to(x.dtype).to(tl.float32) * w.to(tl.float32)).to(w.dtype)
    gate = z + token * step + head // group * of_values + head % group * value_dim
    gate = tl.load(gate + dim, mask=inside, other=0.0).to(tl.float32)
    found = normed.to(tl.float32) * (gate / (1.0 + tl.exp(-gate)))
    tl.store(out + at, found.to(x.dtype), mask=inside)


def gated_norm(states: Tensor, z: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Return the root-mean-square norm over dv, times silu(z), [N, H * dv].

    Args:
        states: [N, H, dv], contiguous.
        z: of `delta_kernels.Parts`.
        weight: [dv].
        epsilon: of the norm.
    """
    n_tokens, n_heads, value_dim = states.shape
    out = torch.empty_like(states)
    block = min(8, triton.next_power_of_2(n_heads))
    _gated_norm[(n_tokens, triton.cdiv(n_heads, block))](
        states,
        z,
        weight,
        out,
        epsilon,
        z.stride(0),
        z.stride(1),
        n_heads=n_heads,
        group=n_heads // z.shape[1],
        value_dim=value_dim,
        block=block,
    )
    return out.flatten(1)

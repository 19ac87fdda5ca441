"""Gated DeltaNet, the linear attention of Qwen's hybrid trunks, for rows that may drop tokens.

A head keeps one matrix S, however long the text is. Token t decays it, writes to it and reads it:

    u_t = beta_t (v_t - exp(g_t) S_{t-1}^T k_t)
    S_t = exp(g_t) S_{t-1} + k_t u_t^T
    o_t = S_t^T q_t

transformers processes a text in chunks of 64 tokens, even if it has 2. Here the few tokens of a
window are one small triangular system, which does not change S; with G_t = g_1 + ... + g_t:

    u_t + beta_t sum_{j<t} exp(G_t - G_j) (k_t . k_j) u_j = beta_t (v_t - exp(G_t) S^T k_t)
    o_t = exp(G_t) S^T q_t + sum_{j<=t} exp(G_t - G_j) (q_t . k_j) u_j
    S after c tokens = exp(G_c) S + sum_{j<=c} exp(G_c - G_j) k_j u_j^T

So k, u and G of a window suffice to keep any number c of its tokens later, and S does not change
for c = 0. Prompts use transformers' own function, with zero gates (g and beta) for padding, which
leave S unchanged, too.

Source: Yang et al. 2024, "Gated Delta Networks", section 3.3; transformers' layer for the rest.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad, softplus
from transformers.activations import ACT2FN

from mtp_harness.models.interface import KeyValueCache

EPSILON = 1e-6
"""Epsilon of the norm of queries and keys, as in transformers."""


def serve_slots(decoder: Any) -> None:
    """Make the linear layers of a decoder of transformers accept a `KeyValueCache`.

    Without a cache they stay transformers' own, whose advice to install kernels is for GPUs.
    """
    kernels = logging.getLogger("transformers.integrations.hub_kernels")
    kernels.addFilter(_is_of_use)
    for layer in decoder.layers:
        if (net := getattr(layer, "linear_attn", None)) is not None:
            net.forward = partial(_forward, net, net.forward)


def _is_of_use(record: logging.LogRecord) -> bool:
    return torch.cuda.is_available() or "falling back" not in record.getMessage()


def state_shapes(config: Any) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a row's states in one layer: the convolution's inputs, and S."""
    n_heads, key = config.linear_num_value_heads, config.linear_key_head_dim
    value = config.linear_value_head_dim
    channels = 2 * config.linear_num_key_heads * key + n_heads * value
    return (channels, config.linear_conv_kernel_dim - 1), (n_heads, key, value)


def _forward(
    net: Any,
    own: Callable[..., Tensor],
    hidden_states: Tensor,
    cache_params: KeyValueCache | None = None,
    attention_mask: Tensor | None = None,
    cache: KeyValueCache | None = None,
    **others: Any,
) -> Tensor:
    """Run a layer over [B, T, D]; transformers 5.24 calls the cache `cache`."""
    slots = cache_params if cache is None else cache
    if slots is None:
        return own(hidden_states, attention_mask=attention_mask, **others)
    if hidden_states.is_cuda:
        from mtp_harness.models.gpu import delta_window  # here, because Triton may be missing

        if delta_window.serves(net, hidden_states, slots):
            return delta_window.run(net, hidden_states, slots, EPSILON)
    mixed, z, g, beta = _projected(net, hidden_states)
    held, before = slots.held(net.layer_idx), net.conv_kernel_size - 1
    if held is None:
        seen = pad(mixed, (before, 0))
    else:
        seen = torch.cat([held[0].to(mixed), mixed], -1)  # [B, C, K-1 + T]
    parts = _convolved(net, seen, held is None)
    if held is None:
        lengths = slots.lengths()
        real = torch.arange(mixed.shape[-1], device=g.device) < lengths[:, None]
        found, last = _prompts(net, parts, g * real[..., None], beta * real[..., None])
        slots.settle(net.layer_idx, (_columns(seen, lengths, before), last))
    else:
        inputs, matrix = held
        found, window = read_window(*parts, g, beta, matrix)

        def keep(count: Tensor) -> None:
            inputs.copy_(_columns(seen, count, before))
            matrix.copy_(window.kept(matrix, count))

        slots.settle_later(net.layer_idx, keep)
    found = net.norm(found.to(z).reshape(z.shape), z).reshape(*hidden_states.shape[:2], -1)
    out: Tensor = net.out_proj(found)
    return out


def _projected(net: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the convolution's inputs [B, C, T], z [B * T * H, dv], and g and beta [B, T, H]."""
    if hasattr(net, "in_proj_qkv"):
        mixed, z = net.in_proj_qkv(hidden), net.in_proj_z(hidden)
        b, a = net.in_proj_b(hidden), net.in_proj_a(hidden)
    else:  # Qwen3-Next has them head by head
        projected = net.in_proj_qkvz(hidden), net.in_proj_ba(hidden)
        *parts, z, b, a = net.fix_query_key_value_ordering(*projected)
        mixed = torch.cat([part.flatten(2) for part in parts], -1)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    g = -net.A_log.to(wide).exp() * softplus(a.to(wide) + net.dt_bias)
    return mixed.transpose(1, 2), z.reshape(-1, net.head_v_dim), g, b.sigmoid()


def _convolved(net: Any, seen: Tensor, long: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, [B, T, H, d], of a convolution's inputs [B, C, K-1 + T]."""
    weight = net.conv1d.weight  # [C, 1, K]
    if long:
        mixed = conv1d(seen, weight, groups=seen.shape[1])
    else:  # for a few tokens, a CPU takes longer to prepare a convolution than to compute it
        wide = seen.to(torch.promote_types(seen.dtype, torch.float32))
        mixed = (wide.unfold(2, weight.shape[2], 1) * weight).sum(-1).to(seen)
    mixed = ACT2FN[net.activation](mixed).transpose(1, 2)
    query, key, value = mixed.split([net.key_dim, net.key_dim, net.value_dim], -1)
    each = net.num_v_heads // net.num_k_heads
    query, key = (part.unflatten(-1, (-1, net.head_k_dim)) for part in (query, key))
    if each > 1:
        query, key = (part.repeat_interleave(each, 2) for part in (query, key))
    return query, key, value.unflatten(-1, (-1, net.head_v_dim))


def _prompts(net: Any, parts: Sequence[Tensor], g: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs [B, T, H, dv] and the last S of whole prompts, by transformers' function."""
    rule = getattr(net, "chunk_gated_delta_rule", None)  # up to transformers 5.16
    rule = rule or sys.modules[type(net).__module__].torch_chunk_gated_delta_rule
    found: tuple[Tensor, Tensor] = rule(
        *parts, g=g, beta=beta, output_final_state=True, use_qk_l2norm_in_kernel=True
    )
    return found


class Window(NamedTuple):
    """What is needed to keep some of a window's tokens: k, u and G of the module docstring."""

    keys: Tensor  # [B, H, T, dk]
    written: Tensor  # [B, H, T, dv]
    faded: Tensor  # [B, H, T]

    def kept(self, matrix: Tensor, count: Tensor) -> Tensor:
        """Return S after the first `count` [B] tokens, from S before the window."""
        at = count[:, None, None].expand(-1, self.faded.shape[1], 1)
        faded = pad(self.faded, (1, 0)).gather(2, at)  # G_c, [B, H, 1]
        stays = torch.arange(self.faded.shape[2], device=count.device) < count[:, None]
        weights = torch.where(stays[:, None], faded - self.faded, float("-inf")).exp()
        new = (self.keys * weights[..., None]).transpose(2, 3) @ self.written
        return torch.addcmul(new, matrix, faded.exp()[..., None])


def read_window(
    query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, matrix: Tensor
) -> tuple[Tensor, Window]:
    """Return a window's outputs [B, T, H, dv], and an object that keeps some of its tokens.

    Args:
        query: [B, T, H, dk], not normed, as are keys.
        key: [B, T, H, dk].
        value: [B, T, H, dv].
        g: logarithm of the share of S that remains, [B, T, H].
        beta: in [0, 1], [B, T, H].
        matrix: S before the window, [B, H, dk, dv]; everything is computed in its type.
    """
    query, key, value, g, beta = (
        part.transpose(1, 2).to(matrix) for part in (query, key, value, g, beta)
    )
    both = torch.cat([key, query], 2)  # S, the largest of all, is read once
    both = both * torch.rsqrt(both.square().sum(-1, keepdim=True) + EPSILON)
    key = both[:, :, : key.shape[2]]
    faded, beta = g.cumsum(-1), beta[..., None]
    left = faded.exp()[..., None]
    between = (faded[..., :, None] - faded[..., None, :]).tril().exp().tril()  # [B, H, T, T]
    k_read, q_read = (both @ matrix).chunk(2, 2)
    k_keys, q_keys = (both @ key.mT).chunk(2, 2)
    written = beta * (value - left * k_read)
    if key.shape[2] > 1:
        system = beta * between * k_keys
        written = torch.linalg.solve_triangular(system, written, upper=False, unitriangular=True)
    found = (left * q_read + between * q_keys @ written) * key.shape[-1] ** -0.5
    return found.transpose(1, 2), Window(key, written, faded)


def _columns(seen: Tensor, start: Tensor, n: int) -> Tensor:
    """Return columns start .. start + n - 1, by row, of [B, C, S]."""
    index = start[:, None] + torch.arange(n, device=seen.device)
    return seen.gather(2, index[:, None].expand(-1, seen.shape[1], -1))

"""A layer of transformers for decoding on a GPU, prompts included: ten launches instead of forty.

    states + mixer(norm(states)), and of that + mlp(norm)

Steps of few tokens take five or six launches (`few_rows`), if attention and mlp are known here.

The numbers are the layer's own up to rounding. A mixer or mlp that is not known here (latent
attention, experts) runs as it is, between the fused norms. float64, which the kernels do not
support, is not served, nor is anything that needs gradients.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mtp_harness.models.decoding_weights import Rotation, are_linear, joined
from mtp_harness.models.gpu import few_attention, few_rows
from mtp_harness.models.gpu.attention import attend_rows
from mtp_harness.models.gpu.current import on_its_device
from mtp_harness.models.gpu.kernels import (
    TYPES,
    HeadNorm,
    add_norm,
    add_parts,
    gate_,
    is_power_of_2,
    rotate_and_store,
    rotation,
    silu_times,
)
from mtp_harness.models.gpu.narrow_product import is_narrow, product
from mtp_harness.models.gpu.split_product import halves, splits
from mtp_harness.models.interface import KeyValueCache, at_index
from mtp_harness.models.llama.cached_block import attend

_PLAIN = ("Llama", "Mistral", "Qwen2", "Qwen3", "Qwen3Moe", "Glm4Moe", "DeepseekV3")
_ONE_PLUS = ("Qwen3Next", "Qwen3_5", "Qwen3_5Moe")
"""Families whose norms multiply by 1 + weight, and whose attention has a gate."""


def serves(layer: Any, states: Tensor, cache: KeyValueCache) -> bool:
    """Return whether the kernels can run this layer on these states [B, T, D]."""
    if torch.is_grad_enabled() or hasattr(layer, "_hf_hook"):  # training; several devices
        return False
    if not hasattr(cache, "stored"):  # evaluations keep a call's keys alone: `head_states.Passes`
        return False
    names = ("input_layernorm", "post_attention_layernorm")
    return all(knows_norm(getattr(layer, name, None), states) for name in names)


@on_its_device
def run(
    layer: Any,
    states: Tensor,
    rotated_by: Rotation,
    cache: KeyValueCache,
    last: Tensor | None = None,
    **others: Any,
) -> Tensor:
    """Apply one layer to states at the cache's positions; return [B, T, D].

    Args:
        layer: for which `serves` holds.
        states: [B, T, D].
        rotated_by: from `rotation` or `signed`.
        cache: has the positions; this layer's keys and values are added to it.
        last: int64 [B], index within the call of the only tokens whose output is needed: the result
            is [B, 1, D]. For layers with known attention, and not for prompts.
        others: arguments of transformers' attention, for a kind that is not known here.
    """
    if not cache.in_prompts and few_rows.serves(states) and _is_known(layer, states.shape[1]):
        return _run_few(layer, states, rotated_by, cache, last)
    n_rows, n_tokens, width = states.shape
    flat = states.reshape(-1, width)  # [N, D], N = B * T
    _, normed = _add_norm(layer.input_layernorm, flat, None)
    if (linear := getattr(layer, "linear_attn", None)) is not None:
        updates = linear(hidden_states=normed.view(states.shape), cache_params=cache)[None]
    elif knows_attention(attention := layer.self_attn):
        updates = _attend(attention, normed, rotated_by, cache, last)
        n_tokens = n_tokens if last is None else 1
        flat = flat if last is None else at_index(states, last).flatten(0, 1)  # [B, D]
    else:
        others["past_key_values"] = cache
        updates = attention(hidden_states=normed.view(states.shape), **others)[0][None]
    updates = updates.reshape(len(updates), *flat.shape)  # [S, N, D]
    flat, normed = _add_norm(layer.post_attention_layernorm, flat, updates)
    out = _add_mlp(layer.mlp, flat, normed, n_rows)
    return out.view(n_rows, n_tokens, width)


# Norms


@on_its_device
def norm(module: Any, states: Tensor) -> Tensor:
    """Return the norm of states [..., D] by a module that `knows_norm`."""
    _, normed = _add_norm(module, states.reshape(-1, states.shape[-1]), None)
    return normed.view(states.shape)


def knows_norm(module: Any, states: Tensor) -> bool:
    """Return whether a norm of such states is the kernels'."""
    if states.dtype not in TYPES or _family(module, "RMSNorm") not in (*_PLAIN, *_ONE_PLUS):
        return False
    return bool(module.weight.device == states.device)


def _family(module: Any, kind: str) -> str:
    """Return the family that the name of a module's class begins with; "" for another kind."""
    name = type(module).__name__
    return name.removesuffix(kind) if name.endswith(kind) else ""


def _add_norm(module: Any, states: Tensor, updates: Tensor | None) -> tuple[Tensor, Tensor]:
    return add_norm(states, updates, *_norm_of(module))


def _epsilon(module: Any) -> float:
    found: float = module.eps if hasattr(module, "eps") else module.variance_epsilon
    return found


def _norm_weight(module: Any) -> Tensor:
    """Return what a norm multiplies by; float32 if it is 1 + weight."""
    weight: Tensor = module.weight
    if _family(module, "RMSNorm") in _PLAIN:
        return weight
    now = weight.data_ptr(), 0 if weight.is_inference() else weight._version
    held = module.__dict__.get("_one_plus_weight")
    if held is None or held[0] != now:
        held = module.__dict__["_one_plus_weight"] = now, 1 + weight.detach().float()
    found: Tensor = held[1]
    return found


# Attention


def knows_rotary(rotary: Any, states: Tensor) -> bool:
    """Return whether cos and sin are of the known kind: of frequencies that stay as they are."""
    if states.dtype not in TYPES or rotary.inv_freq.device != states.device:
        return False
    known = _family(rotary, "RotaryEmbedding") in (*_PLAIN, "Qwen3Next")
    return known and rotary.rope_type not in ("dynamic", "longrope")


@on_its_device
def rotated(
    rotary: Any, states: Tensor, positions: Tensor, *, negated: bool
) -> tuple[Tensor, Tensor]:
    """Return cos and sin [B, T, r] of int64 positions [B, T] by a module that `knows_rotary`."""
    frequencies, scaling = rotary.inv_freq, rotary.attention_scaling
    return rotation(frequencies, scaling, positions, states.dtype, negated=negated)


def knows_attention(attention: Any) -> bool:
    """Return whether attention is of the known kind: queries, keys, values, rotation, softmax."""
    if _family(attention, "Attention") not in (*_PLAIN, *_ONE_PLUS):
        return False
    if not are_linear(attention, "q_proj", "k_proj", "v_proj", "o_proj"):
        return False
    whole = getattr(attention, "sliding_window", None) is None
    return whole and attention.head_dim >= 16 and is_power_of_2(attention.head_dim)


def _attend(
    attention: Any, normed: Tensor, rotated_by: Rotation, cache: KeyValueCache, last: Tensor | None
) -> Tensor:
    """Return what adds up to the attention's output, [S, N, D], or [S, B, D] with `last`.

    `normed` is [N, D].
    """
    gated = _family(attention, "Attention") in _ONE_PLUS
    n_heads = attention.q_proj.out_features // attention.head_dim // (2 if gated else 1)
    weights = joined(attention, "q_proj", "k_proj", "v_proj")
    qkv = product(normed, weights.weight, weights.bias)
    cos, sin = (part.flatten(0, 2) for part in rotated_by)  # [N, r]
    norm = _head_norm(attention)
    rotate = partial(rotate_and_store, qkv, cos, sin, n_queries=n_heads, gated=gated, norm=norm)
    if cache.in_prompts:
        assert last is None, "`cached_block` reads prompts at one token"
        seen = _attend_prompts(attention, rotate, cache)
    else:
        assert last is None or not gated, "only Meta's heads are read at one token"
        seen = _attend_slots(attention, rotate, cache, last)
    if gated:
        gate_(seen.view(-1, n_heads, attention.head_dim), qkv)
    weight, bias = attention.o_proj.weight, attention.o_proj.bias
    return halves(seen, weight) if splits(seen, weight, bias) else product(seen, weight, bias)[None]


def _attend_slots(
    attention: Any, rotate: Callable[..., Tensor], cache: KeyValueCache, last: Tensor | None
) -> Tensor:
    """Return what a step's tokens see of their rows, [N, H * d], or [B, H * d] with `last`."""
    keys, values = cache.stored(attention.layer_idx)  # [slots, L + 1, H_kv, d]
    positions = cache.positions.contiguous()  # of equal rows they may be one, expanded
    query = rotate(cache.places, keys.flatten(0, 1), values.flatten(0, 1))  # [N, H, d]
    query = query.view(*positions.shape, *query.shape[1:])
    if last is not None:
        query, positions = at_index(query, last).contiguous(), positions.gather(1, last[:, None])
    lengths = cache.remember("lengths", cache.lengths)
    seen = attend_rows(query, keys, values, lengths, positions, attention.scaling)
    return seen.flatten(0, 1)


def _attend_prompts(attention: Any, rotate: Callable[..., Tensor], cache: KeyValueCache) -> Tensor:
    """Return what prompts' tokens see, [N, H * d].

    Their keys and values get a place of their own before the cache's: there, padding shares one
    column, and what it would see, and with it the number of tokens of an expert, were an accident.
    """
    stored, shape = cache.stored(attention.layer_idx)[0], cache.positions.shape
    places = cache.remember("own places", lambda: torch.arange(shape.numel(), device=stored.device))
    keys, values = stored.new_empty(2, shape.numel(), *stored.shape[2:])  # each [N, H_kv, d]
    query, keys, values = (
        each.view(*shape, *each.shape[1:]) for each in (rotate(places, keys, values), keys, values)
    )
    own = cache.update(keys.transpose(1, 2), values.transpose(1, 2), attention.layer_idx)
    return attend(query, *own, cache, attention.scaling, None).flatten(0, 1)


def _head_norm(attention: Any) -> HeadNorm | None:
    query, key = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    if query is None or key is None:
        return None
    return HeadNorm(_norm_weight(query), _norm_weight(key), _epsilon(query))


# Few tokens


def _is_known(layer: Any, n_tokens: int) -> bool:
    """Return whether `_run_few` can run a layer on so many tokens of each row."""
    attention = getattr(layer, "self_attn", None)
    if attention is None or not knows_attention(attention) or not _knows_mlp(layer.mlp):
        return False
    if _family(attention, "Attention") in _ONE_PLUS:  # attention with a gate
        return False
    n_heads, n_kv_heads = (
        each.out_features // attention.head_dim for each in (attention.q_proj, attention.k_proj)
    )
    return few_attention.serves(n_tokens, n_heads, n_kv_heads, attention.head_dim)


def _run_few(
    layer: Any, states: Tensor, rotated_by: Rotation, cache: KeyValueCache, last: Tensor | None
) -> Tensor:
    """Do what `run` does, for few tokens."""
    attention, mlp = layer.self_attn, layer.mlp
    positions = cache.positions.contiguous()  # of equal rows they may be one, expanded
    flat = states.reshape(-1, states.shape[-1]).contiguous()  # [N, D]
    qkv, down = joined(attention, "q_proj", "k_proj", "v_proj"), mlp.down_proj
    cos, sin = (part.flatten(0, 2) for part in rotated_by)  # [N, r]
    keys, values = cache.stored(attention.layer_idx)  # [B, L + 1, H_kv, d]
    projected = few_rows.normed_product(flat, _norm_of(layer.input_layernorm), qkv.weight, qkv.bias)
    seen = few_attention.rotate_and_attend(
        projected,
        cos,
        sin,
        keys,
        values,
        cache.places,
        cache.remember("lengths", cache.lengths),
        positions,
        attention.scaling,
        norm=_head_norm(attention),
        last=last,
    )
    out = attention.o_proj
    seen = seen.flatten(0, 1)  # [N, H * d], or [B, H * d]
    flat = few_rows.summed_product("o", seen, out.weight, out.bias, flat, last)
    pair, norm = joined(mlp, "gate_proj", "up_proj"), _norm_of(layer.post_attention_layernorm)
    active = few_rows.gated_product(flat, norm, pair.weight, pair.bias)
    flat = few_rows.summed_product("down", active, down.weight, down.bias, flat)
    return flat.view(len(states), -1, states.shape[-1])


def _norm_of(module: Any) -> few_rows.Norm:
    return few_rows.Norm(_norm_weight(module), _epsilon(module))


# The rest


def _add_mlp(mlp: Any, states: Tensor, normed: Tensor, n_rows: int) -> Tensor:
    """Return states [N, D] plus the mlp's output, in place: `add_norm` made these states."""
    if not _knows_mlp(mlp):
        found = mlp(normed.view(n_rows, -1, normed.shape[-1]))
        found = found[0] if isinstance(found, tuple) else found
        return states.add_(found.reshape(states.shape))
    weights, down = joined(mlp, "gate_proj", "up_proj"), mlp.down_proj
    active = silu_times(product(normed, weights.weight, weights.bias))
    if splits(active, down.weight, down.bias):
        return add_parts(states, halves(active, down.weight))
    if down.bias is None and not is_narrow(active, down.weight):
        return states.addmm_(active, down.weight.t())
    return states.add_(product(active, down.weight, down.bias))


def _knows_mlp(mlp: Any) -> bool:
    names = ("gate_proj", "up_proj", "down_proj")
    if not are_linear(mlp, *names):
        return False
    return type(getattr(mlp, "act_fn", None)).__name__ in ("SiLU", "SiLUActivation")

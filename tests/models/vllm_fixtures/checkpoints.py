"""The checkpoints of the fixtures here, written anew wherever they are needed.

Their weights come from NumPy's `RandomState`, whose numbers no version changes, each tensor's from
its own name. The embedding's part of `eh_proj` is near the identity, so that the module tells what
comes after a token much as the trunk does, and none to all of a step's drafts are accepted.
"""

import zlib

import numpy as np
import torch

from ..family_checkpoints import QWEN, write

ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SCALE, NOISE = 0.5, 0.3
COMMON = {"vocab_size": 512, "num_hidden_layers": 2}
FULL = {  # vLLM runs linear attention in bfloat16 only, and no sections in a text's own config
    "layer_types": ["full_attention"] * 2,
    "head_dim": 32,
    "rope_parameters": {**ROPE, "partial_rotary_factor": 0.25},
}
ROUTED = {"n_routed_experts": 8, "scoring_func": "sigmoid", "topk_method": "noaux_tc"}
SIZES = {
    "deepseek_v3": {
        **COMMON,
        **ROUTED,
        "kv_lora_rank": 512,
        "q_lora_rank": 32,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 32,
        "v_head_dim": 32,
        "rope_parameters": ROPE,
    },
    "glm4_moe": {
        **COMMON,
        **ROUTED,
        "head_dim": 32,
        "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5},
    },
    "mimo": {**COMMON, "hidden_size": 128, "rope_parameters": ROPE},
    "qwen3_5_text": {**COMMON, **FULL},
    "qwen3_5_moe_text": {**COMMON, **FULL, "num_experts": 8},
    "qwen3_next": {**COMMON, **FULL, "num_experts": 8},
}
"""The smallest that vLLM's kernels for a CPU take, by family."""


def write_seeded(folder, family, seed=0):
    """Write the checkpoint of a family in float32, the same one by every version."""

    def fill(module, of):
        for name, tensor in module.state_dict().items():
            tensor.copy_(torch.tensor(values(f"{seed} {of} {name}", tuple(tensor.shape), family)))

    write(folder, family, dtype=torch.float32, fill=fill, **SIZES[family])


def values(name, shape, family):
    """Return the weights of one tensor, float64 of `shape`."""
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if "norm" in name:
        return 0.1 * drawn + (family not in QWEN)
    if "embed_tokens" in name:
        return drawn
    drawn = drawn / shape[-1] ** 0.5
    if "eh_proj" in name:
        width = shape[0]
        halves = [np.zeros((width, width)), np.eye(width)]  # state, embedding
        return NOISE * drawn + np.concatenate(halves if family == "mimo" else halves[::-1], 1)
    return (2 if "lm_head" in name else SCALE) * drawn

"""Small decoders of the families whose layers the kernels know."""

import torch
import transformers

from mtp_harness.models.trunk import TrunkModel


class TrunkOnly(TrunkModel):
    n_future_tokens = 1

    def layer_shapes(self, heads):
        return self.trunk_shapes()

    def head(self, offset, states, tokens=None, positions=None, cache=None):
        return states

    def logits(self, offset, states):
        return states


def small_decoder(name):
    """Return a small decoder of a family, two layers of every kind it has, and its config."""
    sizes = {
        "vocab_size": 11,
        "hidden_size": 48,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "attn_implementation": "sdpa",
    }
    more = {
        "glm4_moe": {
            "partial_rotary_factor": 0.5,
            "use_qk_norm": True,
            "attention_bias": True,
            "moe_intermediate_size": 24,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
        },
        "qwen3_5_text": {
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "partial_rotary_factor": 0.5,
        },
        "deepseek_v3": {
            "num_key_value_heads": 4,
            "head_dim": 8,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 24,
            "first_k_dense_replace": 1,
        },
    }
    config = transformers.AutoConfig.for_model(name, **sizes | more.get(name, {}))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            spread = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.normal_(1.0 if "norm" in key and "qwen3_5" not in name else 0.0, spread)
    return model

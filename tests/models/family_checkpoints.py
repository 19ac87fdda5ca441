"""Tiny random checkpoints of every sequential family, written in its own layout by hand.

The names stand here a second time, so that a slip in `models.families` is one test's failure.
"""

import copy
import importlib
import json
from contextlib import contextmanager

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.modeling_layers import MtpLayer

BASE = {
    "vocab_size": 200,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.08,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
LINEAR = {
    "head_dim": 16,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
MROPE = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
    "mrope_section": [2, 1, 1],
    "mrope_interleaved": True,
}
MOE = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
ROUTED = {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}

CONFIGS = {
    "qwen3_5_text": ("Qwen3_5TextConfig", {**LINEAR, "rope_parameters": MROPE}),
    "qwen3_5_moe_text": (
        "Qwen3_5MoeTextConfig",
        {
            **LINEAR,
            **MOE,
            "rope_parameters": MROPE,
            "num_experts": 4,
            "shared_expert_intermediate_size": 32,
        },
    ),
    "qwen3_next": (
        "Qwen3NextConfig",
        {**LINEAR, **MOE, "num_experts": 4, "shared_expert_intermediate_size": 32},
    ),
    "deepseek_v3": (
        "DeepseekV3Config",
        {
            **MOE,
            **ROUTED,
            "num_key_value_heads": 4,
            "kv_lora_rank": 24,
            "q_lora_rank": 32,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 12,
            "v_head_dim": 16,
            "first_k_dense_replace": 1,
        },
    ),
    "glm4_moe": (
        "Glm4MoeConfig",
        {**MOE, **ROUTED, "head_dim": 16, "first_k_dense_replace": 1, "use_qk_norm": True},
    ),
    "mimo": ("Qwen2Config", {}),
}
MODULES_OF = {  # transformers' file with the trunk's layers
    "qwen3_5_text": "qwen3_5",
    "qwen3_5_moe_text": "qwen3_5_moe",
    "qwen3_next": "qwen3_next",
    "deepseek_v3": "deepseek_v3",
    "glm4_moe": "glm4_moe",
    "mimo": "qwen2",
}
QWEN = ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")


@contextmanager
def in_float64():
    """Lift what transformers computes in float32 whatever the type: norms, rotary, delta rule."""

    class Torch:
        def __getattr__(self, name):
            return torch.float64 if name in ("float", "float32") else getattr(torch, name)

        def __setattr__(self, name, value):
            setattr(torch, name, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        for name in {"llama", *MODULES_OF.values()}:
            module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
            patch.setattr(module, "torch", Torch())
        yield


def trunk(family, dtype=torch.float64, seed=0, **changed):
    """Return a tiny random trunk of transformers, in evaluation mode."""
    torch.manual_seed(seed)
    name, more = CONFIGS[family]
    config = getattr(transformers, name)(**{**BASE, **more, **changed})
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    )
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms away from 1, biases away from 0
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return model.to(dtype).eval()


def layers(main, family, n, seed=1):
    """Return n random `MtpLayer`s that fit a trunk, built without the package."""
    torch.manual_seed(seed)
    config = copy.deepcopy(main.config)
    config.num_hidden_layers += n
    config.mtp_hidden_states_first = family == "mimo"
    if getattr(config, "layer_types", None):
        config.layer_types = [*config.layer_types, *["full_attention"] * n]
    if getattr(config, "mlp_layer_types", None):
        config.mlp_layer_types = [*config.mlp_layer_types, *["sparse"] * n]
    base, first = main.get_decoder(), main.config.num_hidden_layers
    made = torch.nn.ModuleList(
        MtpLayer(config, type(base.layers[-1]), type(base.norm), first + k) for k in range(n)
    )
    for name, parameter in made.named_parameters():
        scale, one = (
            (0.2, "norm" in name and family not in QWEN)
            if parameter.dim() == 1
            else (
                0.08,
                False,
            )
        )
        parameter.data = torch.randn_like(parameter) * scale + float(one)
    for buffer in made.buffers():  # the correction bias of routers
        buffer.data = torch.randn_like(buffer) * 0.1
    if family in QWEN:  # one projection and one set of norms for all modules
        for layer in made[1:]:
            for part in ("eh_proj", "enorm", "hnorm", "post_norm"):
                getattr(layer, part).load_state_dict(getattr(made[0], part).state_dict())
    return made.to(main.dtype).eval()


def keys_of(family, main, made, single_experts):
    """Return the modules' tensors under the family's own names."""
    first, out = main.config.num_hidden_layers, {}
    for k, layer in enumerate(made):
        for name, tensor in layer.state_dict().items():
            head, rest = name.split(".", 1)
            if family in QWEN:
                shared = {
                    "eh_proj": "mtp.fc.",
                    "enorm": "mtp.pre_fc_norm_embedding.",
                    "hnorm": "mtp.pre_fc_norm_hidden.",
                    "post_norm": "mtp.norm.",
                }
                key = shared.get(head, f"mtp.layers.{k}.") + rest
            elif family == "mimo":
                own = {
                    "eh_proj": "input_proj.",
                    "enorm": "token_layernorm.",
                    "hnorm": "hidden_layernorm.",
                    "post_norm": "final_layernorm.",
                }
                key = f"model.mtp_layers.{k}." + own.get(head, "") + rest
            else:
                own = {"eh_proj": "eh_proj.", "enorm": "enorm.", "hnorm": "hnorm."}
                own["post_norm"] = "shared_head.norm."
                key = f"model.layers.{first + k}." + own.get(head, "") + rest
            out |= experts(key, tensor) if single_experts else {key: tensor}
        if family in ("deepseek_v3", "glm4_moe"):
            at = f"model.layers.{first + k}."
            out[at + "embed_tokens.weight"] = main.get_input_embeddings().weight.detach()
            out[at + "shared_head.head.weight"] = main.lm_head.weight.detach()
    return {key: tensor.clone().contiguous() for key, tensor in out.items()}


def experts(key, tensor):
    """Return a joined tensor of experts as one for each, as they are released."""
    if key.endswith("experts.gate_up_proj"):
        stem, parts = key.removesuffix("gate_up_proj"), {}
        for e, one in enumerate(tensor):
            gate, up = one.chunk(2, 0)
            parts |= {f"{stem}{e}.gate_proj.weight": gate, f"{stem}{e}.up_proj.weight": up}
        return parts
    if key.endswith("experts.down_proj"):
        stem = key.removesuffix("down_proj")
        return {f"{stem}{e}.down_proj.weight": one for e, one in enumerate(tensor)}
    return {key: tensor}


def write(
    folder,
    family,
    n=1,
    single_experts=True,
    shards=False,
    dtype=torch.float64,
    fill=lambda module, name: None,
    **changed,
):
    """Write a checkpoint; return its trunk and its modules as they were made.

    Experts are single or joined in both. `fill` gives trunk and modules other weights, and what is
    `changed` goes over the family's configuration.
    """
    main = trunk(family, dtype, **changed)
    made = layers(main, family, n)
    fill(main, "trunk")
    fill(made, "modules")
    save(folder, family, main, made, single_experts, shards)
    return main, made


def save(folder, family, main, made, single_experts=True, shards=False):
    """Write a trunk and its modules in the family's layout."""
    count = "mtp_num_hidden_layers" if family.startswith("qwen3_5") else "num_nextn_predict_layers"
    setattr(main.config, count, len(made))
    main.save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)  # experts one by one
    if not single_experts:
        tied = {"lm_head.weight"} if main.config.tie_word_embeddings else set()
        tensors = {k: v.clone() for k, v in main.state_dict().items() if k not in tied}
    tensors |= keys_of(family, main, made, single_experts)
    if shards:  # each file has every other tensor, of trunk and modules alike
        path.unlink()
        files = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        place = {key: files[i % 2] for i, key in enumerate(sorted(tensors))}
        for file in files:
            part = {key: tensor for key, tensor in tensors.items() if place[key] == file}
            save_file(part, folder / file, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": place}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file(tensors, path, metadata={"format": "pt"})
    if family == "mimo":
        path = folder / "config.json"
        content = json.loads(path.read_text()) | {"model_type": "mimo"}
        path.write_text(json.dumps(content))

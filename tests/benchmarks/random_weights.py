"""Models with random weights, of the shapes that the GPU benchmarks have: for `loader=`.

    lm_eval --model mtp --model_args pretrained=7B,loader=tests.benchmarks.random_weights:load,\
tokenizer=mtp-bytes-n4,label=7B --tasks mtp_speed --metadata '{"prompt_tokens": [512, 2048, 8192, \
32768], "batch": [1, 4], "heads": [1, 4], "new_tokens": 128, "trials": 3}' -o OUT

How long a step takes and what it holds does not depend on what it decodes. What such a model
accepts means nothing.
"""

import torch

from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM

SHAPES = {
    "7B": {  # the paper's
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    "tiny": {  # to try the same command on a CPU
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
CONTEXT = 40_960
"""Tokens that a model takes: more than prompts of 32k."""


def load(name):
    """Return a model of a shape with n = 4; on a GPU, if there is one."""
    if name not in SHAPES:
        raise ValueError(f"no shape {name}, expected {' or '.join(SHAPES)}: choose one")
    return random_model(n_future_tokens=4, **SHAPES[name])


def random_model(device=None, **sizes):
    """Return a model with random weights: bfloat16 on a GPU, float32 on a CPU."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    config = MTPLlamaConfig(max_position_embeddings=CONTEXT, **sizes)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return made(lambda: MTPLlamaForCausalLM(config), device, dtype)


def made(make, device, dtype):
    """Return a model of `make`, its weights made on a device and in a type, in eval mode."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = make()
    finally:
        torch.set_default_dtype(before)
    # Every way of loading a model keeps the rotary frequencies in float32.
    trunk = getattr(model, "main", model).model
    trunk.rotary_emb = type(trunk.rotary_emb)(trunk.config).to(device)
    return model.eval()

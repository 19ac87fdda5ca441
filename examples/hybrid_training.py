"""The recipe of `mtp-bytes-qwen`, the shipped model in Qwen3.5's layout.

    python examples/hybrid_training.py OUT --data TEXT

Three of four layers are Gated DeltaNet, the fourth is attention, and one module drafts
repeatedly. Trunk and module are trained together, the module on its own states over three steps
(`mtp_harness.training.loss.chained`). TEXT is as for `mtp-harness train`; the same command
resumes a run that was stopped.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM, Qwen3_5TextConfig
from transformers.activations import ACT2FN
from transformers.models.qwen3_5 import modeling_qwen3_5

from mtp_harness.files import user_path
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.families import FAMILIES
from mtp_harness.models.sequential import Modules, SequentialModel, modules_config
from mtp_harness.training.data import batches, load
from mtp_harness.training.loop import train
from mtp_harness.training.loss import chained
from mtp_harness.training.recipe import Recipe
from mtp_harness.training.trained import write_trained

FAMILY = FAMILIES["qwen3_5_text"]
STEPS = 3
"""Times the module runs on its own states in training; heads 2 to 4."""


def build(recipe: Recipe, layers: int = 12, width: int = 192) -> SequentialModel:
    """Return the model with random weights."""
    kinds = ["linear_attention"] * 3 + ["full_attention"]
    config = Qwen3_5TextConfig(
        vocab_size=256,
        hidden_size=width,
        intermediate_size=width * 3 // 2,
        num_hidden_layers=layers,
        layer_types=[kinds[index % 4] for index in range(layers)],
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=64,
        linear_num_key_heads=3,
        linear_num_value_heads=3,
        linear_key_head_dim=32,
        linear_value_head_dim=64,
        max_position_embeddings=recipe.context,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
        tie_word_embeddings=True,
        mtp_num_hidden_layers=1,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    torch.manual_seed(recipe.seed)
    main = AutoModelForCausalLM.from_config(config)
    modules = Modules(modules_config(config, 1), main.get_decoder(), layers)
    return SequentialModel(main, modules, FAMILY, heads=1 + STEPS)


def save(model: SequentialModel, folder: Path) -> None:
    """Write trunk and module in bfloat16, in the layout of Qwen3.5's releases; the tokenizer."""
    model.bfloat16()
    byte_tokenizer(model.max_positions).save_pretrained(folder)
    model.base.norm = model.norm  # `SequentialModel` has removed it
    model.main.save_pretrained(folder)
    path, depth = folder / "model.safetensors", model.config.num_hidden_layers
    module = {
        FAMILY.key(0, name, depth): tensor.cpu().contiguous()
        for name, tensor in model.modules_.layers[0].state_dict().items()
    }
    save_file(load_file(path) | module, path, metadata={"format": "pt"})


def chunked_rule(
    query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, **_: Any
) -> tuple[Tensor, None]:
    """Return the delta rule's outputs [B, T, H, dv] from a state of zeros; T is a power of two.

    Chunks have 64 tokens: work that does not need the state before is done for all chunks at once.
    transformers' own function goes row by row within a chunk, whose gradients are slow.

    Args:
        query: [B, T, H, dk], as is the key.
        key: see `query`.
        value: [B, T, H, dv].
        g: logarithm of the share of the state that remains, [B, T, H].
        beta: how much is written, [B, T, H].
    """
    size = min(64, query.shape[1])
    with torch.autocast(query.device.type, enabled=False):
        query, key, value, g, beta = (
            part.float().unflatten(1, (-1, size)).movedim(3, 1)
            for part in (query, key, value, g, beta)
        )  # [B, H, N, C, ...]
        query, key = (
            x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6) for x in (query, key)
        )
        query = query * query.shape[-1] ** -0.5
        faded, beta = g.cumsum(-1), beta[..., None]
        left = faded.exp()[..., None]
        between = (faded[..., :, None] - faded[..., None, :]).tril().exp().tril()  # [.., C, C]
        system = beta * between * (key @ key.mT)  # its diagonal is not read
        right = torch.cat([beta * left * key, beta * value], -1)
        solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
        reads, writes = solved.split([key.shape[-1], value.shape[-1]], -1)
        last = faded[..., -1:, None].exp()
        keys = (key * (faded[..., -1:] - faded).exp()[..., None]).mT  # [.., dk, C]
        before, written = in_turn(reads, writes, keys, last)
        found = query * left @ before + between * (query @ key.mT) @ written
        return found.movedim(1, 3).flatten(1, 2), None


@torch.compiler.disable  # a loop this long compiles for minutes
def in_turn(reads: Tensor, writes: Tensor, keys: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Return the state before each chunk [B, H, N, dk, dv], and what each writes [B, H, N, C, dv].

    Args:
        reads: what a chunk takes from the state, [B, H, N, C, dk].
        writes: its writes to a state of zeros, [B, H, N, C, dv].
        keys: its keys, decayed to its end, [B, H, N, dk, C].
        last: share of the state that remains at its end, [B, H, N, 1, 1].
    """
    with torch.autocast(keys.device.type, enabled=False):
        state, before, written = torch.zeros_like(keys[:, :, 0] @ writes[:, :, 0]), [], []
        for read, write, key, left in zip(
            *(part.unbind(2) for part in (reads, writes, keys, last)), strict=True
        ):
            before.append(state)
            written.append(write - read @ state)
            state = left * state + key @ written[-1]
        return torch.stack(before, 2), torch.stack(written, 2)


def shifted_conv(
    inputs: Tensor, weight: Tensor, bias: None = None, activation: str | None = None, **_: Any
) -> Tensor:
    """Return a layer's causal convolution of [B, C, T] by [C, K], a sum that a compiler fuses."""
    length, width = inputs.shape[-1], weight.shape[-1]
    parts = [
        weight[:, k, None] * pad(inputs, (width - 1 - k, 0))[..., :length] for k in range(width)
    ]
    return ACT2FN[activation](sum(parts))


@contextmanager
def made_for_training(model: SequentialModel) -> Iterator[None]:
    """Give a trunk's layers functions that compile, and that have fast gradients."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    for layer in model.base.layers:
        if hasattr(layer, "linear_attn"):
            del layer.linear_attn.forward  # the one for decoding, bound to its layer
    ours = {
        "torch_chunk_gated_delta_rule": chunked_rule,
        "causal_conv1d_fn": shifted_conv,
        "create_causal_mask": lambda *_, **__: None,  # windows are causal without it
    }
    with patch.multiple(modeling_qwen3_5, **ours):
        yield
    torch.set_float32_matmul_precision(before)


def main(argv: list[str]) -> None:
    """Train, then write the model, its tokenizer and `training.json`."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("out", type=user_path, help="folder for the trained model")
    p.add_argument("--data", type=user_path, required=True, help="as for `mtp-harness train`")
    p.add_argument("--steps", type=int, default=3600, help="of 98,304 bytes")
    p.add_argument("--context", type=int, default=4096, help="bytes in a window")
    p.add_argument("--save-every", type=int, default=1000, help="steps between two saved states")
    args = p.parse_args(argv)
    text = load(args.data)
    recipe = Recipe(
        steps=args.steps,
        context=args.context,
        short_context=min(1024, args.context),
        log_every=100,
        save_every=args.save_every,
        data_sha256=text.report["data_sha256"],
    )
    model = build(recipe).to("cuda" if torch.cuda.is_available() else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    batch, held_out = batches(text.data, recipe), text.held_out_windows(recipe.context)
    with made_for_training(model):
        curve = train(model, batch, recipe, args.out, print, held_out, chained(STEPS))
    command = shlex.join(["python", "examples/hybrid_training.py", *argv])
    write_trained(args.out, model, partial(save, model), command, recipe, curve, text.report)


if __name__ == "__main__":
    main(sys.argv[1:])

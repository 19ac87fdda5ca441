"""The recipe of `mtp-bytes-qwen`, the shipped model in Qwen3.5's layout.

    python examples/hybrid_training.py OUT --data TEXT

Three of four layers are Gated DeltaNet, the fourth is attention, and one module drafts on by
itself. Trunk and module are trained together, the module on its own states over three steps
(`mtp_harness.training.loss.chained`). TEXT is what `mtp-harness train` takes; a run that was
stopped goes on when it is started again. On a GPU it takes flash-linear-attention, where that is
installed, for the delta rule.
"""

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3_5TextConfig
from transformers.models.qwen3_5 import modeling_qwen3_5

from mtp_harness.files import user_path, whole_files, write_whole
from mtp_harness.models import provenance
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.families import FAMILIES
from mtp_harness.models.sequential import Modules, SequentialModel, modules_config
from mtp_harness.training.data import batches, load
from mtp_harness.training.loop import train
from mtp_harness.training.loss import chained
from mtp_harness.training.recipe import Recipe

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
    """Write trunk and module in bfloat16, in the layout of Qwen3.5's releases."""
    model.bfloat16()
    model.base.norm = model.norm  # `SequentialModel` takes it out
    model.main.save_pretrained(folder)
    path, depth = folder / "model.safetensors", model.config.num_hidden_layers
    module = {
        FAMILY.key(0, name, depth): tensor.cpu().contiguous()
        for name, tensor in model.modules_.layers[0].state_dict().items()
    }
    save_file(load_file(path) | module, path, metadata={"format": "pt"})


def take_fast_rule() -> None:
    """Let transformers' layers use flash-linear-attention's kernels, where they are installed."""
    if torch.cuda.is_available() and find_spec("fla"):
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule

        modeling_qwen3_5.torch_chunk_gated_delta_rule = chunk_gated_delta_rule


def main(argv: list[str]) -> None:
    """Train, then write the model, its tokenizer and `training.json`."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("out", type=user_path, help="folder for the trained model")
    p.add_argument("--data", type=user_path, required=True, help="as for `mtp-harness train`")
    p.add_argument("--steps", type=int, default=6000, help="of 98,304 bytes")
    p.add_argument("--context", type=int, default=4096, help="bytes in a window")
    p.add_argument("--save-every", type=int, default=2000, help="steps between two saved states")
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
    take_fast_rule()
    model = build(recipe).to("cuda" if torch.cuda.is_available() else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    held_out = text.held_out_windows(recipe.context)
    curve = train(
        model, batches(text.data, recipe), recipe, args.out, print, held_out, chained(STEPS)
    )
    record = {
        "command": shlex.join(["python", "examples/hybrid_training.py", *argv]),
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(model.device),
        "wall_s": curve[-1]["wall_s"],
        "data": text.report,
        "curve": curve,
    }
    with whole_files(args.out, last="config.json") as draft:
        save(model, draft)
        byte_tokenizer(recipe.context).save_pretrained(draft)
        write_whole(draft / "training.json", json.dumps(record, indent=1) + "\n")
    (args.out / "state.pt").unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1:])

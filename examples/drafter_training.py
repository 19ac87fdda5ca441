"""The recipe of the shipped drafters of `mtp-bytes-n1`, whose weights stay as they are.

    python examples/drafter_training.py OUT --kind eagle3 --data TEXT
    python examples/drafter_training.py OUT --kind medusa --data TEXT

EAGLE-3 learns what the trunk would say, over three steps of its own drafting, each read as it is
when it drafts (`head_states`; Li et al. 2025, "EAGLE-3", section 3.2). Medusa's three heads learn
the text (Cai et al. 2024, "Medusa", section 2.2.1). TEXT is what `mtp-harness train` takes; a run
that was stopped goes on when it is started again.
"""

import argparse
import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig

from mtp_harness.files import user_path
from mtp_harness.models.checkpoints.trunk_folder import Trunk
from mtp_harness.models.head_states import head_states
from mtp_harness.models.load import resolve
from mtp_harness.models.trained_apart.eagle3 import Design, Eagle3, Eagle3Model
from mtp_harness.models.trained_apart.medusa import MedusaHead, MedusaModel
from mtp_harness.models.trunk import TrunkModel
from mtp_harness.training.data import batches, load
from mtp_harness.training.loop import train
from mtp_harness.training.recipe import Recipe
from mtp_harness.training.trained import write_trained

TRUNK = "mtp-bytes-n1"
TAPS = (2, 6, 9)
"""Layers before the states that EAGLE-3 reads, its default for a trunk of 12."""

DRAFTS = 3
"""Steps of EAGLE-3, heads of Medusa."""

DECAY = 0.8
"""Of the weights of the losses, from draft to draft, as in both papers' code."""


def eagle3(main: Any) -> Eagle3Model:
    """Return the trunk with an EAGLE-3 drafter of random weights, in the trunk's vocabulary."""
    trunk = main.config
    config = LlamaConfig(
        vocab_size=trunk.vocab_size,
        hidden_size=trunk.hidden_size,
        intermediate_size=trunk.hidden_size,
        num_hidden_layers=1,
        num_attention_heads=trunk.num_attention_heads,
        num_key_value_heads=trunk.num_key_value_heads,
        head_dim=trunk.head_dim,
        max_position_embeddings=trunk.max_position_embeddings,
        rms_norm_eps=trunk.rms_norm_eps,
        rope_parameters=trunk.rope_parameters,
        tie_word_embeddings=False,
        bos_token_id=trunk.bos_token_id,
        eos_token_id=trunk.eos_token_id,
        pad_token_id=trunk.pad_token_id,
    )
    design = Design(config, TAPS, trunk.hidden_size, trunk.vocab_size)
    return Eagle3Model(main, Eagle3(design), None, 1 + DRAFTS)


def medusa(main: Any) -> MedusaModel:
    """Return the trunk with Medusa heads that say what head 1 says: where their training begins."""
    trunk = main.config
    one = partial(MedusaHead, trunk.hidden_size, 1, trunk.vocab_size, True)
    heads = nn.ModuleList(one() for _ in range(DRAFTS))
    for head in heads:
        for parameter in head.layers.parameters():
            nn.init.zeros_(parameter)
        head.lm_head.load_state_dict(main.lm_head.state_dict())
    return MedusaModel(main, heads)


def losses(model: TrunkModel, tokens: Tensor, distil: bool) -> list[Tensor]:
    """Return the losses of head 1 and of the drafts, scalars in nats.

    Head 1's is against the text.

    Args:
        model: its trunk is frozen.
        tokens: int64 [B, T + n].
        distil: whether drafts are held against what the trunk would say instead of the text.
    """
    n = model.n_future_tokens
    length, found, said = tokens.shape[1] - n, [], torch.empty(0)
    for offset, states in head_states(model, tokens[:, :-1], n, tokens[:, -1:]):
        logits = model.logits(offset, states)  # [B, T + n - 1, V]
        target = tokens[:, offset : offset + length].flatten()
        if offset == 1:
            said = logits.softmax(-1)
        elif distil:
            target = said[:, offset - 1 : offset - 1 + length].flatten(0, 1)  # [B * T, V]
        found.append(cross_entropy(logits[:, :length].flatten(0, 1), target))
    return found


def backward(distil: bool, model: TrunkModel, tokens: Tensor) -> Tensor:
    """Add the gradients of the drafts' losses; return all losses, [n]."""
    found = losses(model, tokens, distil)
    torch.stack([DECAY**i * loss for i, loss in enumerate(found[1:])]).sum().backward()
    return torch.stack(found).detach()


def save_eagle3(model: Eagle3Model, folder: Path) -> None:
    """Write the drafter in bfloat16, as EAGLE-3's authors do."""
    drafter = model.drafter.bfloat16()
    config = drafter.design.config.to_diff_dict() | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "draft_vocab_size": drafter.design.n_drafts,
        "eagle_aux_hidden_state_layer_ids": list(drafter.design.taps),
        "dtype": "bfloat16",
    }
    write(folder, config, {
        name.replace("layers.0.", "midlayer."): one for name, one in drafter.state_dict().items()
    })  # fmt: skip


def save_medusa(model: MedusaModel, folder: Path) -> None:
    """Write the heads in bfloat16, as vLLM reads them."""
    width, vocabulary = model.config.hidden_size, model.config.vocab_size
    config = {
        "model_type": "medusa",
        "architectures": ["MedusaModel"],
        "num_heads": DRAFTS,
        "num_hidden_layers": 1,
        "hidden_size": width,
        "vocab_size": vocabulary,
        "medusa_fc_bias": True,
        "dtype": "bfloat16",
    }
    weights = {}
    for index, head in enumerate(model.heads.bfloat16()):
        for name, one in head.layers.state_dict().items():
            weights[f"blocks.{index}.layers.{name}"] = one
        weights[f"lm_heads.{index}.weight"] = head.lm_head.weight
    write(folder, config, weights)


def write(folder: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Write a drafter's two files."""
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    kept = {name: one.detach().cpu().contiguous() for name, one in weights.items()}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


KINDS: dict[str, Any] = {
    "eagle3": (eagle3, True, save_eagle3),
    "medusa": (medusa, False, save_medusa),
}
"""How it is built, whether it learns what the trunk would say, and how it is written."""


def main(argv: list[str]) -> None:
    """Train, then write the drafter and `training.json`."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("out", type=user_path, help="folder for the drafter")
    p.add_argument("--kind", choices=KINDS, required=True)
    p.add_argument("--data", type=user_path, required=True, help="as for `mtp-harness train`")
    p.add_argument("--steps", type=int, default=600, help="of 98,304 bytes")
    p.add_argument("--context", type=int, default=1024, help="bytes in a window")
    p.add_argument("--rows", type=int, default=96, help="windows in a step")
    args = p.parse_args(argv)
    build, distil, save = KINDS[args.kind]
    text = load(args.data)
    recipe = Recipe(
        steps=args.steps,
        rows=args.rows,
        context=args.context,
        short_context=args.context,
        warmup=min(50, args.steps // 2),
        log_every=50,
        save_every=200,
        data_sha256=text.report["data_sha256"],
    )
    torch.manual_seed(recipe.seed)
    trunk = Trunk.of(Path(resolve(TRUNK))).loaded(torch.float32).requires_grad_(False)
    model = build(trunk).to("cuda" if torch.cuda.is_available() else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    curve = train(
        model, batches(text.data, recipe), recipe, args.out, print, None, partial(backward, distil)
    )
    command = shlex.join(["python", "examples/drafter_training.py", *argv])
    write_trained(args.out, model, partial(save, model), command, recipe, curve, text.report)


if __name__ == "__main__":
    main(sys.argv[1:])

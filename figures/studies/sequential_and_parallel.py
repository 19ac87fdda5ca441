"""Study 2: trains one model whose heads are parallel, chained, or one reused module.

    python figures/studies/sequential_and_parallel.py OUT --kind chained --width 192 --data TEXT

    parallel   8 layers, head 1 and three more heads of one layer each, an unembedding for each head
               (`mtp-harness train --n 4`; Gloeckle et al. 2024)
    chained    9 layers and an unembedding, three modules that each read the state before and the
               next byte (DeepSeek-V3, arXiv 2412.19437, section 2.2): OUT, and its drafter
               OUT/modules
    reused     the same with one module, which is run on its own states three times in training

Trunk and heads are trained together. The loss is that of Gloeckle et al., every head with weight 1,
for all three kinds (DeepSeek-V3 gives the modules 0.3 together). Batches are the same for all.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from mtp_harness.commands import train as command
from mtp_harness.files import user_path
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.families import SPECULATORS
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.sequential import Modules, SequentialModel, modules_config
from mtp_harness.training.data import batches, load
from mtp_harness.training.loop import train
from mtp_harness.training.loss import Backward, backward_head_by_head, chained
from mtp_harness.training.recipe import Recipe
from mtp_harness.training.trained import write_trained

MODULES = {"parallel": 0, "chained": 3, "reused": 1}
DRAFTS = 3
LAYERS = 9
"""Up to head 1."""

FFN = {192: (352, 344), 384: (704, 664), 64: (128, 138)}
"""By width: feed-forward width with parallel heads, and with modules.

So that three heads and three modules have as many parameters within 1 %; 64 is for tests.
"""


def build(kind: str, width: int, seed: int, context: int) -> Any:
    """Return a model with random weights, on the GPU if there is one.

    Args:
        kind: of `MODULES`.
        width: of `FFN`.
        seed: of the weights.
        context: most positions.
    """
    parallel = kind == "parallel"
    shape = {
        "--n": 1 + DRAFTS if parallel else 1,
        "--layers": LAYERS + (DRAFTS if parallel else 0),
        "--width": width,
        "--ffn": FFN[width][0 if parallel else 1],
        "--attention-heads": width // 64,
        "--kv-heads": max(1, width // 192),
        "--context": context,
        "--seed": seed,
    }
    given = [str(part) for pair in shape.items() for part in pair]
    args = command.parser().parse_args(["OUT", "--data", "TEXT", *given])
    main = command.build(args)
    if parallel:
        return main
    longer = modules_config(main.config, MODULES[kind])
    modules = Modules(longer, main.get_decoder(), LAYERS).to(main.device)
    return SequentialModel(main, modules, SPECULATORS, heads=1 + DRAFTS)


def backward(kind: str) -> Backward:
    """Return the backward pass of the sum of all heads' losses."""
    if kind == "parallel":
        return backward_head_by_head
    return chained(DRAFTS, decay=1.0, share=DRAFTS)  # every step has weight 1


def save(model: MultiHeadModel, folder: Path) -> None:
    """Write a model in bfloat16, and its modules as a drafter in the layout of speculators."""
    model.bfloat16()
    byte_tokenizer(model.max_positions).save_pretrained(folder)
    if not isinstance(model, SequentialModel):
        model.save_pretrained(folder)
        return
    model.base.norm = model.norm  # `SequentialModel` has removed it
    model.main.save_pretrained(folder)
    drafter, layers = folder / "modules", model.modules_.layers
    drafter.mkdir()
    content = {"speculators_model_type": "mtp", "num_nextn_predict_layers": len(layers)}
    (drafter / "config.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    weights = {
        SPECULATORS.key(k, name, LAYERS): tensor.cpu().contiguous()
        for k, layer in enumerate(layers)
        for name, tensor in layer.state_dict().items()
    }
    save_file(weights, drafter / "model.safetensors", metadata={"format": "pt"})


def main(argv: Sequence[str]) -> int:
    """Train, then write the model, its tokenizer and `training.json`."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("out", type=user_path, help="folder for the trained model")
    p.add_argument("--kind", choices=MODULES, required=True)
    p.add_argument("--width", type=int, choices=FFN, required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--data", type=user_path, required=True, help="as for `mtp-harness train`")
    p.add_argument("--steps", type=int, default=1000)
    p.add_argument("--rows", type=int, default=24, help="windows in a step")
    p.add_argument("--context", type=int, default=4096, help="bytes in a window")
    args = p.parse_args(argv)
    text = load(args.data)
    about = {name: text.report[name] for name in ("data_sha256", "n_bytes")}
    recipe = Recipe(
        steps=args.steps,
        rows=args.rows,
        context=args.context,
        short_context=min(1024, args.context),
        peak_lr=0.768 / args.width,
        warmup=min(200, args.steps // 2),
        seed=args.seed,
        log_every=min(100, args.steps),
        save_every=250,
        data_sha256=about["data_sha256"],
    )
    model = build(args.kind, args.width, args.seed, args.context)
    args.out.mkdir(parents=True, exist_ok=True)
    batch = batches(text.data, recipe)
    curve = train(model, batch, recipe, args.out, print, None, backward(args.kind))
    said = f"sequential_and_parallel.py OUT --kind {args.kind} --width {args.width} --seed "
    said += f"{args.seed} --data TEXT --steps {args.steps}"
    write_trained(args.out, model, partial(save, model), said, recipe, curve, about)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

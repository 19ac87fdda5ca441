"""`mtp-harness train`: train a byte-level model with n heads by the paper's loss."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from mtp_harness.files import user_path, whole_files, write_whole
from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM, provenance
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.training.data import Batches, Bytes, load
from mtp_harness.training.loop import Recipe, train

LOOKAHEAD = 8
"""Bytes each window carries beyond its context, the same for every n: the same batches."""


RECIPE_ARGUMENTS = [name for name in Recipe.__dataclass_fields__ if name != "data_sha256"]
"""What the command line can set; the hash follows from `--data`."""


def parser() -> argparse.ArgumentParser:
    """Return the command line; the defaults are those of the reference model `mtp-bytes-n4`."""
    p = argparse.ArgumentParser(prog="mtp-harness train", description=__doc__)
    p.add_argument("out", type=user_path, help="folder for the trained model")
    p.add_argument(
        "--data",
        type=user_path,
        required=True,
        metavar="PREFIX",
        help="training text made by `python -m mtp_harness.training.data PREFIX`",
    )
    p.add_argument("--n", type=int, default=4, help="heads (default %(default)s)")
    p.add_argument(
        "--layers", type=int, default=12, help="blocks, heads included (default %(default)s)"
    )
    p.add_argument("--width", type=int, default=192, help="hidden size (default %(default)s)")
    p.add_argument("--ffn", type=int, default=352, help="feed-forward width (default %(default)s)")
    p.add_argument("--attention-heads", type=int, default=3, help="default %(default)s")
    p.add_argument("--kv-heads", type=int, default=1, help="key/value heads (default %(default)s)")
    p.add_argument("--rope-theta", type=float, default=10000.0, help="default %(default)s")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    defaults = Recipe(steps=20000)
    for name in RECIPE_ARGUMENTS:
        value = getattr(defaults, name)
        p.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(value),
            default=value,
            help="default %(default)s",
        )
    return p


def build(args: argparse.Namespace) -> MTPLlamaForCausalLM:
    """Return the model described by `args`, initialised from `args.seed`, on `args.device`."""
    config = MTPLlamaConfig(
        vocab_size=256,
        hidden_size=args.width,
        intermediate_size=args.ffn,
        num_hidden_layers=args.layers,
        num_attention_heads=args.attention_heads,
        num_key_value_heads=args.kv_heads,
        max_position_embeddings=args.context,
        rope_parameters={"rope_type": "default", "rope_theta": args.rope_theta},
        rms_norm_eps=1e-5,
        n_future_tokens=args.n,
        replicated_unembeddings=args.n > 1,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    torch.manual_seed(args.seed)
    model = MTPLlamaForCausalLM(config)
    model.to(args.device)
    return model


def batches(data: Bytes, recipe: Recipe) -> Callable[[int], Bytes]:
    """Return step -> windows: short ones first, then ones as long as the context.

    Raises:
        ValueError: the short windows are longer than the context, or the data is too short.
    """
    if recipe.short_context > recipe.context:
        raise ValueError(
            f"--short-context {recipe.short_context} with --context {recipe.context}: expected at "
            "most the context; lower it."
        )
    n_short = round(recipe.short_share * recipe.steps)
    short_rows = recipe.rows * recipe.context // recipe.short_context
    short = Batches(data, recipe.short_context, short_rows, LOOKAHEAD, recipe.seed)
    long = Batches(data, recipe.context, recipe.rows, LOOKAHEAD, recipe.seed)
    return lambda step: short(step) if step < n_short else long(step)


def main(argv: list[str] | None = None) -> int:
    """Train, then write the model in bfloat16, its tokenizer and `training.json`."""
    args = parser().parse_args(argv)
    if args.n > LOOKAHEAD:
        raise ValueError(f"--n {args.n}: at most {LOOKAHEAD} heads.")
    text = load(args.data)
    chosen = {name: getattr(args, name) for name in RECIPE_ARGUMENTS}
    recipe = Recipe(**chosen, data_sha256=text.report["data_sha256"])
    model = build(args)
    args.out.mkdir(parents=True, exist_ok=True)
    curve = train(model, batches(text.data, recipe), recipe, LOOKAHEAD, args.out, _print_line)
    record = {
        "command": shlex.join(["mtp-harness", "train", *(sys.argv[1:] if argv is None else argv)]),
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(model.device),
        "wall_s": curve[-1]["wall_s"],
        "data": text.report,
        "curve": curve,
    }
    model.bfloat16()
    with whole_files(args.out, last="config.json") as draft:
        model.save_pretrained(draft)
        byte_tokenizer(recipe.context).save_pretrained(draft)
        write_whole(draft / "training.json", json.dumps(record, indent=1) + "\n")
    (args.out / "state.pt").unlink(missing_ok=True)
    return 0


def _print_line(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

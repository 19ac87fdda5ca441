"""`mtp-harness train`: train a byte-level model with n heads by the paper's loss."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mtp_harness.commands.arguments import Parser, device_of
from mtp_harness.results.sizes import in_short
from mtp_harness.training.recipe import Recipe

if TYPE_CHECKING:
    from mtp_harness.models import MTPLlamaForCausalLM

DEFAULTS = Recipe(steps=20000)
SETTABLE = [field.name for field in fields(Recipe) if field.name != "data_sha256"]
"""The fields of a recipe that the command line sets; the hash follows from `--data`."""


def parser() -> Parser:
    """Return the command line; the defaults are those of the shipped model `mtp-bytes-n4`."""
    p = Parser("train", __doc__, "my_model/ --data my_texts/ --steps 2000")
    p.path("out", about="folder for the trained model")
    about = "a text file, a folder of them, or the PREFIX of examples/training_text/make.py"
    p.path("--data", required=True, metavar="TEXT", about=about)
    p.number("--n", 4, "heads")
    p.number("--layers", 12, "blocks, heads included")
    p.number("--width", 192, "hidden size")
    p.number("--ffn", 352, "feed-forward width")
    p.number("--attention-heads", 3, "of a block")
    p.number("--kv-heads", 1, "key/value heads")
    p.number("--rope-theta", 10000.0, "base of the rotary positions")
    p.device()
    meanings = dict(re.findall(r"(\w+): (.+)\.\n", Recipe.__doc__ or ""))
    for name in SETTABLE:
        p.number(f"--{name.replace('_', '-')}", getattr(DEFAULTS, name), meanings[name])
    return p


def main(argv: Sequence[str]) -> int:
    """Train, then write the model in bfloat16, its tokenizer and `training.json`."""
    args = parser().parse_args(argv)
    import torch

    from mtp_harness.models.byte_tokenizer import byte_tokenizer
    from mtp_harness.training.data import LOOKAHEAD, batches, load
    from mtp_harness.training.loop import train
    from mtp_harness.training.trained import write_trained

    if args.n > LOOKAHEAD:
        raise ValueError(f"--n {args.n}: at most {LOOKAHEAD} heads.")
    if (args.out / "config.json").exists():
        raise ValueError(
            f"{args.out} holds a model, expected a folder without one: name another. (To "
            "resume a run that was stopped, give its command again.)"
        )
    text = load(args.data)
    chosen = {name: getattr(args, name) for name in SETTABLE}
    recipe = Recipe(**chosen, data_sha256=text.report["data_sha256"])
    if recipe.steps <= recipe.warmup:
        sys.stderr.write(
            f"note: the learning rate warms up for {recipe.warmup} steps and the run has "
            f"{recipe.steps}: it never reaches its peak. Lower --warmup.\n"
        )
    batch, held_out = batches(text.data, recipe), text.held_out_windows(recipe.context)
    model = build(args)
    args.out.mkdir(parents=True, exist_ok=True)
    with tqdm(total=recipe.steps, unit="step", desc="train") as bar:
        try:
            curve = train(model, batch, recipe, args.out, partial(_show, bar), held_out)
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"the memory of {args.device} does not hold {recipe.rows} rows of {recipe.context} "
                "bytes beside what other programs use: wait for those (the same command goes on "
                "from its last checkpoint, if there is one), or lower --rows or --context and name "
                "another folder."
            ) from error
    command = shlex.join(["mtp-harness", "train", *argv])
    model.bfloat16()

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        byte_tokenizer(recipe.context).save_pretrained(folder)

    record = write_trained(args.out, model, save, command, recipe, curve, text.report)
    sys.stdout.write(_ending(args.out, record))
    return 0


def build(args: argparse.Namespace) -> MTPLlamaForCausalLM:
    """Return the model described by `args`, initialised from `args.seed`, on `args.device`."""
    import torch

    from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM

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
    args.device = device_of(args)
    model.to(args.device)
    return model


def _show(bar: tqdm[Any], line: dict[str, Any]) -> None:
    """Advance the bar to a line of the curve; its losses are by head, in nats per byte."""
    losses = {"loss": line["loss_nats"], "held out": line.get("held_out_nats")}
    said = {name: " ".join(f"{one:.2f}" for one in nats) for name, nats in losses.items() if nats}
    bar.set_postfix(said, refresh=False)
    bar.update(line["step"] - bar.n)


def _ending(out: Path, record: dict[str, Any]) -> str:
    """Return a message: what was saved, and what to do next."""
    last = record["curve"][-1]
    seen, loss = in_short(last["tokens"]), last.get("held_out_nats", last["loss_nats"])
    which = "held-out loss" if "held_out_nats" in last else "loss on the last batch"
    return (
        f"saved to {out}: {record['parameters']:,} parameters, {seen} bytes seen, {which} "
        f"{' '.join(f'{one:.3f}' for one in loss)} nats per byte, by head\n"
        f"next: lm_eval --model mtp --model_args pretrained={shlex.quote(str(out))} --tasks "
        "mtp_heads -o results/ --log_samples\n"
    )

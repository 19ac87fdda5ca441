"""`mtp-harness convert SRC DST`: Meta's layout -> a transformers folder with its tokenizer."""

import argparse
import sys
from collections.abc import Sequence

from mtp_harness.files import user_path

DTYPES = ("float32", "bfloat16", "float16")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtp-harness convert",
        description="Convert a checkpoint in Meta's layout to a transformers folder.",
        epilog="example: mtp-harness convert /ckpt/7B_200B_4 7B_200B_4_hf --dtype bfloat16",
    )
    add = parser.add_argument
    add("source", type=user_path, metavar="SRC", help="folder with params.json and weights")
    add("target", type=user_path, metavar="DST", help="folder to write: new or empty")
    add(
        "--dtype", choices=DTYPES, help="type that the weights are stored in (default: as they are)"
    )
    add(
        "--tokenizer",
        metavar="NAME",
        help="name or folder of the tokenizer (default: tokenizer.model beside the weights or one "
        "folder up)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a checkpoint, say what was done, and return 0; raises as `models.convert`."""
    arguments = _parser().parse_args(argv)
    source, target, dtype = arguments.source, arguments.target, arguments.dtype

    import torch

    from mtp_harness.models.convert import convert

    model = convert(source, target, getattr(torch, dtype) if dtype else None, arguments.tokenizer)
    n_parameters = sum(weight.numel() for weight in model.parameters())
    kind = str(model.dtype).removeprefix("torch.")
    sys.stdout.write(
        f"read      {source}\n"
        f"wrote     {target}: {n_parameters:,} parameters as {kind}, n = {model.n_future_tokens}, "
        "with the tokenizer\n"
        f"checked   read back, all {len(model.state_dict())} tensors equal\n"
        f"load it   --model_args pretrained={target}\n"
    )
    return 0

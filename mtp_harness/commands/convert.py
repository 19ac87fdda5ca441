"""`mtp-harness convert SRC DST`: Meta's layout -> a transformers folder with its tokenizer."""

import sys
from collections.abc import Sequence

from mtp_harness.commands.arguments import Parser

DTYPES = ("float32", "bfloat16", "float16")


def _parser() -> Parser:
    parser = Parser(
        "convert",
        "Convert a checkpoint in Meta's layout to a transformers folder.",
        "/ckpt/7B_200B_4 7B_200B_4_hf --dtype bfloat16",
    )
    parser.path("source", metavar="SRC", about="folder with params.json and weights")
    parser.path("target", metavar="DST", about="folder to write: new or empty")
    about = "type that the weights are stored in (default: as they are)"
    parser.add_argument("--dtype", choices=DTYPES, help=about)
    parser.add_argument(
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

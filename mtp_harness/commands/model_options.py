"""The options that name the model of a command."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtp_harness.models.load import Opened


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add `--drafter`, `--loader` and `--tokenizer`, which mean what they do in `--model_args`."""
    parser.add_argument(
        "--drafter",
        metavar="PLACE",
        help="a file, a folder or a name on the hub with heads to take instead of the "
        "checkpoint's own (default: its own)",
    )
    parser.add_argument(
        "--loader",
        metavar="MODULE:FUNCTION",
        help="your own function, which returns the checkpoint's model; needs --tokenizer "
        "(default: the model is read by its layout)",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="name or folder of the tokenizer (default: the checkpoint's own)",
    )


def drafter_facts(args: argparse.Namespace) -> dict[str, Any]:
    """Return what results record of the drafter; empty without a drafter."""
    from mtp_harness.models.load import drafter_place
    from mtp_harness.models.provenance import weights_sha256

    if not args.drafter:
        return {}
    return {"drafter": args.drafter, "drafter_sha256": weights_sha256(drafter_place(args.drafter))}


def named(facts: Mapping[str, Any]) -> str:
    """Return a model's name in tables, from its `pretrained` and `drafter`."""
    drafter = facts.get("drafter")
    return f"{facts['pretrained']}{f' with {drafter}' if drafter else ''}"


def open_from_options(args: argparse.Namespace, **how: Any) -> "Opened":
    """Open `args.pretrained`, with `how` for the rest of `open_model`'s arguments.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: as for `open_model`.
    """
    from mtp_harness.models.load import open_model

    if args.loader and not args.tokenizer:
        raise ValueError(
            f"--loader {args.loader} gives no tokenizer, expected --tokenizer with a name or "
            "folder: add it."
        )
    asked = {"tokenizer": args.tokenizer, "drafter": args.drafter}
    return open_model(args.pretrained, args.loader, **asked, **how)

"""`mtp-harness convert SRC DST`: Meta's layout -> a transformers folder with its tokenizer.

The folder appears whole or not at all: it is written beside DST, read back, compared tensor by
tensor, and only then renamed.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from mtp_harness import __version__
from mtp_harness.files import user_path
from mtp_harness.models.checkpoints.checks import read_json
from mtp_harness.models.checkpoints.meta import load_meta, meta_tokenizer
from mtp_harness.models.checkpoints.meta_params import PARAMS_FILE
from mtp_harness.models.checkpoints.meta_shards import shard_files
from mtp_harness.models.checkpoints.meta_tokenizer import find_tokenizer
from mtp_harness.models.checkpoints.safetensors_folder import load_folder
from mtp_harness.models.llama.mtp_llama import MTPLlamaForCausalLM
from mtp_harness.models.load import Layout, detect

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PROVENANCE_FILE = "conversion.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a checkpoint, say what was done, and return 0.

    Args:
        argv: the arguments after `convert`; `sys.argv`'s by default.

    Raises:
        FileNotFoundError: SRC is missing or incomplete.
        ValueError: SRC is not in Meta's layout or is broken, or DST is in the way.
    """
    arguments = _parser().parse_args(argv)
    source, target = arguments.source, arguments.target
    model = convert(source, target, DTYPES.get(arguments.dtype))
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


def convert(source: Path, target: Path, dtype: torch.dtype | None = None) -> MTPLlamaForCausalLM:
    """Write a checkpoint in Meta's layout as a transformers folder.

    `AutoModelForCausalLM.from_pretrained(target)` loads it after `import mtp_harness.models`.

    Args:
        source: folder in Meta's layout.
        target: a folder that does not exist yet, or is empty.
        dtype: type to store the weights in; None means as they are.

    Returns:
        The model as written.

    Raises:
        FileNotFoundError: the source is missing or incomplete.
        ValueError: the source is broken or in another layout, the target cannot be written, or what
            was read back differs.
    """
    if detect(str(source.absolute())) is not Layout.META:
        raise ValueError(
            f"{source} is a transformers folder already, expected Meta's layout ({PARAMS_FILE} and "
            "consolidated*.pth): use it as it is"
        )
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"{target} exists, expected a new or empty folder: name another")
    tokenizer = meta_tokenizer(source)  # before the weights: it fails faster
    model = load_meta(source, dtype)
    for owner in (model.config, model.generation_config):
        owner.bos_token_id, owner.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    tokenizer.model_max_length = model.max_positions
    scratch = _new_folder_beside(target)
    try:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        _write_provenance(source, scratch)
        _compare(scratch, model)
        _open_to_readers(scratch)
        scratch.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return model


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtp-harness convert",
        description="Convert a checkpoint in Meta's layout to a transformers folder.",
    )
    parser.add_argument(
        "source", type=user_path, metavar="SRC", help="folder with params.json and weights"
    )
    parser.add_argument(
        "target", type=user_path, metavar="DST", help="folder to write: new or empty"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="default: as stored")
    return parser


def _new_folder_beside(target: Path) -> Path:
    """Return a new empty folder on the disk that will hold the target."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ValueError(
            f"{target} cannot be written ({(error.strerror or str(error)).lower()}), expected a "
            "place where folders can be made: name another"
        ) from error


def _compare(folder: Path, model: MTPLlamaForCausalLM) -> None:
    """Read a folder back and raise unless it holds exactly the model's tensors."""
    written = load_folder(folder).state_dict()
    tensors = model.state_dict()
    differing = [
        name
        for name, tensor in tensors.items()
        if written[name].dtype != tensor.dtype or not torch.equal(written[name], tensor)
    ]
    if differing:
        raise ValueError(
            f"{len(differing)} tensors read back differ from what was written, first "
            f"{differing[0]}: the disk may be full or failing, nothing was kept"
        )


def _write_provenance(source: Path, folder: Path) -> None:
    """Write where the weights came from: names and sizes, versions; no path of this machine."""
    tokenizer = find_tokenizer(source)
    files = [source / PARAMS_FILE, *shard_files(source), *([tokenizer] if tokenizer else [])]
    provenance = {
        "source_folder": source.absolute().name,
        "source_files": {file.name: file.stat().st_size for file in files},
        "params": read_json(source / PARAMS_FILE),
        "mtp_harness": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    text = json.dumps(provenance, indent=2)
    (folder / PROVENANCE_FILE).write_text(f"{text}\n", encoding="utf-8")


def _open_to_readers(folder: Path) -> None:
    """Give a folder and its files the usual permissions; they are made private to their owner."""
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for path in folder.iterdir():
        path.chmod(0o666 & ~mask)

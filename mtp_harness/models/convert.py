"""Converts a checkpoint of another layout to a transformers folder with its tokenizer.

The folder is written atomically: beside the target first, then read back, compared tensor by
tensor, and only then renamed.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
import transformers

from mtp_harness import __version__
from mtp_harness.models.checkpoints.meta_params import PARAMS_FILE
from mtp_harness.models.checkpoints.safetensors_folder import load_folder
from mtp_harness.models.checkpoints.tokenizer_folder import check_vocabulary
from mtp_harness.models.llama.mtp_llama import MTPLlamaForCausalLM
from mtp_harness.models.load import detect, load_tokenizer

PROVENANCE_FILE = "conversion.json"


def convert(
    source: Path, target: Path, dtype: torch.dtype | None = None, tokenizer: str | None = None
) -> MTPLlamaForCausalLM:
    """Write a checkpoint in Meta's layout as a transformers folder; return the model as written.

    `AutoModelForCausalLM.from_pretrained(target)` loads it after `import mtp_harness.models`. The
    target must not exist, or be empty; without a `dtype` weights are stored as they are.
    `tokenizer` is a name or folder; None means the checkpoint's own.

    Raises:
        FileNotFoundError: the source is missing or incomplete.
        ValueError: the source is broken or in another layout, the target cannot be written, or what
            was read back differs; the tokenizer has ids beyond the model's vocabulary.
    """
    layout = detect(str(source.absolute()))
    if layout.load is None or layout.provenance is None:
        raise ValueError(
            f"{source} is a transformers folder already, expected Meta's layout ({PARAMS_FILE} and "
            "consolidated*.pth): use it as it is"
        )
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"{target} exists, expected a new or empty folder: name another")
    # Before the weights, because this fails faster.
    reader = load_tokenizer(tokenizer) if tokenizer else layout.tokenizer(source)
    model = layout.load(source, dtype)
    assert isinstance(model, MTPLlamaForCausalLM)
    check_vocabulary(reader, model.config.vocab_size, str(source))
    for owner in (model.config, model.generation_config):
        owner.bos_token_id, owner.eos_token_id = reader.bos_token_id, reader.eos_token_id
    reader.model_max_length = model.max_positions
    provenance = {
        "source_folder": source.absolute().name,
        **layout.provenance(source),
        "mtp_harness": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    scratch = _new_folder_beside(target)
    try:
        model.save_pretrained(scratch)
        reader.save_pretrained(scratch)
        text = json.dumps(provenance, indent=2)
        (scratch / PROVENANCE_FILE).write_text(f"{text}\n", encoding="utf-8")
        _compare(scratch, model)
        _open_to_readers(scratch)
        scratch.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return model


def _new_folder_beside(target: Path) -> Path:
    """Return a new empty folder on the target's disk."""
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
    differing = [
        name
        for name, tensor in model.state_dict().items()
        if written[name].dtype != tensor.dtype or not torch.equal(written[name], tensor)
    ]
    if differing:
        raise ValueError(
            f"{len(differing)} tensors read back differ from what was written, first "
            f"{differing[0]}: the disk may be full or failing, nothing was kept"
        )


def _open_to_readers(folder: Path) -> None:
    """Give a folder and its files the usual permissions; temporary ones are private."""
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for path in folder.iterdir():
        path.chmod(0o666 & ~mask)

"""A transformers folder (`config.json`, `*.safetensors`), read strictly.

transformers warns about missing keys and fills them with random numbers, and drops unexpected ones.
Here both are errors, found in the files' headers before any weight is read.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mtp_harness.models.checkpoints.checks import (
    KeyReport,
    Shape,
    compare,
    is_finite,
    is_lfs_pointer,
    listing,
    local_folder,
    one_line,
    read_json,
)
from mtp_harness.models.checkpoints.config_file import CONFIG_FILE, model_shapes, read_config
from mtp_harness.models.llama.mtp_llama import MTPLlamaConfig, MTPLlamaForCausalLM

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


class SafetensorsFiles:
    """The tensors of a transformers folder; opening reads the headers only.

    Args:
        folder: holds `model.safetensors`, or the files that `model.safetensors.index.json` names.

    Attributes:
        files: the files.
        shapes: shape of every tensor.
        dtypes: type of every tensor, None for one that is not a plain floating-point type.

    Raises:
        FileNotFoundError: no weights, or a file that the index names is missing.
        ValueError: a file is truncated or no safetensors file.
    """

    def __init__(self, folder: Path) -> None:
        """Read the headers."""
        self.files = weight_files(folder)
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, torch.dtype | None] = {}
        self._handles: dict[str, Any] = {}
        for file in self.files:
            handle = _open(file)
            for name in handle.keys():
                part = handle.get_slice(name)
                self.shapes[name] = tuple(part.get_shape())
                self.dtypes[name] = _DTYPES.get(part.get_dtype())
                self._handles[name] = handle

    def read(self, name: str) -> Tensor:
        """Return one tensor."""
        tensor: Tensor = self._handles[name].get_tensor(name)
        return tensor

    def odd_types(self) -> list[str]:
        """Return a clause about tensors that are no plain floating-point numbers, if there are."""
        odd = [name for name, dtype in self.dtypes.items() if dtype is None]
        return [f"not stored as plain floating-point numbers: {listing(odd)}"] if odd else []

    def main_dtype(self) -> torch.dtype:
        """Return the floating-point type that most of the weights are stored in."""
        counts: Counter[torch.dtype] = Counter()
        for name, dtype in self.dtypes.items():
            if dtype is not None:
                counts[dtype] += torch.Size(self.shapes[name]).numel()
        return counts.most_common(1)[0][0] if counts else torch.get_default_dtype()


def load_folder(folder: Path, dtype: torch.dtype | None = None) -> MTPLlamaForCausalLM:
    """Load an `mtp_llama` folder, on the CPU and in evaluation mode.

    Args:
        folder: holds `config.json` and the weights.
        dtype: type of the weights; None means the one that most of them are stored in.

    Raises:
        FileNotFoundError: the folder or a file is missing.
        ValueError: a file is malformed, `config.json` and the weights disagree, or the weights hold
            NaN or infinity.
    """
    folder = local_folder(folder)
    config = read_config(folder)
    files = SafetensorsFiles(folder)
    _refuse(folder, check_keys(config, files).clauses() + files.odd_types())
    load: Any = MTPLlamaForCausalLM.from_pretrained  # its annotation leaves the loading info out
    model: MTPLlamaForCausalLM
    try:
        model, info = load(
            folder,
            config=config,
            dtype=dtype or files.main_dtype(),
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # whatever transformers says, the user gets one sentence
        raise ValueError(
            f"transformers cannot load {folder} ({one_line(error)}): convert or fetch it again"
        ) from error
    _refuse(
        folder, [f"{kind}: {listing(map(str, names))}" for kind, names in info.items() if names]
    )
    _refuse_not_finite(folder, model)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def check_keys(config: MTPLlamaConfig, files: SafetensorsFiles) -> KeyReport:
    """Compare the weights' keys and shapes with those of the model that `config` describes.

    Raises:
        ValueError: no such model can be built, or it has more layers than there are tensors.
    """
    return compare(model_shapes(config, len(files.shapes)), files.shapes)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder.

    Raises:
        FileNotFoundError: none, or one that the index names is missing.
        ValueError: the index is malformed.
    """
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if not (folder / INDEX_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}, expected the weights in one of "
            "these forms: fetch them, or save them with save_pretrained"
        )
    names = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(v, str) for v in names.values()):
        raise ValueError(f"{folder / INDEX_FILE} has no weight_map of file names: fetch it again")
    files = [folder / name for name in sorted(set(names.values()))]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise FileNotFoundError(
            f"{folder} has no {listing(absent)}, expected because {INDEX_FILE} names it: fetch it"
        )
    return files


def _open(file: Path) -> Any:
    """Return a handle on one file."""
    if is_lfs_pointer(file):
        raise ValueError(
            f"{file} is a Git LFS pointer, expected the weights themselves: run `git lfs pull`"
        )
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{file} is truncated or no safetensors file ({one_line(error)}): fetch it again"
        ) from error


def _refuse(folder: Path, differences: list[str]) -> None:
    """Raise if there are differences between `config.json` and the weights."""
    if differences:
        raise ValueError(
            f"the weights in {folder} do not agree with its {CONFIG_FILE}: "
            f"{'; '.join(differences)}; correct {CONFIG_FILE} or fetch the weights again"
        )


def _refuse_not_finite(folder: Path, model: MTPLlamaForCausalLM) -> None:
    """Raise if weights hold NaN or infinity."""
    bad = [name for name, weight in model.state_dict().items() if not is_finite(weight)]
    if bad:
        raise ValueError(
            f"the weights in {folder} hold NaN or infinity as "
            f"{str(model.dtype).removeprefix('torch.')}, expected finite numbers, in "
            f"{listing(bad)}: fetch them again, or choose a dtype with a wider range"
        )

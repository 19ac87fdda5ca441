"""The tensors of a transformers folder, from the headers of its safetensors files."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mtp_harness.models.checkpoints.checks import (
    StoredTensors,
    is_lfs_pointer,
    listing,
    one_line,
    read_json,
)

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


class SafetensorsFiles(StoredTensors):
    """The tensors of `model.safetensors`, of the files in its index, or of a single file."""

    def __init__(self, place: Path) -> None:
        """Read the headers of a folder's files, or of one file."""
        self.files = [place] if place.is_file() else _weight_files(place)
        self.shapes, self.dtypes = {}, {}
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
        """Return a clause about tensors that are not plain floating-point numbers, if any."""
        odd = [name for name, dtype in self.dtypes.items() if dtype is None]
        return [f"not stored as plain floating-point numbers: {listing(odd)}"] if odd else []


def stored_names(folder: Path) -> set[str]:
    """Return the names of a folder's tensors; from the index alone if there is one."""
    if (folder / SINGLE_FILE).is_file() or not (folder / INDEX_FILE).is_file():
        return set(SafetensorsFiles(folder).shapes)
    return set(_weight_map(folder))


def no_such_model(path: str | Path, error: Exception) -> ValueError:
    """Return the error for a configuration from which transformers cannot build a model."""
    return ValueError(
        f"{path} describes no model that can be built ({type(error).__name__}: {one_line(error)}), "
        "expected the configuration that was saved with the weights: correct it or fetch it again"
    )


def _weight_files(folder: Path) -> list[Path]:
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if not (folder / INDEX_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}, expected the weights in one of "
            "these forms: fetch them, or save them with save_pretrained"
        )
    files = [folder / name for name in sorted(set(_weight_map(folder).values()))]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise FileNotFoundError(
            f"{folder} has no {listing(absent)}, expected because {INDEX_FILE} names it: fetch it"
        )
    return files


def _weight_map(folder: Path) -> dict[str, str]:
    """Return the file of every tensor that an index names."""
    names = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(v, str) for v in names.values()):
        raise ValueError(f"{folder / INDEX_FILE} has no weight_map of file names: fetch it again")
    return names


def _open(file: Path) -> Any:
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

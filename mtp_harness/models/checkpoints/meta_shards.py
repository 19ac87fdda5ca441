"""Meta's `consolidated*.pth`: one file, or the shards of a tensor-parallel run, as whole tensors.

How tensor parallelism splits a tensor (Llama's reference code, on fairscale's layers):

    wq wk wv w1 w3 output    rows, dimension 0
    wo w2                    columns, dimension 1
    tok_embeddings           columns (Llama 1 and 2) or rows (Llama 3): the width tells which
    norms                    not at all: every shard holds the same tensor

Files are memory-mapped: opening reads no weights, and reading an unsplit tensor copies none.
"""

import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from mtp_harness.models.checkpoints.checks import (
    Shape,
    StoredTensors,
    is_lfs_pointer,
    listing,
    one_line,
)

IGNORED = frozenset({"rope.freqs"})
"""A table in some exports, which follows from `params.json`."""

WEIGHT_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

_SPLIT = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1}


class MetaShards(StoredTensors):
    """The whole tensors of one or several `.pth` files, by Meta's names."""

    def __init__(self, folder: Path, width: int) -> None:
        """Open the files.

        Args:
            folder: where they are.
            width: D of the model, which determines how embeddings are split.

        Raises:
            FileNotFoundError: no weights, or a shard is missing.
            ValueError: a file is truncated, contains code, or holds something other than named
                tensors; or the shards do not fit together.
        """
        self.files = shard_files(folder)
        self._width = width
        self._shards = [_open(file) for file in self.files]
        names = {name: None for shard in self._shards for name in shard}
        uneven = [name for name in names if any(name not in shard for shard in self._shards)]
        if uneven:
            raise ValueError(
                f"the shards of {folder} hold different keys ({listing(uneven)}), expected the "
                "same in each: they are from different checkpoints, fetch them again"
            )
        self.shapes = {name: self._whole_shape(name) for name in names}
        self.dtypes = {name: self._shards[0][name].dtype for name in names}

    def read(self, name: str) -> Tensor:
        """Return a whole tensor; if it is not split, it shares the file's memory."""
        parts = [shard[name] for shard in self._shards]
        dim = self._split_dim(name)
        if len(parts) > 1 and dim is not None:
            return torch.cat(parts, dim)
        if any(not torch.equal(parts[0], part) for part in parts[1:]):
            raise ValueError(
                f"{name} differs between the shards, expected the same in each: they are from "
                "different checkpoints, fetch them again"
            )
        return parts[0]

    def _split_dim(self, name: str) -> int | None:
        """Return the dimension that tensor parallelism splits, None for a repeated tensor."""
        leaf = name.split(".")[-2] if "." in name else name
        shape = self._shards[0][name].shape
        if not shape or leaf != "tok_embeddings":
            dim = _SPLIT.get(leaf)
            return None if dim is None or dim >= len(shape) else dim
        return 1 if len(shape) == 2 and shape[1] * len(self._shards) == self._width else 0

    def _whole_shape(self, name: str) -> Shape:
        """Return the shape of the shards put together."""
        shapes = [tuple(shard[name].shape) for shard in self._shards]
        dim = self._split_dim(name)
        if len(shapes) == 1 or dim is None:
            return shapes[0]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"{name} has the shapes {shapes} in the shards, expected equal ones: they are from "
                "different checkpoints, fetch them again"
            )
        whole = list(shapes[0])
        whole[dim] *= len(shapes)
        return tuple(whole)


def shard_files(folder: Path) -> list[Path]:
    """Return the weights in a folder, in the order of the shards."""
    files = sorted(folder.glob("consolidated*.pth")) or sorted(folder.glob("*.pth"))
    if not files:
        raise FileNotFoundError(
            f"{folder} has no consolidated*.pth, expected Meta's weights: fetch them, or name the "
            "folder that holds them"
        )
    numbers = [re.fullmatch(r"consolidated\.(\d+)\.pth", file.name) for file in files]
    indices = sorted(int(number[1]) for number in numbers if number)
    if len(files) > 1 and len(indices) < len(files):
        raise ValueError(
            f"{folder} holds {listing(file.name for file in files)}, expected one file or shards "
            "numbered consolidated.00.pth, consolidated.01.pth, …: remove what does not belong"
        )
    if indices != list(range(len(indices))):
        gap = next(i for i in range(len(indices)) if indices[i] != i)
        raise FileNotFoundError(
            f"{folder} has no consolidated.{gap:02d}.pth but one of a higher number: fetch all "
            "shards"
        )
    return files


def _open(file: Path) -> dict[str, Tensor]:
    """Return the named tensors of one file, memory-mapped, without running any code from it."""
    if not zipfile.is_zipfile(file):
        lfs = is_lfs_pointer(file)
        what = "a Git LFS pointer" if lfs else "truncated, or no file that torch.save wrote"
        cure = "run `git lfs pull`" if lfs else "fetch it again"
        raise ValueError(f"{file} is {what}, expected the weights themselves: {cure}")
    try:
        foreign = get_unsafe_globals_in_checkpoint(file)
        content = None if foreign else torch.load(file, mmap=True, weights_only=True)
    except Exception as error:  # torch raises many types for a broken file
        raise ValueError(
            f"{file} cannot be read as weights ({one_line(error)}): fetch it again"
        ) from error
    if foreign:
        raise ValueError(
            f"{file} carries code ({listing(foreign)}), expected tensors alone: it was not run; "
            "save the state dict itself with torch.save"
        )
    return _named_tensors(file, content)


def _named_tensors(file: Path, content: object) -> dict[str, Tensor]:
    """Return `content` if it maps names to plain weights, without the ignored ones."""
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(
            f"{file} holds a {type(content).__name__}, expected named tensors: save the state dict"
        )
    tensors = {name: value for name, value in content.items() if name not in IGNORED}
    odd = [f"{name} ({kind})" for name, v in tensors.items() if (kind := _odd_kind(v))]
    if odd or not tensors:
        found = f"holds {listing(odd)}" if odd else "is empty"
        raise ValueError(
            f"{file} {found}, expected plain tensors of float32, bfloat16, float16 or float64 by "
            "name alone: save the state dict"
        )
    return tensors


def _odd_kind(value: object) -> str | None:
    """Return what a value is; None for a tensor that can be weights."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.is_meta:
        return "without data, on the meta device"
    if value.layout is not torch.strided or value.is_nested:
        return f"nested or {value.layout}".replace("torch.", "")
    return None if value.dtype in WEIGHT_DTYPES else str(value.dtype).removeprefix("torch.")

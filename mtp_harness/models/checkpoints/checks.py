"""Checks shared by all loaders of checkpoints, with messages of one sentence."""

import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtp_harness.errors import sentence

Shape = tuple[int, ...]

_LFS_POINTER = b"version https://git-lfs"


class KeyReport(NamedTuple):
    """How a checkpoint's tensors differ from its model's."""

    missing: list[str]
    unexpected: list[str]
    wrong_shapes: list[str]
    """`NAME is [found], expected [shape]`."""

    @classmethod
    def compare(cls, expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> "KeyReport":
        """Return the differences between two sets of named shapes."""
        return cls(
            missing=[name for name in expected if name not in found],
            unexpected=[name for name in found if name not in expected],
            wrong_shapes=[
                f"{name} is {list(found[name])}, expected {list(shape)}"
                for name, shape in expected.items()
                if name in found and found[name] != shape
            ],
        )

    @classmethod
    def of_loading(
        cls, info: Mapping[str, Any], key: Callable[[str], str] = lambda name: name
    ) -> "KeyReport":
        """Return the differences in transformers' `output_loading_info`; `key` maps its names."""
        return cls(
            missing=sorted({key(name) for name in info["missing_keys"]}),
            unexpected=sorted({key(name) for name in info["unexpected_keys"]}),
            wrong_shapes=sorted(
                {
                    f"{key(name)} is {list(found)}, expected {list(expected)}"
                    for name, found, expected in info["mismatched_keys"]
                }
            ),
        )

    def clauses(self) -> list[str]:
        """Return one clause per kind of difference; none if nothing differs."""
        kinds = zip(("missing", "unexpected", "wrong shape"), self, strict=True)
        return [f"{kind}: {listing(names)}" for kind, names in kinds if names]


class StoredTensors(ABC):
    """The tensors in a checkpoint's files; opening them reads no weights."""

    files: list[Path]
    shapes: dict[str, Shape]
    dtypes: dict[str, torch.dtype | None]  # None: not a plain floating-point type

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """Return one tensor."""

    def main_dtype(self) -> torch.dtype:
        """Return the floating-point type of most weights."""
        counts: Counter[torch.dtype] = Counter()
        for name, dtype in self.dtypes.items():
            if dtype is not None:
                counts[dtype] += math.prod(self.shapes[name])
        return counts.most_common(1)[0][0] if counts else torch.get_default_dtype()


def listing(names: Iterable[str], limit: int = 3) -> str:
    """Return the first `limit` names and how many more there are."""
    names = list(names)
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def one_line(error: Exception, limit: int = 200) -> str:
    """Return an error's message without line breaks, cut to `limit` characters."""
    text = sentence(error) or type(error).__name__
    return text if len(text) <= limit else text[:limit] + "…"


def odd_number(name: str, value: object, whole: bool, limit: float = math.inf) -> str | None:
    """Return what a value is and should be, unless it is a positive number below the limit."""
    types = (int,) if whole else (int, float)
    if isinstance(value, types) and not isinstance(value, bool) and 0 < value < limit:
        return None
    shown = repr(value) if len(repr(value)) < 100 else f"{repr(value)[:100]}…"
    below = "" if limit == math.inf else f" below {limit:g}"
    return f"{name}={shown}, expected a positive {'integer' if whole else 'number'}{below}"


def refuse_differences(folder: Path, file: str, differences: Sequence[str]) -> None:
    """Raise a ValueError if a file and the weights beside it do not agree."""
    if differences:
        raise ValueError(
            f"the weights in {folder} do not agree with its {file}: "
            f"{'; '.join(differences)}; correct {file} or fetch the weights again"
        )


def refuse_not_finite(folder: Path, dtype: torch.dtype, bad: Sequence[str]) -> None:
    """Raise a ValueError if tensors hold NaN or infinity after conversion to a type."""
    if bad:
        raise ValueError(
            f"the weights in {folder} hold NaN or infinity as {str(dtype).removeprefix('torch.')}, "
            f"expected finite numbers, in {listing(bad)}: fetch them again, or choose a dtype with "
            "a wider range"
        )


def refuse_more_layers(name: str, n_layers: int, n_tensors: int) -> None:
    """Raise a ValueError about `name` (a file and its key) if it gives more layers than tensors.

    Checked before names are made for all of these layers.
    """
    if n_layers > n_tensors:
        raise ValueError(
            f"{name}={n_layers} but the weights hold {n_tensors} tensors in all, expected several "
            "for each layer: correct it or fetch the weights again"
        )


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor holds neither NaN nor infinity."""
    if not tensor.numel():
        return True
    # One pass without temporaries: aminmax passes NaN on, and infinities are extremes.
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) and torch.isfinite(high))


def local_folder(path: str | Path) -> Path:
    """Return `path` if it is a folder that is not empty."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(
            f"{folder} is a file, expected the folder of a checkpoint: pass {folder.parent}"
        )
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} does not exist, expected the folder of a checkpoint: check the path"
        )
    if not any(folder.iterdir()):
        raise FileNotFoundError(
            f"{folder} is empty, expected a checkpoint in it: download or copy it there"
        )
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent} has no {path.name}: copy it from the checkpoint's release"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # the latter: brackets within brackets
        raise ValueError(f"{path} is not valid JSON ({one_line(error)}): fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a JSON {type(content).__name__}, expected an object: fetch it again"
        )
    return content


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a file is a Git LFS pointer, a text in place of the weights."""
    with path.open("rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER

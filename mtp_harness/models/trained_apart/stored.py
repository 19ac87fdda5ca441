"""Shared by drafters with their own configuration: files, trunk and layout.

A kind of drafter is a subclass of `Stored`, which builds its heads; `layout` makes it the layout of
the trunk's folder.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from mtp_harness.models.checkpoints.checks import (
    KeyReport,
    Shape,
    StoredTensors,
    is_lfs_pointer,
    listing,
    one_line,
    read_json,
)
from mtp_harness.models.checkpoints.layout import Layout, Summary
from mtp_harness.models.checkpoints.ordinary_folder import describe_config, describe_weights
from mtp_harness.models.checkpoints.safetensors_files import CONFIG_FILE, SafetensorsFiles
from mtp_harness.models.checkpoints.tokenizer_folder import tokenizer_file
from mtp_harness.models.checkpoints.trunk_folder import Trunk, trunk_tokenizer
from mtp_harness.models.families import text_part
from mtp_harness.models.full_precision import keeping_precision
from mtp_harness.models.trunk import TrunkModel

PICKLED = ("pytorch_model.bin", "medusa_lm_head.pt", "hydra_lm_head.pt")
"""Names of authors' files, which hold named tensors."""

KINDS = ("llama", "qwen3")
"""Model types that a drafter's layers may have."""


class PickledFile(StoredTensors):
    """The tensors of a file of `torch.save`, read without running its code."""

    def __init__(self, file: Path) -> None:
        """Open a file; its tensors stay in it.

        Raises:
            ValueError: it is broken, or holds something other than named tensors.
        """
        if is_lfs_pointer(file):
            raise ValueError(
                f"{file} is a Git LFS pointer, expected the weights themselves: run `git lfs pull`"
            )
        try:
            self._tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # a damaged archive fails in many ways
            raise ValueError(
                f"{file} cannot be read as plain tensors ({one_line(error)}): fetch it again"
            ) from error
        named = isinstance(self._tensors, dict)
        if not named or not all(isinstance(one, Tensor) for one in self._tensors.values()):
            raise ValueError(f"{file} holds no named tensors, expected a drafter: fetch it again")
        self.files = [file]
        self.shapes = {name: tuple(one.shape) for name, one in self._tensors.items()}
        self.dtypes = {
            name: one.dtype if one.dtype.is_floating_point else None
            for name, one in self._tensors.items()
        }

    def read(self, name: str) -> Tensor:
        """Return one tensor."""
        tensor: Tensor = self._tensors[name]
        return tensor


def tensors_of(drafter: Path) -> StoredTensors:
    """Return the tensors of a drafter's folder or file.

    Raises:
        FileNotFoundError: there are none.
        ValueError: a file is broken.
    """
    found = [drafter / name for name in PICKLED if (drafter / name).is_file()]
    return PickledFile(found[0]) if found else SafetensorsFiles(drafter)


@dataclass(frozen=True)
class Stored(ABC):
    """A drafter's files and its trunk; weights are read by `model`."""

    name: ClassVar[str]  # of the layout, in results
    title: ClassVar[str]

    trunk: Trunk  # the trunk's folder
    folder: Path  # the drafter's
    content: dict[str, Any]  # of the drafter's `config.json`
    tensors: StoredTensors  # the drafter's

    @classmethod
    def of(cls, trunk: Path, folder: Path) -> "Stored":
        """Read configurations and headers.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is broken, or the trunk cannot have a drafter.
        """
        content = read_json(folder / CONFIG_FILE)
        found = cls(Trunk.of(trunk), folder, content, tensors_of(folder))
        found.trunk.refuse_other_target(folder, content)
        return found

    @property
    @abstractmethod
    def heads(self) -> int:
        """The default n."""

    @property
    @abstractmethod
    def most(self) -> int:
        """The largest possible n."""

    @abstractmethod
    def built(self) -> nn.Module:
        """Return the drafter with random weights, with the names that `key` gives.

        Raises:
            ValueError: the configuration does not describe a drafter that fits the trunk.
        """

    @abstractmethod
    def model(self, main: Any, drafter: Any, heads: int | None) -> TrunkModel:
        """Return a trunk of transformers with the loaded drafter."""

    def key(self, name: str) -> str:
        """Return the name in the drafter that `built` makes for a key of the files."""
        return name

    @property
    def ignored(self) -> frozenset[str]:
        """Keys of tables, which are read separately."""
        return frozenset()

    @property
    def n_modules(self) -> int | None:
        """Its number of sequential modules; None if its heads are not sequential modules."""
        return None

    def of_trunk(self, name: str) -> int:
        """Return a number of the trunk's configuration."""
        value = text_part(self.trunk.content).get(name)
        if not isinstance(value, int):
            raise ValueError(
                f"{self.trunk.folder / CONFIG_FILE}: {name} is {value}, expected a whole number: "
                "fetch it again"
            )
        return value

    def refuse(self, why: str) -> ValueError:
        """Return the error for a drafter that does not fit."""
        return ValueError(
            f"the drafter {self.folder} does not fit the trunk {self.trunk.folder}: {why}; name "
            "another drafter, or the trunk that it was trained on"
        )

    def count(self, *names: str) -> int:
        """Return a number of the configuration, by the first of its names that exists."""
        found = [self.content[name] for name in names if name in self.content]
        if not found or type(found[0]) is not int or not 1 <= found[0] <= 64:
            raise self.refuse(
                f"{' or '.join(names)} is {found[0] if found else 'absent'}, expected a number "
                "from 1 to 64"
            )
        count: int = found[0]
        return count

    def renamed(self, name: str, patterns: Mapping[str, str]) -> str:
        """Return a key renamed by the first pattern that matches all of it, or unchanged."""
        for pattern, ours in patterns.items():
            if match := re.fullmatch(pattern, name):
                return match.expand(ours)
        return name

    def layer_config(self, content: Mapping[str, Any]) -> Any:
        """Return transformers' configuration of a drafter's layers.

        Raises:
            ValueError: its layers are not supported, or its vocabulary differs.
        """
        part = dict(content)
        kind, size = part.pop("model_type", None), part.get("vocab_size")
        if kind not in KINDS:
            raise self.refuse(f"its layer is of model_type {kind}, expected {' or '.join(KINDS)}")
        if size != self.of_trunk("vocab_size"):
            raise self.refuse(
                f"vocab_size is {size} in its {CONFIG_FILE}, expected "
                f"{self.of_trunk('vocab_size')}, the trunk's"
            )
        try:
            ends = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
            return AutoConfig.for_model(kind, **{**part, **ends})
        except Exception as error:  # transformers' validation has its own classes of error
            raise self.refuse(f"its {CONFIG_FILE} describes no layer ({error})") from error

    def checked(self) -> nn.Module:
        """Return the drafter with random weights, with the shapes of the files.

        Raises:
            ValueError: tensors are missing, unexpected, packed or of another shape.
        """
        drafter = self.built()
        packed = [
            key
            for key, dtype in self.tensors.dtypes.items()
            if dtype is None and key not in self.ignored
        ]
        if packed:
            raise self.refuse(f"not stored as plain floating-point numbers: {listing(packed)}")
        own = {self.key(key): key for key in self.tensors.shapes if key not in self.ignored}
        wanted = {name: tuple(one.shape) for name, one in drafter.state_dict().items()}
        shapes: Mapping[str, Shape] = {name: self.tensors.shapes[key] for name, key in own.items()}
        if clauses := KeyReport.compare(wanted, shapes).clauses():
            raise self.refuse("; ".join(clauses))
        return drafter

    def filled(self, dtype: torch.dtype) -> nn.Module:
        """Return the drafter, in evaluation mode."""
        drafter = self.checked()
        keys = [key for key in self.tensors.shapes if key not in self.ignored]
        drafter.load_state_dict({self.key(key): self.tensors.read(key) for key in keys})
        with keeping_precision(drafter):
            drafter.to(dtype)
        return drafter.eval()


def layout(kind: type[Stored], drafter: Path) -> Layout:
    """Return the layout of a trunk's folder with a drafter of this kind."""

    def load(
        folder: Path, dtype: torch.dtype | None = None, heads: int | None = None, **arguments: Any
    ) -> TrunkModel:
        stored = kind.of(folder, drafter)
        stored.checked()
        main = stored.trunk.loaded(dtype, **arguments)
        model = stored.model(main, stored.filled(main.dtype), heads)
        model.eval()
        return model

    return Layout(
        name=kind.name,
        title=kind.title,
        recognises=lambda _: False,  # asked for by `drafter=` alone
        n_future_tokens=lambda folder: kind.of(folder, drafter).heads,
        tokenizer=trunk_tokenizer,
        describe=partial(_describe, kind, drafter),
        load=load,
        most_heads=lambda folder: kind.of(folder, drafter).most,
    )


def _describe(kind: type[Stored], drafter: Path, summary: Summary, folder: Path) -> Path | None:
    """Fill in what is known without loading, of the trunk and of the drafter."""
    content = describe_config(summary, folder)
    stored = summary.attempt(lambda: kind.of(folder, drafter))
    if stored:
        summary.attempt(stored.checked)
        trunk = stored.trunk
        describe_weights(summary, content, lambda: trunk.files, lambda _: trunk.trunk_differences())
        summary.scan(stored.tensors)
        summary.n_future_tokens = summary.attempt(lambda: stored.heads)
        summary.modules, tables = stored.n_modules, stored.ignored
        sizes = {key: prod(shape) for key, shape in stored.tensors.shapes.items()}
        n_numbers = sum(size for key, size in sizes.items() if key not in tables)
        summary.parameters["total"] -= sum(sizes.values()) - n_numbers
        summary.notes.append(f"parameters of the drafter: {n_numbers:,}")
    return tokenizer_file(folder)

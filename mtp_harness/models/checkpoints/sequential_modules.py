"""The modules of a sequential family as they are stored: read, checked, and put into their layers.

transformers loads the trunk and ignores the modules' weights. Here they must match the model
exactly, and so must the trunk. They come from the trunk's files or from a drafter's (`drafter=`).
The families are rows of `models.families`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtp_harness.models.checkpoints import single_experts
from mtp_harness.models.checkpoints.checks import KeyReport, listing, read_json
from mtp_harness.models.checkpoints.ordinary_folder import asking_transformers, built, quietly
from mtp_harness.models.checkpoints.safetensors_files import CONFIG_FILE, SafetensorsFiles
from mtp_harness.models.checkpoints.trunk_folder import Trunk
from mtp_harness.models.families import (
    FAMILIES,
    SPECULATORS,
    Family,
    modules_in,
    promised,
    text_part,
)
from mtp_harness.models.sequential import Modules, modules_config

MODULE_FILE = "mtp.safetensors"
"""Files that finetuning writes beside a trunk."""


@dataclass(frozen=True)
class Stored(Trunk):
    """The folder of a trunk and the files of its modules; weights are read where a method says so.

    Attributes:
        family: the row for reading the modules.
        source: the place of the modules: the trunk's folder or a drafter.
        modules: their tensors; if the folder is the same, among the trunk's.
    """

    family: Family
    source: Path
    modules: SafetensorsFiles

    @classmethod
    def of(cls, folder: Path, drafter: Path | None = None) -> "Stored":
        """Read the configuration and the headers of the weights.

        Args:
            folder: holds `config.json` and safetensors.
            drafter: a file or folder with modules, used instead of the folder's own.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is broken, the configuration does not give the trunk's depth, or the
                trunk does not fit a drafter.
        """
        trunk = Trunk.of(folder)
        if drafter is None:
            assert trunk.own is not None, "detected by its model_type"
            return cls(**vars(trunk), family=trunk.own, source=folder, modules=trunk.files)
        row, modules = _row(drafter, trunk), SafetensorsFiles(_module_file(drafter))
        return cls(**vars(trunk), family=row, source=drafter, modules=modules)

    @property
    def is_apart(self) -> bool:
        """Whether the modules are a drafter's."""
        return self.modules is not self.files

    @cached_property
    def places(self) -> dict[str, tuple[int | None, str]]:
        """The modules' keys: which module, and the name in `MtpLayer`; see `Family.place`."""
        found = {key: self.family.place(key, self.n_trunk) for key in self.modules.shapes}
        return {key: place for key, place in found.items() if place}

    @cached_property
    def packed(self) -> list[str]:
        """The modules' keys whose tensors are not plain floating-point numbers."""
        return [key for key in self.places if self.modules.dtypes[key] is None]

    @cached_property
    def absent_parts(self) -> list[str]:
        """The keys missing among experts that are stored one by one."""
        return single_experts.absent(self.files.shapes | self.modules.shapes)

    @cached_property
    def uneven_parts(self) -> list[str]:
        """The keys of such experts whose shapes are not those of their layer's others."""
        return single_experts.uneven(self.files.shapes | self.modules.shapes)

    def n_modules(self) -> int:
        """Return how many modules there are.

        Raises:
            ValueError: it is not the number in the configuration, or a drafter has no module.
        """
        found = modules_in(self.family, self.modules.shapes, self.n_trunk)
        said = promised(self.content) or 0
        if self.is_apart:
            if not found:
                raise self._other_family()
            return found
        if found == said or (found and not said):
            return found
        config, modules = self.folder / CONFIG_FILE, f"{said} module{'s' * (said > 1)}"
        if not found:
            example = self.family.key(0, "eh_proj.weight", self.n_trunk)
            raise ValueError(
                f"{config} promises {modules} and the weights hold none (keys such as {example}); "
                "copies for other engines leave them out: fetch the original checkpoint, or use "
                "--model hf for the trunk alone"
            )
        raise ValueError(
            f"{config} promises {modules} and the weights hold {found}, expected the same number: "
            "correct it or fetch the weights again"
        )

    def _other_family(self) -> ValueError:
        """Return the error for a drafter without a module of the trunk's family."""
        keys = self.modules.shapes
        rows = {**FAMILIES, "speculators": SPECULATORS}.items()
        others = [name for name, row in rows if modules_in(row, keys, self.n_trunk)]
        found = f" (the layout of {others[0]})" if others else ""
        return ValueError(
            f"{self.source} holds no module of {self.content.get('model_type')} (keys such as "
            f"{self.family.key(0, 'eh_proj.weight', self.n_trunk)}) but keys such as "
            f"{listing(sorted(keys), 1)}{found}, expected a module in the layout of the trunk "
            f"{self.folder}: name another drafter, or the trunk that it was trained on"
        )

    def refuse_left_over(self) -> None:
        """Refuse a drafter that holds other tensors than modules.

        Raises:
            ValueError: names the tensors.
        """
        odd = [key for key in self.modules.shapes if key not in self.places]
        if self.is_apart and odd:
            raise ValueError(
                f"{self.source} holds more than modules for {self.folder} (unexpected: "
                f"{listing(odd)}), expected the modules' weights alone: take the others out"
            )

    def refuse_dedicated(self) -> None:
        """Refuse modules with separate embeddings, according to the configuration.

        Raises:
            ValueError: it does.
        """
        if text_part(self.content).get("mtp_use_dedicated_embeddings"):
            raise ValueError(
                f"{self.folder / CONFIG_FILE}: mtp_use_dedicated_embeddings is true, expected "
                "modules that share the trunk's embeddings: modules with their own are not "
                "supported"
            )

    def refuse_packed(self) -> None:
        """Refuse modules that are not stored as plain floating-point numbers.

        Raises:
            ValueError: names the tensors.
        """
        if self.packed:
            raise ValueError(
                f"{self.source} holds module weights that are not plain floating-point numbers "
                f"({listing(self.packed)}), expected float32, float16 or bfloat16: fetch the "
                "checkpoint whose modules are not quantised"
            )

    def refuse_partial_experts(self) -> None:
        """Refuse experts of the trunk or of modules that cannot be joined.

        Raises:
            ValueError: names the keys.
        """
        clauses = {"missing": self.absent_parts, "of another shape": self.uneven_parts}
        if self.unjoinable and not self.packed:
            said = "; ".join(f"{what}: {listing(keys)}" for what, keys in clauses.items() if keys)
            raise ValueError(
                f"experts in {self.source} are incomplete or uneven: {said}; fetch them again"
            )

    @property
    def unjoinable(self) -> bool:
        """Whether transformers cannot join the experts that are stored one by one."""
        return bool(self.absent_parts or self.uneven_parts)

    def refuse_own_copies(self) -> None:
        """Refuse modules whose embeddings or unembedding differ from the trunk's; reads both.

        Raises:
            ValueError: says which.
        """
        trunk = {"embed_tokens": "model.embed_tokens.weight", "lm_head": "lm_head.weight"}
        if trunk["lm_head"] not in self.files.shapes:  # tied
            trunk["lm_head"] = trunk["embed_tokens"]
        for key, (_, name) in self.places.items():
            theirs = trunk.get(name.removeprefix("=").removesuffix(".weight"), "")
            if not name.startswith("=") or theirs not in self.files.shapes:
                continue
            if not torch.equal(self.modules.read(key), self.files.read(theirs)):
                raise ValueError(
                    f"{self.source}: {key} is not the trunk's own, expected modules that share the "
                    "trunk's embeddings and unembedding: modules with their own are not supported"
                )

    def trunk_differences(self) -> KeyReport | None:
        """Return how the trunk's tensors differ from its model's; None if that is not known."""
        return None if self.unjoinable else super().trunk_differences()

    def refuse_other_modules(self) -> None:
        """Refuse modules whose tensors do not fit the trunk's kind of layer.

        Raises:
            ValueError: names the tensors.
        """
        if self.packed or self.unjoinable:  # already reported
            return
        with quietly():
            trunk = built(self.folder, self.read_config)
        if trunk is not None:
            shapes = self.modules.shapes.items()
            self.filled(trunk, {key: torch.empty(shape, device="meta") for key, shape in shapes})

    def check(self) -> None:
        """Refuse everything that can be refused before a model is built.

        Raises:
            ValueError: the first of the reasons.
        """
        for step in CHECKS:
            step(self)

    def filled(self, main: Any, tensors: Mapping[str, Tensor] | None = None) -> Modules:
        """Return the modules of a trunk, on its device; experts stored one by one are joined.

        Args:
            main: transformers' causal language model.
            tensors: by their keys; None reads them from the files.

        Raises:
            ValueError: tensors are missing, unexpected, or of another shape.
        """
        n, weights = self.n_modules(), {}
        for key, (module, name) in self.places.items():
            if not name.startswith("="):
                tensor = self.modules.read(key) if tensors is None else tensors[key]
                # None: weights that all modules share.
                for k in range(n) if module is None else [module]:
                    weights[f"layers.{k}.{name}"] = tensor
        trunk = main.get_decoder()
        load: Any = Modules.from_pretrained
        with asking_transformers(f"the modules of {self.source}"), quietly():
            modules, info = load(
                None,
                trunk,
                trunk.config.num_hidden_layers,
                config=modules_config(trunk.config, n),
                state_dict=weights,
                dtype=main.dtype,
                device_map={"": main.device},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        if clauses := KeyReport.of_loading(info, self._key).clauses():
            whose, cure = f"its {CONFIG_FILE}", "fetch them again"
            if self.is_apart:
                whose = f"the {CONFIG_FILE} of {self.folder}"
                cure = "name another drafter, or the trunk that it was trained on"
            raise ValueError(
                f"the module weights in {self.source} are not those that {whose} describes: "
                f"{'; '.join(clauses)}; {cure}"
            )
        filled: Modules = modules
        return filled

    def _key(self, name: str) -> str:
        """Return the checkpoint's key for a name in `Modules`."""
        _, module, rest = name.split(".", 2)
        return self.family.key(int(module), rest, self.n_trunk)


def _row(drafter: Path, trunk: Trunk) -> Family:
    """Return the row for reading a drafter's modules."""
    if is_speculators(drafter):
        trunk.refuse_other_target(drafter, read_json(drafter / CONFIG_FILE))
        return SPECULATORS
    if trunk.own is None:
        raise ValueError(
            f"{drafter} holds weights alone, and {trunk.folder} is of no family whose modules are "
            f"known (model_type {trunk.content.get('model_type')}), expected a trunk of "
            f"{listing(FAMILIES, 99)}, or a drafter's folder that says what it is: name another"
        )
    return trunk.own


def is_speculators(drafter: Path) -> bool:
    """Return whether a drafter is a speculators folder with a module."""
    path = drafter / CONFIG_FILE
    return path.is_file() and read_json(path).get("speculators_model_type") == "mtp"


def _module_file(drafter: Path) -> Path:
    """Return the file with a drafter's modules, or the folder whose index names them."""
    path = drafter / MODULE_FILE
    return path if path.is_file() else drafter


CHECKS: tuple[Callable[[Stored], Any], ...] = (
    Stored.refuse_dedicated,
    Stored.n_modules,
    Stored.refuse_left_over,
    Stored.refuse_packed,
    Stored.refuse_packed_trunk,
    Stored.refuse_partial_experts,
    Stored.refuse_other_modules,
    Stored.refuse_stray_head,
    Stored.refuse_own_copies,
)
"""Checks of modules, for `inspect` and loading, before a model is built; without the trunk."""

"""A checkpoint of a sequential family: transformers loads the trunk, this loads the modules.

transformers leaves the modules' weights out without a word. Here they are read strictly both ways,
from the same files, and so is the trunk. The families are rows of `models.families`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from mtp_harness.models.checkpoints.checks import (
    KeyReport,
    listing,
    read_json,
    refuse_differences,
)
from mtp_harness.models.checkpoints.layout import Layout, Summary
from mtp_harness.models.checkpoints.ordinary_folder import (
    asking_transformers,
    built,
    compare,
    describe_config,
    describe_weights,
    quietly,
)
from mtp_harness.models.checkpoints.safetensors_files import (
    CONFIG_FILE,
    SafetensorsFiles,
    no_such_model,
    stored_names,
)
from mtp_harness.models.checkpoints.tokenizer_folder import folder_tokenizer, tokenizer_file
from mtp_harness.models.families import (
    Family,
    family_of,
    modules_in,
    promised,
    text_part,
)
from mtp_harness.models.sequential import (
    Modules,
    SequentialModel,
    heads_of,
    modules_config,
    most_heads_of,
)

_ELSEWHERE = {"quantization_config", "transformers_weights"}
"""Keys of a configuration whose tensors only transformers can compare with the trunk's."""

_EXPERT = re.compile(r"(.*\.experts\.\d+\.)\w+\.weight$")
_EXPERT_PARTS = ("gate_proj.weight", "up_proj.weight", "down_proj.weight")


def _of_layer(expert: re.Match[str]) -> str:
    """Return what the keys of one part of all experts of a layer have in common."""
    return re.sub(r"\.experts\.\d+\.", ".experts.", expert[0])


@dataclass(frozen=True)
class Stored:
    """What a folder of a family says and holds; weights are read where a method says so.

    Attributes:
        folder: holds `config.json` and safetensors.
        content: of its `config.json`.
        family: the row.
        files: its weights.
    """

    folder: Path
    content: dict[str, Any]
    family: Family
    files: SafetensorsFiles

    @classmethod
    def of(cls, folder: Path) -> "Stored":
        """Read the configuration and the headers of the weights.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is broken, or the configuration does not say how deep the trunk is.
        """
        content = read_json(folder / CONFIG_FILE)
        family = family_of(content)
        assert family is not None, "detected by its model_type"
        depth = text_part(content).get("num_hidden_layers")
        if not isinstance(depth, int) or depth < 1:
            raise ValueError(
                f"{folder / CONFIG_FILE}: num_hidden_layers is {depth}, expected the number of the "
                "trunk's layers: fetch it again"
            )
        return cls(folder, content, family, SafetensorsFiles(folder))

    @property
    def n_trunk(self) -> int:
        """The number of the trunk's layers."""
        return int(text_part(self.content)["num_hidden_layers"])

    @cached_property
    def places(self) -> dict[str, tuple[int | None, str]]:
        """The modules' keys: which module, and the name in `MtpLayer`; see `Family.place`."""
        found = {key: self.family.place(key, self.n_trunk) for key in self.files.shapes}
        return {key: place for key, place in found.items() if place}

    @cached_property
    def packed(self) -> list[str]:
        """The modules' keys whose tensors are no plain floating-point numbers."""
        return [key for key in self.places if self.files.dtypes[key] is None]

    @cached_property
    def absent_parts(self) -> list[str]:
        """The keys that experts lack, of those that are stored one by one.

        transformers joins them, and fails without saying which it misses.
        """
        found = [match for key in self.files.shapes if (match := _EXPERT.match(key))]
        keys = (f"{at}{part}" for at in sorted({m[1] for m in found}) for part in _EXPERT_PARTS)
        return [key for key in keys if key not in self.files.shapes]

    def read_config(self) -> Any:
        """Return the configuration of the trunk as transformers builds it."""
        try:
            if self.family.trunk is None:
                return AutoConfig.from_pretrained(self.folder, local_files_only=True)
            names = self.content.keys() - {"model_type", "auto_map"}
            return AutoConfig.for_model(
                self.family.trunk, **{name: self.content[name] for name in names}
            )
        except Exception as error:  # transformers' validation has its own classes of error
            raise no_such_model(self.folder / CONFIG_FILE, error) from error

    def n_modules(self) -> int:
        """Return how many modules the folder holds.

        Raises:
            ValueError: it is not the number that the configuration promises.
        """
        found = modules_in(self.family, self.files.shapes, self.n_trunk)
        said = promised(self.content)
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

    def refuse_dedicated(self) -> None:
        """Refuse modules whose configuration gives them embeddings of their own.

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
        """Refuse modules that are stored as anything but plain floating-point numbers.

        Raises:
            ValueError: names the tensors.
        """
        if self.packed:
            raise ValueError(
                f"{self.folder} holds module weights that are not plain floating-point numbers "
                f"({listing(self.packed)}), expected float32, float16 or bfloat16: fetch the "
                "checkpoint whose modules are not quantised"
            )

    @cached_property
    def uneven_parts(self) -> list[str]:
        """Experts' keys, of those stored one by one, whose shapes are not those of their layer.

        transformers joins them, and fails without saying which do not fit.
        """
        shapes = self.files.shapes
        found = [match for key in shapes if (match := _EXPERT.match(key))]
        usual: dict[str, Counter[tuple[int, ...]]] = defaultdict(Counter)
        for match in found:
            usual[_of_layer(match)][shapes[match[0]]] += 1
        return [m[0] for m in found if shapes[m[0]] != usual[_of_layer(m)].most_common(1)[0][0]]

    def refuse_partial_experts(self) -> None:
        """Refuse experts, the trunk's or the modules', that cannot be joined.

        Raises:
            ValueError: names the keys.
        """
        clauses = {"missing": self.absent_parts, "of another shape": self.uneven_parts}
        if self.unjoinable and not self.packed:
            said = "; ".join(f"{what}: {listing(keys)}" for what, keys in clauses.items() if keys)
            raise ValueError(
                f"experts in {self.folder} are incomplete or uneven: {said}; fetch them again"
            )

    @property
    def unjoinable(self) -> bool:
        """Whether transformers cannot join the experts that are stored one by one."""
        return bool(self.absent_parts or self.uneven_parts)

    def refuse_packed_trunk(self) -> None:
        """Refuse a trunk that is packed, where the configuration does not say how.

        Raises:
            ValueError: names the tensors.
        """
        files = self.files
        odd = [k for k in files.shapes if files.dtypes[k] is None and k not in self.places]
        if odd and not self.content.keys() & _ELSEWHERE:
            raise ValueError(
                f"{self.folder} holds trunk weights that are not plain floating-point numbers "
                f"({listing(odd)}), expected a quantization_config in {CONFIG_FILE} that says how "
                "to read them: fetch it again"
            )

    def refuse_stray_head(self) -> None:
        """Refuse an unembedding beside embeddings that are said to be it; reads both.

        Raises:
            ValueError: they differ.
        """
        said = text_part(self.content).get("tie_word_embeddings")
        tied = self.content.get("tie_word_embeddings") if said is None else said
        keys = self.files.shapes.keys() - self.places
        embedding = next((key for key in keys if key.endswith("embed_tokens.weight")), None)
        if not tied or embedding is None or "lm_head.weight" not in keys:
            return
        if not torch.equal(self.files.read("lm_head.weight"), self.files.read(embedding)):
            raise ValueError(
                f"{self.folder / CONFIG_FILE}: tie_word_embeddings is true, and the weights hold "
                f"an lm_head.weight other than {embedding}, expected one of the two: correct it "
                "or fetch the weights again"
            )

    def refuse_own_copies(self) -> None:
        """Refuse modules whose embeddings or unembedding are not the trunk's; reads these.

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
            if not torch.equal(self.files.read(key), self.files.read(theirs)):
                raise ValueError(
                    f"{self.folder}: {key} is not the trunk's own, expected modules that share the "
                    "trunk's embeddings and unembedding: modules with their own are not supported"
                )

    def trunk_differences(self) -> KeyReport | None:
        """Return how the trunk's tensors differ from its model's; None where that is not known."""
        if self.unjoinable:
            return None
        found = compare(self.folder, self.content, self.files, self.read_config, _ELSEWHERE)
        return found and self.of_trunk(found)

    def of_trunk(self, report: KeyReport) -> KeyReport:
        """Return a report of transformers without the modules' tensors, of which it knows none."""
        mine = partial(self.family.place, n_trunk=self.n_trunk)
        return report._replace(unexpected=[key for key in report.unexpected if not mine(key)])

    def refuse_other_trunk(self) -> None:
        """Refuse a trunk whose tensors are not its model's, as far as that is known.

        Raises:
            ValueError: names the tensors.
        """
        if report := self.trunk_differences():
            refuse_differences(self.folder, CONFIG_FILE, report.clauses())

    def refuse_other_modules(self) -> None:
        """Refuse modules whose tensors are not those of the trunk's kind of layer.

        Raises:
            ValueError: names the tensors.
        """
        if self.packed or self.unjoinable:  # said already
            return
        with quietly():
            trunk = built(self.folder, self.read_config)
        if trunk is not None:
            shapes = self.files.shapes.items()
            self.filled(trunk, {key: torch.empty(shape, device="meta") for key, shape in shapes})

    def check(self) -> None:
        """Refuse everything that can be refused before a model is made.

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
            ValueError: tensors are missing, left over, or of another shape.
        """
        n, weights = self.n_modules(), {}
        for key, (module, name) in self.places.items():
            if not name.startswith("="):
                tensor = self.files.read(key) if tensors is None else tensors[key]
                for k in range(n) if module is None else [module]:  # what all share, once for each
                    weights[f"layers.{k}.{name}"] = tensor
        trunk = main.get_decoder()
        load: Any = Modules.from_pretrained
        with asking_transformers(f"the modules of {self.folder}"), quietly():
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
            raise ValueError(
                f"the module weights in {self.folder} are not those that its {CONFIG_FILE} "
                f"describes: {'; '.join(clauses)}; fetch them again"
            )
        filled: Modules = modules
        return filled

    def _key(self, name: str) -> str:
        """Return the checkpoint's key for a name in `Modules`."""
        _, module, rest = name.split(".", 2)
        return self.family.key(int(module), rest, self.n_trunk)


CHECKS: tuple[Callable[[Stored], Any], ...] = (
    Stored.refuse_dedicated,
    Stored.n_modules,
    Stored.refuse_packed,
    Stored.refuse_packed_trunk,
    Stored.refuse_partial_experts,
    Stored.refuse_other_modules,
    Stored.refuse_stray_head,
    Stored.refuse_own_copies,
)
"""What `inspect` says of modules, and loading refuses, before a model is made; the trunk apart."""


def load_sequential(
    folder: Path, dtype: torch.dtype | None = None, heads: int | None = None, **arguments: Any
) -> SequentialModel:
    """Load trunk and modules, in evaluation mode.

    Args:
        folder: holds `config.json` and safetensors.
        dtype: type of the weights; None means what the configuration says.
        heads: as for `SequentialModel`.
        **arguments: of transformers' `from_pretrained` for the trunk.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the modules that the configuration promises are absent or incomplete, or
            weights are left over, have another shape, or are packed.
    """
    stored = Stored.of(folder)
    stored.check()
    stored.refuse_other_trunk()
    load: Any = AutoModelForCausalLM.from_pretrained
    with asking_transformers(str(folder)), quietly():
        main, info = load(
            folder,
            config=stored.read_config(),
            dtype=dtype or "auto",
            local_files_only=True,
            output_loading_info=True,
            **arguments,
        )
    # Again, because of a quantised trunk transformers alone knows what it needs.
    refuse_differences(folder, CONFIG_FILE, stored.of_trunk(KeyReport.of_loading(info)).clauses())
    model = SequentialModel(main, stored.filled(main), stored.family, heads)
    model.eval()
    return model


def _recognises(folder: Path) -> bool:
    """Return whether a folder is of a family that promises modules, or holds some."""
    content = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    family = family_of(content)
    if family is None:
        return False
    if promised(content):
        return True
    try:
        keys = stored_names(folder)
    except (ValueError, OSError):  # transformers may take other files
        return False
    return modules_in(family, keys, int(text_part(content).get("num_hidden_layers", 0))) > 0


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    with quietly():  # a type that transformers does not know
        return folder_tokenizer(folder, lambda folder: Stored.of(folder).read_config(), raw=False)


def _n_future_tokens(folder: Path) -> int:
    return heads_of(Stored.of(folder).n_modules())


def _most_heads(folder: Path) -> int:
    return most_heads_of(Stored.of(folder).n_modules())


def _describe(summary: Summary, folder: Path) -> Path | None:
    """Fill in what is known without loading: of the trunk as of an ordinary model, and modules."""
    content = describe_config(summary, folder)
    stored = summary.attempt(lambda: Stored.of(folder))
    if stored:
        for step in CHECKS:
            summary.attempt(partial(step, stored))
        describe_weights(
            summary, content, lambda: stored.files, lambda _: stored.trunk_differences()
        )
        sizes = [prod(stored.files.shapes[key]) for key in stored.places]
        if sizes:
            summary.modules = modules_in(stored.family, stored.files.shapes, stored.n_trunk)
            summary.n_future_tokens = heads_of(summary.modules)
            summary.notes.append(f"parameters of modules: {sum(sizes):,}")
    return tokenizer_file(folder)


SEQUENTIAL = Layout(
    name="sequential",
    title="transformers folder with sequential modules",
    recognises=_recognises,
    n_future_tokens=_n_future_tokens,
    tokenizer=_tokenizer,
    describe=_describe,
    load=load_sequential,
    most_heads=_most_heads,
)

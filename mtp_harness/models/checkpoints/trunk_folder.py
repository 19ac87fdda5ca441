"""A folder whose model of transformers is a trunk, for its own modules or for a drafter's heads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from mtp_harness.models.checkpoints.checks import (
    KeyReport,
    listing,
    read_json,
    refuse_differences,
)
from mtp_harness.models.checkpoints.ordinary_folder import asking_transformers, compare, quietly
from mtp_harness.models.checkpoints.safetensors_files import (
    CONFIG_FILE,
    SafetensorsFiles,
    no_such_model,
)
from mtp_harness.models.checkpoints.tokenizer_folder import folder_tokenizer
from mtp_harness.models.families import FAMILIES, TRUNKS, Family, family_of, text_part

_OURS, _PLAIN = "mtp_llama", "llama"
"""This package's type, which with one head is transformers' model of the second type."""

_ELSEWHERE = {"quantization_config", "transformers_weights"}
"""Keys of a configuration whose tensors only transformers can compare with the trunk's."""


@dataclass(frozen=True)
class Trunk:
    """What a trunk's folder says and holds; weights are read where a method says so."""

    folder: Path  # holds `config.json` and safetensors
    content: dict[str, Any]  # of its `config.json`
    own: Family | None  # the row of its family; None where the model is of none
    files: SafetensorsFiles  # its weights

    @classmethod
    def of(cls, folder: Path) -> "Trunk":
        """Read the configuration and the headers of the weights.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is broken, the configuration does not say how deep the trunk is, or
                it is of a kind that nothing here can stand on.
        """
        content = read_json(folder / CONFIG_FILE)
        part = text_part(content)
        depth = part.get("num_hidden_layers")
        if not isinstance(depth, int) or depth < 1:
            raise ValueError(
                f"{folder / CONFIG_FILE}: num_hidden_layers is {depth}, expected the number of the "
                "trunk's layers: fetch it again"
            )
        trunk = cls(folder, content, family_of(content), SafetensorsFiles(folder))
        trunk.refuse_unknown()
        return trunk

    @property
    def n_trunk(self) -> int:
        """The number of the trunk's layers."""
        return int(text_part(self.content)["num_hidden_layers"])

    @property
    def trunk_keys(self) -> list[str]:
        """The folder's keys without those of its own modules."""
        own = self.own
        return [key for key in self.files.shapes if not (own and own.place(key, self.n_trunk))]

    def refuse_unknown(self) -> None:
        """Refuse a trunk whose logits or masks may not be what is computed here.

        Raises:
            ValueError: says why.
        """
        kind, config = self.content.get("model_type"), self.folder / CONFIG_FILE
        n_heads = self.content.get("n_future_tokens")
        if kind == _OURS and n_heads != 1:
            raise ValueError(
                f"{config}: n_future_tokens is {n_heads}, expected 1: a drafter stands on a trunk "
                "without further heads of its own"
            )
        if self.own is None and kind not in TRUNKS | {_OURS}:
            raise ValueError(
                f"{config}: model_type is {kind}, expected a trunk that a drafter can stand on: "
                f"{listing(sorted(TRUNKS | FAMILIES.keys()), 99)}"
            )
        part = text_part(self.content)
        mistral = kind == "mistral"  # its configurations have a window where they do not say so
        window = part.get("sliding_window", 4096 if mistral else None)
        longest = part.get("max_position_embeddings", 0)
        if window and window < longest and part.get("use_sliding_window", mistral):
            raise ValueError(
                f"{config}: sliding_window is {window}, expected layers that see the whole text: "
                "name another trunk"
            )

    def refuse_packed_trunk(self) -> None:
        """Refuse a trunk that is packed, where the configuration does not say how.

        Raises:
            ValueError: names the tensors.
        """
        files = self.files
        odd = [key for key in self.trunk_keys if files.dtypes[key] is None]
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
        keys = self.trunk_keys
        embedding = next((key for key in keys if key.endswith("embed_tokens.weight")), None)
        if not tied or embedding is None or "lm_head.weight" not in keys:
            return
        if not torch.equal(self.files.read("lm_head.weight"), self.files.read(embedding)):
            raise ValueError(
                f"{self.folder / CONFIG_FILE}: tie_word_embeddings is true, and the weights hold "
                f"an lm_head.weight other than {embedding}, expected one of the two: correct it "
                "or fetch the weights again"
            )

    def refuse_other_target(self, drafter: Path, content: Mapping[str, Any]) -> None:
        """Refuse a drafter's folder whose configuration names another kind of model as its target.

        Raises:
            ValueError: names both.
        """
        verifier = (content.get("speculators_config") or {}).get("verifier") or {}
        wanted, mine = verifier.get("architectures"), self.content.get("architectures")
        if wanted and mine and not set(wanted) & set(mine):
            raise ValueError(
                f"{drafter / CONFIG_FILE} says that it drafts for {listing(wanted)} "
                f"({verifier.get('name_or_path')}), and {self.folder} is {listing(mine)}, expected "
                "the same: name another drafter, or the trunk that it was trained on"
            )

    def read_config(self) -> Any:
        """Return the configuration of the trunk as transformers builds it."""
        ours = self.content.get("model_type") == _OURS
        other = _PLAIN if ours else self.own and self.own.trunk
        try:
            if not other:
                return AutoConfig.from_pretrained(self.folder, local_files_only=True)
            names = self.content.keys() - {"model_type", "auto_map"}
            return AutoConfig.for_model(other, **{name: self.content[name] for name in names})
        except Exception as error:  # transformers' validation has its own classes of error
            raise no_such_model(self.folder / CONFIG_FILE, error) from error

    def trunk_differences(self) -> KeyReport | None:
        """Return how the trunk's tensors differ from its model's; None where that is not known."""
        found = compare(self.folder, self.content, self.files, self.read_config, _ELSEWHERE)
        return found and self.of_trunk(found)

    def of_trunk(self, report: KeyReport) -> KeyReport:
        """Return a report of transformers without the modules' tensors, of which it knows none."""
        own = self.own
        if own is None:  # transformers leaves out what an ordinary model does not use
            return report._replace(unexpected=[])
        odd = [key for key in report.unexpected if not own.place(key, self.n_trunk)]
        return report._replace(unexpected=odd)

    def loaded(self, dtype: torch.dtype | None = None, **arguments: Any) -> Any:
        """Return transformers' causal language model, on the CPU.

        Args:
            dtype: type of the weights; None means what the configuration says.
            **arguments: of transformers' `from_pretrained`.

        Raises:
            ValueError: weights are missing, unexpected or of another shape.
        """
        if report := self.trunk_differences():
            refuse_differences(self.folder, CONFIG_FILE, report.clauses())
        load: Any = AutoModelForCausalLM.from_pretrained
        with asking_transformers(str(self.folder)), quietly():
            main, info = load(
                self.folder,
                config=self.read_config(),
                dtype=dtype or "auto",
                local_files_only=True,
                output_loading_info=True,
                **arguments,
            )
        # Again, because of a quantised trunk transformers alone knows what it needs.
        clauses = self.of_trunk(KeyReport.of_loading(info)).clauses()
        refuse_differences(self.folder, CONFIG_FILE, clauses)
        return main


def trunk_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a trunk's folder."""
    with quietly():  # a type that transformers does not know
        return folder_tokenizer(folder, lambda folder: Trunk.of(folder).read_config(), raw=False)

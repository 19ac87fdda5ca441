"""The table of sequential families: the names of their modules' weights, and how to read them.

    row of a family     keys of a checkpoint      transformers' MtpLayer
    DeepSeek-V3         model.layers.61.enorm  →  enorm        of the embedding
                        model.layers.61.hnorm  →  hnorm        of the state before
                        model.layers.61.eh_proj → eh_proj      of both, joined
                        the rest               →  mtp_block    a layer like the trunk's
                        shared_head.norm       →  post_norm

A new family that fits needs one more row here and a fixture in `tests/models/test_families.py`.

Source: the families' own releases and vLLM's model code; each row's fixtures hold its logits.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

COUNTS = ("mtp_num_hidden_layers", "num_mtp_layers", "num_nextn_predict_layers")
"""Keys of a configuration that give the number of modules."""


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        keys: pattern of the modules' keys, without the rest. Its group `k` is the module; keys
            without it belong to all modules.
        names: beginning of the rest → its name in `MtpLayer`; other rests belong to the block.
        repeated: beginnings of rests that repeat a weight of the trunk → that weight.
        after_trunk: whether k continues from the trunk's last layer, instead of beginning at 0.
        hidden_first: whether `eh_proj` reads the state before the embedding.
        reads_normed: whether module 1 reads the trunk's states after the final norm.
        passes_normed: whether a module passes its states on after its `post_norm`.
        zeroes_first: whether the embedding of the token after position 0 is replaced by zeros, as
            engines do for some families and transformers does for none.
        trunk: the type of the trunk, if transformers has none of the family's name.
        in_vllm: attributes that have another value in vLLM.
    """

    keys: str
    names: Mapping[str, str]
    repeated: Mapping[str, str]
    after_trunk: bool = False
    hidden_first: bool = False
    reads_normed: bool = True
    passes_normed: bool = True
    zeroes_first: bool = False
    trunk: str | None = None
    in_vllm: Mapping[str, Any] = field(default_factory=dict)

    def as_engines_do(self) -> "Family":
        """Return the row as vLLM reads it; all else is as in transformers."""
        return replace(self, **self.in_vllm)

    def key(self, module: int, name: str, n_trunk: int) -> str:
        """Return a checkpoint's key of a module's weight: the inverse of `place`.

        Args:
            module: counted from 0.
            name: in `MtpLayer`.
            n_trunk: layers of the trunk.
        """
        in_block = name.startswith("mtp_block.")
        start = re.sub(r"\(\?:(.*)\)\?$", r"\1" if in_block else "", self.keys)
        start = re.sub(r"\(\?P<k>.*?\)", str(module + n_trunk * self.after_trunk), start)
        for own, new in self.names.items():
            if name.startswith(f"{new}."):
                name = own + name[len(new) :]
                break
        return start.replace("\\", "") + name.removeprefix("mtp_block.")

    def place(self, key: str, n_trunk: int) -> tuple[int | None, str] | None:
        """Return which module a key belongs to, counted from 0, and its name in `MtpLayer`.

        The module is None for weights that all modules share; the result is None for keys of the
        trunk. A name that begins with `=` is the trunk's weight that the tensor repeats.

        Args:
            key: of a checkpoint.
            n_trunk: layers of the trunk.
        """
        found = re.match(self.keys, key)
        if found is None:
            return None
        k, rest = found["k"], key[found.end() :]
        module = None if k is None else int(k) - (n_trunk if self.after_trunk else 0)
        if module is not None and module < 0:  # a layer of the trunk
            return None
        for name, new in self.names.items():
            if rest.startswith(f"{name}."):
                return module, new + rest[len(name) :]
        for name, weight in self.repeated.items():
            if rest.startswith(f"{name}."):
                return module, f"={weight}{rest[len(name) :]}"
        return module, f"mtp_block.{rest}"


_QWEN = Family(
    r"mtp\.(?:layers\.(?P<k>\d+)\.)?",
    {
        "fc": "eh_proj",
        "pre_fc_norm_embedding": "enorm",
        "pre_fc_norm_hidden": "hnorm",
        "norm": "post_norm",
    },
    {},
)
_DEEPSEEK = Family(
    r"model\.layers\.(?P<k>\d+)\.",
    {"enorm": "enorm", "hnorm": "hnorm", "eh_proj": "eh_proj", "shared_head.norm": "post_norm"},
    {"embed_tokens": "embed_tokens", "shared_head.head": "lm_head"},
    after_trunk=True,
    in_vllm={"zeroes_first": True},
)
_GLM = replace(_DEEPSEEK, in_vllm={"zeroes_first": True, "passes_normed": False})
_MIMO = Family(
    r"model\.mtp_layers\.(?P<k>\d+)\.",
    {
        "input_proj": "eh_proj",
        "token_layernorm": "enorm",
        "hidden_layernorm": "hnorm",
        "final_layernorm": "post_norm",
    },
    {},
    hidden_first=True,
    reads_normed=False,
    trunk="qwen2",
    in_vllm={"zeroes_first": True},
)

FAMILIES: Mapping[str, Family] = {
    "qwen3_5": _QWEN,  # Qwen3.5, 3.6 and 3.8, dense; the folders with a vision tower, too
    "qwen3_5_text": _QWEN,
    "qwen3_5_moe": _QWEN,
    "qwen3_5_moe_text": _QWEN,
    "qwen3_next": _QWEN,
    "deepseek_v3": _DEEPSEEK,  # and R1, V3.1
    "glm4_moe": _GLM,  # GLM-4.5 to 4.7
    "mimo": _MIMO,
}
"""By `model_type` of a checkpoint's configuration."""


SPECULATORS = Family(
    r"mtp_layers\.(?P<k>\d+)\.",
    {
        "input_proj": "eh_proj",
        "token_layernorm": "enorm",
        "hidden_layernorm": "hnorm",
        "final_layernorm": "post_norm",
    },
    {},
)
"""Folders of speculators with modules trained apart, whose block is of the trunk's kind."""

TRUNKS = frozenset({"llama", "mistral", "qwen2", "qwen3", "qwen3_moe"})
"""Model types without modules that can be trunks for drafters.

Their logits are the unembedding of the final norm's output, and every layer sees the whole text.
"""


def text_part(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a configuration that describes the language model."""
    part = content.get("text_config")
    return part if isinstance(part, Mapping) else content


def family_of(content: Mapping[str, Any]) -> Family | None:
    """Return the row of a checkpoint; None if its configuration is of no family here.

    Args:
        content: of `config.json`.
    """
    return FAMILIES.get(str(content.get("model_type")))


def promised(content: Mapping[str, Any]) -> int | None:
    """Return how many modules a configuration promises; None if it does not say."""
    part = text_part(content)
    counts = [part[name] for name in COUNTS if isinstance(part.get(name), int)]
    return max(counts, default=None)


def modules_in(family: Family, keys: Iterable[str], n_trunk: int) -> int:
    """Return how many modules the keys of a checkpoint belong to."""
    places = [place for key in keys if (place := family.place(key, n_trunk))]
    return 1 + max((module for module, _ in places if module is not None), default=-1)

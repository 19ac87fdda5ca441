"""Meta's `params.json`: the model that it describes, and the model's tensors.

`n_layers` counts every block. With n = `n_future_tokens`:

    layers.0 .. layers.{n_layers - n - 1}    trunk
    layers.{n_layers - n}                    head 1
    extra_heads.0 .. extra_heads.{n - 2}     heads 2..n

Source: `llama/model.py` of `facebook/multi-token-prediction` (`ModelArgs` and the module names).
Its loader passes `params.json` as keyword arguments. What we do differently: the context's default
(see `MetaParams`) and a message for unknown keys (see `read_params`).
"""

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path

from mtp_harness.models.checkpoints.checks import Shape, listing, odd_number, read_json
from mtp_harness.models.llama.mtp_llama import MTPLlamaConfig

PARAMS_FILE = "params.json"
RUNTIME_KEYS = frozenset({"max_batch_size"})
"""Keys about a training run, not the model: accepted and ignored."""

_FACTORS = {"ffn_dim_multiplier", "norm_eps", "rope_theta"}
_DEFAULTS = (("n_kv_heads", None), ("ffn_dim_multiplier", None), ("vocab_size", -1))
"""Values that mean "decided elsewhere"."""

# Meta's name within a block -> transformers' name.
_BLOCK_NAMES = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_OUTER_NAMES = {
    "tok_embeddings": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
}


@dataclass(frozen=True)
class MetaParams:
    """The contents of `params.json`, with the names and defaults of Meta's `ModelArgs`."""

    dim: int = 4096
    n_layers: int = 32  # trunk and heads
    n_heads: int = 32  # attention heads
    n_kv_heads: int | None = None  # None: as many as `n_heads`
    vocab_size: int = -1  # -1: as many as the weights have
    multiple_of: int = 256  # the FFN's width is rounded up to a multiple of it
    ffn_dim_multiplier: float | None = None  # factor on the FFN's width before rounding
    norm_eps: float = 1e-5
    n_future_tokens: int = 1
    rope_theta: float = 10000.0
    # The release leaves the context to the command line; the models were trained with 4096 tokens
    # (Gloeckle et al. 2024, Table S13).
    max_seq_len: int = 4096

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            odd = odd_number(name, value, name not in _FACTORS, limit=1e12)  # far above any model's
            if odd and (name, value) not in _DEFAULTS:
                raise ValueError(odd)
        if self.n_layers <= self.n_future_tokens:
            raise ValueError(
                f"n_layers={self.n_layers} with n_future_tokens={self.n_future_tokens}, expected "
                "more layers than heads, because n_layers counts the heads and the trunk needs one"
            )
        if self.dim % self.n_heads or self.head_dim % 2:
            raise ValueError(
                f"dim={self.dim} with n_heads={self.n_heads}, expected an even width per "
                "attention head"
            )
        if self.n_heads % self.kv_heads:
            raise ValueError(
                f"n_heads={self.n_heads} with n_kv_heads={self.n_kv_heads}, expected a multiple"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Number of key/value heads."""
        return self.n_kv_heads or self.n_heads

    @property
    def ffn_width(self) -> int:
        """Inner width of the feed-forward: 8/3 of D, scaled, rounded up."""
        width = int(2 * (4 * self.dim) / 3)
        if self.ffn_dim_multiplier is not None:
            width = int(self.ffn_dim_multiplier * width)
        return -(-width // self.multiple_of) * self.multiple_of

    def names(self) -> dict[str, str]:
        """Return the name of every tensor in `MTPLlamaForCausalLM`, mapped to Meta's name."""
        n_stem = self.n_layers - self.n_future_tokens + 1  # the trunk and head 1
        blocks = {f"model.layers.{i}": f"layers.{i}" for i in range(n_stem)}
        blocks |= {f"extra_heads.{i}": f"extra_heads.{i}" for i in range(self.n_future_tokens - 1)}
        names = {f"{ours}.weight": f"{meta}.weight" for meta, ours in _OUTER_NAMES.items()}
        for ours, meta in blocks.items():
            for meta_leaf, our_leaf in _BLOCK_NAMES.items():
                names[f"{ours}.{our_leaf}.weight"] = f"{meta}.{meta_leaf}.weight"
        return names

    def shapes(self, vocabulary: int) -> dict[str, Shape]:
        """Return the shape of every tensor by Meta's name, for V = `vocabulary`."""
        queries, keys = self.n_heads * self.head_dim, self.kv_heads * self.head_dim
        by_leaf: dict[str, Shape] = {
            **dict.fromkeys(("tok_embeddings", "output"), (vocabulary, self.dim)),
            **dict.fromkeys(("norm", "attention_norm", "ffn_norm"), (self.dim,)),
            "wq": (queries, self.dim),
            **dict.fromkeys(("wk", "wv"), (keys, self.dim)),
            "wo": (self.dim, queries),
            **dict.fromkeys(("w1", "w3"), (self.ffn_width, self.dim)),
            "w2": (self.dim, self.ffn_width),
        }
        return {name: by_leaf[name.split(".")[-2]] for name in self.names().values()}

    def config(self, vocabulary: int) -> MTPLlamaConfig:
        """Return the configuration of the model, for V = `vocabulary`."""
        return MTPLlamaConfig(
            vocab_size=vocabulary,
            hidden_size=self.dim,
            intermediate_size=self.ffn_width,
            num_hidden_layers=self.n_layers,
            num_attention_heads=self.n_heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=self.max_seq_len,
            rms_norm_eps=self.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            tie_word_embeddings=False,
            n_future_tokens=self.n_future_tokens,
        )


def read_params(folder: Path) -> MetaParams:
    """Return the checked contents of a folder's `params.json`."""
    path = folder / PARAMS_FILE
    content = read_json(path)
    known = [field.name for field in dataclasses.fields(MetaParams)]
    unknown = [key for key in content if key not in known and key not in RUNTIME_KEYS]
    if unknown:
        near = {k: difflib.get_close_matches(k, known, 1) for k in unknown}
        named = (f"{key} (near {near[key][0]})" if near[key] else key for key in unknown)
        raise ValueError(
            f"{path} has unknown keys: {listing(named)}; expected only {', '.join(known)}, because "
            "a setting that is not understood would change the model unseen"
        )
    try:
        return MetaParams(**{key: value for key, value in content.items() if key in known})
    except ValueError as error:
        raise ValueError(f"{path}: {error}; correct it or fetch it again") from error

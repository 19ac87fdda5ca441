"""This package's own layout: `config.json` with `model_type` mtp_llama, and `*.safetensors`.

transformers only warns about missing keys and fills them with random numbers, drops unexpected
ones, and accepts many impossible values. Here these are errors, found before any weight is read.
"""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from mtp_harness.models.checkpoints import checks
from mtp_harness.models.checkpoints.checks import KeyReport, Shape, listing, one_line
from mtp_harness.models.checkpoints.layout import Layout, Summary
from mtp_harness.models.checkpoints.ordinary_folder import quietly
from mtp_harness.models.checkpoints.safetensors_files import (
    CONFIG_FILE,
    SafetensorsFiles,
    no_such_model,
)
from mtp_harness.models.checkpoints.tokenizer_folder import (
    folder_tokenizer,
    holds_tokenizer,
    tokenizer_file,
)
from mtp_harness.models.llama.mtp_llama import MTPLlamaConfig, MTPLlamaForCausalLM

_SIZES = {
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "n_future_tokens",
}
_FACTORS = {"rms_norm_eps", "rope_theta"}


def load_folder(folder: Path, dtype: torch.dtype | None = None) -> MTPLlamaForCausalLM:
    """Load an `mtp_llama` folder, on the CPU and in evaluation mode.

    Without a `dtype` the weights get the type of most of them.

    Raises:
        FileNotFoundError: the folder or a file is missing.
        ValueError: a file is malformed, `config.json` and the weights disagree, or the weights hold
            NaN or infinity.
    """
    folder = checks.local_folder(folder)
    config = read_config(folder)
    files = SafetensorsFiles(folder)
    differences = _compare(config, files).clauses() + files.odd_types()
    checks.refuse_differences(folder, CONFIG_FILE, differences)
    load: Any = MTPLlamaForCausalLM.from_pretrained  # its annotation leaves the loading info out
    model: MTPLlamaForCausalLM
    try:
        with quietly():  # every difference is an error below
            model, info = load(
                folder,
                config=config,
                dtype=dtype or files.main_dtype(),
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises many types
        raise ValueError(
            f"transformers cannot load {folder} ({one_line(error)}): convert or fetch it again"
        ) from error
    differences = [f"{kind}: {listing(map(str, names))}" for kind, names in info.items() if names]
    checks.refuse_differences(folder, CONFIG_FILE, differences)
    bad = [name for name, weight in model.state_dict().items() if not checks.is_finite(weight)]
    checks.refuse_not_finite(folder, model.dtype, bad)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def read_config(folder: Path) -> MTPLlamaConfig:
    """Return the configuration in a folder."""
    path = folder / CONFIG_FILE
    content = checks.read_json(path)
    if content.get("model_type") != MTPLlamaConfig.model_type:
        raise ValueError(
            f"{path} says model_type={content.get('model_type')!r}, expected "
            f"{MTPLlamaConfig.model_type!r}: this is another kind of checkpoint"
        )
    if problem := next(_impossible_values(content), None):
        raise ValueError(f"{path}: {problem}; correct it or fetch it again")
    try:
        config = MTPLlamaConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers' validation has its own classes of error
        raise ValueError(f"{path}: {one_line(error)}; correct it or fetch it again") from error
    assert isinstance(config, MTPLlamaConfig)
    if problem := next(_impossible_relations(config), None):
        raise ValueError(f"{path}: {problem}; correct it or fetch it again")
    return config


def describe_sizes(summary: Summary, config: Any, shapes: Mapping[str, Shape] | None) -> None:
    """Fill in the values of an `MTPLlamaConfig`, and the parameters of its parts.

    `shapes` are the tensors', by our names; None if they are not known.
    """
    summary.architecture = "MTPLlamaForCausalLM"
    summary.n_future_tokens = config.n_future_tokens
    summary.trunk_layers = config.num_hidden_layers - config.n_future_tokens
    summary.width, summary.ffn_width = config.hidden_size, config.intermediate_size
    summary.attention_heads = config.num_attention_heads
    summary.kv_heads = config.num_key_value_heads
    summary.vocabulary, summary.context = config.vocab_size, config.max_position_embeddings
    if shapes is None:
        return
    n, n_trunk = config.n_future_tokens, summary.trunk_layers
    parts, heads = dict.fromkeys(("embedding", "trunk", "norm", "unembedding"), 0), [0] * n
    trunk, extra = ([str(i) for i in range(count)] for count in (n_trunk, n - 1))
    for name, shape in shapes.items():
        match name.split("."):
            case ["model", "embed_tokens", "weight"]:
                parts["embedding"] += prod(shape)
            case ["model", "norm", "weight"]:
                parts["norm"] += prod(shape)
            case ["lm_head", "weight"]:
                parts["unembedding"] += prod(shape)
            case ["model", "layers", layer, *_] if layer in trunk:
                parts["trunk"] += prod(shape)
            case ["model", "layers", layer, *_] if layer == str(n_trunk):
                heads[0] += prod(shape)
            case ["extra_heads" | "extra_lm_heads", index, *_] if index in extra:
                heads[int(index) + 1] += prod(shape)
    summary.parameters |= {**parts, "heads": heads}


def _compare(config: MTPLlamaConfig, files: SafetensorsFiles) -> KeyReport:
    """Compare the weights with the model that `config` describes, without memory for it."""
    key = f"{CONFIG_FILE}: num_hidden_layers"
    checks.refuse_more_layers(key, config.num_hidden_layers, len(files.shapes))
    try:
        with torch.device("meta"):
            state = MTPLlamaForCausalLM(config).state_dict()
    except Exception as error:  # wrong values fail in many ways inside transformers
        raise no_such_model(CONFIG_FILE, error) from error
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return KeyReport.compare(expected, files.shapes)


def _impossible_values(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield impossible values in `config.json`."""
    rope = content.get("rope_parameters")
    for name, value in [*content.items(), *(rope.items() if isinstance(rope, dict) else ())]:
        if name in _SIZES | _FACTORS and value is not None:
            if odd := checks.odd_number(name, value, name in _SIZES):
                yield odd
    if quantization := content.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else "?"
        yield f"quantization_config ({method}), expected plain weights, which alone are read here"


def _impossible_relations(config: Any) -> Iterator[str]:
    """Yield values that do not fit together."""
    if config.num_attention_heads % config.num_key_value_heads:
        yield (
            f"num_attention_heads={config.num_attention_heads} with num_key_value_heads="
            f"{config.num_key_value_heads}, expected a multiple"
        )
    if config.head_dim < 2 or config.head_dim % 2:
        yield (
            f"hidden_size={config.hidden_size} with num_attention_heads="
            f"{config.num_attention_heads} gives head_dim={config.head_dim}, expected an even one"
        )


def _recognises(folder: Path) -> bool:
    path = folder / CONFIG_FILE
    return path.is_file() and checks.read_json(path).get("model_type") == MTPLlamaConfig.model_type


def tokenizer_of_ours(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of an `mtp_llama` folder, or of a folder with a tokenizer only."""
    if not holds_tokenizer(folder):
        raise FileNotFoundError(
            f"{folder} has no tokenizer, expected tokenizer.json: copy it there or pass tokenizer=…"
        )
    return folder_tokenizer(folder, read_config, raw=True)


def _describe(summary: Summary, folder: Path) -> Path | None:
    config = summary.attempt(lambda: read_config(folder))
    files = summary.attempt(lambda: SafetensorsFiles(folder))
    if config:
        keys = summary.attempt(lambda: _compare(config, files)) if files else None
        if files and keys:
            summary.note_keys(keys, files.odd_types())
        describe_sizes(summary, config, files.shapes if files and keys else None)
    if files:
        summary.scan(files)
    return tokenizer_file(folder)


MTP_LLAMA = Layout(
    name="mtp_llama",
    title="transformers folder with heads (mtp_llama)",
    recognises=_recognises,
    n_future_tokens=lambda folder: read_config(folder).n_future_tokens,
    tokenizer=tokenizer_of_ours,
    describe=_describe,
    load=load_folder,
    spreads=True,
)

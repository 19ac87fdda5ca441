"""`config.json` of this package's layout: the configuration, and the tensors that its model has.

transformers takes many a value that no model can have and fails much later, or never.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from mtp_harness.models.checkpoints.checks import Shape, one_line, read_json, refuse_more_layers
from mtp_harness.models.llama.mtp_llama import MTPLlamaConfig, MTPLlamaForCausalLM

CONFIG_FILE = "config.json"

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


def read_config(folder: Path) -> MTPLlamaConfig:
    """Return the configuration in a folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is malformed, of another model type, or describes no possible model.
    """
    path = folder / CONFIG_FILE
    content = read_json(path)
    if content.get("model_type") != MTPLlamaConfig.model_type:
        raise ValueError(
            f"{path} says model_type={content.get('model_type')!r}, expected "
            f"{MTPLlamaConfig.model_type!r}: this is another kind of checkpoint"
        )
    if found := next(_impossible_values(content), None):
        raise ValueError(f"{path}: {found}; correct it or fetch it again")
    try:
        config = MTPLlamaConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers' validation has its own classes of error
        raise ValueError(f"{path}: {one_line(error)}; correct it or fetch it again") from error
    assert isinstance(config, MTPLlamaConfig)
    if found := next(_impossible_relations(config), None):
        raise ValueError(f"{path}: {found}; correct it or fetch it again")
    return config


def model_shapes(config: MTPLlamaConfig, n_tensors: int) -> dict[str, Shape]:
    """Return the shape of every tensor of the model that `config` describes; no memory is taken.

    Args:
        config: as `read_config` returns it.
        n_tensors: how many tensors the weights hold; no model of more layers is built.

    Raises:
        ValueError: the configuration has more layers than that, or transformers cannot build it.
    """
    refuse_more_layers(f"{CONFIG_FILE}: num_hidden_layers", config.num_hidden_layers, n_tensors)
    try:
        with torch.device("meta"):
            state = MTPLlamaForCausalLM(config).state_dict()
    except Exception as error:  # a value that no model has fails in many ways inside transformers
        raise no_such_model(CONFIG_FILE, error) from error
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def no_such_model(path: str | Path, error: Exception) -> ValueError:
    """Return the error to raise where transformers cannot build what a configuration describes."""
    return ValueError(
        f"{path} describes no model that can be built ({type(error).__name__}: {one_line(error)}), "
        "expected the configuration that was saved with the weights: correct it or fetch it again"
    )


def _impossible_values(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the values in `config.json` cannot be."""
    rope = content.get("rope_parameters")
    for name, value in [*content.items(), *(rope.items() if isinstance(rope, dict) else ())]:
        types = (int,) if name in _SIZES else (int, float)
        if value is None or name not in _SIZES | _FACTORS:
            continue
        if isinstance(value, bool) or not isinstance(value, types) or not 0 < value < float("inf"):
            kind = "integer" if name in _SIZES else "number"
            yield f"{name}={value!r}, expected a positive {kind}"
    if quantization := content.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else "?"
        yield f"quantization_config ({method}), expected plain weights, which alone are read here"


def _impossible_relations(config: Any) -> Iterator[str]:
    """Yield which values do not go together."""
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

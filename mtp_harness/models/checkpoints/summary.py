"""What a checkpoint on disk is, found without loading it: headers first, then one tensor at a time.

`summarise` collects every problem instead of stopping at the first; `inspect.py` prints the result.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mtp_harness.errors import sentence
from mtp_harness.models.checkpoints.checks import KeyReport, Shape, is_finite, listing, read_json
from mtp_harness.models.checkpoints.config_file import CONFIG_FILE, read_config
from mtp_harness.models.checkpoints.meta import check_weights
from mtp_harness.models.checkpoints.meta_params import MetaParams, read_params
from mtp_harness.models.checkpoints.meta_shards import MetaShards
from mtp_harness.models.checkpoints.meta_tokenizer import find_tokenizer
from mtp_harness.models.checkpoints.ordinary_folder import compare_ordinary, ordinary_weights
from mtp_harness.models.checkpoints.safetensors_folder import SafetensorsFiles, check_keys
from mtp_harness.models.checkpoints.tokenizer_folder import check_vocabulary
from mtp_harness.models.llama.mtp_llama import MTPLlamaConfig
from mtp_harness.models.load import (
    Layout,
    detect,
    is_local,
    load_tokenizer,
    resolve,
)

T = TypeVar("T")

SEQUENTIAL_KEYS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers")
"""Where other families declare modules that transformers does not load as heads."""


class StoredTensors(Protocol):
    """What `MetaShards` and `SafetensorsFiles` have in common."""

    files: list[Path]
    shapes: dict[str, Shape]

    def read(self, name: str) -> Tensor:
        """Return one tensor."""


@dataclass
class Summary:
    """A checkpoint as found. None and empty mean not known, because a file is missing or broken.

    Attributes:
        path: the folder.
        layout: `meta`, `mtp_llama` or `transformers`.
        architecture: the model class.
        n_future_tokens: n.
        trunk_layers: blocks that all heads share.
        width: D.
        ffn_width: inner width of the feed-forward.
        attention_heads: attention heads per layer.
        kv_heads: key/value heads per layer.
        vocabulary: V.
        context: tokens.
        parameters: `total`, and where heads are known `embedding`, `trunk`, `heads` (a list),
            `norm` and `unembedding`.
        stored_bytes: bytes of weights by type.
        files: names of the weight files.
        tokenizer: where the tokenizer is.
        missing: keys that the model has and the weights lack.
        unexpected: keys that the weights have and the model lacks.
        wrong_shapes: found and expected, one entry per tensor.
        not_finite: tensors with NaN or infinity.
        problems: one sentence each; empty for a sound checkpoint.
        notes: what to know besides.
    """

    path: str
    layout: Layout
    architecture: str | None = None
    n_future_tokens: int | None = None
    trunk_layers: int | None = None
    width: int | None = None
    ffn_width: int | None = None
    attention_heads: int | None = None
    kv_heads: int | None = None
    vocabulary: int | None = None
    context: int | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    stored_bytes: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    tokenizer: str | None = None
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong_shapes: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def attempt(self, step: Callable[[], T]) -> T | None:
        """Return what a step returns, or None after noting why it failed."""
        try:
            return step()
        except (ValueError, OSError) as error:
            if (problem := sentence(error)) not in self.problems:  # several steps read params.json
                self.problems.append(problem)
            return None


def summarise(pretrained: str) -> Summary:
    """Return what a local checkpoint is and what is wrong with it.

    Args:
        pretrained: a folder, or the name of a shipped model.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: it is no folder with a checkpoint, or a name on the hub.
    """
    if not is_local(pretrained):
        raise ValueError(
            f"{pretrained} is no folder here, expected one: download the checkpoint first"
        )
    folder = Path(resolve(pretrained))
    summary = Summary(path=str(folder), layout=detect(pretrained))
    if summary.layout is Layout.META:
        _describe_meta(summary, folder)
        location = find_tokenizer(folder)
    else:
        describe = _describe_ours if summary.layout is Layout.MTP_LLAMA else _describe_plain
        describe(summary, folder)
        location = next(iter(sorted(folder.glob("tokenizer.*"))), None)
    tokenizer = summary.attempt(lambda: load_tokenizer(pretrained))
    if tokenizer is not None:
        summary.tokenizer = f"{location or folder} ({len(tokenizer)} tokens)"
        _compare_tokenizer(summary, tokenizer)
    return summary


def _describe_meta(summary: Summary, folder: Path) -> None:
    """Fill in what Meta's layout says."""
    params = summary.attempt(lambda: read_params(folder))
    # Without params.json the width is unknown: whole tensors are still described.
    shards = summary.attempt(lambda: MetaShards(folder, params.dim if params else 0))
    vocabulary = params.vocab_size if params else 0
    if params and shards:
        vocabulary = _compare_meta(summary, params, shards)
    if params:
        _describe_config(summary, params.config(max(vocabulary, 1)))
        summary.vocabulary = vocabulary or None
    if shards:
        _scan(summary, shards, shards.dtypes)


def _compare_tokenizer(summary: Summary, tokenizer: PreTrainedTokenizerBase) -> None:
    """Fill in that the tokenizer has ids beyond the vocabulary, if it has."""
    vocabulary = summary.vocabulary
    if not isinstance(vocabulary, int):
        return
    ordinary = summary.layout is Layout.TRANSFORMERS
    summary.attempt(
        lambda: check_vocabulary(tokenizer, vocabulary, "the model", padding=not ordinary)
    )
    padding = tokenizer.pad_token_id
    if ordinary and padding is not None and padding >= vocabulary:
        summary.notes.append(
            f"the padding token has the id {padding}, for which the model has no row: the end of "
            "text is put in its place"
        )


def _compare_meta(summary: Summary, params: MetaParams, shards: MetaShards) -> int:
    """Fill in how the weights agree with `params.json`; return V, 0 where it is not known."""
    report = summary.attempt(lambda: check_weights(params, shards))
    if report is None:
        return 0
    _note_keys(summary, report.keys, report.causes)
    ours = {meta: name for name, meta in params.names().items()}
    _count(summary, params.config(max(report.vocabulary, 1)), shards, ours)
    return report.vocabulary


def _describe_ours(summary: Summary, folder: Path) -> None:
    """Fill in what a folder of this package's layout says."""
    config = summary.attempt(lambda: read_config(folder))
    files = summary.attempt(lambda: SafetensorsFiles(folder))
    if config:
        _describe_config(summary, config)
    keys = summary.attempt(lambda: check_keys(config, files)) if config and files else None
    if config and files and keys:
        _note_keys(summary, keys, files.odd_types())
        _count(summary, config, files, {name: name for name in files.shapes})
    if files:
        _scan(summary, files, files.dtypes)


def _describe_plain(summary: Summary, folder: Path) -> None:
    """Fill in what is known of an ordinary causal LM."""
    summary.n_future_tokens = 1
    config = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    names = config.get("architectures") or config.get("model_type")
    summary.architecture = listing(map(str, names if isinstance(names, list) else [names]))
    summary.trunk_layers = config.get("num_hidden_layers")
    summary.width = config.get("hidden_size")
    summary.attention_heads = config.get("num_attention_heads")
    summary.kv_heads = config.get("num_key_value_heads")
    inner = config.get("text_config")  # where a model that also sees keeps what is about text
    summary.vocabulary = (inner if isinstance(inner, dict) else config).get("vocab_size")
    summary.context = config.get("max_position_embeddings")
    modules = next((config[key] for key in SEQUENTIAL_KEYS if config.get(key)), 0)
    if modules:
        summary.notes.append(
            f"declares {modules} sequential prediction module(s), which are not loaded: n = 1"
        )
    n_problems = len(summary.problems)
    files = summary.attempt(lambda: ordinary_weights(folder))
    if files:
        keys = summary.attempt(lambda: compare_ordinary(folder, files))
        if keys:
            _note_keys(summary, keys, [])
        elif len(summary.problems) == n_problems:
            why = "quantised" if config.get("quantization_config") else "only transformers can tell"
            summary.notes.append(f"weights not compared with the model's: {why}")
        _scan(summary, files, files.dtypes)
    elif len(summary.problems) == n_problems:
        summary.notes.append("no model.safetensors: weights not looked at")


def _describe_config(summary: Summary, config: MTPLlamaConfig) -> None:
    """Fill in the sizes."""
    summary.architecture = "MTPLlamaForCausalLM"
    summary.n_future_tokens = config.n_future_tokens
    summary.trunk_layers = config.num_hidden_layers - config.n_future_tokens
    summary.width = config.hidden_size
    summary.ffn_width = config.intermediate_size
    summary.attention_heads = config.num_attention_heads
    summary.kv_heads = config.num_key_value_heads
    summary.vocabulary = config.vocab_size
    summary.context = config.max_position_embeddings


def _note_keys(summary: Summary, keys: KeyReport, causes: Iterable[str]) -> None:
    """Fill in how keys and shapes differ from the model's."""
    summary.missing, summary.unexpected, summary.wrong_shapes = keys
    summary.problems += [*causes, *keys.clauses()]


def _count(
    summary: Summary, config: MTPLlamaConfig, stored: StoredTensors, ours: Mapping[str, str]
) -> None:
    """Count the parameters of the parts that `config` describes, by our names."""
    n_trunk = config.num_hidden_layers - config.n_future_tokens
    heads = [0] * config.n_future_tokens
    parts = {"embedding": 0, "trunk": 0, "norm": 0, "unembedding": 0}
    outer = {"model.embed_tokens": "embedding", "model.norm": "norm", "lm_head": "unembedding"}
    for stored_name, name in ours.items():
        if stored_name not in stored.shapes:
            continue
        size = torch.Size(stored.shapes[stored_name]).numel()
        stem, index = name.removesuffix(".weight"), name.split(".")[1:3]
        if stem in outer:
            parts[outer[stem]] += size
        elif name.startswith(("extra_heads.", "extra_lm_heads.")) and int(index[0]) + 1 < len(
            heads
        ):
            heads[int(index[0]) + 1] += size
        elif name.startswith("model.layers.") and int(index[1]) <= n_trunk:
            if int(index[1]) == n_trunk:
                heads[0] += size
            else:
                parts["trunk"] += size
    summary.parameters |= {**parts, "heads": heads}


def _scan(
    summary: Summary, stored: StoredTensors, dtypes: Mapping[str, torch.dtype | None]
) -> None:
    """Fill in sizes by type, and read every tensor once to find NaN and infinity."""
    summary.files = [file.name for file in stored.files]
    sizes = {name: torch.Size(shape).numel() for name, shape in stored.shapes.items()}
    summary.parameters["total"] = sum(sizes.values())
    for name, size in sizes.items():
        tensor = summary.attempt(lambda name=name: stored.read(name))  # type: ignore[misc]
        if tensor is None:
            continue
        kind = str(tensor.dtype).removeprefix("torch.")
        summary.stored_bytes[kind] = (
            summary.stored_bytes.get(kind, 0) + size * tensor.element_size()
        )
        if dtypes[name] is not None and not is_finite(tensor):
            summary.not_finite.append(name)
    if summary.not_finite:
        summary.problems.append(f"NaN or infinity in {listing(summary.not_finite)}")

"""Meta's release layout: `params.json`, `consolidated*.pth` and `tokenizer.model` -> a model.

Meta's rotary embedding turns neighbouring pairs of a head's channels, transformers' turns a channel
of the first half with its partner in the second. The rows of wq and wk move accordingly, per head:

    Meta           (0 1) (2 3) (4 5) (6 7)        pair i = channels 2i, 2i+1
    transformers    0 2 4 6 | 1 3 5 7             pair i = channels i, i + head_dim/2

Scores do not change, because queries and keys are permuted alike.

Source: `llama/model.py` of `facebook/multi-token-prediction` (`apply_rotary_emb`, `Transformer`).
It loads with `strict=False`; here a missing, unexpected or misshapen tensor, and NaN, are refused.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from mtp_harness.models.checkpoints import checks
from mtp_harness.models.checkpoints.checks import KeyReport
from mtp_harness.models.checkpoints.layout import Layout, Summary
from mtp_harness.models.checkpoints.meta_params import PARAMS_FILE, MetaParams, read_params
from mtp_harness.models.checkpoints.meta_shards import MetaShards, shard_files
from mtp_harness.models.checkpoints.meta_tokenizer import (
    TOKENIZER_FILE,
    find_tokenizer,
    sentencepiece_tokenizer,
)
from mtp_harness.models.checkpoints.safetensors_files import CONFIG_FILE
from mtp_harness.models.checkpoints.safetensors_folder import describe_sizes
from mtp_harness.models.llama.mtp_llama import MTPLlamaConfig, MTPLlamaForCausalLM


class _Report(NamedTuple):
    """How the weights differ from `params.json`."""

    vocabulary: int
    keys: KeyReport
    causes: list[str]
    """The probable reasons for the differences, one clause each."""


def load_meta(folder: Path, dtype: torch.dtype | None = None) -> MTPLlamaForCausalLM:
    """Load a checkpoint in Meta's layout, on the CPU and in evaluation mode.

    Unsplit weights that need no conversion stay memory-mapped until they are used or moved. Without
    a `dtype` they get the type of most of them.

    Raises:
        FileNotFoundError: the folder or a file is missing.
        ValueError: files are malformed, disagree with each other, or hold NaN or infinity.
    """
    folder = checks.local_folder(folder)
    params = read_params(folder)
    shards = MetaShards(folder, params.dim)
    report = _compare(params, shards)
    checks.refuse_differences(folder, PARAMS_FILE, report.causes + report.keys.clauses())
    weights = _converted(folder, params, shards, dtype or shards.main_dtype())
    return _build(params.config(report.vocabulary), weights)


def meta_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a checkpoint in Meta's layout, from its folder or the one above."""
    folder = checks.local_folder(folder)
    path = find_tokenizer(folder)
    if path is None:
        raise FileNotFoundError(
            f"no {TOKENIZER_FILE} in {folder} or in the folder above: copy it from the release, or "
            "pass tokenizer=…"
        )
    tokenizer = sentencepiece_tokenizer(path)
    params = read_params(folder)
    vocabulary = params.vocab_size
    if vocabulary < 1:
        vocabulary = _first_size(MetaShards(folder, params.dim), "tok_embeddings.weight", 0)
    if len(tokenizer) > vocabulary:
        raise ValueError(
            f"{path} has {len(tokenizer)} pieces but the model in {folder} has a vocabulary of "
            f"{vocabulary}, expected no more pieces than that: copy the release's own tokenizer"
        )
    return tokenizer


def _compare(params: MetaParams, shards: MetaShards) -> _Report:
    """Compare the weights' keys and shapes with what `params.json` calls for."""
    checks.refuse_more_layers(f"{PARAMS_FILE}: n_layers", params.n_layers, len(shards.shapes))
    vocabulary = params.vocab_size
    if vocabulary < 1:
        vocabulary = _first_size(shards, "tok_embeddings.weight", 0)
    keys = KeyReport.compare(params.shapes(vocabulary), shards.shapes)
    return _Report(vocabulary, keys, _causes(params, shards))


def _build(config: MTPLlamaConfig, weights: dict[str, Tensor]) -> MTPLlamaForCausalLM:
    """Return a model around `weights`, which must be exactly its tensors; nothing is copied."""
    with torch.device("meta"):
        model = MTPLlamaForCausalLM(config)
    model.load_state_dict(weights, strict=True, assign=True)
    # The frequencies are not weights: they are not in the state dict, and empty on the meta device.
    model.model.rotary_emb = LlamaRotaryEmbedding(model.model.config)
    model.config.dtype = model.dtype
    model.eval()  # type: ignore[no-untyped-call]
    return model


def to_rotate_half(rows: Tensor, head_dim: int) -> Tensor:
    """Reorder the rows of wq or wk, [heads * head_dim, D], from Meta's pairs to transformers'."""
    n_rows, width = rows.shape
    pairs = rows.view(n_rows // head_dim, head_dim // 2, 2, width)
    return pairs.transpose(1, 2).reshape(n_rows, width)


def _converted(
    folder: Path, params: MetaParams, shards: MetaShards, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return the tensors by our names, in our row order and `dtype`; refuse NaN and infinity."""
    weights, bad = {}, []
    for name, meta_name in params.names().items():
        tensor = shards.read(meta_name)
        if meta_name.endswith((".wq.weight", ".wk.weight")):
            tensor = to_rotate_half(tensor, params.head_dim)
        weights[name] = tensor.to(dtype)
        if not checks.is_finite(weights[name]):
            bad.append(meta_name)
    checks.refuse_not_finite(folder, dtype, bad)
    return weights


def _first_size(shards: MetaShards, name: str, default: int) -> int:
    """Return a tensor's first size; `default` if there is no such tensor or it is a scalar."""
    return (*shards.shapes.get(name, ()), default)[0]


def _causes(params: MetaParams, shards: MetaShards) -> list[str]:
    """Return the probable reason for a difference: a lost shard, counts, or the FFN's width."""
    if lost := _lost_shard(params, shards):
        return [lost]  # it makes every width wrong
    causes = []
    n_extra, n_layers = (
        len({name.split(".")[1] for name in shards.shapes if name.startswith(prefix)})
        for prefix in ("extra_heads.", "layers.")
    )
    if n_extra != params.n_future_tokens - 1:
        causes.append(
            f"n_future_tokens={params.n_future_tokens} means {params.n_future_tokens - 1} "
            f"extra_heads but there are {n_extra}, as with n_future_tokens={n_extra + 1}"
        )
    if n_layers + n_extra != params.n_layers:
        causes.append(
            f"n_layers={params.n_layers} but there are {n_layers + n_extra} blocks "
            f"({n_layers} layers and {n_extra} extra_heads)"
        )
    width = _first_size(shards, "layers.0.feed_forward.w1.weight", params.ffn_width)
    if width != params.ffn_width:
        causes.append(
            f"dim={params.dim}, multiple_of={params.multiple_of} and ffn_dim_multiplier="
            f"{params.ffn_dim_multiplier} give an FFN width of {params.ffn_width} but it is {width}"
        )
    return causes


def _lost_shard(params: MetaParams, shards: MetaShards) -> str | None:
    """Return that the last shards are missing, if the first layer's wq has too few rows."""
    n = len(shards.files)
    rows, columns, *_ = (*shards.shapes.get("layers.0.attention.wq.weight", ()), 0, 0)
    numbered = re.fullmatch(r"consolidated\.\d+\.pth", shards.files[0].name)
    if not numbered or columns != params.dim or not 0 < rows < params.dim:
        return None
    n_whole, rest = divmod(params.dim * n, rows)
    if rest:
        return None
    return (
        f"every tensor lacks a part, as where only {n} of {n_whole} shards are there: "
        f"consolidated.{n:02d}.pth is missing"
    )


def _describe(summary: Summary, folder: Path) -> Path | None:
    params = summary.attempt(lambda: read_params(folder))
    # Without params.json the width is unknown: whole tensors are still described.
    shards = summary.attempt(lambda: MetaShards(folder, params.dim if params else 0))
    if params:
        report = summary.attempt(lambda: _compare(params, shards)) if shards else None
        vocabulary, sizes = 0 if shards else max(params.vocab_size, 0), None
        if shards and report:
            vocabulary = report.vocabulary
            summary.note_keys(report.keys, report.causes)
            names = params.names().items()
            sizes = {n: shards.shapes[meta] for n, meta in names if meta in shards.shapes}
        describe_sizes(summary, params.config(max(vocabulary, 1)), sizes)
        summary.vocabulary = vocabulary or None
    if shards:
        summary.scan(shards)
    return find_tokenizer(folder)


def _provenance(folder: Path) -> dict[str, Any]:
    """Return names and sizes of the files, and `params.json`, without local paths."""
    tokenizer = find_tokenizer(folder)
    files = [folder / PARAMS_FILE, *shard_files(folder), *([tokenizer] if tokenizer else [])]
    return {
        "source_files": {file.name: file.stat().st_size for file in files},
        "params": checks.read_json(folder / PARAMS_FILE),
    }


def _recognises(folder: Path) -> bool:
    has_files = (folder / PARAMS_FILE).is_file() or any(folder.glob("consolidated*.pth"))
    return has_files and not (folder / CONFIG_FILE).is_file()


META = Layout(
    name="meta",
    title="Meta's release (params.json, consolidated*.pth)",
    recognises=_recognises,
    n_future_tokens=lambda folder: read_params(folder).n_future_tokens,
    tokenizer=meta_tokenizer,
    describe=_describe,
    load=load_meta,
    provenance=_provenance,
    spreads=True,
)

"""A local folder of an ordinary causal LM, checked before transformers loads it.

transformers answers a broken folder with a traceback, or with random numbers for missing weights.
So it is asked first, on the meta device and with the shapes from the files' headers: its own report
says what would be missing, with renamed and tied weights taken into account. There is no check if
that cannot be known cheaply:

    other files than safetensors, quantised weights, code of the checkpoint's own
"""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

from mtp_harness.errors import in_words
from mtp_harness.models.checkpoints import checks
from mtp_harness.models.checkpoints.checks import KeyReport, listing, one_line
from mtp_harness.models.checkpoints.layout import Layout, Summary
from mtp_harness.models.checkpoints.safetensors_files import (
    CONFIG_FILE,
    INDEX_FILE,
    SINGLE_FILE,
    SafetensorsFiles,
    no_such_model,
)
from mtp_harness.models.checkpoints.tokenizer_folder import folder_tokenizer, tokenizer_file
from mtp_harness.models.families import promised, text_part

_OTHER_WEIGHTS = ("*.safetensors", "pytorch_model*.bin*", "adapter_model*", "*.gguf")
"""Arguments by which transformers takes other files than the two names for safetensors."""

_ELSEWHERE = {"auto_map", "quantization_config", "transformers_weights"}
"""Keys of a configuration whose model differs from what its other keys describe."""

_LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_MANY_LAYERS = 1000  # above it, few tensors mean a wrong number, not layers that share weights


@in_words()
def check_ordinary(folder: Path) -> None:
    """Refuse a folder that transformers cannot load, or would fill with random numbers.

    Raises:
        FileNotFoundError: it has no weights.
        ValueError: a file is truncated, `config.json` describes no model, or a model that the
            weights do not fit.
    """
    if (files := _weights(folder)) and (report := _compare(folder, files)):
        checks.refuse_differences(folder, CONFIG_FILE, report.clauses())


def _weights(folder: Path) -> SafetensorsFiles | None:
    """Return the safetensors that transformers would take, None if it takes other files."""
    if {path.name for path in folder.iterdir()} & {SINGLE_FILE, INDEX_FILE}:
        return SafetensorsFiles(folder)
    if not any(path for pattern in _OTHER_WEIGHTS for path in folder.glob(pattern)):
        raise FileNotFoundError(
            f"{folder} has no weights, expected {SINGLE_FILE}, {INDEX_FILE} with its files, or "
            "pytorch_model.bin: fetch them, or name the folder that holds them"
        )
    return None


def _compare(folder: Path, files: SafetensorsFiles) -> KeyReport | None:
    """Return how the weights differ from the model; None if that is not known.

    Weights that the model does not use do not count: transformers ignores them.
    """
    if (folder / "adapter_config.json").exists() or not (folder / CONFIG_FILE).is_file():
        return None
    report = compare(folder, _content(folder), files, partial(_read_config, folder), _ELSEWHERE)
    return report and report._replace(unexpected=[])


def compare(
    folder: Path,
    content: dict[str, Any],
    files: SafetensorsFiles,
    read_config: Callable[[], Any],
    elsewhere: Collection[str],
) -> KeyReport | None:
    """Return how a folder's tensors differ from its model's, by transformers' own report.

    Args:
        folder: the checkpoint's.
        content: of its `config.json`.
        files: its weights.
        read_config: gives the model's configuration.
        elsewhere: keys of `content` that mean that another model is used: then the result is None.
    """
    if content.keys() & elsewhere:
        return None
    for name in _LAYER_KEYS:
        if isinstance(content.get(name), int) and content[name] > _MANY_LAYERS:
            checks.refuse_more_layers(f"{CONFIG_FILE}: {name}", content[name], len(files.shapes))
    with quietly():
        model = built(folder, read_config)
        return None if model is None else _verdict(model, files)


def _read_config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers' validation has its own classes of error
        raise no_such_model(folder / CONFIG_FILE, error) from error


@contextmanager
def asking_transformers(what: str) -> Iterator[None]:
    """Put errors inside transformers into a sentence; pass on its own refusals."""
    try:
        with in_words():
            yield
    except (ValueError, OSError):
        raise
    except Exception as error:  # missing packages, arguments and files of unexpected form
        raise ValueError(
            f"transformers fails to load {what} ({type(error).__name__}: {one_line(error, 400)}), "
            "expected what --model hf loads: correct the checkpoint or the arguments"
        ) from error


def _content(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    return checks.read_json(path) if path.is_file() else {}


def built(folder: Path, read_config: Callable[[], Any]) -> Any:
    """Return the model of a folder without memory for its weights; None if it cannot be built."""
    config = read_config()
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except Exception as error:  # wrong values fail in many ways inside transformers
        if "meta" in str(error):  # a model that needs numbers while it is built
            return None
        raise no_such_model(folder / CONFIG_FILE, error) from error


def _verdict(model: Any, files: SafetensorsFiles) -> KeyReport | None:
    """Return transformers' report on weights of these names and shapes."""
    state = {name: torch.empty(shape, device="meta") for name, shape in files.shapes.items()}
    try:
        _, info = type(model).from_pretrained(
            None,
            config=model.config,
            state_dict=state,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception:  # a conversion that needs numbers: the result is not known
        return None
    parameters = dict(model.named_parameters())
    found = KeyReport.of_loading(info)
    return found._replace(missing=[name for name in found.missing if name in parameters])


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers from logging and from drawing progress bars."""
    log: Any = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def describe_config(summary: Summary, folder: Path) -> dict[str, Any]:
    """Fill in a summary from the configuration of a model of transformers; return it."""
    content = _content(folder)
    names = content.get("architectures") or content.get("model_type")
    summary.architecture = listing(map(str, names if isinstance(names, list) else [names]))
    part = {**content, **text_part(content)}
    summary.trunk_layers = part.get("num_hidden_layers")
    summary.width = part.get("hidden_size")
    summary.attention_heads = part.get("num_attention_heads")
    summary.kv_heads = part.get("num_key_value_heads")
    summary.vocabulary = part.get("vocab_size")
    summary.context = part.get("max_position_embeddings")
    return content


def describe_weights(
    summary: Summary,
    content: dict[str, Any],
    read: Callable[[], SafetensorsFiles | None],
    compared: Callable[[SafetensorsFiles], KeyReport | None],
) -> None:
    """Fill in how the weights of `read` differ from the model's, and scan them."""
    n_problems = len(summary.problems)
    files = summary.attempt(read)
    keys = summary.attempt(lambda: compared(files)) if files else None
    if keys:
        summary.note_keys(keys, [])
    elif len(summary.problems) == n_problems:
        why = "quantised" if content.get("quantization_config") else "only transformers can tell"
        summary.notes.append(
            f"weights not compared with the model's: {why}"
            if files
            else "no model.safetensors: weights not looked at"
        )
    if files:
        summary.scan(files)


def _describe(summary: Summary, folder: Path) -> Path | None:
    """Fill in what is known of an ordinary causal LM."""
    content = describe_config(summary, folder)
    summary.n_future_tokens = 1
    if modules := promised(content):
        summary.notes.append(
            f"declares {modules} sequential prediction module(s), which are not loaded: n = 1"
        )
    describe_weights(
        summary, content, lambda: _weights(folder), lambda files: _compare(folder, files)
    )
    return tokenizer_file(folder)


ORDINARY = Layout(
    name="transformers",
    title="transformers folder of an ordinary causal LM",
    # transformers reads GGUF without a config.json
    recognises=lambda folder: (folder / CONFIG_FILE).is_file() or any(folder.glob("*.gguf")),
    n_future_tokens=lambda folder: 1,
    tokenizer=lambda folder: folder_tokenizer(folder, _read_config, raw=False),
    describe=_describe,
)

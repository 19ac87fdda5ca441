"""A folder with sequential modules: recognised, described and loaded.

transformers loads the trunk; `sequential_modules` reads the modules.
"""

from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch

from mtp_harness.models.checkpoints.checks import read_json
from mtp_harness.models.checkpoints.layout import Layout, Summary
from mtp_harness.models.checkpoints.ordinary_folder import describe_config, describe_weights
from mtp_harness.models.checkpoints.safetensors_files import CONFIG_FILE, stored_names
from mtp_harness.models.checkpoints.sequential_modules import CHECKS, Stored
from mtp_harness.models.checkpoints.tokenizer_folder import tokenizer_file
from mtp_harness.models.checkpoints.trunk_folder import trunk_tokenizer
from mtp_harness.models.families import family_of, modules_in, promised, text_part
from mtp_harness.models.sequential import SequentialModel, heads_of, most_heads_of


def load_sequential(
    folder: Path,
    dtype: torch.dtype | None = None,
    heads: int | None = None,
    drafter: Path | None = None,
    **arguments: Any,
) -> SequentialModel:
    """Load trunk and modules, in evaluation mode.

    Args:
        folder: holds `config.json` and safetensors.
        dtype: type of the weights; None means what the configuration says.
        heads: as for `SequentialModel`.
        drafter: as for `Stored.of`.
        **arguments: of transformers' `from_pretrained` for the trunk.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the modules that the configuration promises are absent or incomplete, or
            weights are unexpected, have another shape, or are packed.
    """
    stored = Stored.of(folder, drafter)
    stored.check()
    main = stored.loaded(dtype, **arguments)
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


def _describe(summary: Summary, folder: Path, drafter: Path | None = None) -> Path | None:
    """Fill in what is known without loading: the trunk as an ordinary model, and modules."""
    content = describe_config(summary, folder)
    stored = summary.attempt(lambda: Stored.of(folder, drafter))
    if stored:
        for step in CHECKS:
            summary.attempt(partial(step, stored))
        describe_weights(
            summary, content, lambda: stored.files, lambda _: stored.trunk_differences()
        )
        if stored.is_apart:
            summary.scan(stored.modules)
        sizes = [prod(stored.modules.shapes[key]) for key in stored.places]
        if sizes:
            summary.modules = modules_in(stored.family, stored.modules.shapes, stored.n_trunk)
            summary.n_future_tokens = heads_of(summary.modules)
            summary.notes.append(f"parameters of modules: {sum(sizes):,}")
    return tokenizer_file(folder)


def sequential(drafter: Path | None = None) -> Layout:
    """Return the layout of folders with sequential modules, their own or a drafter's."""

    def modules(folder: Path) -> int:
        return Stored.of(folder, drafter).n_modules()

    return Layout(
        name="sequential",
        title="transformers folder with sequential modules",
        recognises=_recognises,
        n_future_tokens=lambda folder: heads_of(modules(folder)),
        tokenizer=trunk_tokenizer,
        describe=partial(_describe, drafter=drafter),
        load=partial(load_sequential, drafter=drafter),
        most_heads=lambda folder: most_heads_of(modules(folder)),
    )


SEQUENTIAL = sequential()

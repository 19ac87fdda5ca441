"""A checkpoint of a sequential family: transformers loads the trunk, this loads the modules.

transformers leaves the modules' weights out without a word. Here they are read strictly both ways,
from the same files. The families are rows of `models.families`.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from mtp_harness.models.checkpoints.checks import KeyReport, listing, read_json
from mtp_harness.models.checkpoints.layout import Layout, Summary
from mtp_harness.models.checkpoints.ordinary_folder import (
    ORDINARY,
    asking_transformers,
    quietly,
)
from mtp_harness.models.checkpoints.safetensors_files import CONFIG_FILE, SafetensorsFiles
from mtp_harness.models.families import (
    FAMILIES,
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
    content = read_json(folder / CONFIG_FILE)
    family = family_of(content)
    assert family is not None, "detected by its model_type"
    files = SafetensorsFiles(folder)
    n_trunk = _n_trunk(content)
    n = count_modules(folder, content, family, files, n_trunk)
    with asking_transformers(str(folder)), quietly():
        main: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=trunk_config(folder, content, family),
            dtype=dtype or "auto",
            local_files_only=True,
            **arguments,
        )
    weights = module_weights(folder, files, family, n_trunk, n)
    modules = _filled(folder, main, family, n, weights)
    _refuse_weights_of_its_own(folder, files, family, n_trunk, main)
    model = SequentialModel(main, modules, family, heads)
    model.eval()
    return model


def trunk_config(folder: Path, content: Mapping[str, Any], family: Family) -> Any:
    """Return the configuration of the trunk as transformers builds it."""
    if family.trunk is None:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    rest = {
        name: value for name, value in content.items() if name not in ("model_type", "auto_map")
    }
    return AutoConfig.for_model(family.trunk, **rest)


def count_modules(
    folder: Path,
    content: Mapping[str, Any],
    family: Family,
    files: SafetensorsFiles,
    n_trunk: int,
) -> int:
    """Return how many modules a folder holds.

    Raises:
        ValueError: it is not the number that the configuration promises, or the family's keys are
            of another kind than the modules can be.
    """
    if text_part(content).get("mtp_use_dedicated_embeddings"):
        raise ValueError(
            f"{folder / CONFIG_FILE}: mtp_use_dedicated_embeddings is true, expected modules that "
            "share the trunk's embeddings: modules with their own are not supported"
        )
    found, said = modules_in(family, files.shapes, n_trunk), promised(content)
    if found == said or (found and not said):
        return found
    if not found:
        raise ValueError(
            f"{folder / CONFIG_FILE} promises {said} module{'s' * (said > 1)} and the weights hold "
            f"none (keys such as {family.example(n_trunk)}); copies for other engines leave them "
            "out: fetch the original checkpoint, or use --model hf for the trunk alone"
        )
    raise ValueError(
        f"{folder / CONFIG_FILE} promises {said} module{'s' * (said > 1)} and the weights hold "
        f"{found}, expected the same number: correct it or fetch the weights again"
    )


def module_weights(
    folder: Path, files: SafetensorsFiles, family: Family, n_trunk: int, n: int
) -> dict[str, Tensor]:
    """Return the modules' weights by their names in `Modules`; what all share, once for each.

    Raises:
        ValueError: some are no plain floating-point numbers.
    """
    keys = [key for key in files.shapes if family.place(key, n_trunk)]
    packed = [key for key in keys if files.dtypes[key] is None]
    if packed:
        raise ValueError(
            f"{folder} holds module weights that are not plain floating-point numbers "
            f"({listing(packed)}), expected float32, float16 or bfloat16: fetch the checkpoint "
            "whose modules are not quantised"
        )
    weights = {}
    for key in keys:
        module, name = family.place(key, n_trunk) or (None, "")
        if not name.startswith("="):
            for k in range(n) if module is None else [module]:
                weights[f"layers.{k}.{name}"] = files.read(key)
    return weights


def _filled(folder: Path, main: Any, family: Family, n: int, weights: dict[str, Tensor]) -> Modules:
    """Return modules with these weights; experts that are stored one by one are joined.

    Raises:
        ValueError: weights are missing, left over, or of another shape.
    """
    trunk = main.get_decoder()
    config = modules_config(trunk.config, family, n)
    load: Any = Modules.from_pretrained
    with asking_transformers(f"the modules of {folder}"), quietly():
        modules, info = load(
            None,
            trunk,
            trunk.config.num_hidden_layers,
            config=config,
            state_dict=weights,
            dtype=main.dtype,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    if clauses := KeyReport.of_loading(info).clauses():
        raise ValueError(
            f"the module weights in {folder} are not those that its {CONFIG_FILE} describes: "
            f"{'; '.join(clauses)} (names as in transformers' MtpLayer); fetch them again"
        )
    filled: Modules = modules.to(main.device)
    return filled


def _refuse_weights_of_its_own(
    folder: Path, files: SafetensorsFiles, family: Family, n_trunk: int, main: Any
) -> None:
    """Refuse modules whose embeddings or unembedding are not the trunk's.

    Raises:
        ValueError: says which.
    """
    shared = {
        "embed_tokens.weight": main.get_input_embeddings().weight,
        "lm_head.weight": main.get_output_embeddings().weight,
    }
    for key in files.shapes:
        _, name = family.place(key, n_trunk) or (None, "")
        trunk = shared.get(name.removeprefix("=")) if name.startswith("=") else None
        if trunk is not None and not torch.equal(files.read(key).to(trunk), trunk):
            raise ValueError(
                f"{folder}: {key} is not the trunk's own, expected modules that share the trunk's "
                "embeddings and unembedding: modules with their own are not supported"
            )


def _recognises(folder: Path) -> bool:
    """Return whether a folder is of a family that promises modules, or holds some."""
    content = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    family = family_of(content)
    if family is None:
        return False
    if promised(content):
        return True
    try:
        keys = SafetensorsFiles(folder).shapes
    except (ValueError, OSError):  # transformers may take other files
        return False
    return modules_in(family, keys, int(text_part(content).get("num_hidden_layers", 0))) > 0


def _count(folder: Path) -> int:
    content = read_json(folder / CONFIG_FILE)
    family = FAMILIES[content["model_type"]]
    return count_modules(folder, content, family, SafetensorsFiles(folder), _n_trunk(content))


def _n_trunk(content: Mapping[str, Any]) -> int:
    return int(text_part(content)["num_hidden_layers"])


def _n_future_tokens(folder: Path) -> int:
    return heads_of(_count(folder))


def _most_heads(folder: Path) -> int:
    return most_heads_of(_count(folder))


def _describe(summary: Summary, folder: Path) -> Path | None:
    """Fill in what is known without loading: of the trunk as of an ordinary model, and modules."""
    found = ORDINARY.describe(summary, folder)
    summary.notes = [note for note in summary.notes if "sequential prediction module" not in note]
    summary.n_future_tokens = None
    summary.modules = n = summary.attempt(lambda: _count(folder))
    if n:
        summary.n_future_tokens = heads_of(n)
        content, files = read_json(folder / CONFIG_FILE), SafetensorsFiles(folder)
        family, n_trunk = FAMILIES[content["model_type"]], _n_trunk(content)
        sizes = [prod(shape) for key, shape in files.shapes.items() if family.place(key, n_trunk)]
        summary.notes.append(f"parameters of modules: {sum(sizes):,}")
    return found


SEQUENTIAL = Layout(
    name="sequential",
    title="transformers folder with sequential modules",
    recognises=_recognises,
    n_future_tokens=_n_future_tokens,
    tokenizer=ORDINARY.tokenizer,
    describe=_describe,
    load=load_sequential,
    most_heads=_most_heads,
)

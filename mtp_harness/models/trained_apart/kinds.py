"""Chooses the layout of a trunk with a drafter, from the `drafter` argument.

    speculators_model_type mtp in its config.json    a module of speculators
    speculators_model_type eagle3, or midlayer.*     EAGLE-3
    fc.weight without midlayer.*                     EAGLE or EAGLE-2, which are the same model
    medusa_num_heads, or model_type medusa           Medusa
    hydra_num_heads                                  Hydra with mlp heads
    mtp.safetensors, or other safetensors            modules in the layout of the trunk's family

Other known kinds are refused by name.
"""

from pathlib import Path
from typing import Any

from mtp_harness.models.checkpoints.checks import read_json
from mtp_harness.models.checkpoints.layout import Layout
from mtp_harness.models.checkpoints.safetensors_files import CONFIG_FILE
from mtp_harness.models.checkpoints.sequential_folder import sequential
from mtp_harness.models.checkpoints.sequential_modules import MODULE_FILE
from mtp_harness.models.trained_apart.eagle import StoredEagle
from mtp_harness.models.trained_apart.eagle3_folder import StoredEagle3
from mtp_harness.models.trained_apart.hydra import StoredHydra
from mtp_harness.models.trained_apart.medusa import StoredMedusa
from mtp_harness.models.trained_apart.stored import Stored, layout, tensors_of

READ = (
    "a module in the layout of the trunk's family, a module of speculators, EAGLE, EAGLE-3, Medusa "
    "or Hydra with mlp heads"
)


def layout_with(drafter: Path) -> Layout:
    """Return the layout of a trunk's folder with the heads of a drafter's file or folder.

    Raises:
        FileNotFoundError: the file or folder does not exist.
        ValueError: its kind is not supported.
    """
    if not drafter.exists() or (drafter.is_dir() and not any(drafter.iterdir())):
        what = "is empty" if drafter.exists() else "does not exist"
        raise FileNotFoundError(
            f"drafter={drafter} {what}, expected the file or folder of a drafter: check the path"
        )
    if drafter.is_file() and drafter.suffix != ".safetensors":
        raise ValueError(
            f"drafter={drafter} is not a safetensors file, expected one, or the folder of a "
            f"drafter: name {drafter.parent}, or save the weights as safetensors"
        )
    config = drafter / CONFIG_FILE
    content = read_json(config) if config.is_file() else {}
    if name := _refused(content):
        raise ValueError(f"drafter={drafter} is {name}, which is not read here, expected {READ}")
    if drafter.is_dir() and config.is_file() and (kind := _kind(drafter, content)):
        return layout(kind, drafter)
    return sequential(drafter)


def _kind(drafter: Path, content: dict[str, Any]) -> type[Stored] | None:
    """Return the kind of a folder with a configuration; None for modules only."""
    said = content.get("speculators_model_type")
    if "medusa_num_heads" in content or content.get("model_type") == "medusa":
        return StoredMedusa
    if "hydra_num_heads" in content:
        return StoredHydra
    if said == "eagle3":
        return StoredEagle3
    if said is None and not (drafter / MODULE_FILE).is_file():
        keys = tensors_of(drafter).shapes
        if any(key.startswith("midlayer.") for key in keys):
            return StoredEagle3
        if "fc.weight" in keys:
            return StoredEagle
    return None


def _refused(content: dict[str, Any]) -> str | None:
    """Return the name of an unsupported kind, from its configuration; None for all others."""
    kind, model_type = content.get("speculators_model_type"), str(content.get("model_type"))
    if kind not in (None, "mtp", "eagle3"):
        return f"a drafter of speculators of the kind {kind}"
    if "hydra_num_heads" in content and content.get("hydra_head_arch") != "mlp":
        return f"a Hydra drafter with {content.get('hydra_head_arch')} heads"
    if "assistant" in model_type:
        return f"an assistant model ({model_type})"
    return None

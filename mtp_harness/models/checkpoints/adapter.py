"""A folder with a PEFT adapter, which changes a checkpoint and is not one itself."""

from pathlib import Path

from mtp_harness.models.checkpoints.checks import read_json
from mtp_harness.models.checkpoints.safetensors_files import CONFIG_FILE
from mtp_harness.models.llama.mtp_llama import MTPLlamaConfig

ADAPTER_FILE = "adapter_config.json"

_MERGE = (
    "peft.AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload()"
    ".save_pretrained(OUT), after `import mtp_harness.models`, and save the base's tokenizer there"
)


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder that holds only an adapter, and say how to merge it with its base.

    An ordinary model's folder may hold an adapter beside its `config.json`: transformers loads
    both.
    """
    has_weights = any(folder.glob("model*.safetensors")) or any(folder.glob("consolidated*.pth"))
    has_adapter = (folder / ADAPTER_FILE).is_file() or any(folder.glob("adapter_model.*"))
    config = folder / CONFIG_FILE
    is_ordinary = (
        config.is_file() and read_json(config).get("model_type") != MTPLlamaConfig.model_type
    )
    if has_weights or not has_adapter or is_ordinary:
        return
    path = folder / ADAPTER_FILE
    base = (read_json(path) if path.is_file() else {}).get("base_model_name_or_path")
    of = f" of {base}" if base else ""
    raise ValueError(
        f"{folder} holds a PEFT adapter{of}, expected a checkpoint. If its base is an ordinary "
        f"model, load it as pretrained={base or 'BASE'},peft={folder}; if its base has several "
        f"heads, merge it first: {_MERGE}"
    )

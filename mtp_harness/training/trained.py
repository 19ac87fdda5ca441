"""What a training run leaves behind: a folder with `training.json`."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtp_harness.files import whole_files, write_whole
from mtp_harness.models import provenance
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.training.recipe import Recipe


def write_trained(
    out: Path,
    model: MultiHeadModel,
    save: Callable[[Path], Any],
    command: str,
    recipe: Recipe,
    curve: list[dict[str, Any]],
    text: dict[str, Any],
) -> dict[str, Any]:
    """Write what was trained whole, and drop the run's state; return the record.

    Args:
        out: folder of the run.
        model: trained; what of it is frozen does not count.
        save: writes its weights, its configuration and what else it needs into a folder.
        command: that was given.
        recipe: of the run.
        curve: of the run, from `loop.train`.
        text: what is known of the training text.
    """
    record = {
        "command": command,
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(model.device),
        "wall_s": curve[-1]["wall_s"],
        "data": text,
        "curve": curve,
    }
    with whole_files(out, last="config.json") as draft:
        save(draft)
        write_whole(draft / "training.json", json.dumps(record, indent=1) + "\n")
    (out / "state.pt").unlink(missing_ok=True)
    return record

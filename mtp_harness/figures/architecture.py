"""What a model is made of, from the configuration beside its weights."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.files import user_path
from mtp_harness.results.result_file import ResultFile

SHIPPED = Path(__file__).parents[1] / "models" / "reference"


class Architecture(NamedTuple):
    """Blocks of a model.

    Attributes:
        n: Heads.
        trunk: Blocks below them, all heads share these.
        heads: Blocks of the heads together.
        width: Of the trunk's states.
    """

    n: int
    trunk: int
    heads: int
    width: int


PAPER_7B = Architecture(n=4, trunk=28, heads=4, width=4096)
"""Section 3 and table S14: 32 blocks, of which four are heads."""


def of(file: ResultFile) -> Architecture | None:
    """Return the architecture of a run's model; None where its configuration is not at hand."""
    pretrained = file.mtp.get("pretrained")
    if not isinstance(pretrained, str) or not pretrained:
        return None
    for folder in (SHIPPED / Path(pretrained).name, user_path(pretrained)):
        for name in ("config.json", "params.json"):
            if (path := folder / name).is_file():
                return _read(path)
    return None


def _read(path: Path) -> Architecture | None:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        n = int(told.get("n_future_tokens", 1))
        blocks = int(told["num_hidden_layers"] if path.name == "config.json" else told["n_layers"])
        width = int(told["hidden_size"] if path.name == "config.json" else told["dim"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Architecture(n, blocks - n, n, width) if 1 <= n <= blocks else None

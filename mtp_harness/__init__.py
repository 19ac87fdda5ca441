"""Evaluate multi-token-prediction language models with EleutherAI's lm-evaluation-harness.

Importing this package is cheap and has no side effect; `mtp_harness.lm` holds the harness model.
`evaluate_heads`, for training loops, loads torch when it is asked for.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtp_harness.probes.in_training import evaluate_heads as evaluate_heads

__version__ = "0.1.0"


def tasks_dir() -> Path:
    """Return the folder with the task YAMLs.

    A wheel carries it inside the package; an editable install reads the checkout's `tasks/`.
    """
    here = Path(__file__).resolve().parent
    installed = here / "tasks"
    return installed if installed.is_dir() else here.parent / "tasks"


def __getattr__(name: str) -> Any:
    if name == "evaluate_heads":
        from mtp_harness.probes.in_training import evaluate_heads

        return evaluate_heads
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

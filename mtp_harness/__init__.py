"""Evaluate multi-token-prediction language models with EleutherAI's lm-evaluation-harness.

Importing this package is cheap and has no side effect; `mtp_harness.lm` holds the harness model.
"""

from pathlib import Path

__version__ = "0.1.0"


def tasks_dir() -> Path:
    """Return the folder with the task YAMLs.

    A wheel carries it inside the package; an editable install reads the checkout's `tasks/`.
    """
    here = Path(__file__).resolve().parent
    installed = here / "tasks"
    return installed if installed.is_dir() else here.parent / "tasks"

"""Examples in the prompt that a model's context does not hold are left out, and the results say so.

The harness builds prompts without looking at the model, and a prompt that is too long loses its
beginning: the instruction and half an example. A task that has `fit_shots` is shown the model
first, in `lm_eval.evaluator.evaluate`, where both are known and no prompt is built yet.
"""

from collections.abc import Mapping
from typing import Any

from mtp_harness.harness.protocol import Tokenizing


def fit_shots(lm: object, tasks: Any) -> None:
    """Show a model to the tasks that ask for it, before any prompt is built."""
    if isinstance(tasks, Mapping):
        for part in tasks.values():
            fit_shots(lm, part)
    elif hasattr(tasks, "fit_shots"):
        tasks.fit_shots(lm)


def tokens_of(lm: object, text: str) -> int | None:
    """Return how many tokens a whole prompt is for a model; None for models that do not say."""
    return len(lm.tok_encode(text)) if isinstance(lm, Tokenizing) else None

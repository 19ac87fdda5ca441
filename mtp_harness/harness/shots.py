"""Leaves out few-shot examples that do not fit the model's context, and records it in the results.

The harness builds prompts without knowing the context length, and cuts a prompt that is too long at
its beginning: the instruction and half an example are lost. A task with `fit_shots` gets the model
in `lm_eval.evaluator.evaluate`, before any prompt is built.
"""

from collections.abc import Mapping
from typing import Any

from mtp_harness.harness.protocol import Tokenizing


def fit_shots(lm: object, tasks: Any) -> None:
    """Give the model to the tasks that ask for it, before any prompt is built."""
    if isinstance(tasks, Mapping):
        for part in tasks.values():
            fit_shots(lm, part)
    elif hasattr(tasks, "fit_shots"):
        tasks.fit_shots(lm)


def tokens_of(lm: object, text: str) -> int | None:
    """Return how many tokens a prompt has for a model; None if the model does not say."""
    return len(lm.tok_encode(text)) if isinstance(lm, Tokenizing) else None

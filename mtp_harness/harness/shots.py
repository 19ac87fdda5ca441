"""Examples in the prompt that a model's context does not hold are left out, and the results say so.

The harness builds prompts without looking at the model, and a prompt that is too long loses its
beginning: the instruction and half an example. A task that has `fit_shots` is shown the model
first, in `lm_eval.evaluator.evaluate`, where both are known and no prompt is built yet.
"""

import functools
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from mtp_harness.harness.protocol import Tokenizing


def add_fitting(evaluator: ModuleType) -> None:
    """Make `evaluate` show the model to the tasks that ask for it; a second call has no effect."""
    original = evaluator.evaluate
    if hasattr(original, "mtp_harness_original"):
        return

    @functools.wraps(original)
    def evaluate(lm: Any, task_dict: Any, *args: Any, **kwargs: Any) -> Any:
        for task in _fitting_tasks(task_dict):
            task.fit_shots(lm)
        return original(lm, task_dict, *args, **kwargs)

    evaluate.mtp_harness_original = original  # type: ignore[attr-defined]
    evaluator.evaluate = evaluate  # type: ignore[attr-defined]


def _fitting_tasks(tasks: Any) -> Iterator[Any]:
    if isinstance(tasks, Mapping):
        for part in tasks.values():
            yield from _fitting_tasks(part)
    elif hasattr(tasks, "fit_shots"):
        yield tasks


def tokens_of(lm: object, text: str) -> int | None:
    """Return how many tokens a whole prompt is for a model; None for models that do not say."""
    return len(lm.tok_encode(text)) if isinstance(lm, Tokenizing) else None

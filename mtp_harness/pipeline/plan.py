"""From a suite to its cells, and everything that can be refused before one of them runs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lm_eval.models.huggingface import HFLM

from mtp_harness.lm import MTPLM
from mtp_harness.model_args import refuse_odd_values, refuse_unknown, refuse_without_effect
from mtp_harness.models.load import DEFAULT_MODEL, Layout, detect, n_future_tokens
from mtp_harness.pipeline.cell import Cell
from mtp_harness.pipeline.expand import SingleTask, expand
from mtp_harness.pipeline.suite import Model, Suite
from mtp_harness.scoring.n_samples import NSamples


def plan(suite: Suite, output: Path) -> list[Cell]:
    """Return the cells of a suite, task by task, so that models can be compared early.

    Args:
        suite: as read from its file.
        output: folder for all cells.

    Raises:
        FileNotFoundError: a checkpoint is not there.
        ValueError: see `expand` and `_check_model`; a task cannot be sampled as it says.
    """
    keeps_journal = {model.label: _check_model(model) for model in suite.models}
    tasks = expand(suite.tasks, suite.include_path)
    for task in tasks:
        _check_sampling(task)
    return [
        Cell(
            model.label,
            task.name,
            model.model_args,
            task.settings,
            output / model.label / task.name,
            keeps_journal[model.label],
            suite.include_path,
        )
        for task in tasks
        for model in suite.models
    ]


def _check_model(model: Model) -> bool:
    """Refuse a model that cannot be loaded as asked; return whether it can keep a journal."""
    arguments = model.model_args
    pretrained = arguments.get("pretrained") or arguments.get("loader") or DEFAULT_MODEL
    try:
        layout = None if arguments.get("loader") else detect(str(pretrained))
        if layout is not None:
            _check_heads(arguments.get("draft_heads"), n_future_tokens(str(pretrained)))
        if layout is Layout.TRANSFORMERS:
            return False
        refuse_unknown(arguments, HFLM.__init__, MTPLM.__init__)
        refuse_without_effect(arguments)
        refuse_odd_values(arguments.get("draft_heads"), arguments.get("device"), arguments)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"model {model.label}: {error}") from error
    return True


def _check_heads(k: Any, n: int) -> None:
    if isinstance(k, int) and not 1 <= k <= n:
        raise ValueError(
            f"draft_heads={k}, but this checkpoint has {n} {'head' if n == 1 else 'heads'}; "
            f"choose 1{f' to {n}' if n > 1 else ''}."
        )


def _check_sampling(task: SingleTask) -> None:
    """Refuse more k than samples, where a task draws several answers."""
    if "n_samples" in task.metadata:
        try:
            NSamples.from_metadata(task.metadata)
        except ValueError as error:
            raise ValueError(f"{task.name}: {error}") from None


def tasks_of(cells: Iterable[Cell]) -> list[str]:
    """Return the names of all tasks, in order."""
    return list(dict.fromkeys(cell.task for cell in cells))

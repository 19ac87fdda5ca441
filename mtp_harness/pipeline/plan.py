"""From a suite to its cells; everything that can be refused is refused before one of them runs."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lm_eval.models.huggingface import HFLM

from mtp_harness.harness.generation_args import checked_arguments
from mtp_harness.harness.model_args import (
    read_arguments,
    refuse_heads,
    refuse_odd_values,
    refuse_unknown,
    refuse_without_effect,
)
from mtp_harness.models.checkpoints.user_loader import find_loader
from mtp_harness.models.load import (
    DEFAULT_MODEL,
    detect,
    is_local,
    load_tokenizer,
    located,
    n_future_tokens,
)
from mtp_harness.pipeline.cell import Cell
from mtp_harness.pipeline.expand import SingleTask, expand
from mtp_harness.pipeline.suite import Model, Suite
from mtp_harness.scoring.n_samples import NSamples


def plan(suite: Suite, output: Path) -> list[Cell]:
    """Return the cells of a suite, task by task, so that models can be compared early.

    Raises:
        FileNotFoundError: a checkpoint does not exist.
        ValueError: see `expand` and `_check_model`; or a task cannot be sampled as asked.
    """
    checked = [_check_model(model) for model in suite.models]
    tasks = expand(suite.tasks, suite.include_path)
    for task in tasks:
        _check_task(task)
    return [
        cell
        for task in tasks
        for cell in _of_task(task, list(zip(suite.models, checked, strict=True)), suite, output)
    ]


def _of_task(
    task: SingleTask, models: Sequence[tuple[Model, "_Checked"]], suite: Suite, output: Path
) -> Iterator[Cell]:
    """Yield a task's cells; of cells with the same answers, the first gives them to the others."""
    alone, same = task.needs_own_process(), task.same_for_every_k()
    givers: dict[str, Cell] = {}
    for model, (journal, n) in models:
        cell = Cell(
            label=model.label,
            task=task.name,
            model_args=model.model_args,
            settings=task.settings,
            folder=output / (model.folder or model.label) / task.name,
            journal=journal,
            include_path=suite.include_path,
            of_harness=task.of_harness(),
            own_process=alone,
        )
        answer = {**model.model_args, "draft_heads": n}
        giver = givers.setdefault(json.dumps(answer, sort_keys=True), cell) if same else cell
        yield cell if giver is cell else replace(cell, given_by=giver)


class _Checked(NamedTuple):
    """What is known about a model: whether it keeps a journal, and its number of heads."""

    journal: bool
    n: int | None  # None: depends on the loader


def _check_model(model: Model) -> _Checked:
    """Refuse a model that cannot be loaded with these arguments."""
    try:
        arguments = read_arguments(model.model_args)
        refuse_odd_values(arguments.get("draft_heads"), arguments.get("device"), arguments)
        loader = arguments.get("loader")
        pretrained = arguments.get("pretrained") or loader or DEFAULT_MODEL
        revision = arguments.get("revision")
        drafter = arguments.get("drafter")
        layout = None if loader else detect(pretrained, revision, drafter)
        n = None
        if loader:
            find_loader(loader)
        else:
            k = arguments.get("draft_heads")
            place = located(pretrained, revision, drafter)
            n = n_future_tokens(place, k if isinstance(k, int) else None, drafter)
        tokenizer = arguments.get("tokenizer")
        if isinstance(tokenizer, str) and is_local(tokenizer):
            load_tokenizer(tokenizer)
        if layout and layout.ordinary:
            refuse_heads(pretrained, arguments, HFLM.__init__)
            return _Checked(False, n)
        refuse_unknown(arguments, HFLM.__init__)
        refuse_without_effect(arguments, local=layout is None or is_local(pretrained))
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"model {model.label}: {error}") from error
    return _Checked(True, n)


def _check_task(task: SingleTask) -> None:
    """Refuse k above the number of samples, unknown generation arguments, a missing device."""
    metadata = task.metadata()
    try:
        if "n_samples" in metadata or task.grades_programs():
            NSamples.from_metadata(metadata)
        checked_arguments(task.settings.get("gen_kwargs") or {})
        refuse_odd_values(None, task.settings.get("device"), {})
    except ValueError as error:
        raise ValueError(f"{task.name}: {error}") from None

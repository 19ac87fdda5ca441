"""What is looked at before the model loads.

On its own the harness loads the model first and reads `--confirm_run_unsafe_code` later, which on a
large model is minutes too late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtp_harness.errors import UserError
from mtp_harness.harness import task_options
from mtp_harness.harness.task_index import RequestedTask, find_requested


def check_before_load(
    *,
    model: Any,
    tasks: Sequence[Any] | None,
    task_manager: Any = None,
    confirm_run_unsafe_code: bool = False,
    predict_only: bool = False,
    cache_requests: bool = False,
    metadata: Mapping[str, Any] | None = None,
    model_args: str | Mapping[str, Any] | None = None,
) -> None:
    """Refuse, before the model loads, a run that could only fail or harm later.

    Args:
        model: The model's registered name, or a model object.
        tasks: What `simple_evaluate` takes: names, configurations, task objects.
        task_manager: The run's `TaskManager`; None means one with the built-in tasks and ours.
        confirm_run_unsafe_code: Whether the user agreed to run programs without isolation.
        predict_only: Whether answers are saved and not graded, so that no program runs.
        cache_requests: Whether the run uses the harness's cache of built requests.
        metadata: The run's; the command line adds the model's arguments.
        model_args: The model's arguments.

    Raises:
        UserError: One sentence that says what to change.
    """
    requested = find_requested(tasks or [], task_manager)
    if cache_requests:
        _refuse_request_cache([task.name for task in requested if task.ours])
    _refuse_unknown_options(requested, _given(metadata, model_args))
    if not predict_only and not confirm_run_unsafe_code:
        _require_isolation(
            [task.name for task in requested if getattr(task.task_class, "grades_programs", False)]
        )
    _require_request_types(model, requested)


def _given(
    metadata: Mapping[str, Any] | None, model_args: str | Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the metadata that the user gave, without the model's arguments."""
    from lm_eval.utils import simple_parse_args_string

    of_model = simple_parse_args_string(model_args) if isinstance(model_args, str) else model_args
    return {name: value for name, value in (metadata or {}).items() if name not in (of_model or {})}


def _refuse_unknown_options(requested: list[RequestedTask], given: Mapping[str, Any]) -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    ours = [(task.name, task.yaml_path) for task in requested if task.ours and task.yaml_path]
    if not given or not ours or len(ours) < len(requested):
        return
    known = {name: task_options.options_of(load_yaml(path)) for name, path in ours}
    if found := task_options.problem(given, known):
        raise UserError(found)


def _refuse_request_cache(names: list[str]) -> None:
    if names:
        raise UserError(
            f"--cache_requests cannot be used with {_listed(names)}, because its key knows neither "
            "repeats nor generation arguments: leave it out."
        )


def _require_isolation(names: list[str]) -> None:
    if not names:
        return
    from mtp_harness import sandbox

    try:
        sandbox.self_test().require()
    except RuntimeError as error:  # the sandbox's own sentence; it names the flag
        raise UserError(f"{_listed(names)}: {error}") from error


def _require_request_types(model: Any, requested: list[RequestedTask]) -> None:
    for name, task_class, *_ in requested:
        request_type = getattr(task_class, "request_type", None)
        if isinstance(request_type, str) and not hasattr(_model_class(model), request_type):
            label = model if isinstance(model, str) else type(model).__name__
            raise UserError(
                f"{name} sends {request_type} requests, which the model {label!r} does not answer: "
                f"run it with --model mtp, which loads any causal language model."
            )


def _model_class(model: Any) -> Any:
    if not isinstance(model, str):
        return model
    from lm_eval.api.registry import get_model

    return get_model(model)


def _listed(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))

"""Checks before the model loads.

The harness itself loads the model first and checks `--confirm_run_unsafe_code` afterwards, which
for a large model is minutes too late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtp_harness.errors import UserError
from mtp_harness.harness import task_options
from mtp_harness.harness.task_index import RequestedTask, find_requested, listed
from mtp_harness.harness.vllm_tasks import refuse_in_vllm


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
    """Refuse, before the model loads, a run that could only fail or do harm later.

    The arguments are those of `simple_evaluate`, except `cache_requests` (whether built requests
    are cached); the command line adds the model's arguments to `metadata`.

    Raises:
        UserError: One sentence that says what to change.
    """
    requested = find_requested(tasks or [], task_manager)
    ours = [task.name for task in requested if task.ours]
    if cache_requests and ours:
        raise UserError(
            f"--cache_requests cannot be used with {listed(ours)}, because its key knows neither "
            "repeats nor generation arguments: leave it out."
        )
    arguments = _arguments(model_args)
    given = {name: value for name, value in (metadata or {}).items() if name not in arguments}
    _refuse_unknown_options(requested, given)
    grading = [
        task.name for task in requested if getattr(task.task_class, "grades_programs", False)
    ]
    if grading and not predict_only and not confirm_run_unsafe_code:
        _require_isolation(grading)
    if model == "mtp-vllm":
        refuse_in_vllm(requested, arguments, given)
    else:
        _require_request_types(model, requested)


def _arguments(model_args: str | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the model's arguments by name."""
    from lm_eval.utils import simple_parse_args_string

    if isinstance(model_args, str):
        parsed: dict[str, Any] = simple_parse_args_string(model_args)
        return parsed
    return model_args or {}


def _refuse_unknown_options(requested: list[RequestedTask], given: Mapping[str, Any]) -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    ours = [(task.name, task.yaml_path) for task in requested if task.ours and task.yaml_path]
    if not given or not ours or len(ours) < len(requested):
        return
    known = {name: task_options.options_of(load_yaml(path)) for name, path in ours}
    if found := task_options.problem(given, known):
        raise UserError(found)


def _require_isolation(names: list[str]) -> None:
    from mtp_harness import sandbox

    try:
        sandbox.self_test().require()
    except RuntimeError as error:  # the sandbox's own sentence; it names the flag
        raise UserError(f"{listed(names)}: {error}") from error


def _require_request_types(model: Any, requested: list[RequestedTask]) -> None:
    from lm_eval.api.registry import get_model

    for name, task_class, *_ in requested:
        request_type = getattr(task_class, "request_type", None)
        if not isinstance(request_type, str):
            continue
        if not hasattr(get_model(model) if isinstance(model, str) else model, request_type):
            label = model if isinstance(model, str) else type(model).__name__
            raise UserError(
                f"{name} sends {request_type} requests, which the model {label!r} does not "
                f"support: run it with --model mtp, which loads any causal language model."
            )

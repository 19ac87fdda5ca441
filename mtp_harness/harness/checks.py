"""Checks before the model loads.

The harness itself loads the model first and checks `--confirm_run_unsafe_code` afterwards, which
for a large model is minutes too late.
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
            f"--cache_requests cannot be used with {_listed(ours)}, because its key knows neither "
            "repeats nor generation arguments: leave it out."
        )
    _refuse_unknown_options(requested, _given(metadata, model_args))
    grading = [
        task.name for task in requested if getattr(task.task_class, "grades_programs", False)
    ]
    if grading and not predict_only and not confirm_run_unsafe_code:
        _require_isolation(grading)
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


def _require_isolation(names: list[str]) -> None:
    from mtp_harness import sandbox

    try:
        sandbox.self_test().require()
    except RuntimeError as error:  # the sandbox's own sentence; it names the flag
        raise UserError(f"{_listed(names)}: {error}") from error


def _require_request_types(model: Any, requested: list[RequestedTask]) -> None:
    from lm_eval.api.registry import get_model

    if model == "mtp-vllm":
        _refuse_in_vllm(requested)
        return
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


def _refuse_in_vllm(requested: list[RequestedTask]) -> None:
    # By what the tasks say: importing the model's class imports vLLM, which takes long.
    asking = [one for one in requested if hasattr(one.task_class, "request_type")]
    names = [one.name for one in asking if not getattr(one.task_class, "IN_VLLM", False)]
    if names:
        raise UserError(
            f"--model mtp-vllm cannot run {_listed(names)}, which need this package's own engine: "
            "run them with --model mtp, or measure acceptance with mtp_speculative and speed with "
            "mtp_speed, which run in vLLM, too."
        )


def _listed(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))

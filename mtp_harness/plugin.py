"""What a stock `lm_eval` gets from us: the model's name, our tasks, and checks before a run.

`_startup` calls `add_model`, `add_tasks` and `add_checks`, each with the `lm_eval` module that has
just been imported. All three can be called again without effect.

The checks run inside `lm_eval.evaluator.simple_evaluate`, before the model loads. On its own the
harness loads the model first and reads `--confirm_run_unsafe_code` later, which on a large model is
minutes too late. A run that calls `lm_eval.evaluator.evaluate` directly passes no checks and gives
no consent; a task that grades programs then depends on its own self-test.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from mtp_harness import tables, task_options, tasks_dir
from mtp_harness.files import user_path
from mtp_harness.shots import add_fitting

MODEL_NAME = "mtp"
MODEL_TARGET = "mtp_harness.lm:MTPLM"

_log = logging.getLogger(__name__)
_consent = False


class UserError(SystemExit, ValueError):
    """One sentence for the user.

    The harness's command line catches nothing, so a plain ValueError arrives under a traceback. As
    a SystemExit it prints the sentence alone and ends with status 1; callers of `simple_evaluate`
    catch it as the ValueError that it is too.
    """


class RequestedTask(NamedTuple):
    """One leaf task of a run, known without building its documents."""

    name: str
    task_class: type | None  # None: a plain YAML task
    ours: bool
    yaml_path: Path | None  # None: built elsewhere


def consent_given() -> bool:
    """Return whether the run in progress was started with `--confirm_run_unsafe_code`.

    The harness hands the flag to no task. A task that grades programs asks here whether it may go
    on where the sandbox's self-test finds that it cannot isolate them.
    """
    return _consent


@contextmanager
def _consent_for_this_run(given: bool) -> Iterator[None]:
    global _consent
    before, _consent = _consent, given
    try:
        yield
    finally:
        _consent = before


def install() -> None:
    """Make `lm_eval` find our model and tasks in this process, whatever the off switch says."""
    from mtp_harness import _startup

    _startup.install()


def add_model(models: ModuleType) -> None:
    """Add the lazy name `mtp` to the model registry.

    Args:
        models: `lm_eval.models`, already run: the registry loads the built-in names only while it
            is empty, so a name added earlier would hide them all.
    """
    from lm_eval.api import registry

    if MODEL_NAME in registry.model_registry or _found_by_entry_point(registry):
        return
    registry.model_registry.register(MODEL_NAME, target=MODEL_TARGET)


def _found_by_entry_point(registry: ModuleType) -> bool:
    """Return whether this `lm_eval` reads entry points, and ours is there to be read."""
    reads_entry_points = hasattr(registry, "import_plugins")
    return reads_entry_points and bool(
        importlib.metadata.entry_points(group="lm_eval.models", name=MODEL_NAME)
    )


def add_tasks(manager: ModuleType) -> None:
    """Make every `TaskManager` that reads the built-in tasks read ours too.

    Ours come before the user's `include_path`, because the harness lets later folders win.

    Args:
        manager: `lm_eval.tasks.manager`.
    """
    original = manager.TaskManager.__init__
    if hasattr(original, "mtp_harness_original"):
        return
    signature = inspect.signature(original)
    _require_parameters(signature, "TaskManager", "include_path", "include_defaults")

    @functools.wraps(original)
    def with_our_tasks(self: Any, *args: Any, **kwargs: Any) -> None:
        call = signature.bind(self, *args, **kwargs)
        call.apply_defaults()
        given = call.arguments["include_path"]
        if call.arguments["include_defaults"]:
            call.arguments["include_path"] = _with_our_folder(given)
        original(*call.args, **call.kwargs)
        self.include_path = given

    with_our_tasks.mtp_harness_original = original  # type: ignore[attr-defined]
    manager.TaskManager.__init__ = with_our_tasks


def _with_our_folder(include_path: Any) -> list[Any]:
    if not include_path:
        return [tasks_dir()]
    given = list(include_path) if isinstance(include_path, list | tuple) else [include_path]
    # Read twice, a folder's tasks are reported as overriding themselves.
    if tasks_dir() in [user_path(folder).resolve() for folder in given]:
        return given
    return [tasks_dir(), *given]


def add_checks(evaluator: ModuleType) -> None:
    """Make `simple_evaluate` run `check_before_load` first, carry the user's consent, move tables.

    `from lm_eval import simple_evaluate` and the command line both read the name from this module
    when they run, so this one place is enough.

    Args:
        evaluator: `lm_eval.evaluator`.
    """
    original = evaluator.simple_evaluate
    if hasattr(original, "mtp_harness_original"):
        return
    signature = inspect.signature(original)
    checked = (
        *("model", "tasks", "task_manager", "confirm_run_unsafe_code", "predict_only"),
        *("metadata", "model_args"),
    )
    caching = ("cache_requests", "rewrite_requests_cache")
    _require_parameters(signature, "simple_evaluate", *checked, *caching)

    @functools.wraps(original)
    def simple_evaluate(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        check_before_load(
            **{name: call.arguments[name] for name in checked},
            cache_requests=any(call.arguments[name] for name in caching),
        )
        with _consent_for_this_run(bool(call.arguments["confirm_run_unsafe_code"])):
            results = original(*args, **kwargs)
        tables.move(results)
        return results

    simple_evaluate.mtp_harness_original = original  # type: ignore[attr-defined]
    evaluator.simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    add_fitting(evaluator)


def _require_parameters(signature: inspect.Signature, function: str, *names: str) -> None:
    """Refuse to wrap a function that another version of the harness has changed."""
    missing = [name for name in names if name not in signature.parameters]
    if missing:
        raise TypeError(f"this lm_eval's {function} has no parameter {', '.join(missing)}")


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
    requested = _find_requested(tasks or [], task_manager)
    if cache_requests:
        _refuse_request_cache([task.name for task in requested if task.ours])
    _refuse_unknown_options(requested, _given(metadata, model_args))
    if not predict_only and not confirm_run_unsafe_code:
        _require_isolation(
            [task.name for task in requested if getattr(task.task_class, "grades_programs", False)]
        )
    _require_request_types(model, requested)


def _find_requested(tasks: Sequence[Any], task_manager: Any) -> list[RequestedTask]:
    """Return the run's leaf tasks; none where this cannot be found out.

    Most runs ask for no task of ours, and nothing that goes wrong here may stop them.
    """
    try:
        if task_manager is None:
            from lm_eval.tasks import TaskManager

            task_manager = TaskManager(include_path=tasks_dir(), include_defaults=False)
        index, seen = task_manager.task_index, set[str]()
        return [leaf for task in tasks for leaf in _leaves(task, index, seen)]
    except Exception as error:
        _log.warning(
            "mtp_harness could not look at the tasks before the model loads (%s: %s)",
            type(error).__name__,
            error,
        )
        return []


def _leaves(task: Any, index: Mapping[str, Any], seen: set[str]) -> Iterator[RequestedTask]:
    """Yield the leaf tasks under a name, a configuration, or a built task or group."""
    if isinstance(task, Mapping):
        yield from _leaves_of_config(task, index, seen)
    elif isinstance(task, str):
        yield from _leaves_of_name(task, index, seen)
    elif hasattr(task, "get_all_tasks"):
        for member in task.get_all_tasks():
            yield from _leaves(member, index, seen)
    else:
        yield _leaf(getattr(task, "task_name", type(task).__name__), type(task))


def _leaves_of_config(
    config: Mapping[str, Any], index: Mapping[str, Any], seen: set[str]
) -> Iterator[RequestedTask]:
    name, members = config.get("task"), config.get("task")
    if "class" in config:
        yield _leaf(str(name), config["class"])
    elif isinstance(members, list):
        for member in members:
            yield from _leaves(member, index, seen)
    elif "group" in config:
        yield from _leaves_of_name(config["group"], index, seen)
    elif isinstance(name, str):  # a group's member with settings of its own, or a plain task
        yield from _leaves_of_name(name, index, seen)


def _leaves_of_name(name: str, index: Mapping[str, Any], seen: set[str]) -> Iterator[RequestedTask]:
    from lm_eval.tasks._index import Kind, TaskIndex
    from lm_eval.tasks._yaml_loader import load_yaml

    entry = index.get(name) or TaskIndex.entry_from_path(Path(name))
    if entry is None or name in seen:
        return
    seen.add(name)
    if entry.kind is Kind.TAG:
        members: Sequence[Any] = sorted(entry.tags)
    elif entry.kind is Kind.GROUP:
        config = entry.cfg or load_yaml(entry.yaml_path, resolve_func=False)
        members = config["task"] if isinstance(config.get("task"), list) else []
    else:
        task_class = None
        if entry.kind is Kind.PY_TASK:  # the index holds the class as text; the loader resolves it
            task_class = load_yaml(entry.yaml_path)["class"]
        yield _leaf(name, task_class, entry.yaml_path)
        return
    for member in members:
        yield from _leaves(member, index, seen)


def _leaf(name: str, task_class: Any, yaml_path: Path | None = None) -> RequestedTask:
    in_our_folder = yaml_path is not None and yaml_path.resolve().is_relative_to(tasks_dir())
    our_class = getattr(task_class, "__module__", "").startswith("mtp_harness.")
    return RequestedTask(name, task_class, in_our_folder or our_class, yaml_path)


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
                f"run it with --model {MODEL_NAME}, which loads any causal language model."
            )


def _model_class(model: Any) -> Any:
    if not isinstance(model, str):
        return model
    from lm_eval.api.registry import get_model

    return get_model(model)


def _listed(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))

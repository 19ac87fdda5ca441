"""What a stock `lm_eval` gets from us: the model's name, our tasks, and checks before a run.

`_startup` calls `add_model`, `add_tasks` and `add_checks`, each with the `lm_eval` module that has
just been imported. All three can be called again without effect.

The checks run inside `lm_eval.evaluator.simple_evaluate`, before the model loads. A run that calls
`lm_eval.evaluator.evaluate` directly passes no checks and gives no consent; a task that grades
programs then depends on its own self-test.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
from types import ModuleType
from typing import Any

from mtp_harness import tasks_dir
from mtp_harness.files import user_path
from mtp_harness.harness.checks import check_before_load
from mtp_harness.harness.shots import add_fitting
from mtp_harness.results import long_table
from mtp_harness.sandbox.consent import consent_for_this_run

MODEL_NAME = "mtp"
MODEL_TARGET = "mtp_harness.lm:MTPLM"


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
        with consent_for_this_run(bool(call.arguments["confirm_run_unsafe_code"])):
            results = original(*args, **kwargs)
        long_table.move(results)
        return results

    simple_evaluate.mtp_harness_original = original  # type: ignore[attr-defined]
    evaluator.simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    add_fitting(evaluator)


def _require_parameters(signature: inspect.Signature, function: str, *names: str) -> None:
    """Refuse to wrap a function that another version of the harness has changed."""
    missing = [name for name in names if name not in signature.parameters]
    if missing:
        raise TypeError(f"this lm_eval's {function} has no parameter {', '.join(missing)}")

"""What a stock `lm_eval` gets from us: model names, tasks, checks before a run, a summary after it.

`_startup` calls `add_model`, `add_tasks`, `add_checks` and `add_closing`, each with the `lm_eval`
module that has just been imported. Calling one of them again has no effect.

The checks run inside `lm_eval.evaluator.simple_evaluate`, before the model loads. A run that calls
`lm_eval.evaluator.evaluate` directly gets no checks and gives no consent; a task that grades
programs then relies on its own self-test.
"""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from mtp_harness import tasks_dir
from mtp_harness.errors import UserError
from mtp_harness.files import user_path
from mtp_harness.harness.checks import check_before_load
from mtp_harness.harness.shots import fit_shots
from mtp_harness.harness.task_index import our_index
from mtp_harness.results import long_table
from mtp_harness.results.closing import closing
from mtp_harness.sandbox.consent import consent_for_this_run

MODELS = {"mtp": "mtp_harness.lm:MTPLM", "mtp-vllm": "mtp_harness.vllm:MTPVLLM"}
"""`--model` names → `module:class`; the entry points of pyproject.toml say the same."""


def add_model(models: ModuleType) -> None:
    """Add the lazy names of our models to the model registry.

    Args:
        models: `lm_eval.models`, already run: the registry loads the built-in names only while it
            is empty, so a name added earlier would hide them all.
    """
    from lm_eval.api import registry

    for name, target in MODELS.items():
        if name not in registry.model_registry and not _found_by_entry_point(registry, name):
            registry.model_registry.register(name, target=target)


def _found_by_entry_point(registry: ModuleType, name: str) -> bool:
    """Return whether this `lm_eval` reads entry points, and those of the model are installed."""
    reads_entry_points = hasattr(registry, "import_plugins")
    return reads_entry_points and bool(
        importlib.metadata.entry_points(group="lm_eval.models", name=name)
    )


def add_tasks(manager: ModuleType) -> None:
    """Make every `TaskManager` that reads the built-in tasks read ours too.

    Ours come before the user's `include_path`, because later folders win.
    """

    def with_our_tasks(original: Any, call: inspect.BoundArguments) -> None:
        given = call.arguments["include_path"]
        if call.arguments["include_defaults"]:
            call.arguments["include_path"] = _with_our_folder(given)
        original(*call.args, **call.kwargs)
        call.arguments["self"].include_path = given

    _wrap(manager.TaskManager, "__init__", with_our_tasks, "include_path", "include_defaults")


def _with_our_folder(include_path: Any) -> list[Any]:
    if not include_path:
        return [tasks_dir()]
    given = list(include_path) if isinstance(include_path, list | tuple) else [include_path]
    # A folder read twice would be reported as overriding itself.
    if tasks_dir() in [user_path(folder).resolve() for folder in given]:
        return given
    return [tasks_dir(), *given]


def add_checks(evaluator: ModuleType) -> None:
    """Make `simple_evaluate` check the run first, pass on the user's consent, and move tables.

    `evaluate` gives the model to the tasks that fit their prompts to it. `from lm_eval import
    simple_evaluate` and the command line both read the names from this module when they run, so
    one place is enough.
    """
    checked = (
        *("model", "tasks", "task_manager", "confirm_run_unsafe_code", "predict_only"),
        *("metadata", "model_args"),
    )
    saving = ("evaluation_tracker", "log_samples")
    caching = ("cache_requests", "rewrite_requests_cache")

    def simple_evaluate(original: Any, call: inspect.BoundArguments) -> Any:
        _refuse_misspelt_model(call.arguments["model"])
        check_before_load(
            **{name: call.arguments[name] for name in checked},
            cache_requests=any(call.arguments[name] for name in caching),
        )
        with consent_for_this_run(bool(call.arguments["confirm_run_unsafe_code"])):
            results = original(*call.args, **call.kwargs)
        long_table.move(results)
        output = getattr(call.arguments["evaluation_tracker"], "output_path", None)
        _finished[:] = [Finished(results, output, call.arguments["log_samples"])]
        return results

    def evaluate(original: Any, call: inspect.BoundArguments) -> Any:
        fit_shots(call.arguments["lm"], call.arguments["task_dict"])
        return original(*call.args, **call.kwargs)

    _wrap(evaluator, "simple_evaluate", simple_evaluate, *checked, *caching, *saving)
    _wrap(evaluator, "evaluate", evaluate, "lm", "task_dict")


def _refuse_misspelt_model(model: Any) -> None:
    if not isinstance(model, str) or model in MODELS:
        return
    near = difflib.get_close_matches(model, MODELS, 1)
    if near and model not in _known_models():
        raise UserError(f"there is no --model {model}; did you mean {near[0]}?")


def _known_models() -> set[str]:
    import lm_eval.models  # noqa: F401 - fills the registry, which is empty until then
    from lm_eval.api import registry

    return set(registry.model_registry.keys())


class Finished(NamedTuple):
    """A finished run."""

    results: dict[str, Any] | None  # None on all ranks but the first
    output: str | None  # the folder that the command line writes them to
    logged: bool  # whether answers are saved beside them


_finished: list[Finished] = []
"""The last finished run of this process, for the summary of the command line."""


def add_closing(run: ModuleType) -> None:
    """Make the command line print scores after a run of our model, and suggest task names."""

    def execute(original: Any, call: inspect.BoundArguments) -> None:
        _finished.clear()
        try:
            original(*call.args)
        except ValueError as error:
            if said := _misspelt(str(error)):
                raise UserError(said) from error
            raise
        for results, output, logged in _finished:
            if results and results["config"]["model"] in MODELS:
                lines = closing(results, output and str(output), logged)
                sys.stdout.write("".join(f"{line}\n" for line in lines))

    _wrap(run.Run, "_execute", execute, "args")


def _misspelt(error: str) -> str | None:
    """Return a suggestion if an error is about unknown tasks with names close to ours."""
    names, start = sorted(our_index()), "Tasks not found: "
    unknown = error.removeprefix(start).split(", ") if error.startswith(start) else []
    near = [difflib.get_close_matches(name, names, 1) for name in unknown]
    if not any(near):
        return None
    meant = ", ".join(found[0] for found in near if found)
    return (
        f"there is no task {', '.join(unknown)}; did you mean {meant}? `lm_eval ls tasks` has all."
    )


def _wrap(owner: Any, name: str, around: Callable[..., Any], *parameters: str) -> None:
    """Wrap a function of the harness; doing it twice changes nothing.

    Args:
        owner: has the function.
        name: of the function.
        around: takes the function and its call, defaults included.
        parameters: those that it relies on; other versions of the harness may lack them.
    """
    original = getattr(owner, name)
    if hasattr(original, "mtp_harness_original"):
        return
    signature = inspect.signature(original)
    if missing := [one for one in parameters if one not in signature.parameters]:
        label = getattr(owner, "__name__", "") if name == "__init__" else name
        raise TypeError(f"this lm_eval's {label} has no parameter {', '.join(missing)}")

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        return around(original, call)

    wrapped.mtp_harness_original = original  # type: ignore[attr-defined]
    static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    setattr(owner, name, staticmethod(wrapped) if static else wrapped)

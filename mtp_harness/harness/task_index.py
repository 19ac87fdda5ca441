"""The tasks of a run, found in the harness's index before anything is loaded or built."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness import tasks_dir

_log = logging.getLogger(__name__)


class RequestedTask(NamedTuple):
    """One leaf task of a run, known without building its documents."""

    name: str
    task_class: type | None  # None: a plain YAML task
    ours: bool
    yaml_path: Path | None  # None: built elsewhere


def find_requested(tasks: Sequence[Any], task_manager: Any) -> list[RequestedTask]:
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

"""The tasks behind a name, found in the harness's index before anything is loaded or built.

Groups are expanded without being built, because building a task reads its documents. Checks before
a run, suites and `mtp-harness data check` all walk through `leaves`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mtp_harness import tasks_dir

if TYPE_CHECKING:
    from lm_eval.tasks._index import Entry

_log = logging.getLogger(__name__)

Index = Mapping[str, "Entry"]


class Said(NamedTuple):
    """What a group sets for a member (or for all: then `member` is the group's own name)."""

    group: str
    member: str
    settings: dict[str, Any]


class Leaf(NamedTuple):
    """A name where the search ends: a task, or a group that contains itself (it is in `above`)."""

    name: str
    entry: Entry | None  # None: unknown
    above: tuple[str, ...] = ()  # the groups that led here
    said: tuple[Said, ...] = ()  # what they set for it, the outermost first


class RequestedTask(NamedTuple):
    """One leaf task of a run, known without building its documents."""

    name: str
    task_class: type | None  # None: a plain YAML task
    ours: bool
    yaml_path: Path | None  # None: built elsewhere


def our_index(*folders: Path) -> Index:
    """Return an index of our tasks and those in `folders`, without the harness's 14,000 files."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=[tasks_dir(), *folders], include_defaults=False)
    index: Index = manager.task_index
    return index


def leaves(
    named: str | Mapping[str, Any],
    index: Index,
    above: tuple[str, ...] = (),
    said: tuple[Said, ...] = (),
) -> Iterator[Leaf]:
    """Yield the leaves under a name, or under a group's member with its own settings."""
    from lm_eval.tasks._index import Kind

    if not isinstance(named, str):
        group = above[-1] if above else ""
        if isinstance(named.get("task"), list) and named.get("group") not in index:
            yield from _members(named, group, index, above, said)  # a group defined on the spot
            return
        name = str(named.get("group", named.get("task")))
        own = {key: value for key, value in named.items() if key not in ("group", "task")}
        yield from leaves(name, index, above, (*said, Said(group, name, own)))
        return
    entry = index.get(named)
    if entry is None or named in above or entry.kind not in (Kind.GROUP, Kind.TAG):
        yield Leaf(named, entry, above, said)
        return
    config = configuration(entry) if entry.kind is Kind.GROUP else {"task": sorted(entry.tags)}
    yield from _members(config, named, index, (*above, named), said)


def _members(
    config: Mapping[str, Any],
    group: str,
    index: Index,
    above: tuple[str, ...],
    said: tuple[Said, ...],
) -> Iterator[Leaf]:
    from lm_eval.tasks._factory import GROUP_FIELD_NAMES

    own = {key: value for key, value in config.items() if key not in GROUP_FIELD_NAMES}
    members = config["task"] if isinstance(config.get("task"), list) else []
    for member in members:
        yield from leaves(member, index, above, (*said, Said(group, group, own)))


def configuration(entry: Entry) -> dict[str, Any]:
    """Return a YAML as the index read it, with functions as text."""
    from lm_eval.tasks._yaml_loader import load_yaml

    config: dict[str, Any] = entry.cfg or load_yaml(entry.yaml_path, resolve_func=False)
    return config


def is_ours(yaml_path: Path | None) -> bool:
    """Return whether a YAML is one of this package's."""
    return yaml_path is not None and yaml_path.resolve().is_relative_to(tasks_dir())


def find_requested(tasks: Sequence[Any], task_manager: Any) -> list[RequestedTask]:
    """Return the run's leaf tasks, each once; none if this fails.

    Most runs use none of our tasks, and no error here may stop them.
    """
    try:
        index = our_index() if task_manager is None else task_manager.task_index
        found = [leaf for task in tasks for leaf in _requested(task, index)]
    except Exception as error:
        _log.warning(
            "mtp_harness could not look at the tasks before the model loads (%s: %s)",
            type(error).__name__,
            error,
        )
        return []
    return list(dict.fromkeys(found))


def _requested(task: Any, index: Index) -> Iterator[RequestedTask]:
    """Yield the leaf tasks under a name, a configuration, or a built task or group."""
    from lm_eval.tasks._index import Kind, TaskIndex
    from lm_eval.tasks._yaml_loader import load_yaml

    if hasattr(task, "get_all_tasks"):
        for member in task.get_all_tasks():
            yield from _requested(member, index)
        return
    if not isinstance(task, str | Mapping):
        yield _task(getattr(task, "task_name", type(task).__name__), type(task))
        return
    if (
        isinstance(task, str)
        and task not in index
        and (file := TaskIndex.entry_from_path(Path(task)))
    ):
        index = {**index, task: file}
    for leaf in leaves(task, index):
        in_code = leaf.said[-1].settings.get("class") if leaf.said else None
        if in_code is not None:
            yield _task(leaf.name, in_code)
        elif leaf.entry is not None and leaf.name not in leaf.above:
            # The index holds the class as text; the loader resolves it.
            path = leaf.entry.yaml_path
            is_class = leaf.entry.kind is Kind.PY_TASK
            yield _task(leaf.name, load_yaml(path)["class"] if is_class else None, path)


def _task(name: str, task_class: Any, yaml_path: Path | None = None) -> RequestedTask:
    our_class = getattr(task_class, "__module__", "").startswith("mtp_harness.")
    return RequestedTask(name, task_class, is_ours(yaml_path) or our_class, yaml_path)


def listed(names: Iterable[str]) -> str:
    """Return tasks' names as text, each once."""
    return ", ".join(dict.fromkeys(names))

"""From the names in a suite to single tasks, through the harness's own index of tasks.

Groups are expanded without being built, because building a task reads its documents.
"""

import difflib
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import GROUP_FIELD_NAMES
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

from mtp_harness import tasks_dir
from mtp_harness.harness.task_options import options_of, problem
from mtp_harness.pipeline.suite import Asked, merged

Index = Mapping[str, Entry]

_HANDED_ON = ("metadata", "num_fewshot")
"""What a group may say of its members that `lm_eval` has a flag for."""


class SingleTask(NamedTuple):
    """One task of the harness, and the settings to run it with."""

    name: str
    settings: dict[str, Any]
    yaml_path: Path

    def metadata(self) -> dict[str, Any]:
        """Return the metadata that the task is going to have."""
        own = load_yaml(self.yaml_path, resolve_func=False).get("metadata") or {}
        return {**own, **self.settings.get("metadata", {})}

    def task_class(self) -> type | None:
        """Return the class that its YAML names, if any."""
        found: type | None = load_yaml(self.yaml_path).get("class")
        return found


def expand(asked: tuple[Asked, ...], include_path: str | None = None) -> list[SingleTask]:
    """Return the single tasks behind names, each once, in order.

    Args:
        asked: names of tasks, tags and groups, with settings.
        include_path: a folder with tasks of the user's.

    Raises:
        ValueError: a name is unknown, a group says of a member what cannot be handed on, or one
            task is asked for twice with different settings.
    """
    index = _index(asked, include_path)
    found: dict[str, SingleTask] = {}
    for one in asked:
        for leaf in _leaves(one.name, {}, index, ()):
            task = leaf._replace(settings=merged(leaf.settings, one.settings))
            before = found.setdefault(task.name, task)
            if before.settings != task.settings:
                raise ValueError(
                    f"{task.name} is asked for twice, with {_shown(before.settings)} and with "
                    f"{_shown(task.settings)}: put one of them into a suite of its own"
                )
    return _with_own_options(list(found.values()))


def _with_own_options(tasks: list[SingleTask]) -> list[SingleTask]:
    """Return our tasks with the options that they have: what is said of all may be for some.

    Raises:
        ValueError: an option is none of any of them.
    """
    ours = [task for task in tasks if task.yaml_path.resolve().is_relative_to(tasks_dir())]
    known = {task.name: options_of(load_yaml(task.yaml_path)) for task in ours}
    given: dict[str, Any] = {}
    for task in tasks:
        given |= task.settings.get("metadata", {})
    found = problem(given, known) if len(ours) == len(tasks) else None
    if found:
        raise ValueError(found.removesuffix("."))
    return [
        task._replace(settings=_only(task.settings, known[task.name])) if task in ours else task
        for task in tasks
    ]


def _only(settings: dict[str, Any], options: Collection[str]) -> dict[str, Any]:
    if "metadata" not in settings:
        return settings
    own = {name: value for name, value in settings["metadata"].items() if name in options}
    rest = {name: value for name, value in settings.items() if name != "metadata"}
    return rest | ({"metadata": own} if own else {})


def _shown(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(settings.items())) or "no settings"


def _index(asked: tuple[Asked, ...], include_path: str | None) -> Index:
    """Return an index that knows all names: ours alone, or else with the harness's 14,000 files."""
    if include_path is not None and not Path(include_path).is_dir():
        raise ValueError(f"include_path={include_path} is no folder: check the path")
    folders = [tasks_dir(), *([Path(include_path)] if include_path else [])]
    index: Index = TaskManager(include_path=folders, include_defaults=False).task_index
    if all(_known(one.name, index, ()) for one in asked):
        return index
    with _quiet():
        index = TaskManager(include_path=folders).task_index
    for one in asked:
        _require(one.name, index)
    return index


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness from reporting our tasks as overriding themselves."""
    logger = logging.getLogger("lm_eval.tasks._index")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _known(name: str, index: Index, above: tuple[str, ...]) -> bool:
    """Return whether a name and all names under it are in the index."""
    entry = index.get(name)
    if entry is None or name in above:
        return entry is not None
    return all(_known(inner, index, (*above, name)) for inner in _names(_members(entry), index))


def _names(members: list[Any], index: Index) -> Iterator[str]:
    for member in members:
        if isinstance(member, str):
            yield member
        elif _is_inline(member, index):
            yield from _names(member["task"], index)
        else:
            yield str(_named(member))


def _is_inline(member: Mapping[str, Any], index: Index) -> bool:
    """Return whether a member is a group that is defined on the spot."""
    return "group" in member and member["group"] not in index and isinstance(member["task"], list)


def _require(name: str, index: Index) -> Entry:
    if name not in index:
        near = difflib.get_close_matches(name, index, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`mtp-harness lm_eval ls tasks`."
        raise ValueError(f"there is no task, tag or group {name}; {hint}")
    return index[name]


def _members(entry: Entry) -> list[Any]:
    if entry.kind is Kind.TAG:
        return sorted(entry.tags)
    if entry.kind is not Kind.GROUP:
        return []
    members = _config(entry).get("task")
    return members if isinstance(members, list) else []


def _config(entry: Entry) -> dict[str, Any]:
    config: dict[str, Any] = load_yaml(entry.yaml_path, resolve_func=False)
    return config


def _named(member: Mapping[str, Any]) -> Any:
    return member.get("group", member.get("task"))


def _leaves(
    name: str, settings: dict[str, Any], index: Index, above: tuple[str, ...]
) -> Iterator[SingleTask]:
    """Yield the single tasks under a name; `above` are the groups that led here."""
    entry = _require(name, index)
    if name in above:
        raise ValueError(f"the group {name} holds itself, by {' > '.join(above)}: mend it")
    if entry.kind in (Kind.TASK, Kind.PY_TASK):
        yield SingleTask(name, settings, entry.yaml_path)
        return
    own = _config(entry) if entry.kind is Kind.GROUP else {"task": _members(entry)}
    yield from _leaves_of_group(own, name, settings, index, (*above, name))


def _leaves_of_group(
    config: Mapping[str, Any],
    name: str,
    settings: dict[str, Any],
    index: Index,
    above: tuple[str, ...],
) -> Iterator[SingleTask]:
    said = {k: v for k, v in config.items() if k not in GROUP_FIELD_NAMES}
    settings = merged(settings, _handed_on(said, name, name))
    for member in config["task"]:
        if isinstance(member, str):
            yield from _leaves(member, settings, index, above)
        elif _is_inline(member, index):
            yield from _leaves_of_group(member, name, settings, index, above)
        else:
            said = {k: v for k, v in member.items() if k not in ("group", "task")}
            inner = str(_named(member))
            own = merged(settings, _handed_on(said, name, inner))
            yield from _leaves(inner, own, index, above)


def _handed_on(said: Mapping[str, Any], group: str, member: str) -> dict[str, Any]:
    """Return a group's words about a member as settings."""
    if other := [key for key in said if key not in _HANDED_ON and not key.endswith("_alias")]:
        raise ValueError(
            f"the group {group} sets {', '.join(other)} for {member}, which no flag of lm_eval "
            f"says to a single task: name the tasks of {group} that you mean instead"
        )
    return {key: said[key] for key in _HANDED_ON if key in said}

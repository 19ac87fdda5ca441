"""From the names in a suite to single tasks, through the harness's own index of tasks.

Groups are expanded without being built, because building a task reads its documents.
"""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lm_eval.tasks
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from mtp_harness.harness.task_index import Index, Leaf, Said, is_ours, leaves, our_index
from mtp_harness.harness.task_options import options_of, problem
from mtp_harness.pipeline.suite import Asked, merged

_HANDED_ON = ("metadata", "num_fewshot")
"""Settings of a group for its members that `lm_eval` has a flag for."""


LIKELIHOODS = ("loglikelihood", "loglikelihood_rolling", "multiple_choice")
"""Types of tasks that use head 1 only."""


class _UnknownName(ValueError):
    """A name that an index lacks; a larger index may have it."""


class SingleTask(NamedTuple):
    """One task of the harness, and the settings to run it with."""

    name: str
    settings: dict[str, Any]
    yaml_path: Path

    def metadata(self) -> dict[str, Any]:
        """Return the metadata that the task will have."""
        own = load_yaml(self.yaml_path, resolve_func=False).get("metadata") or {}
        return {**own, **self.settings.get("metadata", {})}

    def grades_programs(self) -> bool:
        """Return whether its class says that it can draw several answers."""
        return self._says("grades_programs")

    def of_harness(self) -> bool:
        """Return whether it is one of the harness's own."""
        return self.yaml_path.is_relative_to(Path(lm_eval.tasks.__file__).parent)

    def needs_own_process(self) -> bool:
        """Return whether its class says that no other cell may run in its process."""
        return self._says("OWN_PROCESS")

    def same_for_every_k(self) -> bool:
        """Return whether `draft_heads` has no effect: it uses head 1, or its class says so."""
        return self._config().get("output_type") in LIKELIHOODS or self._says("SAME_FOR_EVERY_K")

    def _says(self, name: str) -> bool:
        return bool(getattr(self._config().get("class"), name, False))

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = load_yaml(self.yaml_path)
        return config


def expand(asked: tuple[Asked, ...], include_path: str | None = None) -> list[SingleTask]:
    """Return the single tasks behind names, each once, in order.

    Args:
        asked: names of tasks, tags and groups, with settings.
        include_path: a folder with the user's tasks.

    Raises:
        ValueError: a name is unknown, a group sets something that has no flag, or one task is asked
            for twice with different settings.
    """
    found: dict[str, SingleTask] = {}
    for task in _behind(asked, include_path):
        before = found.setdefault(task.name, task)
        if before.settings != task.settings:
            raise ValueError(
                f"{task.name} is asked for twice, with {_shown(before.settings)} and with "
                f"{_shown(task.settings)}: put one of them into another suite"
            )
    return _with_own_options(list(found.values()))


def _behind(asked: tuple[Asked, ...], include_path: str | None) -> list[SingleTask]:
    """Return all tasks behind names; the harness's own index is only read if it is needed.

    It covers 14,000 files.
    """
    if include_path is not None and not Path(include_path).is_dir():
        raise ValueError(f"include_path={include_path} is not a folder: check the path")
    folders = [Path(include_path)] if include_path else []

    def tasks(index: Index) -> list[SingleTask]:
        found = ((one, leaf) for one in asked for leaf in leaves(one.name, index))
        return [_single(leaf, one.settings, index) for one, leaf in found]

    ours = our_index(*folders)
    try:
        return tasks(ours)
    except _UnknownName:
        return tasks({**TaskManager().task_index, **ours})  # ours and the user's win, as there


def _single(leaf: Leaf, asked: Mapping[str, Any], index: Index) -> SingleTask:
    settings: dict[str, Any] = {}
    for said in leaf.said:
        settings = merged(settings, _handed_on(said))
    if leaf.entry is None:
        near = difflib.get_close_matches(leaf.name, index, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`mtp-harness lm_eval ls tasks`."
        raise _UnknownName(f"there is no task, tag or group {leaf.name}; {hint}")
    if leaf.name in leaf.above:
        way = " > ".join(leaf.above)
        raise ValueError(f"the group {leaf.name} holds itself, by {way}: remove one of them")
    return SingleTask(leaf.name, merged(settings, asked), leaf.entry.yaml_path)


def _handed_on(said: Said) -> dict[str, Any]:
    """Return a group's settings for a member."""
    known = {key: said.settings[key] for key in _HANDED_ON if key in said.settings}
    if other := [key for key in said.settings if key not in known and not key.endswith("_alias")]:
        raise ValueError(
            f"the group {said.group} sets {', '.join(other)} for {said.member}, which no flag of "
            f"lm_eval says to a single task: name the tasks of {said.group} that you mean instead"
        )
    return known


def _with_own_options(tasks: list[SingleTask]) -> list[SingleTask]:
    """Return our tasks with only the options that each of them has.

    Raises:
        ValueError: no task has an option of that name.
    """
    ours = [task for task in tasks if is_ours(task.yaml_path)]
    known = {task.name: options_of(load_yaml(task.yaml_path)) for task in ours}
    given: dict[str, Any] = {}
    for task in tasks:
        given |= task.settings.get("metadata", {})
    if len(ours) == len(tasks) and (found := problem(given, known)):
        raise ValueError(found.removesuffix("."))
    return [_only(task, known[task.name]) if task in ours else task for task in tasks]


def _only(task: SingleTask, options: Collection[str]) -> SingleTask:
    settings = dict(task.settings)
    metadata = settings.pop("metadata", {})
    if own := {name: value for name, value in metadata.items() if name in options}:
        settings["metadata"] = own
    return task._replace(settings=settings)


def _shown(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(settings.items())) or "no settings"

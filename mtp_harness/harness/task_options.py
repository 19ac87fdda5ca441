"""Options of `--metadata`: an option that no task of a run has is refused, instead of ignored.

    options of a task = parameters of its data set's function, its class's `OPTIONS`, its YAML's own

The harness gives every task of a run the same metadata, the model's arguments included, so an
option need only belong to one task. Metadata of tasks that are not ours may hold anything.
"""

import difflib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from mtp_harness.files import user_path
from mtp_harness.harness.rules import NUMBER, SWITCH, Rule, is_name, one_or_several, whole

_TEXT = Rule(is_name, "a name or a path in quotes")
_PLACES = "baseline data_dir dataset documents folder on stories".split()
_NAMES = "column dataset_config pause split".split()
_RULES: dict[str, Rule] = {
    "quick": SWITCH,
    **dict.fromkeys((*_PLACES, *_NAMES), _TEXT),
    **dict.fromkeys(("count", "n_samples", "n_texts", "stride", "trials", "window"), whole(1)),
    "new_tokens": whole(2),
    "seed": whole(),
    "top_k": whole(0),
    **dict.fromkeys(("batch", "heads", "k", "prompt_tokens"), one_or_several(whole(1))),
    **dict.fromkeys(("operations", "pause_tokens"), one_or_several(whole(0))),
    **dict.fromkeys(("density", "temperature", "top_p"), NUMBER),
}
"""Rules of the options that tasks of this package share; other options may have any value."""


def with_numbers(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with numbers for text that spells them, where a number is expected."""
    return {
        name: _RULES[name].read(value) if name in _RULES else value
        for name, value in metadata.items()
    }


def own_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a class of tasks hands on of its YAML, its metadata with numbers for text."""
    own = {key: value for key, value in config.items() if key != "class"}
    return {**own, "metadata": with_numbers(own.get("metadata") or {})}


def options_of(config: Mapping[str, Any]) -> frozenset[str]:
    """Return the options of a task, from its YAML with functions resolved."""
    load, named = config.get("custom_dataset"), set[str]()
    if callable(load):
        every = inspect.signature(load).parameters.values()
        named = {one.name for one in every if one.kind is not inspect.Parameter.VAR_KEYWORD}
    own: frozenset[str] = getattr(config.get("class"), "OPTIONS", frozenset())
    return frozenset(named | own | set(config.get("metadata") or {}))


def problem(given: Mapping[str, Any], known: Mapping[str, Collection[str]]) -> str | None:
    """Return a sentence about what is wrong with options; None if nothing is.

    `known` has the options of each task of the run.
    """
    every = sorted({option for options in known.values() for option in options} - {"version"})
    for name in given:
        if name not in (*every, "version"):
            near = difflib.get_close_matches(name, every, n=1)
            hint = f"did you mean {near[0]}? Options are" if near else "expected one of"
            return (
                f"--metadata {name} is not an option of {', '.join(known)}: {hint} "
                f"{', '.join(every) or 'none'}."
            )
    for name, value in with_numbers(given).items():
        rule = _RULES.get(name)
        if value is not None and rule is not None and not rule.fits(value):
            return f"--metadata {name}={value!r}, expected {rule.expected}."
        if name == "data_dir" and value is not None and not user_path(value).is_dir():
            return (
                f"--metadata data_dir={value} is not a folder, expected one with a benchmark's "
                "files."
            )
    return None

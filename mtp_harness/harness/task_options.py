"""Options of `--metadata`: one that no task of a run has is refused, instead of passed over.

    options of a task = parameters of its data set's function, its class's `OPTIONS`, its YAML's own

The harness hands every task of a run the same metadata, with the model's arguments among them, so
an option need only be one of some task's. Metadata of tasks that are not ours may hold anything.
"""

import difflib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from mtp_harness.files import user_path
from mtp_harness.harness.numbers import as_number, as_whole, is_number, is_whole

_TEXTS = frozenset(
    "baseline column data_dir dataset dataset_config folder pause split stories".split()
)
_ANY = -(2**63)
_WHOLE = {
    "count": 1,
    "n_samples": 1,
    "n_texts": 1,
    "new_tokens": 2,
    "seed": _ANY,
    "stride": 1,
    "top_k": 0,
    "trials": 1,
    "window": 1,
}
"""Options that are a whole number, and the least one."""

_SEVERAL_WHOLE = {
    "batch": 1,
    "heads": 1,
    "k": 1,
    "operations": 0,
    "pause_tokens": 0,
    "prompt_tokens": 1,
}
"""Options that are one whole number or a list of them, and the least one."""

_NUMBERS = frozenset({"density", "temperature", "top_p"})


def with_numbers(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with numbers in place of text that spells them, where a number is expected."""
    return {name: _read(name, value) for name, value in metadata.items()}


def _read(name: str, value: Any) -> Any:
    if name in _NUMBERS:
        return as_number(value)
    if name not in _WHOLE and name not in _SEVERAL_WHOLE:
        return value
    return [as_whole(one) for one in value] if isinstance(value, list | tuple) else as_whole(value)


def options_of(config: Mapping[str, Any]) -> frozenset[str]:
    """Return the options of a task, from its YAML with functions resolved."""
    load, named = config.get("custom_dataset"), set[str]()
    if callable(load):
        every = inspect.signature(load).parameters.values()
        named = {one.name for one in every if one.kind is not inspect.Parameter.VAR_KEYWORD}
    own: frozenset[str] = getattr(config.get("class"), "OPTIONS", frozenset())
    return frozenset(named | own | set(config.get("metadata") or {}))


def problem(given: Mapping[str, Any], known: Mapping[str, Collection[str]]) -> str | None:
    """Return in one sentence what is wrong with options; None where nothing is.

    Args:
        given: Options as the user gave them.
        known: The options of each task of the run.
    """
    every = sorted({option for options in known.values() for option in options} - {"version"})
    for name in given:
        if name not in (*every, "version"):
            near = difflib.get_close_matches(name, every, n=1)
            hint = f"did you mean {near[0]}? Options are" if near else "expected one of"
            return (
                f"--metadata {name} is no option of {', '.join(known)}: {hint} "
                f"{', '.join(every) or 'none'}."
            )
    read = with_numbers(given)
    return next(filter(None, (_unfit(name, value) for name, value in read.items())), None)


def _unfit(name: str, value: Any) -> str | None:
    """Return what is wrong with the type of an option's value; None means its default."""
    if value is None:
        return None
    if name == "quick" and not isinstance(value, bool):
        return f"--metadata quick={value!r}, expected true or false."
    if name in _TEXTS and not (isinstance(value, str) and value):
        return f"--metadata {name}={value!r}, expected a name or a path in quotes."
    if name in _WHOLE and not is_whole(value, _WHOLE[name]):
        return f"--metadata {name}={value!r}, expected a whole number{_from(_WHOLE[name])}."
    if name in _SEVERAL_WHOLE:
        least, several = _SEVERAL_WHOLE[name], value if isinstance(value, list) else [value]
        if not several or not all(is_whole(one, least) for one in several):
            return f"--metadata {name}={value!r}, expected a whole number{_from(least)}, or a list."
    if name in _NUMBERS and not is_number(value):
        return f"--metadata {name}={value!r}, expected a number."
    if name == "data_dir" and not user_path(value).is_dir():
        return f"--metadata data_dir={value} is no folder, expected one with a benchmark's files."
    return None


def _from(least: int) -> str:
    return "" if least == _ANY else f" from {least}"

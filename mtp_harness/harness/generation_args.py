"""Checks of generation arguments, from `--gen_kwargs` or a task, before anything is decoded."""

from collections.abc import Callable, Mapping
from typing import Any

from mtp_harness.harness.numbers import as_number, as_whole, is_number, is_whole

_BUDGETS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names that the harness takes for the same thing."""

_FRACTIONS = ("temperature", "top_p", "min_p", "typical_p", "repetition_penalty")


def checked_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return generation arguments with `until` as a list and text that spells a number as one.

    None stands for an argument's default, so it is left out.

    Args:
        given: as a task or the command line has them.

    Raises:
        ValueError: an argument has a value of a kind that it cannot have.
    """
    known = {name: value for name, value in given.items() if value is not None}
    checked: dict[str, Any] = {"until": []}
    for name, value in known.items():
        checked[name] = _READ[name](name, value) if name in _READ else value
    return checked


def place_of(instance: Any) -> str:
    """Return which of the harness's requests a message is about; begins the message."""
    return f"{instance.task_name}, document {instance.doc_id}"


def room_for_prompt(budget: int, max_length: int, where: str) -> int:
    """Return how many tokens a prompt may have in a context beside an answer of `budget` tokens.

    Args:
        budget: max_gen_toks.
        max_length: of the context, in tokens.
        where: begins the message.

    Raises:
        ValueError: none.
    """
    if budget < 1:
        raise ValueError(f"{where}: max_gen_toks={budget}, expected at least 1.")
    if budget >= max_length:
        raise ValueError(
            f"{where}: max_gen_toks={budget} leaves no room for a prompt in a context of "
            f"{max_length} tokens; lower it or raise max_length."
        )
    return max_length - budget


def _stop_strings(name: str, value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise ValueError(
            f"{name}={value}, expected a text or a list of texts, at which an answer ends: put "
            "texts in quotes, or leave it out."
        )
    return list(stops)


def _whole(name: str, value: Any) -> int:
    number = as_whole(value)
    if not is_whole(number, -(2**63)) or number >= 2**63:
        raise ValueError(f"{name}={str(value)[:40]}, expected a whole number.")
    return int(number)


def _number(name: str, value: Any) -> float:
    number = as_number(value)
    if not is_number(number):
        raise ValueError(f"{name}={str(value)[:40]}, expected a number.")
    return float(number)


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value}, expected true or false.")
    return value


_READ: dict[str, Callable[[str, Any], Any]] = {
    "until": _stop_strings,
    "do_sample": _switch,
    "top_k": _whole,
    **dict.fromkeys(_BUDGETS, _whole),
    **dict.fromkeys(_FRACTIONS, _number),
}

"""Checks of generation arguments, from `--gen_kwargs` or a task, before anything is decoded."""

from collections.abc import Mapping
from typing import Any

from mtp_harness.harness.rules import NUMBER, SWITCH, TOKENS, Rule

_BUDGETS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Other names of the harness for the same argument."""

_FRACTIONS = ("temperature", "top_p", "min_p", "typical_p", "repetition_penalty")

_STOPS = Rule(
    lambda value: isinstance(value, list) and all(isinstance(stop, str) for stop in value),
    "a text or a list of texts, at which an answer ends: put texts in quotes, or leave it out",
    lambda value: [value] if isinstance(value, str) else value,
)
_RULES: dict[str, Rule] = {
    "until": _STOPS,
    "do_sample": SWITCH,
    "top_k": TOKENS,
    **dict.fromkeys(_BUDGETS, TOKENS),
    **dict.fromkeys(_FRACTIONS, NUMBER),
}


def checked_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return generation arguments with `until` as a list and numbers for text that spells them.

    None stands for an argument's default, so it is left out.

    Raises:
        ValueError: an argument has a value of the wrong kind.
    """
    checked: dict[str, Any] = {"until": []}
    for name, value in given.items():
        if value is not None:
            meant = _RULES[name].checked(name, value) if name in _RULES else value
            checked[name] = float(meant) if name in _FRACTIONS else meant
    return checked


def place_of(instance: Any) -> str:
    """Return which request a message is about; messages begin with it."""
    return f"{instance.task_name}, document {instance.doc_id}"


def room_for_prompt(budget: int, max_length: int, where: str) -> int:
    """Return how many tokens a prompt may have if the answer has `budget` tokens.

    Raises:
        ValueError: no token fits; the message begins with `where`.
    """
    if budget < 1:
        raise ValueError(f"{where}: max_gen_toks={budget}, expected at least 1.")
    if budget >= max_length:
        raise ValueError(
            f"{where}: max_gen_toks={budget} leaves no room for a prompt in a context of "
            f"{max_length} tokens; lower it or raise max_length."
        )
    return max_length - budget

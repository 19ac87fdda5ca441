"""Which values a setting may have: one set of rules for all settings.

Model arguments, generation arguments, and options of `--metadata` and of probes are tables of
rules. YAML, JSON and a command line may give a number as text (YAML reads `2e9` as text): it counts
as a number if the setting takes one. A name such as a label stays as it is.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

_SHOWN = 100
"""Characters of a value in a message."""

_LEAST, _MOST = -(2**63), 2**63
"""Largest value of a tensor's elements."""


class Rule(NamedTuple):
    """Which values fit (also in words), and how to read a value first."""

    fits: Callable[[Any], bool]
    expected: str
    read: Callable[[Any], Any] = lambda value: value

    def checked(self, name: str, value: Any) -> Any:
        """Return the value that was meant, or raise a ValueError."""
        meant = self.read(value)
        if not self.fits(meant):
            raise ValueError(f"{name}={str(value)[:_SHOWN]}, expected {self.expected}.")
        return meant


def whole(least: int | None = None, expected: str = "") -> Rule:
    """Return the rule for a whole number, also one given as text or as `2e9`."""
    known = expected or f"a whole number{'' if least is None else f' from {least}'}"
    bound = _LEAST if least is None else least
    return Rule(lambda value: is_whole(value, bound), known, as_whole)


def one_or_several(rule: Rule) -> Rule:
    """Return the rule for a value or a list of them."""

    def fits(value: Any) -> bool:
        several = value if isinstance(value, list) else [value]
        return bool(several) and all(map(rule.fits, several))

    def read(value: Any) -> Any:
        several = isinstance(value, list | tuple)
        return [rule.read(one) for one in value] if several else rule.read(value)

    return Rule(fits, f"{rule.expected}, or a list", read)


def as_number(value: Any) -> Any:
    """Return the number that a text spells; anything else, and infinities, unchanged."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            number = kind(value)
        except ValueError:
            continue
        return number if math.isfinite(number) else value
    return value


def as_whole(value: Any) -> Any:
    """Return a whole number as an int, however it is spelt; anything else unchanged."""
    number = as_number(value)
    if isinstance(number, float) and math.isfinite(number) and number.is_integer():
        return int(number)
    return number


def is_whole(value: Any, least: int) -> bool:
    """Return whether a value is an int, not a bool, of at least `least`."""
    return type(value) is int and value >= least


def is_number(value: Any) -> bool:
    """Return whether a value is a finite int or float, not a bool."""
    if type(value) is int:
        return abs(value) < 2**63  # what a float, or a tensor, can hold
    return type(value) is float and math.isfinite(value)


def is_name(value: Any) -> bool:
    """Return whether a value is text and not empty."""
    return isinstance(value, str) and bool(value)


def is_switch(value: Any) -> bool:
    """Return whether a value is true or false."""
    return isinstance(value, bool)


NUMBER = Rule(is_number, "a number", as_number)
TOKENS = Rule(lambda value: is_whole(value, _LEAST) and value < _MOST, "a whole number", as_whole)
SWITCH = Rule(is_switch, "true or false")

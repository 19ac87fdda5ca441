"""Which values a setting may have: one set of rules for all that a user sets.

Model arguments, generation arguments, options of `--metadata` and of probes are tables of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from mtp_harness.harness.numbers import as_number, as_whole, is_number, is_whole

_SHOWN = 100
"""Characters of a value in a message."""

_LEAST, _MOST = -(2**63), 2**63
"""What a tensor can hold."""


class Rule(NamedTuple):
    """Which values fit, in words too, and how a value is read first."""

    fits: Callable[[Any], bool]
    expected: str
    read: Callable[[Any], Any] = lambda value: value

    def checked(self, name: str, value: Any) -> Any:
        """Return a value as it is meant, or raise a ValueError where it does not fit."""
        meant = self.read(value)
        if not self.fits(meant):
            raise ValueError(f"{name}={str(value)[:_SHOWN]}, expected {self.expected}.")
        return meant


def whole(least: int = _LEAST, expected: str = "") -> Rule:
    """Return the rule for a whole number, also one that is spelt as text or as `2e9`."""
    of_least = "" if least == _LEAST else f" from {least}"
    return Rule(
        lambda value: is_whole(value, least), expected or f"a whole number{of_least}", as_whole
    )


def one_or_several(rule: Rule) -> Rule:
    """Return the rule for a value or a list of them."""

    def fits(value: Any) -> bool:
        several = value if isinstance(value, list) else [value]
        return bool(several) and all(map(rule.fits, several))

    def read(value: Any) -> Any:
        several = isinstance(value, list | tuple)
        return [rule.read(one) for one in value] if several else rule.read(value)

    return Rule(fits, f"{rule.expected}, or a list", read)


def is_name(value: Any) -> bool:
    """Return whether a value is text and not empty."""
    return isinstance(value, str) and bool(value)


def is_switch(value: Any) -> bool:
    """Return whether a value is true or false."""
    return isinstance(value, bool)


NUMBER = Rule(is_number, "a number", as_number)
TOKENS = Rule(lambda value: is_whole(value, _LEAST) and value < _MOST, "a whole number", as_whole)
SWITCH = Rule(is_switch, "true or false")

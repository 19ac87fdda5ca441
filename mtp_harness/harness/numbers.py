"""Numbers that YAML, JSON or a command line give as text: YAML reads `2e9` as a text, not a number.

Only settings that take a number are read so; a name such as a label stays what it is.
"""

import math
from typing import Any


def as_number(value: Any) -> Any:
    """Return the number that a text spells; anything else, and what is not finite, as it is."""
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
    """Return a whole number as an int, also one that is spelt as text or as `2e9`.

    Anything else is returned as it is, for the caller to refuse.
    """
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

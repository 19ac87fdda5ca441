"""Counts of parameters and tokens: when two count as equal, and how numbers are written."""

PARAMETERS_ALIKE = 0.1
"""Models whose parameters differ by at most this share count as equal in size."""


def same_size(one: float | None, other: float | None) -> bool:
    """Return whether two counts of parameters are within 10 %; False if one is not known."""
    if not one or not other:
        return False
    return bool(max(one, other) / min(one, other) <= 1 + PARAMETERS_ALIKE)


def rounded(number: float) -> float:
    """Return a count rounded to two digits, to sort models by size, and equal sizes by name."""
    return float(f"{number:.1e}")


def in_short(number: float | None, digits: int = 3) -> str:
    """Return a count with a letter: 3.86M, 6.74B; a question mark for None."""
    if number is None:
        return "?"
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{float(f'{number / unit:.{digits}g}'):g}{letter}"
    return f"{number:g}"


def in_digits(value: float, signed: bool = False) -> str:
    """Return a score or a rate as every table shows it: 0.125, a share and not a percentage."""
    digits = 3 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:{'+' if signed else ''},.{digits}f}"

"""Expressions over F_7[X]/(X^5) and their values: the paper's arithmetic task as text.

    (-20513)  (20513+00640)  (20513*00640)  (20513@00640)        one operation each
    ((-20513)@(00640*11111))=50002                               three, and the answer

A polynomial is five digits, the coefficients of X^0 … X^4. Every operation has its own brackets;
operators are `-` (of one operand), `+`, `*` and `@`, composition: (f@g)(X) = f(g(X)). A quotient
ring has no composition of its own: it is taken of the representatives of degree below 5, by
Horner's scheme, every product cut to X^0 … X^4.

How an expression with m operations is drawn: the operator at its root uniformly from the four; of
the m - 1 others, a binary operator gives its left operand 0 … m - 1, uniformly; operands are
uniform in 7^5. The draws come from Python's `random.Random(seed).random()` alone, which is the same
in every Python.

Source: Gloeckle et al. 2024, section 4.2 and appendix K. The paper says ring, operations, uniform
coefficients and operators, 1 to 10 operations, 2000 test expressions each; serialisation, shape of
the expressions and what composition means are chosen here.
"""

import random
from typing import NamedTuple

PRIME = 7
DEGREE = 5
"""X^5 = 0: a polynomial has this many coefficients."""

VERSION = "1"
"""Of the generator: expressions of one seed are the same as long as it is."""

Polynomial = tuple[int, ...]
"""Coefficients of X^0 … X^4, each 0 … 6."""


class Problem(NamedTuple):
    """An expression, its value, both as text, and the number of its operations."""

    expression: str
    answer: str
    operations: int


def problems(operations: int, count: int, seed: int) -> list[Problem]:
    """Return expressions with the same number of operations, the same for the same seed.

    Args:
        operations: m, at least 0.
        count: how many.
        seed: of the draws; each m has a sequence of its own.
    """
    source = random.Random(f"{VERSION}/{seed}/{operations}")
    made = (_draw(source, operations) for _ in range(count))
    return [Problem(text, written(value), operations) for text, value in made]


def written(polynomial: Polynomial) -> str:
    """Return the five digits of a polynomial."""
    return "".join(map(str, polynomial))


def negative(one: Polynomial) -> Polynomial:
    """Return -one."""
    return tuple(-a % PRIME for a in one)


def added(one: Polynomial, other: Polynomial) -> Polynomial:
    """Return one + other."""
    return tuple((a + b) % PRIME for a, b in zip(one, other, strict=True))


def multiplied(one: Polynomial, other: Polynomial) -> Polynomial:
    """Return one * other, without the powers from X^5 up."""
    total = [0] * DEGREE
    for i, a in enumerate(one):
        for j, b in enumerate(other[: DEGREE - i]):
            total[i + j] += a * b
    return tuple(value % PRIME for value in total)


def composed(one: Polynomial, other: Polynomial) -> Polynomial:
    """Return one(other(X)) by Horner's scheme."""
    value: Polynomial = (0,) * DEGREE
    for coefficient in reversed(one):
        value = added(multiplied(value, other), (coefficient, *(0,) * (DEGREE - 1)))
    return value


_BINARY = {"+": added, "*": multiplied, "@": composed}
_OPERATORS = ("-", *_BINARY)


def _draw(source: random.Random, operations: int) -> tuple[str, Polynomial]:
    if not operations:
        value = tuple(_below(source, PRIME) for _ in range(DEGREE))
        return written(value), value
    operator = _OPERATORS[_below(source, len(_OPERATORS))]
    if operator == "-":
        text, value = _draw(source, operations - 1)
        return f"(-{text})", negative(value)
    n_left = _below(source, operations)
    left, one = _draw(source, n_left)
    right, other = _draw(source, operations - 1 - n_left)
    return f"({left}{operator}{right})", _BINARY[operator](one, other)


def _below(source: random.Random, limit: int) -> int:
    return int(source.random() * limit)

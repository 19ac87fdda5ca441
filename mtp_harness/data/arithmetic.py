"""The documents of `mtp_arithmetic`: expressions over F_7[X]/(X^5), the paper's arithmetic as text.

    (-20513)  (20513+00640)  (20513*00640)  (20513@00640)        one operation each
    ((-20513)@(00640*11111))=50002                               three, and the answer

A polynomial is five digits, the coefficients of X^0 … X^4. Every operation has its own brackets;
operators are `-` (of one operand), `+`, `*` and `@`, composition: (f@g)(X) = f(g(X)). Composition
is not defined in a quotient ring: here it uses the representatives of degree below 5, by Horner's
scheme, with every product cut to X^0 … X^4.

An expression with m operations is drawn so: the operator at its root uniformly from the four; a
binary operator gives its left operand 0 … m - 1 of the m - 1 other operations, uniformly;
operands are uniform in 7^5. All draws come from Python's `random.Random(seed).random()`, which is
the same in every Python.

Source: Gloeckle et al. 2024, section 4.2 and appendix K. The paper says ring, operations, uniform
coefficients and operators, 1 to 10 operations, 2000 test expressions each; the text form, the shape
of the expressions and the meaning of composition are chosen here.
"""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from mtp_harness.data.rows import Splits, below, several, splits, whole

OPERATIONS, PAUSE_TOKENS = tuple(range(1, 11)), (0, 5, 10)
COUNT, QUICK_COUNT = 2000, 20
"""Expressions of each number of operations; the paper has 2000."""

SHOTS, SHOT_OPERATIONS = 20, 5
"""Expressions reserved for examples in the prompt, for each number of operations up to 5."""

PRIME = 7
DEGREE = 5
"""X^5 = 0: a polynomial has this many coefficients."""

VERSION = "1"
"""Version of the generator: raised when the expressions of a seed change."""

Polynomial = tuple[int, ...]
"""Coefficients of X^0 … X^4, each 0 … 6."""


class Problem(NamedTuple):
    """An expression, its value, both as text, and the number of its operations."""

    expression: str
    answer: str
    operations: int


def load(
    quick: bool = False,
    operations: int | Sequence[int] | None = None,
    count: int | None = None,
    pause_tokens: int | Sequence[int] | None = None,
    seed: int = 0,
    **_metadata: Any,
) -> Splits:
    """Return the same expressions with every number of pause tokens.

    Args:
        quick: `QUICK_COUNT` of each number of operations.
        operations: numbers of operations, m.
        count: expressions of each m.
        pause_tokens: numbers of pause tokens; every expression is asked with each.
        seed: of the expressions.

    Returns:
        The split `test`: rows with `expression`, `answer`, `operations` and `pause_tokens`, all
        kinds in turns; and the split `train`, from another seed, for examples in the prompt.

    Raises:
        ValueError: an argument is invalid.
    """
    ms = several("operations", operations, OPERATIONS)
    pauses = several("pause_tokens", pause_tokens, PAUSE_TOKENS)
    each = whole("count", (QUICK_COUNT if quick else COUNT) if count is None else count, 1)
    whole("seed", seed, 0)
    by_m = [problems(m, each, seed) for m in ms]
    test = [
        {**some[i]._asdict(), "pause_tokens": pause}
        for i in range(each)
        for pause in pauses
        for some in by_m
    ]
    shots = [p for m in range(1, SHOT_OPERATIONS + 1) for p in problems(m, SHOTS, seed + 1)]
    return splits({"test": test, "train": [{**one._asdict(), "pause_tokens": 0} for one in shots]})


def problems(operations: int, count: int, seed: int) -> list[Problem]:
    """Return expressions with the same number of operations, the same for the same seed.

    Args:
        operations: m, at least 0.
        count: how many.
        seed: of the draws; each m has its own sequence.
    """
    source = random.Random(f"{VERSION}/{seed}/{operations}")
    made = (_draw(source, operations) for _ in range(count))
    return [Problem(text, written(value), operations) for text, value in made]


def written(polynomial: Polynomial) -> str:
    """Return the five digits of a polynomial."""
    return "".join(map(str, polynomial))


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
        value = tuple(below(source, PRIME) for _ in range(DEGREE))
        return written(value), value
    operator = _OPERATORS[below(source, len(_OPERATORS))]
    if operator == "-":
        text, value = _draw(source, operations - 1)
        return f"(-{text})", tuple(-a % PRIME for a in value)
    n_left = below(source, operations)
    left, one = _draw(source, n_left)
    right, other = _draw(source, operations - 1 - n_left)
    return f"({left}{operator}{right})", _BINARY[operator](one, other)

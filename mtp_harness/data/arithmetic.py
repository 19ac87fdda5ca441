"""The documents of `mtp_arithmetic`: the same expressions with every number of pause tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtp_harness.data.polynomials import problems

if TYPE_CHECKING:
    import datasets

OPERATIONS, PAUSE_TOKENS = tuple(range(1, 11)), (0, 5, 10)
COUNT, QUICK_COUNT = 2000, 20
"""Expressions of each number of operations; the paper has 2000."""

SHOTS, SHOT_OPERATIONS = 20, 5
"""Expressions that examples in the prompt are taken from, of each number of operations up to 5."""


def load(
    quick: bool = False,
    operations: int | Sequence[int] | None = None,
    count: int | None = None,
    pause_tokens: int | Sequence[int] | None = None,
    seed: int = 0,
    **_metadata: Any,
) -> dict[str, datasets.Dataset]:
    """Return the expressions as the harness wants them from `custom_dataset`.

    Args:
        quick: `QUICK_COUNT` of each number of operations.
        operations: numbers of operations, m.
        count: expressions of each m.
        pause_tokens: numbers of pause tokens; every expression is asked with each.
        seed: of the expressions.
        _metadata: the rest of the task's and the run's metadata, all of which the harness passes.

    Returns:
        The split `test`: rows with `expression`, `answer`, `operations` and `pause_tokens`, all
        kinds in turns; and the split `train`, of another seed, for examples in the prompt.

    Raises:
        ValueError: an argument is not what it should be.
    """
    import datasets

    ms = _numbers("operations", operations, OPERATIONS)
    pauses = _numbers("pause_tokens", pause_tokens, PAUSE_TOKENS)
    each = (QUICK_COUNT if quick else COUNT) if count is None else count
    for name, value, least in (("count", each, 1), ("seed", seed, 0)):
        if type(value) is not int or value < least:
            raise ValueError(f"{name}={value}, expected a whole number from {least}; choose one")
    by_m = [problems(m, each, seed) for m in ms]
    test = [
        {**some[i]._asdict(), "pause_tokens": pause}
        for i in range(each)
        for pause in pauses
        for some in by_m
    ]
    shots = [p for m in range(1, SHOT_OPERATIONS + 1) for p in problems(m, SHOTS, seed + 1)]
    train = [{**one._asdict(), "pause_tokens": 0} for one in shots]
    return {
        "test": datasets.Dataset.from_list(test),
        "train": datasets.Dataset.from_list(train),
    }


def _numbers(name: str, given: Any, default: Sequence[int]) -> list[int]:
    numbers = default if given is None else given if isinstance(given, list | tuple) else [given]
    if not numbers or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"{name}={given}, expected whole numbers such as {list(default)}")
    return list(dict.fromkeys(numbers))

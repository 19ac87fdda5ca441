"""APPS: problems from contest and interview sites; the paper uses the introductory ones.

A problem is either a script (input and expected output) or a function to call (`fn_name`, with
argument lists and results). Rows without tests cannot be graded: they are left out, and counted in
a warning.

Source: Hendrycks et al. 2021, "Measuring Coding Challenge Competence With APPS";
https://huggingface.co/datasets/codeparrot/apps, `test.jsonl`.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mtp_harness.data.rows import Splits, splits
from mtp_harness.data.sources import Source, read_rows

SOURCE = Source(
    "APPS",
    ("apps_test.jsonl.gz", "apps_test.jsonl", "apps/test.jsonl.gz", "apps/test.jsonl"),
    "codeparrot/apps",
    "test.jsonl",
    ("question", "solutions", "input_output", "difficulty", "starter_code"),
)
DIFFICULTIES = ("introductory", "interview", "competition")

_log = logging.getLogger(__name__)


def load(
    data_dir: str | None = None, difficulty: str = "introductory", **_metadata: object
) -> Splits:
    """Return the split `test`, the problems of one of `DIFFICULTIES`."""
    return splits({"test": read_problems(data_dir, difficulty)})


def read_problems(
    data_dir: str | None = None, difficulty: str = "introductory"
) -> list[dict[str, Any]]:
    """Return the problems of one difficulty in the order of the file.

    Each has `task_id`, `question`, `starter_code`, `fn_name` (empty for a script), `tests` (a JSON
    list of pairs: input and output of a script, or arguments and result of a call) and `solutions`.
    """
    if difficulty not in DIFFICULTIES:
        raise ValueError(
            f"difficulty={difficulty!r}; expected one of {', '.join(DIFFICULTIES)}: choose one"
        )
    rows = read_rows(SOURCE, data_dir)
    chosen = [(i, row) for i, row in enumerate(rows) if row["difficulty"] == difficulty]
    with _any_digits():
        problems = [problem for i, row in chosen if (problem := _problem(i, row))]
    if len(problems) < len(chosen):
        _log.warning(
            "%d of %d problems of APPS have no tests and are left out",
            len(chosen) - len(problems),
            len(chosen),
        )
    if not problems:
        raise ValueError(
            f"{len(rows)} rows of APPS hold no {difficulty} problem with tests: "
            "give the file of the test split"
        )
    return problems


def _problem(index: int, row: dict[str, Any]) -> dict[str, Any] | None:
    tests = _parsed(row["input_output"]) or {}
    pairs = list(zip(tests.get("inputs", []), tests.get("outputs", []), strict=False))
    if not pairs:
        return None
    return {
        "task_id": f"APPS/{row.get('problem_id', row.get('id', index))}",
        "question": row["question"],
        "starter_code": row["starter_code"] or "",
        "fn_name": tests.get("fn_name") or "",
        "tests": json.dumps(pairs),
        "solutions": _parsed(row["solutions"]) or [],
    }


def _parsed(text: Any) -> Any:
    """Read the JSON inside a column."""
    return json.loads(text) if isinstance(text, str) and text else text


@contextmanager
def _any_digits() -> Iterator[None]:
    """Lift Python's limit on the digits of an integer, which some results exceed."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)

"""CodeContests: competitive programming problems; a solution reads and writes text.

A problem's tests are its public, private and generated ones, in this order; a solution has to pass
all of them.

Source: Li et al. 2022, "Competition-Level Code Generation with AlphaCode", section 3.2;
https://huggingface.co/datasets/deepmind/code_contests, split `test` (165 problems).
"""

import json
from typing import Any

from mtp_harness.data.rows import Splits, splits
from mtp_harness.data.sources import Source, read_rows

TESTS = ("public_tests", "private_tests", "generated_tests")
SOURCE = Source(
    "CodeContests",
    (
        "code_contests_test.jsonl.gz",
        "code_contests_test.jsonl",
        "code_contests/test.jsonl.gz",
        "code_contests/test.jsonl",
        "code_contests/test-*.parquet",
        "code_contests/data/test-*.parquet",
    ),
    "deepmind/code_contests",
    "data/test-*.parquet",
    ("name", "description", *TESTS, "solutions"),
)
PYTHON3 = 3
"""The data set's number for Python 3 in `solutions.language`."""


def load(data_dir: str | None = None, reward: str = "", **_metadata: object) -> Splits:
    """Return the split `test`.

    Args:
        data_dir: Folder to look in first.
        reward: Text before the problem for a model trained on annotated solutions: `correct`, as in
            the paper, or another text; nothing if left out.
    """
    return splits({"test": [{**one, "annotation": reward} for one in read_problems(data_dir)]})


def read_problems(data_dir: str | None = None) -> list[dict[str, Any]]:
    """Return the problems in the order of the file.

    Each has `task_id`, `question`, `tests` (a JSON list of pairs of input and output) and
    `solutions` (the correct ones in Python 3).
    """
    return [_problem(row) for row in read_rows(SOURCE, data_dir)]


def _problem(row: dict[str, Any]) -> dict[str, Any]:
    tests = [
        pair for kind in TESTS for pair in zip(row[kind]["input"], row[kind]["output"], strict=True)
    ]
    if not tests:
        raise ValueError(f"{row['name']} of CodeContests has no tests; expected at least one")
    solutions = zip(row["solutions"]["language"], row["solutions"]["solution"], strict=True)
    return {
        "task_id": row["name"],
        "question": row["description"],
        "tests": json.dumps(tests),
        "solutions": [text for language, text in solutions if language == PYTHON3],
    }

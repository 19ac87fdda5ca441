"""MBPP: 974 small Python problems, each with a sentence, a reference solution and three asserts.

Added to each row: `entry_point`, the function of the reference that the asserts call; `exports`,
other names of the reference that they use (classes, in three problems); `imports`, the imports of
the reference that they need.

Source: Austin et al. 2021, "Program Synthesis with Large Language Models", section 2.1 and appendix
A (split: prompt 1-10, test 11-510, validation 511-600, train 601-974);
https://huggingface.co/datasets/google-research-datasets/mbpp, configuration `full`.
"""

import ast
import builtins
from typing import Any

from mtp_harness.data.python_source import parse
from mtp_harness.data.rows import Splits, splits
from mtp_harness.data.sources import Source, read_rows, require

SOURCE = Source(
    "MBPP",
    ("mbpp.jsonl.gz", "mbpp.jsonl", "mbpp/mbpp.jsonl.gz", "mbpp/mbpp.jsonl", "mbpp/full/*.parquet"),
    "google-research-datasets/mbpp",
    "full/*.parquet",
    ("task_id", "text", "code", "test_list", "test_setup_code"),
)
SPLITS = {
    "prompt": range(1, 11),
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
}
SHOTS = (2, 3, 4)
"""Task ids of the examples in the prompt, as in Austin et al."""


def load(data_dir: str | None = None, **_metadata: object) -> Splits:
    """Return the splits, and `shots`, the examples of the prompt."""
    rows = {row["task_id"]: row for row in read_problems(data_dir)}
    found = {
        name: [rows[number] for number in numbers if number in rows]
        for name, numbers in (*SPLITS.items(), ("shots", SHOTS))
    }
    return splits({name: some for name, some in found.items() if some})


def read_problems(data_dir: str | None = None) -> list[dict[str, Any]]:
    """Return all problems in the order of their ids, with the columns described above."""
    rows = [completed(row) for row in read_rows(SOURCE, data_dir)]
    return sorted(rows, key=lambda row: int(row["task_id"]))


def completed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a problem of the data set with the columns described above.

    Raises:
        ValueError: A column is missing, or the tests call no function of the reference solution.
    """
    require(row, SOURCE)
    plain = {
        "task_id": int(row["task_id"]),
        "text": row["text"],
        "code": row["code"].replace("\r\n", "\n"),
        "test_setup_code": row["test_setup_code"].replace("\r\n", "\n"),
        "test_list": [test.replace("\r\n", "\n") for test in row["test_list"]],
    }
    used = _names("\n".join([plain["test_setup_code"], *plain["test_list"]]))
    body = parse(plain["code"]).body
    functions = [n.name for n in body if isinstance(n, ast.FunctionDef) and n.name in used]
    classes = [n.name for n in body if isinstance(n, ast.ClassDef) and n.name in used]
    if not functions:
        raise ValueError(
            f"MBPP {plain['task_id']}: the tests call none of the functions that the reference "
            "solution defines; expected one"
        )
    # A name that is also a builtin is a function of the reference only if it defines it.
    entry, *others = sorted(functions, key=lambda name: hasattr(builtins, name))
    imports = [
        ast.unparse(n)
        for n in body
        if isinstance(n, ast.Import | ast.ImportFrom)
        and any((alias.asname or alias.name).split(".")[0] in used for alias in n.names)
    ]
    found = {"entry_point": entry, "exports": others + classes, "imports": "\n".join(imports)}
    return plain | found


def _names(source: str) -> set[str]:
    return {node.id for node in ast.walk(parse(source)) if isinstance(node, ast.Name)}

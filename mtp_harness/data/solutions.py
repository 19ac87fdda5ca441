"""Reference solutions of HumanEval and MBPP, with the prompts that the code tasks put before them.

A benchmark that is not at hand is left out with a warning that says how to provide it; with neither
there is nothing to read, and that is an error.
"""

import logging
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from mtp_harness.data import humaneval, mbpp
from mtp_harness.data.corpus import Document

if TYPE_CHECKING:
    import datasets

_log = logging.getLogger(__name__)

DATA_SETS = ("humaneval", "mbpp")
N_QUICK = 40
"""Problems of each benchmark that a quick run reads."""


def load(
    quick: bool = False, data_dir: str | None = None, **_metadata: object
) -> "dict[str, datasets.Dataset]":
    """Return the solutions as the harness wants them from `custom_dataset`.

    Args:
        quick: read `N_QUICK` of each benchmark, evenly spread.
        data_dir: folder to look in first (`--metadata data_dir=…`).
        _metadata: the rest of the task's and the run's metadata, all of which the harness passes.

    Returns:
        The split `test`: `data_set`, `name`, `source`, `sha256` (of prompt and solution),
        `context` (the prompt) and `text` (the solution). Benchmarks take turns.

    Raises:
        FileNotFoundError: neither benchmark is at hand.
        ValueError: a file is not what it should be.
    """
    import datasets

    found, missing = [], []
    for name, rows_of in (("humaneval", _humaneval), ("mbpp", _mbpp)):
        try:
            rows = rows_of(data_dir)
        except FileNotFoundError as error:
            missing.append(str(error))
            _log.warning("%s is left out: %s", name, error)
            continue
        count = min(N_QUICK, len(rows)) if quick else len(rows)
        found.append([rows[i * len(rows) // count] for i in range(count)])
    if not found:
        raise FileNotFoundError("; ".join(missing))
    in_turns = [row for rows in zip_longest(*found) for row in rows if row is not None]
    return {"test": datasets.Dataset.from_list(in_turns)}


def _humaneval(data_dir: str | None) -> list[dict[str, str]]:
    return [
        _row("humaneval", row["task_id"], row["prompt"], row["canonical_solution"])
        for row in humaneval.read_problems(data_dir)
    ]


def _mbpp(data_dir: str | None) -> list[dict[str, str]]:
    rows = {row["task_id"]: row for row in mbpp.read_problems(data_dir)}
    return [
        _row("mbpp", f"MBPP/{number}", _mbpp_prompt(rows[number]), rows[number]["code"])
        for number in mbpp.SPLITS["test"]
        if number in rows
    ]


def _mbpp_prompt(row: dict[str, Any]) -> str:
    """Return the prompt of `mbpp_mtp` without examples."""
    tests = "\n".join(row["test_list"])
    return (
        f"You are an expert Python programmer, and here is your task: {row['text']} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def _row(data_set: str, name: str, context: str, text: str) -> dict[str, str]:
    sha256 = Document(name, context + text).sha256
    source = {"humaneval": "HumanEval", "mbpp": "MBPP, test split"}[data_set]
    return {
        "data_set": data_set,
        "name": name,
        "source": source,
        "sha256": sha256,
        "context": context,
        "text": text,
    }

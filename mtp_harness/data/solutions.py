"""Reference solutions of HumanEval and MBPP, with the prompts that the code tasks put before them.

A benchmark that is not on this machine is left out with a warning that says how to provide it;
without both there is an error.
"""

import logging
from collections.abc import Iterator

from mtp_harness.data import humaneval, mbpp
from mtp_harness.data.rows import Splits, in_turns, splits, spread, text_row

_log = logging.getLogger(__name__)

N_QUICK = 40
"""Problems of each benchmark in a quick run."""


def load(quick: bool = False, data_dir: str | None = None, **_metadata: object) -> Splits:
    """Return the solutions; of each benchmark `N_QUICK`, evenly spread, if `quick`.

    Returns:
        The split `test`: `data_set`, `name`, `source`, `sha256` (of prompt and solution),
        `context` (the prompt) and `text` (the solution). Benchmarks take turns.

    Raises:
        FileNotFoundError: neither benchmark is on this machine.
        ValueError: a file is not what it should be.
    """
    found, missing = [], []
    for name, rows_of in _READERS.items():
        try:
            rows = list(rows_of(data_dir))
        except FileNotFoundError as error:
            missing.append(str(error))
            _log.warning("%s is left out: %s", name, error)
            continue
        found.append(spread(rows, N_QUICK) if quick else rows)
    if not found:
        raise FileNotFoundError("; ".join(missing))
    return splits({"test": in_turns(found)})


def _humaneval(data_dir: str | None) -> Iterator[dict[str, str]]:
    for row in humaneval.read_problems(data_dir):
        name, solution = row["task_id"], row["canonical_solution"]
        yield text_row("humaneval", name, "HumanEval", solution, context=row["prompt"])


def _mbpp(data_dir: str | None) -> Iterator[dict[str, str]]:
    """Yield the test split's, with the prompt of `mbpp_mtp` without examples."""
    for row in mbpp.read_problems(data_dir):
        if row["task_id"] not in mbpp.SPLITS["test"]:
            continue
        tests = "\n".join(row["test_list"])
        prompt = (
            f"You are an expert Python programmer, and here is your task: {row['text']} "
            f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
        )
        name = f"MBPP/{row['task_id']}"
        yield text_row("mbpp", name, "MBPP, test split", row["code"], context=prompt)


_READERS = {"humaneval": _humaneval, "mbpp": _mbpp}
DATA_SETS = tuple(_READERS)

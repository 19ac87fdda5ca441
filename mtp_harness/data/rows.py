"""Shared by loaders: rows of documents, several kinds in turns, and options."""

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    import datasets

Splits: TypeAlias = "dict[str, datasets.Dataset]"
"""The return type of `custom_dataset`. The harness gives a loader all metadata of task and run."""

Row = TypeVar("Row")


def splits(rows: Mapping[str, Sequence[Mapping[str, Any]]], description: str = "") -> Splits:
    """Return the rows of each split as a data set, with a description of their source."""
    import datasets

    return {
        name: datasets.Dataset.from_list(some, info=datasets.DatasetInfo(description=description))
        for name, some in rows.items()
    }


def text_row(data_set: str, name: str, source: str, text: str, **before: str) -> dict[str, str]:
    """Return a probe's document, with the hash of its text and of further columns before it."""
    digest = hashlib.sha256("".join([*before.values(), text]).encode()).hexdigest()
    about = {"data_set": data_set, "name": name, "source": source, "sha256": digest}
    return {**about, **before, "text": text}


def to_line(document: Any) -> str:
    """Return a named tuple as JSON: the text of a row that holds a whole document."""
    return json.dumps(document._asdict(), ensure_ascii=False)


def below(source: random.Random, limit: int) -> int:
    """Draw a number 0 … limit - 1, the same in every Python."""
    return int(source.random() * limit)


def in_turns(kinds: Iterable[Sequence[Row]]) -> list[Row]:
    """Return rows of several kinds in turns, so that --limit N and ranks get some of each."""
    return [row for rows in zip_longest(*kinds) for row in rows if row is not None]


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """Return this many rows, evenly spread; all if there are fewer."""
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def beginning(text: str, n_bytes: int) -> str:
    """Return the lines of a text that fit into a number of bytes; if none, part of the first."""
    encoded = text.encode()
    if len(encoded) <= n_bytes:
        return text
    part = encoded[:n_bytes].decode(errors="ignore")
    lines = part[: part.rfind("\n") + 1]
    return lines if lines.strip() else part


def read_utf8(path: Path) -> str:
    r"""Return a file's text with `\n` line ends; empty if it is not UTF-8, or holds a NUL byte."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if "\0" in text else text


def whole(name: str, given: Any, least: int) -> int:
    """Return an option that is one whole number.

    Raises:
        ValueError: It is not, or less than `least`.
    """
    if type(given) is not int or given < least:
        raise ValueError(f"{name}={given}, expected a whole number from {least}; choose one")
    return given


def several(name: str, given: Any, default: Sequence[int], least: int = 0) -> list[int]:
    """Return an option that is one whole number or several, each once.

    Raises:
        ValueError: One is not a whole number, or less than `least`.
    """
    numbers = default if given is None else given if isinstance(given, list | tuple) else [given]
    if not numbers or any(type(number) is not int or number < least for number in numbers):
        such = f"whole numbers from {least}," if least else "whole numbers"
        raise ValueError(f"{name}={given}, expected {such} such as {list(default)}")
    return list(dict.fromkeys(numbers))

"""The texts that probes read: by default code and prose of the running Python, or the user's own.

    --metadata '{"folder": "PATH"}'     every UTF-8 file below a folder; *.py is read as code
    --metadata '{"dataset": "NAME"}'    a Hugging Face data set; further `dataset_config`, `split`,
                                        `column`
    --metadata '{"documents": "FILE"}'  conversations, in categories (`data.conversations`)
    --metadata '{"on": "samples_….jsonl"}'  a model's own answers of a run (`data.own_answers`)
    --metadata '{"quick": true}'        at most 100 kB of each data set

Documents are drawn in an order that depends only on `seed` and their names, until `max_bytes` of a
data set are reached; a long document is cut after its beginning, at a line's end. Nothing is
downloaded except a data set that the user names.
"""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.data import conversations, own_answers
from mtp_harness.data.corpus import Corpus, Document, code_corpus, prose_corpus
from mtp_harness.data.rows import Splits, beginning, in_turns, read_utf8, splits
from mtp_harness.data.sources import from_hub
from mtp_harness.files import expanded, user_path

_log = logging.getLogger(__name__)

CODE, TEXT = "code", "text"


class Limits(NamedTuple):
    """Limits of what is read, in bytes of UTF-8."""

    max_bytes: int
    max_document_bytes: int


DEFAULT = Limits(1_000_000, 64_000)
QUICK = Limits(100_000, 8_000)


def load(
    quick: bool = False,
    folder: str | None = None,
    dataset: str | None = None,
    dataset_config: str | None = None,
    split: str = "test",
    column: str = "text",
    documents: str | None = None,
    on: str | None = None,
    max_bytes: int | None = None,
    max_document_bytes: int | None = None,
    seed: int = 0,
    **_metadata: object,
) -> Splits:
    """Return the split `test`, one row per document, data sets in turns.

    A row has `data_set`, `kind` (code or text), `name`, `source`, `text` and `sha256` (of the text
    that is read). The limits are those of `Limits`, by default `DEFAULT`.

    Raises:
        FileNotFoundError: there is no such folder or data set.
        ValueError: an argument is invalid, or a data set has no text.
    """
    limits = _limits(quick, max_bytes, max_document_bytes)
    if type(seed) is not int:
        raise ValueError(f"seed={seed}, expected a whole number; choose one")
    places = {"folder": folder, "dataset": dataset, "documents": documents, "on": on}
    named = [f"{name}={place}" for name, place in places.items() if place]
    if len(named) > 1:
        raise ValueError(f"{' and '.join(named)}: expected one of them")
    if not dataset and (dataset_config, split, column) != (None, "test", "text"):
        if column != "text" or not documents:
            raise ValueError(
                "dataset_config, split and column belong to a dataset: give dataset=…, too"
            )
    if documents:
        return conversations.load(documents, quick, dataset_config, split)
    if on:
        return own_answers.load(on, quick)
    if folder:
        found = _of_folder(user_path(folder))
    elif dataset:
        found = [list(_of_dataset(expanded(dataset), dataset_config, split, column))]
    else:
        found = [_of_corpus(code_corpus(), CODE), _of_corpus(prose_corpus(), TEXT)]
    drawn = (_draw(rows, limits, seed) for rows in found)
    return splits({"test": in_turns(drawn)})


def _limits(quick: bool, max_bytes: Any, max_document_bytes: Any) -> Limits:
    given = {"max_bytes": max_bytes, "max_document_bytes": max_document_bytes}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name}={value}, expected a whole number of bytes from 1")
    wanted = DEFAULT._replace(**given)
    return Limits(*map(min, wanted, QUICK)) if quick else wanted


def _of_corpus(corpus: Corpus, kind: str) -> list[dict[str, str]]:
    what = {"code": "standard library", "prose": "pydoc topics"}[corpus.name]
    source = f"{what} of Python {corpus.python_version}"
    return [_row(corpus.name, kind, doc.name, source, doc.text) for doc in corpus.documents]


def _of_folder(folder: Path) -> list[list[dict[str, str]]]:
    """Return the files of a folder; if it has code and text, as two data sets."""
    rows = list(_files(folder))
    by_kind = [[row for row in rows if row["kind"] == kind] for kind in (CODE, TEXT)]
    if all(by_kind):
        for row in rows:
            row["data_set"] += f"_{row['kind']}"
    return [rows for rows in by_kind if rows] or [[]]


def _files(folder: Path) -> Iterator[dict[str, str]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"folder={folder} is not a folder, expected one with text files")
    name, n_left_out = folder.resolve().name, 0
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in inside.parts):
            continue
        text = read_utf8(path)
        if not text.strip():
            n_left_out += 1
            continue
        kind = CODE if path.suffix in (".py", ".pyi") else TEXT
        yield _row(name, kind, inside.as_posix(), f"folder {name}", text)
    if n_left_out:
        _log.warning("%s: %d files hold no UTF-8 text and are left out", folder, n_left_out)


def _of_dataset(name: str, config: str | None, split: str, column: str) -> Iterator[dict[str, str]]:
    rows = from_hub("dataset", name, config, split)
    if column not in rows.column_names:
        where = f"dataset={name}" + (f", dataset_config={config}" if config else "")
        raise ValueError(
            f"{where} has the columns {', '.join(rows.column_names)}; name the one with the text "
            f"as column (column={column})"
        )
    source = "/".join(part for part in (name, config, split) if part)
    for number, text in enumerate(rows[column]):
        if isinstance(text, str) and text.strip():
            yield _row(name.rpartition("/")[2], TEXT, f"{split}/{number}", source, text)


def _row(data_set: str, kind: str, name: str, source: str, text: str) -> dict[str, str]:
    return {"data_set": data_set, "kind": kind, "name": name, "source": source, "text": text}


def _draw(rows: list[dict[str, str]], limits: Limits, seed: int) -> list[dict[str, str]]:
    """Return documents within the limits, each with the hash of its text."""
    if not rows:
        raise ValueError(
            "there is no text to read: expected at least one document that is not empty"
        )
    rows.sort(key=lambda row: hashlib.sha256(f"{seed}\0{row['name']}".encode()).digest())
    drawn: list[dict[str, str]] = []
    n_bytes = 0
    for row in rows:
        document = Document(row["name"], beginning(row["text"], min(limits)))
        n_bytes += len(document.text.encode())
        if n_bytes > limits.max_bytes:
            break
        drawn.append({**row, "text": document.text, "sha256": document.sha256})
    return drawn

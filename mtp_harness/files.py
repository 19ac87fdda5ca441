"""Paths that a user gives, and files that are written atomically.

Everything the package writes goes through `whole` or `write_whole`. Exceptions: journals and cells'
logs, which are appended to during a run; a suite's lock, which is empty; and what is not a regular
file, such as /dev/stdout.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 40
"""Characters of a file's name in its draft's name, which must not exceed the system's limit."""


def user_path(given: str | Path) -> Path:
    """Return a path with `~` and `~name` expanded at its beginning."""
    return Path(expanded(str(given)))


def expanded(given: str) -> str:
    """Return a name or path with `~` and `~name` expanded at its beginning, otherwise unchanged.

    A shell does the same, but not after a comma or an equals sign, nor in a YAML file. Like a
    shell, this leaves `~name` unchanged if there is no such user.
    """
    return os.path.expanduser(given)  # noqa: PTH111  Path's changes `./x`, too, and may raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file and its parent folders atomically: readers see the old file or the new one.

    Text is written as UTF-8. Half characters, which JSON may hold and UTF-8 may not, are escaped as
    JSON escapes them.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with whole(path) as draft:
        draft.write_bytes(data)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a draft to write; it replaces the file at the end, and is removed after an error."""
    if path.exists() and not path.is_file():  # a device or a pipe; a folder is refused by itself
        yield path
        return
    path = path.resolve()  # a link stays, and its target is written
    draft = path.with_name(f".{path.name[:_LONGEST]}.{os.getpid()}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        if path.exists():
            shutil.copymode(path, draft)
        draft.replace(path)
    except OSError as error:
        if str(error.filename) == str(draft):
            error.filename = str(path)
        raise
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_files(folder: Path, last: str) -> Iterator[Path]:
    """Yield an empty folder to write files into; at the end each is moved into `folder`, whole.

    `last` is the file that readers recognise the folder by: it is moved last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft.", dir=folder) as scratch:
        yield Path(scratch)
        for file in sorted(Path(scratch).iterdir(), key=lambda file: (file.name == last, file)):
            file.replace(folder / file.name)

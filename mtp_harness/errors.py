"""Messages to the user when something is wrong, in one sentence.

The operating system's errors have an `errno`; ours have a sentence. That distinguishes them.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST_PATH = 200

_CLOSED = "is closed to this user (permission denied), expected to be readable: change its mode"
_WORDS = {
    errno.ENOENT: "does not exist, expected a file or folder: check the path",
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EISDIR: "is a folder, expected a file: put the file itself there",
    errno.ENOTDIR: "leads through a file, expected folders alone: check the path",
    errno.ENAMETOOLONG: "is too long, expected a path that can exist: check it",
    errno.ELOOP: "is a link to itself, expected a file or folder: put the file itself there",
    errno.ENOSPC: "cannot be written because the disk is full: make room or name another disk",
}


class UserError(SystemExit, ValueError):
    """One sentence for the user.

    The harness's command line catches nothing, so a plain ValueError would show a traceback. As a
    SystemExit it prints the sentence alone and ends with status 1; callers of `simple_evaluate` can
    catch it as a ValueError, which it is, too.
    """


def sentence(error: Exception) -> str:
    """Return an error's message on one line; errors of the system are put into words."""
    if not isinstance(error, OSError) or error.errno is None:
        return " ".join(str(error).split())
    said = (error.strerror or type(error).__name__).lower()
    words = _WORDS.get(error.errno, f"cannot be used ({said}), expected a file: check the path")
    if error.filename is None:
        return f"a file {words}"
    name = str(error.filename)
    parent = Path(name).parent
    if words is _CLOSED and os.access(parent, os.F_OK) and not os.access(parent, os.X_OK):
        name = str(parent)  # nothing is known about the file, not even whether it exists
    if error.errno == errno.ENOENT and Path(name).is_symlink():
        words = f"is a link to {Path(name).readlink()}, which does not exist: put the file there"
    return f"{name[:_LONGEST_PATH]}{'…' if len(name) > _LONGEST_PATH else ''} {words}"


@contextmanager
def user_errors(*kinds: type[Exception], prefix: str = "", suffix: str = "") -> Iterator[None]:
    """Turn errors of some kinds into one sentence that ends the run, without a traceback."""
    try:
        yield
    except UserError:
        raise
    except kinds as error:
        raise UserError(f"{prefix}{sentence(error)}{suffix}") from error


@contextmanager
def in_words() -> Iterator[None]:
    """Replace the system's errors by ones with a sentence; as a decorator or in a `with`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the system reported another error.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(sentence(error)) from error

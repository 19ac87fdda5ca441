"""Errors of vLLM's start in one sentence, also of an engine that starts in a process of its own.

Such a process writes a traceback and ends; its parent learns only that it failed. So what is
written during a start is read: it passes on at once, but from the first traceback on it is held
back. A start that fails takes its reason from there.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mtp_harness.errors import UserError
from mtp_harness.harness.vllm_args import in_a_sentence

_BEGINS = re.compile(rb"Traceback \(most recent call last\)| ERROR ")
_ERROR = re.compile(r"(?:^|\s)[\w.]*(?:Error|Exception): +(\S.*)$", re.MULTILINE)
_BELOW = re.compile("root cause|check the logs|non-zero exit|in subprocess")
"""In an error that points to another one."""
_ENDS_WITHIN_S = 3.0
"""A process that failed has written all by then; a process that lives on may keep a stream open."""


@contextmanager
def starting(pretrained: str, version: str) -> Iterator[None]:
    """Start an engine in here.

    Raises:
        UserError: vLLM, or a process of its, has met an error.
    """
    streams = [_Held(fd) for fd in (1, 2)]
    failed = None
    try:
        yield
    except Exception as error:  # whatever vLLM has met
        failed = error
    finally:
        for one in streams:
            one.end(failed is not None)
    if failed is not None:
        said = in_a_sentence(failed)
        if _BELOW.search(str(failed)):  # a parent says no more than that a process of its failed
            reasons = (error for one in reversed(streams) for error in one.errors())
            said = next((one for one in reasons if not _BELOW.search(one)), said)
        raise UserError(
            f"vLLM {version} cannot load {pretrained}: {said}. Correct the model arguments, or use "
            "--model mtp."
        ) from failed


class _Held:
    """A standard stream of this process, and of those that it starts, from a traceback on held."""

    def __init__(self, fd: int) -> None:
        """Read it; processes that start now write to where we read for as long as they live."""
        self.fd, self.held, self.holding = fd, b"", True
        self.lock = threading.Lock()  # of what is held
        _flush()
        read, write = os.pipe()
        self.saved = os.dup(fd)
        os.dup2(write, fd)
        os.close(write)
        self.thread = threading.Thread(target=self._pass_on, args=(read,), daemon=True)
        self.thread.start()

    def end(self, failed: bool) -> None:
        """Put the stream back; keep what was held if the start failed, else pass it on."""
        _flush()
        os.dup2(self.saved, self.fd)
        if failed:
            self.thread.join(_ENDS_WITHIN_S)
        else:
            with self.lock:
                self.holding = False
                os.write(self.saved, self.held)
                self.held = b""

    def errors(self) -> Iterator[str]:
        """Yield the errors in what was held; most follow from those before them."""
        for found in _ERROR.finditer(self.held.decode(errors="replace")):
            yield in_a_sentence(RuntimeError(found[1]))

    def _pass_on(self, read: int) -> None:
        # Nobody may read any more (`| head`): who writes to us must learn it, not wait for us.
        with open(read, "rb", buffering=0) as written, suppress(BrokenPipeError):
            rest = b""
            while data := written.read(65536):
                *lines, rest = re.split(rb"(?<=[\r\n])", rest + data)
                with self.lock:
                    for line in lines:
                        if self.holding and (self.held or _BEGINS.search(line)):
                            self.held += line
                        else:
                            os.write(self.saved, line)
            os.write(self.saved, b"" if self.held else rest)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()

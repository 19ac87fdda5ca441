"""The grader's side of one program: the trusted check.

`check(candidate)` runs here, with a stand-in for `candidate` that sends its arguments to the
program's process and gets plain values back. The verdict is made here and nowhere else.
"""

import functools
import random
import signal
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mtp_harness.sandbox.remote import CandidateError, Fault, Finding, RemoteFunction, Stop
from mtp_harness.sandbox.types import Program, one_line

_ALARM_GRACE_S = 0.25


class Check:
    """The trusted `check` of one program, loaded and ready to be run."""

    def __init__(self, program: Program, remote: RemoteFunction) -> None:
        """Run preamble and test in a namespace where `entry_point` is the stand-in.

        Raises:
            Fault: The trusted source does not run.
        """
        self._remote = remote
        namespace: dict[str, object] = {"__name__": "check"}
        random.seed(0)  # tests draw random inputs: every program gets the same ones
        try:
            exec(_compiled(program.preamble, "<preamble>"), namespace)
            exec(_compiled(program.test, "<test>"), namespace)
        except Exception as error:
            detail = one_line(f"{type(error).__name__}: {error}")
            raise Fault("test", f"the test does not load: {detail}") from None
        check = namespace.get("check")  # first: the program's function may have that name too
        if not callable(check):
            raise Fault("test", "the test defines no check(candidate)")
        self._check: Callable[[RemoteFunction], object] = check
        namespace[program.entry_point] = remote
        self._namespace = namespace

    def run(self) -> Finding:
        """Return what the check finds."""
        finding = Finding("pass", "", "")
        self._namespace.update(self._remote.exported)
        try:
            with _alarm(self._remote):
                self._check(self._remote)
        except Stop:
            pass  # then `settled` says why
        except BaseException as error:
            finding = self._raised(error)
        return self._remote.settled or finding

    def _raised(self, error: BaseException) -> Finding:
        detail = one_line(f"{type(error).__name__}: {error}")
        if error is self._remote.raised:
            shown = one_line(str(error)) if isinstance(error, CandidateError) else detail
            return Finding("fail", "exception", shown)
        if isinstance(error, AssertionError):
            return Finding("fail", "wrong_answer", one_line(str(error)))
        # A name that the test itself lacks has nothing to do with the program's answers.
        if type(error) in (NameError, ImportError, ModuleNotFoundError, SyntaxError):
            return Finding("error", "test", detail)
        return Finding("fail", "wrong_answer", one_line(f"the check raised {detail}"))


@functools.lru_cache(maxsize=1024)
def _compiled(source: str, name: str) -> types.CodeType:
    return compile(source, name, "exec", dont_inherit=True)


@contextmanager
def _alarm(remote: RemoteFunction) -> Iterator[None]:
    """Break into a check that loops by itself after the program's time is over.

    The signal comes again and again: a test with a bare `except` swallows the first ones.
    """
    armed = True

    def ring(_number: int, _frame: types.FrameType | None) -> None:
        if armed:
            remote.out_of_time()

    left_s = max(remote.deadline - time.monotonic(), 0.0) + _ALARM_GRACE_S
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, left_s, _ALARM_GRACE_S)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

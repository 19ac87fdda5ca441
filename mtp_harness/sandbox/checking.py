"""The grader's side of one program: the trusted check, and the stand-in it calls.

`check(candidate)` runs here, with a stand-in for `candidate` that sends its arguments to the
program's process and gets plain values back. The verdict is made here and nowhere else.
"""

import builtins
import functools
import random
import signal
import socket
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, NoReturn

from mtp_harness.sandbox import wire
from mtp_harness.sandbox.types import FAIL_KINDS, Limits, Outcome, Program, one_line

START_S = 10.0
_ALARM_GRACE_S = 0.25
_MESSAGE_BYTES = 8192  # what a reply that carries an error message may have
# Raised in `map(candidate, …)`, these would end the loop instead of the check.
_LOOP_ENDS = (StopIteration, StopAsyncIteration)


class Fault(RuntimeError):
    """The trusted test or the grader itself failed; says nothing about the program."""

    def __init__(self, kind: Literal["test", "grader"], detail: str) -> None:
        """Keep whose fault it is."""
        super().__init__(detail)
        self.kind = kind


class CandidateError(Exception):
    """An exception of a class of the program's own; its text starts with that class's name."""


class Stop(BaseException):
    """The verdict is settled: leave the check. Not an `Exception`, so that tests let it pass."""


class Finding(NamedTuple):
    """A verdict without its time."""

    outcome: Outcome
    kind: str
    detail: str


class RemoteFunction:
    """Calls the program's function in the program's process.

    Args:
        sock: The channel to that process.
        limits: Bound the time and the size of a reply.

    Attributes:
        started: When the process was ready for the program.
        deadline: When the program's time is over.
        settled: The failure that ended the program, whatever the check makes of it.
        raised: The last exception of the program's own that was handed to the check.
        gone: The program's process ended, or closed the channel.
    """

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        """Keep the channel."""
        self._sock = sock
        self._limits = limits
        self._max_reply = limits.output_bytes + _MESSAGE_BYTES
        self.started = time.monotonic()
        self.deadline = self.started + START_S
        self.settled: Finding | None = None
        self.raised: Exception | None = None
        self.gone = False

    def load(self, program: Program) -> None:
        """Hand the program over and wait until its top level has run.

        The time limit starts when the process says that it is ready.
        """
        try:
            self._sock.settimeout(START_S)
            wire.send_frame(self._sock, [program.code, program.entry_point])
            begin = wire.read_frame(self._sock, 1024, self.deadline)
        except (OSError, EOFError, wire.Malformed) as error:
            raise Fault("grader", f"no process for the program: {error!r}") from None
        if begin != ["begin"]:
            raise Fault("grader", f"no process for the program: it said {begin!r}")
        self.started = time.monotonic()
        self.deadline = self.started + self._limits.wall_s
        self._expect(self._reply(), "ready")

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Return what the program's function returns for these arguments, or raise what it raises.

        Raises:
            Stop: The program failed in a way that no check can want.
        """
        if self.settled is not None:
            raise Stop
        packer = wire.Packer(2**30)
        try:
            request = [packer.pack(list(args)), packer.pack(kwargs)]
        except (wire.Unsupported, wire.TooLarge) as error:
            self.stop("test", f"the test passes an argument that cannot be sent: {error}")
        try:
            self._sock.settimeout(max(self.deadline - time.monotonic(), 0.001))
            wire.send_frame(self._sock, request)
        except TimeoutError:
            self.out_of_time()
        except OSError:
            pass  # the process is gone: reading says so, after any last answer
        return self._expect(self._reply(), "value")

    def stop(self, kind: str, detail: str) -> NoReturn:
        """Settle on a failure, unless there is one already, and leave the check."""
        outcome: Outcome = "fail" if kind in FAIL_KINDS else "error"
        self.settled = self.settled or Finding(outcome, kind, one_line(detail))
        raise Stop

    def out_of_time(self) -> NoReturn:
        """Settle on a time-out and leave the check."""
        self.stop("timeout", f"not done after {self._limits.wall_s:g} s")

    def _reply(self) -> list[object]:
        try:
            reply = wire.read_frame(self._sock, self._max_reply, self.deadline)
        except TimeoutError:
            self.out_of_time()
        except (wire.Closed, OSError):
            self.gone = True
            self.stop("exception", "the process ended before it answered")
        except wire.Malformed as error:
            self.stop("output", f"unreadable answer: {error}")
        if isinstance(reply, list):
            return reply
        self.stop("output", "unreadable answer")

    def _expect(self, reply: list[object], wanted: str) -> object:
        match reply:
            case ["value", tree] if wanted == "value":
                try:
                    return wire.unpack(tree)
                except wire.Malformed as error:
                    self.stop("output", f"unreadable answer: {error}")
            case ["ready"] if wanted == "ready":
                return None
            case ["raised", str() as name, str() as message, bool() as is_builtin]:
                self._raise(name, message, is_builtin, fatal=wanted == "ready")
            case [str() as kind, str() as message] if kind in FAIL_KINDS:
                self.stop(kind, message)
        self.stop("output", "unreadable answer")

    def _raise(self, name: str, message: str, is_builtin: bool, fatal: bool) -> NoReturn:
        detail = f"{name}: {message}"
        if name == "MemoryError":
            self.stop("memory", detail)
        if fatal:
            self.stop("exception", detail)
        rebuilt = _rebuilt(name, message) if is_builtin else None
        self.raised = rebuilt or CandidateError(detail)
        raise self.raised


def _rebuilt(name: str, message: str) -> Exception | None:
    """Return the builtin exception of that name, so that a test may expect it, or None."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and kind not in _LOOP_ENDS:
        try:
            return kind(message)
        except TypeError:  # the Unicode errors want five arguments
            return None
    return None


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
        namespace[program.entry_point] = remote
        check = namespace.get("check")
        if not callable(check):
            raise Fault("test", "the test defines no check(candidate)")
        self._check: Callable[[RemoteFunction], object] = check

    def run(self) -> Finding:
        """Return what the check finds."""
        finding = Finding("pass", "", "")
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

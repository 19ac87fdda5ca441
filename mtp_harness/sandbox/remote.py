"""The grader's end of a program: the stand-in that a check calls, and handles on what stays there.

Under the rule `values` every argument and every result is a copy, and plain. Under the rule
`objects` what is not plain stays in the program's process and the check gets a `Handle`. A handle
passes attributes, calls, items, iteration and `str` on. It is equal to nothing but itself and is
neither true nor false, and `in` goes through its items: no object is ever asked to compare itself
with what the test expects. Lists, dicts and sets among the arguments are brought up to date after
each call.
"""

import builtins
import socket
import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, NoReturn, cast

from mtp_harness.sandbox import wire
from mtp_harness.sandbox.types import FAIL_KINDS, Limits, Outcome, Program, one_line

START_S = 10.0
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
        keeps_objects: What is not plain stays there, and is handed out as a `Handle`.

    Attributes:
        started: When the process was ready for the program.
        deadline: When the program's time is over.
        settled: The failure that ended the program, whatever the check makes of it.
        raised: The last exception of the program's own that was handed to the check.
        gone: The program's process ended, or closed the channel.
        exported: What the program's names stand for, once it is loaded: values and handles.
    """

    def __init__(self, sock: socket.socket, limits: Limits, keeps_objects: bool = False) -> None:
        """Keep the channel."""
        self._sock = sock
        self._limits = limits
        self._max_reply = limits.output_bytes + _MESSAGE_BYTES
        self._keeps_objects = keeps_objects
        self._handles: dict[int, Handle] = {}
        self.started = time.monotonic()
        self.deadline = self.started + START_S
        self.settled: Finding | None = None
        self.raised: Exception | None = None
        self.gone = False
        self.exported: dict[str, object] = {}

    def load(self, program: Program) -> None:
        """Hand the program over and wait until its top level has run.

        The time limit starts when the process says that it is ready.
        """
        names = [program.entry_point, *program.exports]
        begin(self._sock, [program.rule, program.code, names])
        self.started = time.monotonic()
        self.deadline = self.started + self._limits.wall_s
        exported, _ = self._expect(self._reply(), "ready")
        if isinstance(exported, list):
            self.exported = dict(zip(filter(None, names), exported, strict=False))

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Return what the program's function returns for these arguments, or raise what it raises.

        Raises:
            Stop: The program failed in a way that no check can want.
        """
        return self.operate("call", 0, args, kwargs)

    def operate(
        self, operation: str, number: int, args: Sequence[object], kwargs: dict[str, object]
    ) -> object:
        """Have one of `candidate.OPERATIONS` done on the object of that number."""
        if self.settled is not None:
            raise Stop
        packer = wire.Packer(2**30, number=_number if self._keeps_objects else None)
        try:
            request = [operation, number, packer.pack(list(args)), packer.pack(kwargs)]
        except (wire.Unsupported, wire.TooLarge) as error:
            self.stop("test", f"the test passes an argument that cannot be sent: {error}")
        try:
            self._sock.settimeout(max(self.deadline - time.monotonic(), 0.001))
            wire.send_frame(self._sock, request)
        except TimeoutError:
            self.out_of_time()
        except OSError:
            pass  # the process is gone: reading says so, after any last answer
        wanted = "item" if operation == "next" else "value"
        value, after = self._expect(self._reply(), wanted)
        if after is not None:
            _update(args, after)
        return value

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

    def _expect(self, reply: list[object], wanted: str) -> tuple[object, object]:
        """Return what was answered, and the arguments as the program left them."""
        resolve = self._handle if self._keeps_objects else None
        match reply:
            case ["value", tree, after] if wanted != "ready":
                try:
                    left = None if resolve is None else wire.unpack(after, 0, resolve)
                    return wire.unpack(tree, 0, resolve), left
                except wire.Malformed as error:
                    self.stop("output", f"unreadable answer: {error}")
            case ["ready", tree] if wanted == "ready":
                try:
                    return None if resolve is None else wire.unpack(tree, 0, resolve), None
                except wire.Malformed as error:
                    self.stop("output", f"unreadable answer: {error}")
            case ["end"] if wanted == "item":
                raise StopIteration
            case ["raised", str() as name, str() as message, bool() as is_builtin]:
                self._raise(name, message, is_builtin, fatal=wanted == "ready")
            case [str() as kind, str() as message] if kind in FAIL_KINDS:
                self.stop(kind, message)
        self.stop("output", "unreadable answer")

    def _handle(self, number: int) -> "Handle":
        return self._handles.setdefault(number, Handle(self, number))

    def _raise(self, name: str, message: str, is_builtin: bool, fatal: bool) -> NoReturn:
        detail = f"{name}: {message}"
        if name == "MemoryError":
            self.stop("memory", detail)
        if fatal:
            self.stop("exception", detail)
        rebuilt = _rebuilt(name, message) if is_builtin else None
        self.raised = rebuilt or CandidateError(detail)
        raise self.raised


class Handle:
    """A check's hold on an object that stays in the program's process.

    Two handles are the same, and equal, when the object is.
    """

    def __init__(self, remote: RemoteFunction, number: int) -> None:
        """Keep where the object is."""
        object.__setattr__(self, "_remote", remote)
        object.__setattr__(self, "_number", number)

    def _do(self, operation: str, *args: object, **kwargs: object) -> Any:
        remote: RemoteFunction = object.__getattribute__(self, "_remote")
        return remote.operate(operation, object.__getattribute__(self, "_number"), args, kwargs)

    def __getattr__(self, name: str) -> object:
        """Return the object's attribute."""
        return self._do("getattr", name)

    def __setattr__(self, name: str, value: object) -> None:
        """Set the object's attribute."""
        self._do("setattr", name, value)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call the object."""
        return self._do("call", *args, **kwargs)

    def __getitem__(self, key: object) -> object:
        """Return the object's item."""
        return self._do("getitem", key)

    def __setitem__(self, key: object, value: object) -> None:
        """Set the object's item."""
        self._do("setitem", key, value)

    def __len__(self) -> int:
        """Ask the object."""
        return int(self._do("len"))

    def __iter__(self) -> object:
        """Return a handle on the object's iterator."""
        return self._do("iter")

    def __next__(self) -> object:
        """Return the next item of an iterator."""
        return self._do("next")

    def __str__(self) -> str:
        """Return what the object says it is."""
        return str(self._do("str"))

    def __bool__(self) -> bool:
        """Leave the check: what an object thinks of itself decides nothing."""
        remote: RemoteFunction = object.__getattribute__(self, "_remote")
        remote.stop("output", "the test needs a plain value and got an object of the program's")


def begin(sock: socket.socket, message: object) -> None:
    """Hand a program over to its process and wait until that is ready for it."""
    try:
        sock.settimeout(START_S)
        wire.send_frame(sock, message)
        reply = wire.read_frame(sock, 1024, time.monotonic() + START_S)
    except (OSError, EOFError, wire.Malformed) as error:
        raise Fault("grader", f"no process for the program: {error!r}") from None
    if reply != ["begin"]:
        raise Fault("grader", f"no process for the program: it said {reply!r}")


def _number(value: object) -> int:
    if type(value) is Handle:
        return cast(int, object.__getattribute__(value, "_number"))
    if type(value) is RemoteFunction:
        return 0
    raise wire.Unsupported(type(value).__name__)


def _update(args: Sequence[object], after: object) -> None:
    """Make the arguments of a call what the program made of them, in place."""
    if not isinstance(after, list):
        return
    for mine, theirs in zip(args, after, strict=False):
        if isinstance(mine, list) and isinstance(theirs, list):
            mine[:] = theirs
        elif isinstance(mine, dict | set) and type(mine) is type(theirs):
            mine.clear()
            mine.update(theirs)


def _rebuilt(name: str, message: str) -> Exception | None:
    """Return the builtin exception of that name, so that a test may expect it, or None."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and kind not in _LOOP_ENDS:
        try:
            return kind(message)
        except TypeError:  # the Unicode errors want five arguments
            return None
    return None

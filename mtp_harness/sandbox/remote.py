"""The grader's side of a program: the stand-in that a check calls.

Under the rule `values` every argument and every result is a copy. Under the rule `objects`, an
object that cannot be copied stays in the program's process and the check gets a `Handle`; lists,
dicts and sets among the arguments are updated after each call. Functions among the arguments run
here, whenever the program calls them.
"""

import operator
import socket
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NoReturn, TypeGuard, cast

import mtp_harness.sandbox.foreign as foreign
import mtp_harness.sandbox.wire as wire
from mtp_harness.sandbox.handles import Handle, Remote, handle_class, number_of
from mtp_harness.sandbox.types import FAIL_KINDS, Limits, Outcome, Program, Verdict, one_line
from mtp_harness.sandbox.values import ERRORS, LOOP_ENDS

START_S = 10.0
_MESSAGE_BYTES = 8192  # limit for a reply with an error message
_ARGUMENT_BYTES = 2**26
RECURSION = 1000
"""Python's own limit: tests may raise it, and the reader of JSON takes it for leave to crash."""


class Fault(RuntimeError):
    """The trusted test or the grader itself failed; says nothing about the program."""

    def __init__(self, kind: Literal["test", "grader"], detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Stop(BaseException):
    """The verdict is decided: leave the check. No `Exception`, so that tests do not catch it."""


class RemoteFunction(Remote):
    """Calls the program's function in the program's process.

    Args:
        sock: The channel to that process.
        limits: Limits on the time and the size of a reply.
        keeps_objects: Objects that cannot be copied stay there, and the check gets a `Handle`.

    Attributes:
        started: When the process was ready for the program.
        deadline: When the program's time is over.
        settled: The failure that ended the program, whatever the check does afterwards.
        raised: The program's own exceptions that the check received.
        gone: The program's process ended, or closed the channel.
        exported: The values and handles of the program's names, once it is loaded.
    """

    def __init__(self, sock: socket.socket, limits: Limits, keeps_objects: bool = False) -> None:
        self._sock = sock
        self._limits = limits
        self._max_reply = limits.output_bytes + _MESSAGE_BYTES
        self._keeps_objects = keeps_objects
        self._handles: dict[int, Handle] = {}
        self._error_classes: dict[object, type[Exception]] = {}
        self._record_classes: foreign.Classes = {}
        self._functions: list[Callable[..., object]] = []
        self._thrown: list[Exception] = []
        self._names: list[str] = []
        self.started = time.monotonic()
        self.deadline = self.started + START_S
        self.settled: Verdict | None = None
        self.raised: list[Exception] = []
        self.gone = False
        self.exported: dict[str, object] = {}

    def begin(self, program: Program) -> None:
        """Send the program to its process; the time limit starts when the process is ready."""
        self._names = [name for name in (program.entry_point, *program.exports) if name]
        begin(self._sock, [program.rule, program.code, self._names])
        self.started = time.monotonic()
        self.deadline = self.started + self._limits.wall_s

    def load(self) -> None:
        """Wait until the program's top level has run."""
        exported = self._expect(self._reply(), "ready")
        if self._keeps_objects:
            if not isinstance(exported, list) or len(exported) != len(self._names):
                self.stop("output", "unreadable answer")
            self.exported = dict(zip(self._names, exported, strict=True))

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Return what the program's function returns for these arguments, or raise its exception.

        `Stop` is raised if the program fails in a way that no check can expect.
        """
        return self.operate("call", 0, args, kwargs)

    def operate(
        self, operation: str, number: int, args: Sequence[object], kwargs: dict[str, object]
    ) -> object:
        """Do one of `candidate.OPERATIONS` on the object of that number."""
        if self.settled is not None:
            raise Stop
        self._send([operation, number, self._pack(list(args)), self._pack(kwargs)])
        return self._expect(self._reply(), "item" if operation == "next" else "value", args)

    def stop(self, kind: str, detail: str) -> NoReturn:
        """Decide on a failure, unless there is one already, and leave the check."""
        whose: Outcome = "fail" if kind in FAIL_KINDS else "error"
        self.settled = self.settled or Verdict(whose, kind, one_line(detail))
        raise Stop

    def out_of_time(self) -> NoReturn:
        """Decide on a time-out and leave the check."""
        self.stop("timeout", f"not done after {self._limits.wall_s:g} s")

    def _send(self, message: list[object]) -> None:
        try:
            self._sock.settimeout(max(self.deadline - time.monotonic(), 0.001))
            wire.send_frame(self._sock, message)
        except TimeoutError:
            self.out_of_time()
        except OSError:
            pass  # the process is gone: reading says so, after any last answer

    def _reply(self) -> list[object]:
        """Return the next reply; first answers the program's calls."""
        while True:
            limit = sys.getrecursionlimit()
            sys.setrecursionlimit(min(limit, RECURSION))
            try:
                reply = wire.read_frame(self._sock, self._max_reply, self.deadline)
            except TimeoutError:
                self.out_of_time()
            except (wire.Closed, OSError):
                self.gone = True
                self.stop("exception", "the process ended before it answered")
            except wire.Malformed as error:
                self.stop("output", f"unreadable answer: {error}")
            finally:
                sys.setrecursionlimit(limit)
            match reply:
                case ["callback", int() as number, args, kwargs]:
                    given = (self._unpack(one, self._resolve_argument) for one in (args, kwargs))
                    self._call_back(number, *given)
                case list():
                    return reply
                case _:
                    self.stop("output", "unreadable answer")

    def _expect(self, reply: list[object], wanted: str, args: Sequence[object] = ()) -> object:
        """Return the answer, and update the arguments."""
        match reply:
            case ["value", tree, after] if wanted != "ready":
                if self._keeps_objects:
                    _update(args, self._unpack(after))
                return self._unpack(tree)
            case ["ready", tree] if wanted == "ready":
                return self._unpack(tree)
            case ["end"] if wanted == "item":
                raise StopIteration
            case ["raised", ["T", int() as number]] if 0 <= number < len(self._thrown):
                self._raise(self._thrown[number], fatal=wanted == "ready")
            case ["raised", tree]:
                self._raise(self._unpack(tree), fatal=wanted == "ready")
            case [str() as kind, str() as message] if kind in FAIL_KINDS:
                self.stop(kind, message)
        self.stop("output", "unreadable answer")

    def _raise(self, error: object, fatal: bool) -> NoReturn:
        if not isinstance(error, Exception):
            self.stop("output", "unreadable answer")
        if isinstance(error, MemoryError):
            self.stop("memory", f"MemoryError: {error}")
        if fatal or isinstance(error, LOOP_ENDS):
            self.stop("exception", f"{type(error).__name__}: {error}")
        self.raised.append(error)
        raise error

    def _call_back(self, number: int, args: object, kwargs: object) -> None:
        """Call a function of the test for the program, and send its result or exception."""
        known = 0 <= number < len(self._functions)
        if not known or not isinstance(args, list) or not isinstance(kwargs, dict):
            self.stop("output", "unreadable answer")
        try:
            value = self._functions[number](*args, **kwargs)
        except AssertionError as error:  # the test's own: the program cannot swallow it
            self.stop("wrong_answer", str(error))
        except Exception as error:
            self._thrown.append(error)
            self._send(["threw", *self._class_and_args(error), len(self._thrown) - 1])
        else:
            self._send(["returned", self._pack(value)])

    def _class_and_args(self, error: Exception) -> tuple[object, object]:
        """Return the trees of both; a class of the test is sent as its builtin base."""
        number = number_of(type(error))
        builtin = next(one for one in type(error).__mro__ if one in ERRORS.values())
        kind = ["y", builtin.__name__] if number is None else ["o", number]
        try:
            return kind, wire.pack(error.args, _MESSAGE_BYTES, self._tree)
        except (wire.Unsupported, wire.TooLarge):
            return kind, ["t", str(error)[:500]]

    def _pack(self, value: object) -> object:
        try:
            return wire.pack(value, _ARGUMENT_BYTES, self._tree)
        except (wire.Unsupported, wire.TooLarge) as error:
            self.stop("not_judgeable", f"the test passes what cannot be sent: {error}")

    def _tree(self, value: object, tree: wire.Tree) -> object:
        """Return the tree of an argument that is not a plain value."""
        number = number_of(value)
        if number is not None:
            return ["o", number]
        if _is_callback(value):
            if value not in self._functions:
                self._functions.append(value)
            return ["p", self._functions.index(value), getattr(value, "__name__", "function")]
        if isinstance(value, Iterator):
            return ["n", *(tree(item) for item in value)]
        if isinstance(value, foreign.Foreign):
            return tree(foreign.plain(value))
        raise wire.Unsupported(type(value).__name__)

    def _unpack(self, tree: object, resolve: wire.Resolve | None = None) -> object:
        try:
            return wire.unpack(tree, resolve or self._resolve)
        except wire.Malformed as error:
            self.stop("output", f"unreadable answer: {error}")

    def _resolve(self, tag: str, parts: list[Any]) -> object:
        """Return the value of a tag that only this side knows."""
        match tag, parts:
            case "n", items:
                return iter(items)
            case "o", [int() as number, str() as can] if self._keeps_objects:
                return self._handle(number, can)
            case "N", [number, str() as name, list() as fields, tuple() as items]:
                handle = self._handle(number)
                return foreign.record(name, fields, items, handle, self._record_classes)
            case "M", [number, str() as owner, name, value, bool() as counts, *shown]:
                handle = self._handle(number)
                return foreign.member(owner, name, value, counts, tuple(map(str, shown)), handle)
            case "x", [number, str() as name, *above]:
                return self._error_class(number, name, above)
            case "X", [number, kind, args, str() as text]:
                return foreign.error(kind, args, text, self._handle(number))
            case "p", [int() as number]:
                return self._functions[number]
        raise wire.Malformed(f"unknown tag {tag!r}"[:200])

    def _resolve_argument(self, tag: str, parts: list[Any]) -> object:
        """Return the same for values that the program gives to a function of the test.

        Not the test's own functions: their attributes could show the expected values.
        """
        if tag == "p":
            self.stop("not_judgeable", "the program gives a function of the test's to another one")
        return self._resolve(tag, parts)

    def _handle(self, number: object, can: str = wire.IDENTITY) -> Handle | None:
        """Return the one handle on an object, if it has a number."""
        if number is None:
            return None
        if type(number) is not int or not self._keeps_objects:
            raise wire.Malformed("a number where no objects are kept")
        if number not in self._handles:
            does = frozenset(can.split())
            kind = handle_class(does.intersection(wire.SPECIAL))
            self._handles[number] = kind(self, number, wire.IDENTITY in does)
        return self._handles[number]

    def _error_class(self, number: object, name: str, above: list[type]) -> type[Exception]:
        handle = self._handle(number, f"call {wire.IDENTITY}")
        if handle is None:
            return foreign.error_class(name, above, None)
        if number not in self._error_classes:
            self._error_classes[number] = foreign.error_class(name, above, handle)
        return self._error_classes[number]


def _is_callback(value: object) -> TypeGuard[Callable[..., object]]:
    """Return whether a callable of the test may be called with any arguments of a program."""
    if isinstance(value, types.BuiltinFunctionType):
        return value.__module__ == "math" or type(value.__self__) in (list, dict, set, deque)
    return isinstance(value, types.FunctionType | operator.itemgetter)


def begin(sock: socket.socket, message: object) -> None:
    """Send a program to its process and wait until the process is ready."""
    try:
        sock.settimeout(START_S)
        wire.send_frame(sock, message)
        reply = wire.read_frame(sock, 1024, time.monotonic() + START_S)
    except (OSError, EOFError, wire.Malformed) as error:
        raise Fault("grader", f"no process for the program: {error!r}") from None
    if reply != ["begin"]:
        raise Fault("grader", f"no process for the program: it said {reply!r}")


def _update(args: Sequence[object], after: object) -> None:
    """Update the arguments of a call in place with the program's changes."""
    if not isinstance(after, list):
        return
    for mine, theirs in zip(args, after, strict=False):
        if type(mine) is not type(theirs):
            continue
        if isinstance(mine, list | bytearray):
            mine[:] = cast(Any, theirs)
        elif isinstance(mine, deque):
            mine.clear()
            mine.extend(cast(Any, theirs))
        elif isinstance(mine, dict | set):
            mine.clear()
            mine.update(cast(Any, theirs))

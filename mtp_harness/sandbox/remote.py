"""The grader's end of a program: the stand-in that a check calls, and handles on what stays there.

Under the rule `values` every argument and every result is a copy. Under the rule `objects` what
cannot be copied stays in the program's process and the check gets a `Handle`. A handle passes
attributes, calls, items, iteration, arithmetic, `with` and `str` on. It is equal to nothing but
itself and is neither true nor false, and `in` goes through its items: no object is ever asked to
compare itself with what the test expects. Lists, dicts and sets among the arguments are brought up
to date after each call. Functions among the arguments run here, whenever the program calls them.
"""

import contextlib
import functools
import operator
import socket
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, NoReturn, TypeGuard, cast

from mtp_harness.sandbox import foreign, wire
from mtp_harness.sandbox.types import FAIL_KINDS, Limits, Outcome, Program, one_line

START_S = 10.0
_MESSAGE_BYTES = 8192  # what a reply that carries an error message may have
_ARGUMENT_BYTES = 2**26
RECURSION = 1000
"""Python's own limit: tests may raise it, and the reader of JSON takes it for leave to crash."""


class Fault(RuntimeError):
    """The trusted test or the grader itself failed; says nothing about the program."""

    def __init__(self, kind: Literal["test", "grader"], detail: str) -> None:
        """Keep whose fault it is."""
        super().__init__(detail)
        self.kind = kind


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
        keeps_objects: What cannot be copied stays there, and is handed out as a `Handle`.

    Attributes:
        started: When the process was ready for the program.
        deadline: When the program's time is over.
        settled: The failure that ended the program, whatever the check makes of it.
        raised: The exceptions of the program's own that were handed to the check.
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
        self._error_classes: dict[int, type[Exception]] = {}
        self._record_classes: foreign.Classes = {}
        self._functions: list[Callable[..., object]] = []
        self._thrown: list[Exception] = []
        self._names: list[str] = []
        self.started = time.monotonic()
        self.deadline = self.started + START_S
        self.settled: Finding | None = None
        self.raised: list[Exception] = []
        self.gone = False
        self.exported: dict[str, object] = {}

    def begin(self, program: Program) -> None:
        """Hand the program over to its process; the time limit starts when that is ready for it.

        Raises:
            Fault: There is no such process.
        """
        self._names = [name for name in (program.entry_point, *program.exports) if name]
        begin(self._sock, [program.rule, program.code, self._names])
        self.started = time.monotonic()
        self.deadline = self.started + self._limits.wall_s

    def load(self) -> None:
        """Wait until the program's top level has run.

        Raises:
            Stop: The program failed.
        """
        exported = self._expect(self._reply(), "ready")
        if self._keeps_objects:
            if not isinstance(exported, list) or len(exported) != len(self._names):
                self.stop("output", "unreadable answer")
            self.exported = dict(zip(self._names, exported, strict=True))

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
        self._send([operation, number, self._pack(list(args)), self._pack(kwargs)])
        return self._expect(self._reply(), "item" if operation == "next" else "value", args)

    def stop(self, kind: str, detail: str) -> NoReturn:
        """Settle on a failure, unless there is one already, and leave the check."""
        outcome: Outcome = "fail" if kind in FAIL_KINDS else "error"
        self.settled = self.settled or Finding(outcome, kind, one_line(detail))
        raise Stop

    def out_of_time(self) -> NoReturn:
        """Settle on a time-out and leave the check."""
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
        """Return the next reply; what the program calls before it is called."""
        while True:
            try:
                with _limited_recursion():
                    reply = wire.read_frame(self._sock, self._max_reply, self.deadline)
            except TimeoutError:
                self.out_of_time()
            except (wire.Closed, OSError):
                self.gone = True
                self.stop("exception", "the process ended before it answered")
            except wire.Malformed as error:
                self.stop("output", f"unreadable answer: {error}")
            match reply:
                case ["callback", int() as number, args, kwargs]:
                    self._call_back(
                        number,
                        self._unpack(args, self._resolve_argument),
                        self._unpack(kwargs, self._resolve_argument),
                    )
                    continue
            if isinstance(reply, list):
                return reply
            self.stop("output", "unreadable answer")

    def _expect(self, reply: list[object], wanted: str, args: Sequence[object] = ()) -> object:
        """Return what was answered, and bring the arguments up to date."""
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
        if isinstance(error, wire.LOOP_ENDS):
            self.stop("exception", f"{type(error).__name__}: {error}")
        if isinstance(error, MemoryError):
            self.stop("memory", f"MemoryError: {error}")
        if fatal:
            self.stop("exception", f"{type(error).__name__}: {error}")
        self.raised.append(error)
        raise error

    def _call_back(self, number: int, args: object, kwargs: object) -> None:
        """Call a function of the test's for the program, and send what it returns or raises.

        An assertion in it is the test's: the program cannot swallow it.
        """
        known = 0 <= number < len(self._functions)
        if not known or not isinstance(args, list) or not isinstance(kwargs, dict):
            self.stop("output", "unreadable answer")
        function = self._functions[number]
        try:
            value = function(*args, **kwargs)
        except AssertionError as error:
            self.stop("wrong_answer", str(error))
        except Exception as error:
            self._thrown.append(error)
            at = len(self._thrown) - 1
            self._send(["threw", self._kind(error), self._args(error), at])
        else:
            self._send(["returned", self._pack(value)])

    def _kind(self, error: Exception) -> object:
        """Return the tree of an exception's class, or of the builtin one that it derives from."""
        number = _number(type(error))
        if number is not None:
            return ["o", number]
        kind = next(one for one in type(error).__mro__ if one in wire.ERRORS.values())
        return ["y", kind.__name__]

    def _args(self, error: Exception) -> object:
        try:
            return wire.Packer(_MESSAGE_BYTES, self._tree).pack(error.args)
        except (wire.Unsupported, wire.TooLarge):
            return ["t", str(error)[:500]]

    def _pack(self, value: object) -> object:
        try:
            return wire.Packer(_ARGUMENT_BYTES, self._tree).pack(value)
        except (wire.Unsupported, wire.TooLarge) as error:
            self.stop("not_judgeable", f"the test passes what cannot be sent: {error}")

    def _tree(self, value: object, tree: wire.Tree) -> object:
        """Return the tree of an argument that is no plain value."""
        number = _number(value)
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
            return wire.unpack(tree, 0, resolve or self._resolve)
        except wire.Malformed as error:
            self.stop("output", f"unreadable answer: {error}")

    def _resolve(self, tag: str, parts: list[Any]) -> object:
        """Return what a tag stands for that only this side knows."""
        match tag, parts:
            case "n", items:
                return iter(items)
            case "o", [int() as number, str() as can] if self._keeps_objects:
                return self._handle(number, can)
            case "N", [number, str() as name, list() as fields, tuple() as items]:
                handle = self._handle_or_none(number)
                return foreign.record(name, fields, items, handle, self._record_classes)
            case "M", [
                number,
                str() as owner,
                str() | None as name,
                value,
                bool() as counts,
                *shown,
            ]:
                text, picture = shown
                both = (str(text), str(picture))
                handle = self._handle_or_none(number)
                return foreign.member(owner, name, value, counts, both, handle)
            case "x", [number, str() as name, *above]:
                return self._error_class(number, name, above)
            case "X", [number, kind, args, str() as text]:
                return foreign.error(kind, args, text, self._handle_or_none(number))
            case "p", [int() as number]:
                return self._functions[number]
        raise wire.Malformed(f"unknown tag {tag!r}"[:200])

    def _resolve_argument(self, tag: str, parts: list[Any]) -> object:
        """Return the same for what the program gives to a function of the test's.

        Not the test's own functions: by its attributes one would show what the test expects.
        """
        if tag == "p":
            self.stop("not_judgeable", "the program gives a function of the test's to another one")
        return self._resolve(tag, parts)

    def _handle(self, number: int, can: str) -> "Handle":
        found = self._handles.get(number)
        if found is None:
            kind = _handle_class(frozenset(can.split()).intersection(wire.SPECIAL))
            found = self._handles[number] = kind(self, number, wire.IDENTITY in can.split())
        return found

    def _handle_or_none(self, number: object, can: str = wire.IDENTITY) -> "Handle | None":
        if number is None:
            return None
        if type(number) is not int or not self._keeps_objects:
            raise wire.Malformed("a number where no objects are kept")
        return self._handle(number, can)

    def _error_class(self, number: object, name: str, above: list[type]) -> type[Exception]:
        handle = self._handle_or_none(number, f"call {wire.IDENTITY}")
        if handle is None:
            return foreign.error_class(name, above, None)
        found = self._error_classes.get(cast(int, number))
        if found is None:
            found = foreign.error_class(name, above, handle)
            self._error_classes[cast(int, number)] = found
        return found


class Handle:
    """A check's hold on an object that stays in the program's process.

    Two handles are the same, and equal, when the object is. All attributes are the object's; what
    only some objects can, its subclasses have (`_handle_class`).
    """

    __slots__ = ("_by_identity", "_number", "_remote")

    def __init__(self, remote: RemoteFunction, number: int, by_identity: bool) -> None:
        """Keep where the object is, and whether its class leaves equality to Python."""
        object.__setattr__(self, "_remote", remote)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_by_identity", by_identity)

    def __getattribute__(self, name: str) -> Any:
        """Return the object's attribute."""
        if name == "__mro_entries__":  # asked of what a class of the test's derives from
            _refuse(self, "to derive from")
        return Handle if name == "__class__" else _do(self, "getattr", name)

    def __setattr__(self, name: str, value: object) -> None:
        """Set the object's attribute."""
        _do(self, "setattr", name, value)

    def __delattr__(self, name: str) -> None:
        """Delete the object's attribute."""
        _do(self, "delattr", name)

    def __str__(self) -> str:
        """Return what the object says it is."""
        return str(_plain(self, "str", str))

    def __repr__(self) -> str:
        """Return how the object shows itself."""
        return str(_plain(self, "repr", str))

    def __format__(self, spec: str) -> str:
        """Return what the object says it is, in some format."""
        return str(_plain(self, "format", str, spec))

    def __int__(self) -> int:
        """Return the object as an integer."""
        return int(_plain(self, "int", int))

    def __float__(self) -> float:
        """Return the object as a float."""
        return float(_plain(self, "float", float))

    def __instancecheck__(self, instance: object) -> bool:
        """Return whether a value is an instance of the class that this is."""
        return _do(self, "isinstance", instance) is True

    def __subclasscheck__(self, other: object) -> bool:
        """Return whether a class is below the class that this is."""
        return _do(self, "issubclass", other) is True

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same object; an equality of its class's own is not asked."""
        if self is other:
            return True
        if not object.__getattribute__(self, "_by_identity"):
            _refuse(self, "a comparison by")
        return False

    def __hash__(self) -> int:
        """Return a hash that is the object's own."""
        return hash(object.__getattribute__(self, "_number"))

    def __bool__(self) -> bool:
        """Leave the check: what an object thinks of itself decides nothing."""
        _refuse(self, "a plain value and got")

    def __contains__(self, item: object) -> bool:
        """Go through the object's items; an object without any decides nothing."""
        if not hasattr(type(self), "__iter__"):
            _refuse(self, "membership decided by")
        return any(item is one or item == one for one in cast(Any, self))

    def __lt__(self, other: object) -> bool:
        """Leave the check."""
        _refuse(self, "a comparison by")

    __le__ = __gt__ = __ge__ = __lt__


def _do(handle: Handle, operation: str, *args: object, **kwargs: object) -> Any:
    remote: RemoteFunction = object.__getattribute__(handle, "_remote")
    return remote.operate(operation, object.__getattribute__(handle, "_number"), args, kwargs)


def _refuse(handle: Handle, what: str) -> NoReturn:
    remote: RemoteFunction = object.__getattribute__(handle, "_remote")
    remote.stop("not_judgeable", f"the test needs {what} an object of the program's")


def _plain(handle: Handle, operation: str, kind: type, *args: object) -> Any:
    value = _do(handle, operation, *args)
    if type(value) is not kind:
        _refuse(handle, f"a plain {kind.__name__} from")
    return value


def _passed_on(operation: str) -> Callable[..., object]:
    def method(self: Handle, *args: object, **kwargs: object) -> object:
        return _do(self, operation, *args, **kwargs)

    method.__doc__ = f"Have `{operation}` done by the object."
    return method


def _arithmetic(operation: str) -> Callable[..., object]:
    def method(self: Handle, other: object) -> object:
        # With a value of the test's, the result could be whatever the test expects.
        if _number(other) is None:
            _refuse(self, f"`{operation}` with a plain value by")
        return _do(self, operation, other)

    method.__doc__ = f"Have `{operation}` done by the object, with another one of the program's."
    return method


for _name in "add sub mul truediv floordiv mod pow lshift rshift and or xor matmul".split():
    _operation = f"{_name}_" if _name in ("and", "or") else _name
    setattr(Handle, f"__{_name}__", _arithmetic(_operation))
    setattr(Handle, f"__r{_name}__", _arithmetic(_operation))  # never with another object
    setattr(Handle, f"__i{_name}__", _arithmetic(f"i{_name}"))
for _name in "abs delitem invert neg pos reversed round setitem".split():
    setattr(Handle, f"__{_name}__", _passed_on(_name))


def _leave(self: Handle, *error: object) -> None:
    """Leave the object's context; it cannot swallow what the test raised in there."""
    _do(self, "exit")


def _length(self: Handle) -> int:
    """Ask the object."""
    return int(_plain(self, "len", int))


_SPECIAL: dict[str, dict[str, Callable[..., object]]] = {
    "call": {"__call__": _passed_on("call")},
    "enter": {"__enter__": _passed_on("enter"), "__exit__": _leave},
    "getitem": {"__getitem__": _passed_on("getitem")},
    "iter": {"__iter__": _passed_on("iter")},
    "len": {"__len__": _length},
    "next": {"__next__": _passed_on("next")},
}


@functools.lru_cache(maxsize=256)
def _handle_class(can: frozenset[str]) -> type[Handle]:
    """Return the class of handles on objects that can do these of `wire.SPECIAL`."""
    methods: dict[str, object] = {"__slots__": ()}
    for name in can & _SPECIAL.keys():
        methods |= _SPECIAL[name]
    return type("Handle", (Handle,), methods)


@contextlib.contextmanager
def _limited_recursion() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(min(limit, RECURSION))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def _is_callback(value: object) -> TypeGuard[Callable[..., object]]:
    """Return whether a callable of the test's may be called with whatever a program gives it."""
    if isinstance(value, types.BuiltinFunctionType):
        return value.__module__ == "math" or type(value.__self__) in (list, dict, set, deque)
    return isinstance(value, types.FunctionType | operator.itemgetter)


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


def _number(value: object) -> int | None:
    """Return the number of what stands for an object of the program's, or None."""
    if type(value) is RemoteFunction:
        return 0
    if isinstance(value, foreign.Foreign) or type(value) is foreign.ErrorClass:
        value = cast(Any, value)._handle
    is_handle = issubclass(type(value), Handle)
    return cast(int, object.__getattribute__(value, "_number")) if is_handle else None


def _update(args: Sequence[object], after: object) -> None:
    """Make the arguments of a call what the program made of them, in place."""
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

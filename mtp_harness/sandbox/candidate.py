"""Runs in a program's own process: loads the program, then answers calls until killed.

The program shares this process and can write to its reply channel. That only gives it another way
to return a value: the right value is known to the grader alone.
"""

import builtins
import enum
import operator
import os
import socket
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import mtp_harness.sandbox.script as script
import mtp_harness.sandbox.wire as wire
from mtp_harness.sandbox.values import ERRORS

MODULE = "candidate"  # not `__main__`: code under that guard should not run
_MESSAGE_CHARS = 500

Reply = list[object]

_OF_OPERATOR = (
    *("abs", "call", "delitem", "getitem", "invert", "neg", "pos", "setitem"),
    *wire.BINARY,
    *(f"i{name.rstrip('_')}" for name in wire.BINARY),
)
_BUILTIN = "delattr float format getattr int iter len next repr reversed round setattr str"
OPERATIONS: dict[str, Callable[..., object]] = {
    **{name: getattr(operator, name) for name in _OF_OPERATOR},
    **{name: getattr(builtins, name) for name in _BUILTIN.split()},
    "enter": lambda thing: type(thing).__enter__(thing),
    "exit": lambda thing: type(thing).__exit__(thing, None, None, None),
    "isinstance": lambda kind, thing: isinstance(thing, kind),
    "issubclass": lambda kind, other: issubclass(other, kind),
}
"""What a check may do with an object of the program: nothing that compares or decides."""


class NotJudgeable(BaseException):
    """Something that cannot be sent. Not an `Exception`, so that programs do not catch it."""


def _plain_args(error: BaseException) -> tuple[object, ...] | None:
    """Return the arguments of an exception, or None if they are not plain."""
    try:
        wire.pack(error.args, _MESSAGE_CHARS)
    except Exception:
        return None
    return error.args


def _text(error: BaseException) -> str:
    try:
        return str.__str__(str(error))[:_MESSAGE_CHARS]
    except BaseException:
        return ""


class _Function:
    """A function of the test, which runs in the grader."""

    def __init__(self, session: "Session", number: int, name: str) -> None:
        self._session, self.number = session, number
        self.__name__ = self.__qualname__ = name  # decorators ask for it

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._session.call_back(self.number, args, kwargs)


@dataclass
class Session:
    """The conversation with the grader about one program.

    Args:
        keep: The grader holds objects by number; if not, it holds the entry point only, as 0.
        held: These objects, exports first.
    """

    sock: socket.socket
    max_reply: int
    keep: bool
    held: list[object] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)
    _functions: dict[int, _Function] = field(default_factory=dict)
    _thrown: list[BaseException] = field(default_factory=list)

    def load(self, code: str, names: list[str]) -> Reply:
        """Run a program's top level, and return what it defines of `names`, or why not."""
        try:
            compiled = compile(code, "<candidate>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            return ["syntax", f"{type(error).__name__}: {error}"[:_MESSAGE_CHARS]]
        module = types.ModuleType(MODULE)
        sys.modules[MODULE] = module  # dataclasses and pickling look their module up
        try:
            exec(compiled, module.__dict__)
        except BaseException as error:
            return self._failure(error)
        if missing := [name for name in names if name not in module.__dict__]:
            return ["no_entry_point", f"the program does not define {missing[0]!r}"]
        exports = [module.__dict__[name] for name in names]
        if not self.keep and not callable(exports[0]):
            return ["no_entry_point", f"the program's {names[0]!r} is not a function"]
        self.held += exports
        self._numbers |= {id(one): number for number, one in enumerate(exports)}
        try:
            return ["ready", self._pack(exports) if self.keep else None]
        except BaseException as error:
            return self._failure(error, "defines")

    def send(self, reply: Reply) -> None:
        """Send a reply, or one that says that it is too large."""
        try:
            wire.send_frame(self.sock, reply, self.max_reply)
        except wire.TooLarge as error:
            wire.send_frame(self.sock, ["output", f"returned a value that is too large: {error}"])

    def call_back(self, number: int, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Make the grader call a function of the test; meanwhile it may send requests."""
        try:
            request = ["callback", number, self._pack(list(args)), self._pack(kwargs)]
        except (wire.Unsupported, wire.TooLarge) as error:
            raise NotJudgeable(str(error)) from None
        self.send(request)
        while True:
            message = cast(list[Any], wire.read_frame(self.sock))
            if message[0] == "returned":
                return self._unpack(message[1])
            if message[0] == "threw":
                self._throw(*(self._unpack(part) for part in message[1:]))
            self.send(self.do(message))

    def _throw(self, kind: Any, args: Any, at: Any) -> NoReturn:
        """Raise here what a function of the test raised there; `at` is its number there."""
        error: BaseException = kind(*args)
        self._thrown += [error] if at == len(self._thrown) else []
        raise error

    def do(self, request: list[Any]) -> Reply:
        """Do what the grader asks for, and return the result."""
        operation, number, *given = request
        args, kwargs = (cast(Any, self._unpack(one)) for one in given)
        try:
            value = OPERATIONS[operation](self.held[number], *args, **kwargs)
        except StopIteration as error:
            return ["end"] if operation == "next" else self._failure(error)
        except BaseException as error:
            return self._failure(error)
        try:
            return ["value", self._pack(value), self._pack(args) if self.keep else None]
        except BaseException as error:
            return self._failure(error)

    def _failure(self, error: BaseException, what: str = "returned") -> Reply:
        if isinstance(error, wire.Unsupported | NotJudgeable):
            return ["not_judgeable", f"{what} a value that holds {error}, which cannot be copied"]
        if isinstance(error, wire.TooLarge):
            return ["output", f"{what} a value that is too large: {error}"]
        # The frames may hold the objects that filled the memory.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        for number, thrown in enumerate(self._thrown):
            if thrown is error:
                return ["raised", ["T", number]]
        return ["raised", self._pack(error)]

    def _number(self, value: object) -> int | None:
        """Return the number of an object, or None if objects are not kept."""
        if not self.keep:
            return None
        # Held here, the object stays alive, so that no other one gets its id.
        number = self._numbers.setdefault(id(value), len(self.held))
        if number == len(self.held):
            self.held.append(value)
        return number

    def _tree(self, value: object, tree: wire.Tree) -> object:
        """Return the tree of a value that is not plain: its parts, and its number."""
        if isinstance(value, _Function):
            return ["p", value.number]
        if isinstance(value, BaseException):
            args = tree(_plain_args(value))
            return ["X", self._number(value), self._class_tree(type(value)), args, _text(value)]
        if isinstance(value, type) and issubclass(value, BaseException):
            return self._class_tree(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            items = tuple(tree(item) for item in tuple.__iter__(value))
            names = ["l", *type(value)._fields]
            return ["N", self._number(value), type(value).__name__, names, ["t", *items]]
        if isinstance(value, enum.Enum) and (isinstance(value, int | str) or not self.keep):
            name = None if value.name is None else str(value.name)
            if isinstance(value, int):  # a member may count as what it is
                worth: object = int.__int__(value)
            else:
                worth = str.__str__(value) if isinstance(value, str) else value.value
            shown = [isinstance(value, int | str), str(value)[:_MESSAGE_CHARS], repr(value)]
            return ["M", self._number(value), type(value).__name__, name, tree(worth), *shown]
        if not self.keep and isinstance(value, Iterator):
            return ["n", *(tree(item) for item in value)]
        number = self._number(value)
        if number is None:
            raise wire.Unsupported(type(value).__name__)
        kind = type(value)
        defined = set().union(*map(vars, kind.__mro__))  # `hasattr` would ask the metaclass, too
        can = [name for name in wire.SPECIAL if f"__{name}__" in defined]
        can += [wire.IDENTITY] if kind.__eq__ is object.__eq__ else []
        return ["o", number, " ".join(can)]

    def _class_tree(self, kind: type[BaseException]) -> object:
        """Return the tree of a class of exceptions: its number, name, and what it derives from."""
        if ERRORS.get(kind.__name__) is kind:
            return ["y", kind.__name__]
        bases = (one for one in kind.__bases__ if issubclass(one, Exception))
        above = [self._class_tree(one) for one in bases if one is not Exception]
        return ["x", self._number(kind), kind.__name__, *above]

    def _pack(self, value: object) -> object:
        return wire.pack(value, self.max_reply, self._tree)

    def _unpack(self, tree: object) -> object:
        return wire.unpack(tree, self._resolve)

    def _resolve(self, tag: str, parts: list[Any]) -> object:
        match tag, parts:
            case "o", [int() as number]:
                return self.held[number]
            case "p", [int() as number, str() as name]:
                return self._functions.setdefault(number, _Function(self, number, name))
            case "n", items:
                return iter(items)
        raise wire.Malformed(f"unknown tag {tag!r}")


def serve(sock: socket.socket, max_reply: int) -> None:
    """Answer on `sock` until the grader is gone or memory has run out.

    Messages: `["begin"]` to the grader, `[rule, code, names or input]` back. Under `stdio` the
    program then has the channel for its standard output. Otherwise one reply for loading follows,
    and one for every request `[operation, number, args, kwargs]`. Replies are `["ready",
    exports]`, `["value", tree, arguments after the call]`, `["end"]` of an iterator, `["raised",
    exception]` or `[kind, message]` with a kind of failure. Before a reply there may be any number
    of `["callback", number, args, kwargs]`, which the grader answers by `["returned", tree]` or
    `["threw", class, arguments, number]`, after any number of requests.
    """
    wire.send_frame(sock, ["begin"])
    rule, code, names = cast(list[Any], wire.read_frame(sock))
    if rule == "stdio":
        script.run(sock, code, names)
    session = Session(sock, max_reply, keep=rule == "objects")
    loaded = session.load(code, names)
    session.send(loaded)
    while loaded[0] == "ready":
        session.send(session.do(cast(list[Any], wire.read_frame(sock))))


def run(sock: socket.socket, max_reply: int) -> None:
    """Serve, then end the process; never returns."""
    leave = os._exit  # stored here, since the program may replace it
    # A program that forks and ends would race its child for the verdict: only the parent answers.
    os.register_at_fork(after_in_child=sock.close)
    try:
        serve(sock, max_reply)
    except MemoryError:
        leave(script.EXIT_MEMORY)
    except BaseException:
        leave(1)
    finally:
        leave(0)

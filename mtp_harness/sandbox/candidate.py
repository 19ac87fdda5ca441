"""What runs in a program's own process: load the program, then answer calls until killed.

The program shares this process and can write to its reply channel itself. All that buys is another
way to return a value: which value is right is known to the grader alone.
"""

import builtins
import operator
import os
import socket
import sys
import types
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, cast

from mtp_harness.sandbox import script, wire

MODULE = "candidate"  # not `__main__`: what a program guards with that name is not to run
_MESSAGE_CHARS = 500
_MAPPINGS = (dict, defaultdict, OrderedDict, Counter)

Reply = list[object]

OPERATIONS: dict[str, Callable[..., object]] = {
    "call": operator.call,
    "getattr": getattr,
    "getitem": operator.getitem,
    "iter": iter,
    "len": len,
    "next": next,
    "setattr": setattr,
    "setitem": operator.setitem,
    "str": str,
}
"""What a check may do with an object of the program's."""


class Objects:
    """The objects that the grader holds by number; 0 is the entry point.

    Args:
        exports: What the program's test uses, in order.
        keep: Give further objects a number when they are to be sent.
    """

    def __init__(self, exports: list[object], keep: bool) -> None:
        """Number the exports."""
        self._held = exports
        self._numbers = {id(one): number for number, one in enumerate(exports)}
        self.keep = keep
        self.resolve = exports.__getitem__ if keep else None

    def __getitem__(self, number: int) -> object:
        """Return the object of that number."""
        return self._held[number]

    def packer(self, max_reply: int) -> wire.Packer:
        """Return what packs a reply: objects by number where they are kept, iterators where not."""
        number = self._numbered if self.keep else None
        return wire.Packer(max_reply, _MAPPINGS, number, iterators=not self.keep)

    def _numbered(self, value: object) -> int:
        # Held here, the object lives on, so that no other one gets its id.
        number = self._numbers.setdefault(id(value), len(self._held))
        if number == len(self._held):
            self._held.append(value)
        return number


def serve(sock: socket.socket, max_reply: int) -> None:
    """Answer on `sock` for ever; returns when the grader is gone or memory has run out.

    Messages: `["begin"]` to the grader, `[rule, code, names or input]` back. Under `stdio` the
    program then has the channel for its standard output. Otherwise one reply for loading follows,
    and one for every request `[operation, number, args, kwargs]`. Replies are `["ready",
    exports]`, `["value", tree, arguments after the call]`, `["end"]` of an iterator, `["raised",
    type name, message, is builtin]` or `[kind, message]` with a kind of failure.
    """
    wire.send_frame(sock, ["begin"])
    rule, code, names = cast(list[Any], wire.read_frame(sock))
    if rule == "stdio":
        script.run(sock, code, names)
    objects, reply = _load(code, names, rule == "objects", max_reply)
    wire.send_frame(sock, reply, max_reply)
    while objects is not None:
        request = cast(list[Any], wire.read_frame(sock))
        _answer(sock, _do(objects, request, max_reply), max_reply)


def _answer(sock: socket.socket, reply: Reply, max_reply: int) -> None:
    try:
        wire.send_frame(sock, reply, max_reply)
    except wire.TooLarge as error:
        wire.send_frame(sock, ["output", f"returned a value that is too large: {error}"])


def _load(code: str, names: list[str], keep: bool, max_reply: int) -> tuple[Objects | None, Reply]:
    try:
        compiled = compile(code, "<candidate>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        return None, ["syntax", f"{type(error).__name__}: {error}"[:_MESSAGE_CHARS]]
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module  # dataclasses and pickling look their module up
    try:
        exec(compiled, module.__dict__)
    except BaseException as error:
        return None, _raised(error)
    here = [name for name in names if name]
    if missing := [name for name in here if name not in module.__dict__]:
        return None, ["no_entry_point", f"the program does not define {missing[0]!r}"]
    exports = [module.__dict__[name] for name in here]
    if not keep and not callable(exports[0]):
        return None, ["no_entry_point", f"the program's {names[0]!r} is no function"]
    objects = Objects(exports, keep)
    try:
        return objects, ["ready", objects.packer(max_reply).pack(list(exports)) if keep else None]
    except wire.TooLarge as error:
        return None, ["output", f"defines a value that is too large: {error}"]


def _do(objects: Objects, request: list[Any], max_reply: int) -> Reply:
    operation, number, args, kwargs = request
    args = cast(list[Any], wire.unpack(args, 0, objects.resolve))
    kwargs = cast(dict[str, Any], wire.unpack(kwargs, 0, objects.resolve))
    try:
        value = OPERATIONS[operation](objects[number], *args, **kwargs)
    except StopIteration as error:
        return ["end"] if operation == "next" else _raised(error)
    except BaseException as error:
        return _raised(error)
    packer = objects.packer(max_reply)
    try:
        return ["value", packer.pack(value), packer.pack(args) if objects.keep else None]
    except wire.Unsupported as error:
        return ["output", f"returned a value that holds a {error}, which is not a plain value"]
    except wire.TooLarge as error:
        return ["output", f"returned a value that is too large: {error}"]
    except BaseException as error:
        return _raised(error)


def _raised(error: BaseException) -> Reply:
    # The frames may hold what filled the memory.
    error.__traceback__ = error.__context__ = error.__cause__ = None
    kind = type(error)
    name = kind.__name__
    try:
        message = str.__str__(str(error))[:_MESSAGE_CHARS]
    except BaseException:
        message = ""
    return ["raised", name, message, kind is getattr(builtins, name, None)]


def run(sock: socket.socket, max_reply: int) -> None:
    """Serve, then end the process; never returns."""
    leave = os._exit  # held here, since the program may put something else in its place
    # A program that forks and ends would race its child for the verdict: only its own process
    # answers.
    os.register_at_fork(after_in_child=sock.close)
    try:
        serve(sock, max_reply)
    except MemoryError:
        leave(script.EXIT_MEMORY)
    except BaseException:
        leave(1)
    finally:
        leave(0)

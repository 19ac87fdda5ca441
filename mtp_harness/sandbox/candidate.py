"""What runs in a program's own process: load the program, then answer calls until killed.

The program shares this process and can write to its reply channel itself. All that buys is another
way to return a value: which value is right is known to the grader alone.
"""

import builtins
import os
import socket
import sys
import types
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import cast

from mtp_harness.sandbox import wire

MODULE = "candidate"  # not `__main__`: what a program guards with that name is not to run
EXIT_MEMORY = 71
_MESSAGE_CHARS = 500
_MAPPINGS = (dict, defaultdict, OrderedDict, Counter)

Reply = list[object]


def serve(sock: socket.socket, max_reply: int) -> None:
    """Answer on `sock` for ever; returns when the grader is gone or memory has run out.

    Messages: `["begin"]` to the grader, `[code, entry_point]` back, then one reply for loading and
    one for every call `[args, kwargs]`. Replies are `["ready"]`, `["value", tree]`,
    `["raised", type name, message, is builtin]` or `[kind, message]` with a kind of failure.
    """
    wire.send_frame(sock, ["begin"])
    code, entry_point = cast(list[str], wire.read_frame(sock))
    function, reply = _load(code, entry_point)
    wire.send_frame(sock, reply, max_reply)
    while function is not None:
        request = cast(list[object], wire.read_frame(sock))
        _answer(sock, _call(function, request, max_reply), max_reply)


def _answer(sock: socket.socket, reply: Reply, max_reply: int) -> None:
    try:
        wire.send_frame(sock, reply, max_reply)
    except wire.TooLarge as error:
        wire.send_frame(sock, ["output", f"returned a value that is too large: {error}"])


def _load(code: str, entry_point: str) -> tuple[Callable[..., object] | None, Reply]:
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
    function = module.__dict__.get(entry_point)
    if not callable(function):
        return None, ["no_entry_point", f"the program defines no function {entry_point!r}"]
    return function, ["ready"]


def _call(function: Callable[..., object], request: list[object], max_reply: int) -> Reply:
    args = cast(list[object], wire.unpack(request[0]))
    kwargs = cast(dict[str, object], wire.unpack(request[1]))
    try:
        value = function(*args, **kwargs)
    except BaseException as error:
        return _raised(error)
    try:
        return ["value", wire.Packer(max_reply, _MAPPINGS).pack(value)]
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
        leave(EXIT_MEMORY)
    except BaseException:
        leave(1)
    finally:
        leave(0)

"""How values are sent between the grader and a program: tagged JSON in frames with a length.

Scalars are JSON's own. Everything else is a list whose first item is a tag:

    [1, (2, 3)]  →  ["l", 1, ["t", 2, 3]]        {1: {2}}  →  ["d", 1, ["s", 2]]

Types are matched exactly, so an object with its own `__eq__`, such as a `str` subclass, cannot be
sent: values that arrive consist of builtin and standard library types (`values`). Reading is safe
whatever the bytes are; it ends in a value or in `Malformed`. The two sides may add other types:
`pack` and `unpack` take a function for them.
"""

import json
import socket
import struct
import time
from collections.abc import Callable

from mtp_harness.sandbox.values import KINDS, PUT_TOGETHER, name_of

BEGUN = "begun"
"""A worker's message to the harness when a program's time begins, before its verdict."""
MAX_DEPTH = 64
_WORD = 2**63
_HEADER = struct.Struct(">I")

SPECIAL = ("call", "enter", "getitem", "iter", "len", "next")
"""Operations that only some objects have: methods with two underscores on either side."""
IDENTITY = "identity"
"""Marks an object whose class leaves equality to Python."""
BINARY = "add sub mul truediv floordiv mod pow lshift rshift and_ or_ xor matmul".split()
"""The functions of `operator` for the arithmetic of handles."""

Tree = Callable[[object], object]
"""Packs a part of a value."""


class Unsupported(TypeError):
    """A value of a type that cannot be sent."""


class TooLarge(ValueError):
    """A value that is too big or nested too deep to be sent."""


class Malformed(ValueError):
    """Malformed bytes."""


class Closed(EOFError):
    """The other side is gone."""


def pack(
    value: object, max_size: int, other: Callable[[object, Tree], object] | None = None
) -> object:
    """Return a tree of `value` for JSON, or raise `Unsupported` or `TooLarge`.

    Args:
        value: The value to send.
        max_size: Limit for a lower bound of the tree's length as JSON. A value that occurs many
            times counts as often.
        other: Returns the tree of a value of any other type, or raises `Unsupported`; it gets the
            value, and a function that packs parts of it.
    """
    return _Packer(max_size, other).tree(value, 0)


class _Packer:
    def __init__(self, max_size: int, other: Callable[[object, Tree], object] | None) -> None:
        self._max_size = self._left = max_size
        self._other = other

    def tree(self, value: object, depth: int) -> object:
        kind = type(value)
        # Every item takes two characters at least, with its comma.
        self._left -= 2 + (len(value) if type(value) is str or type(value) is bytes else 0)
        if self._left < 0 or depth > MAX_DEPTH:
            raise TooLarge(f"over {self._max_size} bytes or {MAX_DEPTH} levels")
        if value is None or kind is bool or kind is str or kind is float:
            return value
        if type(value) is int:
            return value if -_WORD <= value < _WORD else ["i", hex(value)]
        if kind in KINDS:
            tag, take_apart, _ = KINDS[kind]
            try:
                parts = take_apart(value)
            except TypeError as error:
                raise Unsupported(str(error)) from None
            return [tag, *[self.tree(part, depth + 1) for part in parts]]
        if type(value) is bytes:
            return ["b", value.hex()]
        if type(value) is complex:
            return ["c", value.real, value.imag]
        name = name_of(value)
        if name is not None:
            return ["y", name]
        if self._other is None:
            raise Unsupported(kind.__name__)
        return self._other(value, lambda part: self.tree(part, depth + 1))


Resolve = Callable[[str, list[object]], object]


def unpack(tree: object, resolve: Resolve | None = None, depth: int = 0) -> object:
    """Return the value of a tree, or raise `Malformed`.

    Args:
        tree: What `pack` made.
        resolve: Returns the value of a tag that is unknown here, from the tag and its parts.
        depth: Its depth in another tree.
    """
    if not isinstance(tree, list):
        if isinstance(tree, dict):
            raise Malformed("an object where a value belongs")
        return tree
    if depth > MAX_DEPTH or not tree or not isinstance(tree[0], str):
        raise Malformed("nested too deep, or a list without its tag")
    tag = tree[0]
    parts = [unpack(item, resolve, depth + 1) for item in tree[1:]]
    try:
        if tag in PUT_TOGETHER:
            return PUT_TOGETHER[tag](parts)
        if resolve is not None:
            return resolve(tag, parts)
    except Malformed:
        raise
    except Exception as error:  # types raise anything about wrong parts
        raise Malformed(f"bad {tag!r}: {error}"[:200]) from None
    raise Malformed(f"unknown tag {tag!r}"[:200])


def send_frame(sock: socket.socket, message: object, max_bytes: int | None = None) -> None:
    """Send one JSON message, or raise `TooLarge` before anything is sent."""
    payload = json.dumps(message, separators=(",", ":"), check_circular=False).encode()
    if max_bytes is not None and len(payload) > max_bytes:
        raise TooLarge(f"{len(payload)} bytes")
    sock.sendall(_HEADER.pack(len(payload)) + payload)


def read_frame(
    sock: socket.socket, max_bytes: int | None = None, deadline: float | None = None
) -> object:
    """Read one JSON message; raises `Closed`, `Malformed` or `TimeoutError`.

    Args:
        sock: A connected stream socket.
        max_bytes: Longest message to accept.
        deadline: `time.monotonic()` at which to give up.
    """
    (length,) = _HEADER.unpack(_read(sock, _HEADER.size, deadline))
    if max_bytes is not None and length > max_bytes:
        raise Malformed(f"a message of {length} bytes, limit {max_bytes}")
    try:
        return json.loads(_read(sock, length, deadline))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}"[:200]) from None


def _read(sock: socket.socket, n_bytes: int, deadline: float | None) -> bytes:
    buffer = bytearray()
    while len(buffer) < n_bytes:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
        try:
            part = sock.recv(min(n_bytes - len(buffer), 2**16))
        except ConnectionError as error:
            raise Closed(str(error)) from None
        if not part:
            raise Closed(f"after {len(buffer)} of {n_bytes} bytes")
        buffer += part
    return bytes(buffer)

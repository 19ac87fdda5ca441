"""How values cross between the grader and a program: tagged JSON in frames with a length.

Scalars are JSON's own. Everything else is a list whose first item is a tag:

    [1, (2, 3)]  →  ["l", 1, ["t", 2, 3]]        {1: {2}}  →  ["d", 1, ["s", 2]]

Types are matched exactly, so an object with its own `__eq__`, a `str` subclass for one, has no way
across: what arrives is made of values of builtin types and of the standard library's
(`library_values`). Reading is safe whatever the bytes are; it ends in a value or in `Malformed`.

The types themselves cross by name, `["y", "int"]`, and so do the builtin exceptions and some
functions. What else may cross is up to the two sides: `Packer` and `unpack` take a function for it.
"""

import builtins
import json
import operator
import socket
import struct
import time
import types
from collections.abc import Callable, Iterable

from mtp_harness.sandbox import library_values

BEGUN = "begun"
"""What a worker says to the harness when a program's time begins, before its verdict."""
MAX_DEPTH = 64
_WORD = 2**63
_HEADER = struct.Struct(">I")
_TAGS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "f"}
_PUT_TOGETHER: dict[str, Callable[[library_values.Parts], object]] = {
    "l": lambda items: items,
    "t": tuple,
    "s": set,
    "f": frozenset,
    "d": library_values.paired,
    **library_values.PUT_TOGETHER,
}
# Raised in `map(candidate, …)`, these would end the loop instead of the check.
LOOP_ENDS = (StopIteration, StopAsyncIteration)
ERRORS: dict[str, type[Exception]] = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(kind, LOOP_ENDS)
    and name == kind.__name__  # not its old names, such as IOError
}
"""The builtin exceptions that a program's exception may be, by name."""
_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (*_TAGS, bool, int, float, complex, str, bytes, dict, object, type(None))
}
_TYPES |= {**library_values.TYPES, **ERRORS}

_BUILTINS = "abs all any bin chr divmod hash len max min oct ord pow repr round sorted sum"
_OF_STR = (
    "capitalize casefold isalpha isdigit islower isupper lower lstrip rstrip split strip upper"
)
_OF_OPERATOR = "add mod mul sub truediv"
FUNCTIONS: dict[object, str] = {
    **{getattr(builtins, name): name for name in _BUILTINS.split()},
    **{getattr(str, name): f"str.{name}" for name in _OF_STR.split()},
    **{getattr(operator, name): f"operator.{name}" for name in _OF_OPERATOR.split()},
}
"""Functions that cross by name: those by which nobody gets hold of anything that is not given."""
_NAMED = {**_TYPES, **{name: function for function, name in FUNCTIONS.items()}}
_KINDS_OF_FUNCTION = (types.BuiltinFunctionType, types.MethodDescriptorType)

SPECIAL = ("call", "contains", "enter", "getitem", "iter", "len", "next")
"""What a handle can do only if its object can: methods with two underscores on either side."""
IDENTITY = "identity"
"""Said of an object whose class leaves equality to Python."""

Tree = Callable[[object], object]
"""Packs a part of a value."""


class Unsupported(TypeError):
    """A value of a type that does not cross."""


class TooLarge(ValueError):
    """A value that is too big or nested too deep to cross."""


class Malformed(ValueError):
    """Bytes that no honest sender writes."""


class Closed(EOFError):
    """The other side is gone."""


class Packer:
    """Turns values into trees that JSON can hold.

    Args:
        max_size: A lower bound of a tree's length as JSON must not exceed this. A value that is
            held many times over counts as often as it would be sent, so packing ends early.
        other: Returns the tree of a value of any other type, or raises `Unsupported`; it gets
            the value, and what packs parts of it.
    """

    def __init__(
        self, max_size: int, other: Callable[[object, Tree], object] | None = None
    ) -> None:
        """Keep the limits."""
        self._max_size = max_size
        self._left = max_size
        self._other = other

    def pack(self, value: object) -> object:
        """Return the tree of `value`, or raise `Unsupported` or `TooLarge`."""
        self._left = self._max_size
        return self._tree(value, 0)

    def _tree(self, value: object, depth: int) -> object:
        kind = type(value)
        # Every item takes two characters at least, with its comma.
        self._left -= 2 + (len(value) if type(value) is str or type(value) is bytes else 0)
        if self._left < 0 or depth > MAX_DEPTH:
            raise TooLarge(f"over {self._max_size} bytes or {MAX_DEPTH} levels")
        if value is None or kind is bool or kind is str or kind is float:
            return value
        if type(value) is int:
            return value if -_WORD <= value < _WORD else ["i", hex(value)]
        if kind in _TAGS:
            items: Iterable[object] = value  # type: ignore[assignment]
            return [_TAGS[kind], *(self._tree(item, depth + 1) for item in items)]
        if type(value) is dict:
            flat = (part for item in value.items() for part in item)
            return ["d", *(self._tree(part, depth + 1) for part in flat)]
        if type(value) is complex:
            return ["c", value.real, value.imag]
        if type(value) is bytes:
            return ["b", value.hex()]
        if kind in library_values.KINDS:
            return self._of_library(library_values.KINDS[kind], value, depth)
        if isinstance(value, type) and _TYPES.get(value.__name__) is value:
            return ["y", value.__name__]
        if kind in _KINDS_OF_FUNCTION and value in FUNCTIONS:
            return ["y", FUNCTIONS[value]]
        if self._other is None:
            raise Unsupported(kind.__name__)
        return self._other(value, lambda part: self._tree(part, depth + 1))

    def _of_library(self, kind: library_values.Kind, value: object, depth: int) -> object:
        try:
            parts = kind.take_apart(value)
        except TypeError as error:
            raise Unsupported(str(error)) from None
        return [kind.tag, *(self._tree(part, depth + 1) for part in parts)]


Resolve = Callable[[str, list[object]], object]


def unpack(tree: object, depth: int = 0, resolve: Resolve | None = None) -> object:
    """Return the value of a tree, or raise `Malformed`.

    Args:
        tree: What `Packer.pack` made.
        depth: How deep in another tree it is.
        resolve: Returns the value of a tag that is unknown here, from the tag and its parts.
            Without it, such tags are malformed.
    """
    if not isinstance(tree, list):
        if isinstance(tree, dict):
            raise Malformed("an object where a value belongs")
        return tree
    if depth > MAX_DEPTH or not tree or not isinstance(tree[0], str):
        raise Malformed("nested too deep, or a list without its tag")
    tag, items = tree[0], tree[1:]
    if tag in _SCALARS:
        return _unpack_scalar(tag, items)
    parts = [unpack(item, depth + 1, resolve) for item in items]
    put_together = _PUT_TOGETHER.get(tag)
    if put_together is None and resolve is None:
        raise Malformed(f"unknown tag {tag!r}"[:200])
    try:
        return put_together(parts) if put_together is not None else resolve(tag, parts)  # type: ignore[misc]
    except Malformed:
        raise
    except Exception as error:  # whatever a type has to say against its parts
        raise Malformed(f"bad {tag!r}: {error}"[:200]) from None


_SCALARS = frozenset("ibcy")


def _unpack_scalar(tag: str, items: list[object]) -> object:
    try:
        match tag, items:
            case "i", [str() as digits]:
                return int(digits, 16)
            case "b", [str() as digits]:
                return bytes.fromhex(digits)
            case "c", [float() as real, float() as imag]:
                return complex(real, imag)
            case "y", [str() as name] if name in _NAMED:
                return _NAMED[name]
    except ValueError as error:
        raise Malformed(f"bad {tag!r}: {error}"[:200]) from None
    raise Malformed(f"bad {tag!r}")


def send_frame(sock: socket.socket, message: object, max_bytes: int | None = None) -> None:
    """Send one JSON message, or raise `TooLarge` before anything is sent."""
    payload = json.dumps(message, separators=(",", ":"), check_circular=False).encode()
    if max_bytes is not None and len(payload) > max_bytes:
        raise TooLarge(f"{len(payload)} bytes")
    sock.sendall(_HEADER.pack(len(payload)) + payload)


def read_frame(
    sock: socket.socket, max_bytes: int | None = None, deadline: float | None = None
) -> object:
    """Read one JSON message.

    Args:
        sock: A connected stream socket.
        max_bytes: Longest message to accept.
        deadline: `time.monotonic()` at which to give up with `TimeoutError`.

    Raises:
        Closed: The other side closed before or inside the message.
        Malformed: The message is too long or is not JSON.
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

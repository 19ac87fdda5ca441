"""How values cross between the grader and a program: tagged JSON in frames with a length.

Scalars are JSON's own. Everything else is a list whose first item is a tag:

    [1, (2, 3)]  →  ["l", 1, ["t", 2, 3]]        {1: {2}}  →  ["d", 1, ["s", 2]]

Types are matched exactly, so an object with its own `__eq__`, a `str` subclass for one, has no way
across: what arrives is made of builtin values only. Reading is safe whatever the bytes are; it
ends in a value or in `Malformed`.

An iterator crosses as the items that it gives, `["n", 1, 2]`, and arrives as an iterator: equal to
nothing else, as it was. The builtin types themselves cross by name, `["y", "int"]`. Where both
sides agree on it, an object that must stay where it is crosses as a number, `["o", 7]`, which only
its owner can resolve.
"""

import json
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator

MAX_DEPTH = 64
_WORD = 2**63
_HEADER = struct.Struct(">I")
_BUILDERS: dict[str, Callable[[Iterable[object]], object]] = {
    "l": list,
    "t": tuple,
    "s": set,
    "f": frozenset,
    "n": lambda items: iter(list(items)),
}
_TAGS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "f"}
_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (*_TAGS, bool, int, float, complex, str, bytes, dict, type(None))
}


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
        mappings: Types sent as `dict`. A program's `Counter` compares like a dict, so on its side
            the standard library's own mappings are let through.
    """

    def __init__(
        self,
        max_size: int,
        mappings: tuple[type, ...] = (dict,),
        number: Callable[[object], int] | None = None,
        iterators: bool = False,
    ) -> None:
        """Keep the limits."""
        self._max_size = max_size
        self._left = max_size
        self._mappings = mappings
        self._number = number
        self._iterators = iterators

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
        if kind in self._mappings and isinstance(value, dict):
            flat = (part for item in dict(value).items() for part in item)
            return ["d", *(self._tree(part, depth + 1) for part in flat)]
        if type(value) is complex:
            return ["c", value.real, value.imag]
        if type(value) is bytes:
            return ["b", value.hex()]
        if isinstance(value, type) and type(value) is type and _TYPES.get(value.__name__) is value:
            return ["y", value.__name__]
        if self._iterators and isinstance(value, Iterator):
            return ["n", *(self._tree(item, depth + 1) for item in value)]
        if self._number is not None:
            return ["o", self._number(value)]
        raise Unsupported(kind.__name__)


def unpack(tree: object, depth: int = 0, resolve: Callable[[int], object] | None = None) -> object:
    """Return the value of a tree, or raise `Malformed`.

    Args:
        tree: What `Packer.pack` made.
        depth: How deep in another tree it is.
        resolve: Returns what a number stands for; without it, numbers are malformed.
    """
    if not isinstance(tree, list):
        if isinstance(tree, dict):
            raise Malformed("an object where a value belongs")
        return tree
    if depth > MAX_DEPTH or not tree or not isinstance(tree[0], str):
        raise Malformed("nested too deep, or a list without its tag")
    tag, items = tree[0], tree[1:]
    try:
        if tag in _BUILDERS:
            return _BUILDERS[tag](unpack(item, depth + 1, resolve) for item in items)
        if tag == "d":
            values = iter([unpack(item, depth + 1, resolve) for item in items])
            return dict(zip(values, values, strict=True))
        if tag == "o" and resolve is not None and len(items) == 1 and type(items[0]) is int:
            return resolve(items[0])
        return _unpack_scalar(tag, *items)
    except (TypeError, ValueError) as error:
        raise Malformed(f"bad {tag!r}: {error}"[:200]) from None


def _unpack_scalar(tag: str, *items: object) -> object:
    match tag, items:
        case "i", (str() as digits,):
            return int(digits, 16)
        case "b", (str() as digits,):
            return bytes.fromhex(digits)
        case "c", (float() as real, float() as imag):
            return complex(real, imag)
        case "y", (str() as name,) if name in _TYPES:
            return _TYPES[name]
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

"""A check's handle on an object that stays in the program's process.

A handle passes attributes, calls, items, iteration, arithmetic, `with` and `str` on. It is equal
only to itself and is neither true nor false, and `in` goes through its items: no object is ever
asked to compare itself with an expected value.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

import mtp_harness.sandbox.wire as wire
from mtp_harness.sandbox.foreign import ErrorClass, Foreign


class Remote:
    """What handles use: the program in its process. It stands for the entry point itself."""

    operate: Callable[[str, int, Sequence[object], dict[str, object]], object]
    stop: Callable[[str, str], NoReturn]


class Handle:
    """A check's handle on one object.

    Two handles are the same, and equal, if the object is the same. All attributes are the object's;
    operations that only some objects have are in subclasses (`handle_class`).
    """

    __slots__ = ("_by_identity", "_number", "_remote")

    def __init__(self, remote: Remote, number: int, by_identity: bool) -> None:
        """Store the object's number, and whether its class leaves equality to Python."""
        object.__setattr__(self, "_remote", remote)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_by_identity", by_identity)

    def __getattribute__(self, name: str) -> Any:
        """Return the object's attribute."""
        if name == "__mro_entries__":  # asked of what a class of the test's derives from
            _refuse(self, "to derive from")
        return Handle if name == "__class__" else _do(self, "getattr", name)

    def __instancecheck__(self, instance: object) -> bool:
        """Return whether a value is an instance of the class that this is."""
        return _do(self, "isinstance", instance) is True

    def __subclasscheck__(self, other: object) -> bool:
        """Return whether a class is below the class that this is."""
        return _do(self, "issubclass", other) is True

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same object; the class's own equality is not used."""
        if self is other:
            return True
        if not object.__getattribute__(self, "_by_identity"):
            _refuse(self, "a comparison by")
        return False

    def __hash__(self) -> int:
        """Return a hash that is the object's own."""
        return hash(object.__getattribute__(self, "_number"))

    def __bool__(self) -> bool:
        """Stop the check: an object's own truth value decides nothing."""
        _refuse(self, "a plain value and got")

    def __contains__(self, item: object) -> bool:
        """Go through the object's items; an object without any decides nothing."""
        if not hasattr(type(self), "__iter__"):
            _refuse(self, "membership decided by")
        return any(item is one or item == one for one in cast(Any, self))

    def __lt__(self, other: object) -> bool:
        """Stop the check."""
        _refuse(self, "a comparison by")

    __le__ = __gt__ = __ge__ = __lt__


def number_of(value: object) -> int | None:
    """Return the number of a stand-in for an object of the program, or None."""
    if issubclass(type(value), Remote):
        return 0
    if isinstance(value, Foreign) or type(value) is ErrorClass:
        value = cast(Any, value)._handle
    is_handle = issubclass(type(value), Handle)
    return cast(int, object.__getattribute__(value, "_number")) if is_handle else None


def _do(handle: Handle, operation: str, *args: object, **kwargs: object) -> Any:
    remote: Remote = object.__getattribute__(handle, "_remote")
    return remote.operate(operation, object.__getattribute__(handle, "_number"), args, kwargs)


def _refuse(handle: Handle, what: str) -> NoReturn:
    remote: Remote = object.__getattribute__(handle, "_remote")
    remote.stop("not_judgeable", f"the test needs {what} an object of the program's")


# Operations that handles pass on. All handles have `_METHODS`, some have those of `_SPECIAL`.

Method = Callable[..., object]


def _passed_on(operation: str) -> Method:
    def method(self: Handle, *args: object, **kwargs: object) -> object:
        return _do(self, operation, *args, **kwargs)

    return method


def _plain(operation: str, kind: type) -> Method:
    """Return the method whose answer must have exactly that type."""

    def method(self: Handle, *args: object) -> object:
        value = _do(self, operation, *args)
        if type(value) is not kind:
            _refuse(self, f"a plain {kind.__name__} from")
        return value

    return method


def _arithmetic(operation: str) -> Method:
    def method(self: Handle, other: object) -> object:
        # With a value of the test, the result could be whatever the test expects.
        if number_of(other) is None:
            _refuse(self, f"`{operation}` with a plain value by")
        return _do(self, operation, other)

    return method


def _leave(self: Handle, *error: object) -> None:
    """Leave the object's context; it cannot swallow an exception of the test."""
    _do(self, "exit")


_ON = "abs delattr delitem invert neg pos reversed round setattr setitem".split()
_PLAIN = {"float": float, "format": str, "int": int, "repr": str, "str": str}
_METHODS: dict[str, Method] = {
    **{f"__{name}__": _passed_on(name) for name in _ON},
    **{f"__{name}__": _plain(name, kind) for name, kind in _PLAIN.items()},
}
for _operation in wire.BINARY:
    _name = _operation.rstrip("_")
    _METHODS[f"__{_name}__"] = _METHODS[f"__r{_name}__"] = _arithmetic(_operation)
    _METHODS[f"__i{_name}__"] = _arithmetic(f"i{_name}")
for _name, _method in _METHODS.items():
    setattr(Handle, _name, _method)

_SPECIAL: dict[str, dict[str, Method]] = {
    name: {f"__{name}__": _plain(name, int) if name == "len" else _passed_on(name)}
    for name in wire.SPECIAL
}
_SPECIAL["enter"]["__exit__"] = _leave


@functools.lru_cache(maxsize=256)
def handle_class(can: frozenset[str]) -> type[Handle]:
    """Return the class of handles on objects that have these operations of `wire.SPECIAL`."""
    methods: dict[str, object] = {"__slots__": ()}
    for name in can & _SPECIAL.keys():
        methods |= _SPECIAL[name]
    return type("Handle", (Handle,), methods)

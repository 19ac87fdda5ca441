"""The grader's counterparts of a program's classes: named tuples, enumerations, exceptions.

Such a value has a new class made here, with the builtin type's equality, order and hash. Its other
attributes are asked of the program, by the handle that it carries under the rule `objects`.
"""

import collections
from typing import Any, cast

from mtp_harness.sandbox.values import ERRORS
from mtp_harness.sandbox.wire import Malformed, Unsupported

_NAMES, _NAME_CHARS, _BASES = 256, 200, 16


class Foreign:
    """A value of one of the program's classes."""

    _handle: Any = None

    def __getattr__(self, name: str) -> object:
        """Ask the program for an attribute that is unknown here."""
        if self._handle is None:
            raise AttributeError(name)
        return getattr(self._handle, name)


Classes = dict[tuple[str, ...], type]
"""The classes made for one program, by name and fields."""


def record(
    name: str, fields: list[str], items: tuple[object, ...], handle: object, made: Classes
) -> object:
    """Return a named tuple; raises `ValueError` or `TypeError` if it cannot be one."""
    key = (name, *fields)
    if key not in made:
        _refuse_long(*key)
        made[key] = type(name, (Foreign, collections.namedtuple(name, fields)), {})
    value = cast(Any, made[key])._make(items)
    value._handle = handle
    return cast(object, value)


def _refuse_long(*names: str) -> None:
    """Refuse extreme names: classes would take the grader's memory and time."""
    if len(names) > _NAMES or max(map(len, names)) > _NAME_CHARS:
        raise Malformed(f"over {_NAMES} names, or one of over {_NAME_CHARS} letters")


class Member(Foreign):
    """A member of an enumeration: equal to the same member only, shown as the program shows it."""

    name: str | None
    value: object
    _owner: str
    _shown: tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        same = type(other) is Member and (other._owner, other.name) == (self._owner, self.name)
        return bool(same)

    def __hash__(self) -> int:
        return hash((self._owner, self.name))

    def __str__(self) -> str:
        return self._shown[0]

    def __repr__(self) -> str:
        return self._shown[1]

    def __format__(self, spec: str) -> str:
        return format(self._shown[0], spec)


class IntMember(Member, int):
    """A member of an enumeration of integers: an integer with a name."""

    __eq__, __hash__ = int.__eq__, int.__hash__


class StrMember(Member, str):
    """A member of an enumeration of strings: a string with a name."""

    __eq__, __hash__ = str.__eq__, str.__hash__


_COUNTING: dict[type, Any] = {int: IntMember, str: StrMember}


def member(
    owner: str, name: object, value: object, counts: bool, shown: tuple[str, ...], handle: object
) -> object:
    """Return a member of an enumeration, which may also be a number or a text."""
    if not isinstance(name, str | None) or len(shown) != 2:
        raise Malformed("a member without name, text and picture")
    if counts and type(value) not in _COUNTING:
        raise Malformed("a member that counts as neither number nor text")
    made = _COUNTING[type(value)](value) if counts else Member()
    vars(made).update(name=name, value=value, _owner=owner, _shown=shown, _handle=handle)
    return made


def plain(value: Any) -> object:
    """Return a value without its handle, as the plain value to send back."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, tuple):
        return tuple(value)
    if isinstance(value, StrMember):
        return str.__str__(value)
    raise Unsupported(type(value).__name__)


class ErrorClass(type):
    """The class of classes that stand for a program's exceptions, so that `except` works."""

    _handle: Any = None
    __getattr__ = Foreign.__getattr__  # of the class itself

    def __call__(cls, *args: object, **kwargs: object) -> Any:
        """Make the program create one, if it can be asked."""
        if cls._handle is None:
            return super().__call__(*args, **kwargs)
        return cls._handle(*args, **kwargs)


class ForeignError(Foreign, metaclass=ErrorClass):
    """Common base of a program's exceptions, besides a builtin exception."""

    _text: str | None = None

    def __str__(self) -> str:
        """Return the program's answer for an attribute."""
        return super().__str__() if self._text is None else self._text


def error_class(name: str, above: list[type], handle: object) -> type[Exception]:
    """Return a class for exceptions of that name, derived from the classes `above`."""
    _refuse_long(name, *(one.__name__ for one in above))
    if len(above) > _BASES:
        raise Malformed(f"{name} derives from over {_BASES} classes")
    if not all(one in ERRORS.values() or type(one) is ErrorClass for one in above):
        raise Malformed(f"{name} derives from what is not an exception")
    if not any(type(one) is ErrorClass for one in above):
        above = [ForeignError, *(above or [Exception])]
    return cast(type[Exception], ErrorClass(name, tuple(above), {"_handle": handle}))


def error(kind: Any, args: object, text: str, handle: object) -> Exception:
    """Return an exception as in the program."""
    known = args if isinstance(args, tuple) else (text,)
    if type(kind) is not ErrorClass:
        if kind not in ERRORS.values():
            raise Malformed("what is not an exception was raised")
        try:
            return cast(Exception, kind(*known))
        except TypeError:  # the Unicode errors want five arguments, groups their exceptions
            return error(error_class(kind.__name__, [], None), None, text, None)
    new: Any = kind.__new__
    made = new(kind, *known)
    made._text, made._handle = text, handle
    return cast(Exception, made)

"""The types whose values cross: taken apart here, put together there.

A value of exactly such a type arrives as a new value of the same type, so that it compares as
Python compares it. What its parts are is checked by the type itself: bytes that no honest sender
writes end in an exception of `put_together`, never in an object with a say of its own.

The types themselves cross by name, and so do the builtin exceptions and some functions.
"""

import builtins
import datetime
import operator
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

Parts = list[Any]


class Kind(NamedTuple):
    """How the values of one type cross: under which tag, as which parts, and back."""

    tag: str
    take_apart: Callable[[Any], Iterable[object]]
    put_together: Callable[[Parts], object]


def _flat(mapping: Mapping[object, object]) -> Iterator[object]:
    return (part for item in mapping.items() for part in item)


def _paired(parts: Parts) -> dict[object, object]:
    """Return the dict whose keys and values stand in turn in `parts`."""
    values = iter(parts)
    return dict(zip(values, values, strict=True))


def _exactly(parts: Parts, *kinds: type) -> Parts:
    """Return parts that are of these types, one by one: what a constructor is made for."""
    if [type(part) for part in parts] != list(kinds):
        raise TypeError(f"parts of other types than {[kind.__name__ for kind in kinds]}")
    return parts


def _defaultdict(parts: Parts) -> "defaultdict[object, object]":
    made: defaultdict[object, object] = defaultdict(parts[0])
    made.update(_paired(parts[1:]))
    return made


def _factory(value: "defaultdict[object, object]") -> object:
    """Return a builtin type or nothing: what else it may be does not cross, but its dict does."""
    known = value.default_factory in (int, float, str, list, set, dict)
    return value.default_factory if known else None


def _zone(value: datetime.datetime | datetime.time) -> datetime.timedelta | None:
    """Return the fixed offset of a time, or None; other zones do not cross."""
    if value.tzinfo is None or type(value.tzinfo) is datetime.timezone:
        return value.utcoffset()
    raise TypeError(f"{type(value).__name__} in the zone {value.tzinfo}")


def _in_zone(offset: datetime.timedelta | None) -> datetime.timezone | None:
    return None if offset is None else datetime.timezone(offset)


def _fields(*names: str, zoned: bool = False) -> Callable[[Any], tuple[object, ...]]:
    """Return what takes those attributes of a value, and its zone."""

    def take_apart(value: Any) -> tuple[object, ...]:
        zone = (_zone(value),) if zoned else ()
        return (*(getattr(value, name) for name in names), *zone)

    return take_apart


_SPAN = _fields("start", "stop", "step")
_DATE = ("year", "month", "day")
_TIME = ("hour", "minute", "second", "microsecond")

KINDS: dict[type, Kind] = {
    list: Kind("l", iter, list),
    tuple: Kind("t", iter, tuple),
    set: Kind("s", iter, set),
    frozenset: Kind("f", iter, frozenset),
    dict: Kind("d", _flat, _paired),
    range: Kind("range", _SPAN, lambda p: range(*_exactly(p, int, int, int))),
    slice: Kind("slice", _SPAN, lambda p: slice(*p)),
    bytearray: Kind("bytearray", lambda v: (bytes(v),), lambda p: bytearray(*_exactly(p, bytes))),
    deque: Kind("deque", lambda v: (v.maxlen, *v), lambda p: deque(p[1:], p[0])),
    Counter: Kind("Counter", _flat, lambda p: Counter(_paired(p))),
    OrderedDict: Kind("OrderedDict", _flat, lambda p: OrderedDict(_paired(p))),
    defaultdict: Kind("defaultdict", lambda v: (_factory(v), *_flat(v)), _defaultdict),
    types.MappingProxyType: Kind("proxy", _flat, lambda p: types.MappingProxyType(_paired(p))),
    type({}.keys()): Kind("keys", iter, lambda p: dict.fromkeys(p).keys()),
    type({}.items()): Kind(
        "items", lambda v: (part for item in v for part in item), lambda p: _paired(p).items()
    ),
    type({}.values()): Kind("values", iter, lambda p: dict(enumerate(p)).values()),
    Fraction: Kind(
        "Fraction", _fields("numerator", "denominator"), lambda p: Fraction(*_exactly(p, int, int))
    ),
    Decimal: Kind("Decimal", lambda v: (str(v),), lambda p: Decimal(*_exactly(p, str))),
    datetime.date: Kind(
        "date", _fields(*_DATE), lambda p: datetime.date(*_exactly(p, int, int, int))
    ),
    datetime.time: Kind(
        "time",
        _fields(*_TIME, zoned=True),
        lambda p: datetime.time(*_exactly(p[:4], *4 * [int])).replace(tzinfo=_in_zone(*p[4:])),
    ),
    datetime.datetime: Kind(
        "datetime",
        _fields(*_DATE, *_TIME, zoned=True),
        lambda p: datetime.datetime(*_exactly(p[:7], *7 * [int])).replace(tzinfo=_in_zone(*p[7:])),
    ),
    datetime.timedelta: Kind(
        "timedelta",
        _fields("days", "seconds", "microseconds"),
        lambda p: datetime.timedelta(*_exactly(p, int, int, int)),
    ),
    datetime.timezone: Kind(
        "timezone", lambda v: (v.utcoffset(None),), lambda p: datetime.timezone(*p)
    ),
}
PUT_TOGETHER: dict[str, Callable[[Parts], object]] = {
    "i": lambda p: int(_exactly(p, str)[0], 16),
    "b": lambda p: bytes.fromhex(*_exactly(p, str)),
    "c": lambda p: complex(*_exactly(p, float, float)),
    "y": lambda p: _named(*_exactly(p, str)),
    **{kind.tag: kind.put_together for kind in KINDS.values()},
}
"""What makes a value of the parts behind a tag; anything it raises says that they are no value."""

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

_VIEWS = ("mappingproxy", "dict_keys", "dict_items", "dict_values")
_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (*KINDS, bool, int, float, complex, str, bytes, object, type(None))
    if kind.__name__ not in _VIEWS
} | ERRORS

_BUILTINS = "abs all any bin chr divmod hash len max min oct ord pow repr round sorted sum"
_OF_STR = (
    "capitalize casefold isalpha isdigit islower isupper lower lstrip rstrip split strip upper"
)
_OF_OPERATOR = "add mod mul sub truediv"
_FUNCTIONS: dict[object, str] = {
    **{getattr(builtins, name): name for name in _BUILTINS.split()},
    **{getattr(str, name): f"str.{name}" for name in _OF_STR.split()},
    **{getattr(operator, name): f"operator.{name}" for name in _OF_OPERATOR.split()},
}
"""Functions that cross by name: those by which nobody gets hold of anything that is not given."""
_KINDS_OF_FUNCTION = (types.BuiltinFunctionType, types.MethodDescriptorType)
_NAMED = {**_TYPES, **{name: function for function, name in _FUNCTIONS.items()}}


def _named(name: str) -> object:
    return _NAMED[name]


def name_of(value: object) -> str | None:
    """Return the name by which a type or a function crosses, or None."""
    if isinstance(value, type):
        return value.__name__ if _TYPES.get(value.__name__) is value else None
    return _FUNCTIONS.get(value) if type(value) in _KINDS_OF_FUNCTION else None

"""Types of the standard library that cross by value: taken apart here, put together there.

A value of exactly such a type arrives as a new value of the same type, so that it compares as
Python compares it. What its parts are is checked by the type itself: bytes that no honest sender
writes end in an exception of `put_together`, never in an object with a say of its own.
"""

import datetime
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


def paired(parts: Parts) -> dict[object, object]:
    """Return the dict whose keys and values stand in turn in `parts`."""
    values = iter(parts)
    return dict(zip(values, values, strict=True))


def _factory(parts: Parts) -> "defaultdict[object, object]":
    made: defaultdict[object, object] = defaultdict(parts[0])
    made.update(paired(parts[1:]))
    return made


def _ints(parts: Parts, kind: type = int) -> Parts:
    """Return parts that are all integers, or of another type that a constructor is made for."""
    if not all(type(part) is kind for part in parts):
        raise TypeError(f"a part is no {kind.__name__}")
    return parts


def _zone(value: datetime.datetime | datetime.time) -> datetime.timedelta | None:
    """Return the fixed offset of a time, or None; other zones do not cross."""
    if value.tzinfo is None or type(value.tzinfo) is datetime.timezone:
        return value.utcoffset()
    raise TypeError(f"{type(value).__name__} in the zone {value.tzinfo}")


def _in_zone(offset: datetime.timedelta | None) -> datetime.timezone | None:
    return None if offset is None else datetime.timezone(offset)


_OF_DATE = ("year", "month", "day")
_OF_TIME = ("hour", "minute", "second", "microsecond")


def _fields(value: object, names: Iterable[str]) -> list[object]:
    return [getattr(value, name) for name in names]


KINDS: dict[type, Kind] = {
    range: Kind("range", lambda v: (v.start, v.stop, v.step), lambda p: range(*_ints(p))),
    slice: Kind("slice", lambda v: (v.start, v.stop, v.step), lambda p: slice(*p)),
    bytearray: Kind("bytearray", lambda v: (bytes(v),), lambda p: bytearray(*_ints(p, bytes))),
    deque: Kind("deque", lambda v: (v.maxlen, *v), lambda p: deque(p[1:], p[0])),
    Counter: Kind("Counter", _flat, lambda p: Counter(paired(p))),
    OrderedDict: Kind("OrderedDict", _flat, lambda p: OrderedDict(paired(p))),
    types.MappingProxyType: Kind("proxy", _flat, lambda p: types.MappingProxyType(paired(p))),
    type({}.keys()): Kind("keys", iter, lambda p: dict.fromkeys(p).keys()),
    type({}.items()): Kind(
        "items", lambda v: (part for item in v for part in item), lambda p: paired(p).items()
    ),
    type({}.values()): Kind("values", iter, lambda p: dict(enumerate(p)).values()),
    Fraction: Kind(
        "Fraction", lambda v: (v.numerator, v.denominator), lambda p: Fraction(*_ints(p))
    ),
    Decimal: Kind("Decimal", lambda v: (str(v),), lambda p: Decimal(*_ints(p, str))),
    datetime.date: Kind("date", lambda v: _fields(v, _OF_DATE), lambda p: datetime.date(*_ints(p))),
    datetime.time: Kind(
        "time",
        lambda v: (*_fields(v, _OF_TIME), _zone(v)),
        lambda p: datetime.time(*_ints(p[:4])).replace(tzinfo=_in_zone(*p[4:])),
    ),
    datetime.datetime: Kind(
        "datetime",
        lambda v: (*_fields(v, (*_OF_DATE, *_OF_TIME)), _zone(v)),
        lambda p: datetime.datetime(*_ints(p[:7])).replace(tzinfo=_in_zone(*p[7:])),
    ),
    datetime.timedelta: Kind(
        "timedelta",
        lambda v: (v.days, v.seconds, v.microseconds),
        lambda p: datetime.timedelta(*_ints(p)),
    ),
    datetime.timezone: Kind(
        "timezone", lambda v: (v.utcoffset(None),), lambda p: datetime.timezone(*p)
    ),
}
# A factory is a builtin type or nothing: what else it may be does not cross, but its dict does.
KINDS[defaultdict] = Kind(
    "defaultdict",
    lambda v: (
        v.default_factory if v.default_factory in (int, float, str, list, set, dict) else None,
        *_flat(v),
    ),
    _factory,
)
PUT_TOGETHER = {kind.tag: kind.put_together for kind in KINDS.values()}
TYPES: dict[str, type] = {
    one.__name__: one
    for one in (
        *(one for one in KINDS if one.__module__ != "builtins"),
        *(range, slice, bytearray),
    )
}
"""The same types by name: they cross themselves, too."""

"""The types whose values can be sent: taken apart on one side, put together on the other.

A value of exactly such a type arrives as a new value of the same type, so that it compares as in
Python. The type itself checks the parts: malformed bytes end in an exception of `put_together`,
never in an object that the program controls.

The types themselves are sent by name, as are the builtin exceptions and some functions.
"""

import builtins
import datetime
import itertools
import operator
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

Parts = list[Any]


class Kind(NamedTuple):
    """How the values of one type are sent: their tag, their parts, and back."""

    tag: str
    take_apart: Callable[[Any], Iterable[object]]
    put_together: Callable[[Parts], object]


def _flat(mapping: Mapping[object, object]) -> Iterable[object]:
    return itertools.chain.from_iterable(mapping.items())


def _paired(parts: Parts) -> dict[object, object]:
    """Return the dict whose keys and values alternate in `parts`."""
    values = iter(parts)
    return dict(zip(values, values, strict=True))


def _exactly(parts: Parts, *kinds: type) -> Parts:
    """Return parts after checking their types, one by one, for a constructor."""
    if [type(part) for part in parts] != list(kinds):
        raise TypeError(f"parts of other types than {[kind.__name__ for kind in kinds]}")
    return parts


def _defaultdict(parts: Parts) -> "defaultdict[object, object]":
    made: defaultdict[object, object] = defaultdict(parts[0])
    made.update(_paired(parts[1:]))
    return made


def _factory(value: "defaultdict[object, object]") -> object:
    """Return a builtin type or None: a default factory of another kind is not sent."""
    known = value.default_factory in (int, float, str, list, set, dict)
    return value.default_factory if known else None


def _of_integers(kind: type, fields: str) -> Kind:
    """Return how a value is sent that its type builds from the integers in these attributes."""
    names = fields.split()

    def put_together(parts: Parts) -> object:
        return kind(*_exactly(parts, *len(names) * [int]))

    return Kind(kind.__name__, operator.attrgetter(*names), put_together)


def _of_time(kind: type, fields: str) -> Kind:
    """Return the same for a time with a fixed offset or no zone; other zones are not sent."""
    whole = _of_integers(kind, fields)

    def take_apart(value: Any) -> Iterable[object]:
        if value.tzinfo is not None and type(value.tzinfo) is not datetime.timezone:
            raise TypeError(f"{kind.__name__} in the zone {value.tzinfo}")
        return (*whole.take_apart(value), value.utcoffset())

    def put_together(parts: Parts) -> object:
        made: Any = whole.put_together(parts[:-1])
        return made.replace(tzinfo=None if parts[-1] is None else datetime.timezone(parts[-1]))

    return Kind(kind.__name__, take_apart, put_together)


_DATE, _TIME = "year month day", "hour minute second microsecond"

KINDS: dict[type, Kind] = {
    list: Kind("l", iter, list),
    tuple: Kind("t", iter, tuple),
    set: Kind("s", iter, set),
    frozenset: Kind("f", iter, frozenset),
    dict: Kind("d", _flat, _paired),
    range: _of_integers(range, "start stop step"),
    slice: Kind("slice", operator.attrgetter("start", "stop", "step"), lambda p: slice(*p)),
    bytearray: Kind("bytearray", lambda v: (bytes(v),), lambda p: bytearray(*_exactly(p, bytes))),
    deque: Kind("deque", lambda v: (v.maxlen, *v), lambda p: deque(p[1:], p[0])),
    Counter: Kind("Counter", _flat, lambda p: Counter(_paired(p))),
    OrderedDict: Kind("OrderedDict", _flat, lambda p: OrderedDict(_paired(p))),
    defaultdict: Kind("defaultdict", lambda v: (_factory(v), *_flat(v)), _defaultdict),
    types.MappingProxyType: Kind("proxy", _flat, lambda p: types.MappingProxyType(_paired(p))),
    type({}.keys()): Kind("keys", iter, lambda p: dict.fromkeys(p).keys()),
    type({}.items()): Kind("items", itertools.chain.from_iterable, lambda p: _paired(p).items()),
    type({}.values()): Kind("values", iter, lambda p: dict(enumerate(p)).values()),
    Fraction: _of_integers(Fraction, "numerator denominator"),
    Decimal: Kind("Decimal", lambda v: (str(v),), lambda p: Decimal(*_exactly(p, str))),
    datetime.date: _of_integers(datetime.date, _DATE),
    datetime.time: _of_time(datetime.time, _TIME),
    datetime.datetime: _of_time(datetime.datetime, f"{_DATE} {_TIME}"),
    datetime.timedelta: _of_integers(datetime.timedelta, "days seconds microseconds"),
    datetime.timezone: Kind(
        "timezone", lambda v: (v.utcoffset(None),), lambda p: datetime.timezone(*p)
    ),
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
"""Functions that are sent by name: none of them gives access to anything beyond its arguments."""
_KINDS_OF_FUNCTION = (types.BuiltinFunctionType, types.MethodDescriptorType)
_NAMED: dict[str, object] = {**_TYPES, **{name: function for function, name in _FUNCTIONS.items()}}

PUT_TOGETHER: dict[str, Callable[[Parts], object]] = {
    "i": lambda p: int(_exactly(p, str)[0], 16),
    "b": lambda p: bytes.fromhex(*_exactly(p, str)),
    "c": lambda p: complex(*_exactly(p, float, float)),
    "y": lambda p: _NAMED[_exactly(p, str)[0]],
    **{kind.tag: kind.put_together for kind in KINDS.values()},
}
"""Builds a value from the parts behind a tag; any exception means that they are malformed."""


def name_of(value: object) -> str | None:
    """Return the name by which a type or a function is sent, or None."""
    if isinstance(value, type):
        return value.__name__ if _TYPES.get(value.__name__) is value else None
    return _FUNCTIONS.get(value) if type(value) in _KINDS_OF_FUNCTION else None

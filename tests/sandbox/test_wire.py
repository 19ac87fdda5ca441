import json
import operator
import random
import socket
import struct
from collections import Counter, OrderedDict, UserList, defaultdict, deque, namedtuple
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from time import monotonic
from types import MappingProxyType
from zoneinfo import ZoneInfo

import pytest

from mtp_harness.sandbox import wire

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**63,
    -(2**63) - 1,
    1.5,
    -0.0,
    1e308,
    float("inf"),
    float("-inf"),
    "",
    "häß\x00\ud800",
    b"",
    b"\x00\xff",
    complex(1, -2.5),
    [],
    [1, [2, (3,)]],
    (),
    ("l", 1),
    ["d", "t", "i"],
    set(),
    {1, "a", (2, 3), frozenset({4})},
    frozenset({None}),
    {},
    {1: "a", "1": 2, (1, 2): [3], None: {}},
    int,
    [str, type(None)],
    bytearray(b"a"),
    range(1, 9, 2),
    slice(None, 3),
    deque([1, 2], 3),
    Counter("aab"),
    OrderedDict(b=1, a=2),
    defaultdict(int, a=2),
    MappingProxyType({1: 2}),
    {1: 2}.keys(),
    {1: [2]}.items(),
    Fraction(-1, 3),
    Decimal("0.10"),
    Decimal("-Infinity"),
    date(2026, 1, 2),
    time(1, 2, 3, 4),
    datetime(2026, 1, 2, 3, 4, 5, 6),
    datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-3))),
    timedelta(-1, 5, 7),
    ValueError,
    [Fraction, range, KeyError],
    [len, sorted, str.upper, operator.add],
]


def crossed(value: object) -> object:
    text = json.dumps(wire.pack(value, 10**6))
    return wire.unpack(json.loads(text))


def written(value: object) -> str:
    """Return a value as text, types included; sets sorted, whose order depends on the hash seed."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__} of {sorted(map(written, value))}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {list(map(written, value))}"
    if isinstance(value, dict):
        return f"dict of {[(written(key), written(entry)) for key, entry in value.items()]}"
    return repr(value)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_value_and_type_survive(value):
    assert written(crossed(value)) == written(value)


def test_int_too_long_for_decimal_digits_survives():
    value = -(7**9999)
    assert crossed(value) == value
    assert type(crossed(value)) is int


def test_nan_and_order_of_a_dict_survive():
    assert repr(crossed(float("nan"))) == "nan"
    assert list(crossed({"b": 1, "a": 2})) == ["b", "a"]


class Colour(IntEnum):
    RED = 1


FOREIGN = [
    object(),
    type("S", (str,), {})("a"),
    type("I", (int,), {})(1),
    type("L", (list,), {})([1]),
    type("D", (dict,), {})(),
    type("C", (Counter,), {})("a"),
    Colour.RED,
    namedtuple("P", "x")(1),
    UserList([1]),
    datetime(2026, 1, 2, tzinfo=ZoneInfo("UTC")),
    iter([]),
    print,
    eval,
    getattr,
    str.format,
    [].append,
    type("T", (), {}),
    type("int", (int,), {}),
    type("E", (ValueError,), {}),
    StopIteration,
    ValueError("a"),
    memoryview(b"a"),
]


@pytest.mark.parametrize("value", FOREIGN, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("inside", [lambda v: v, lambda v: [v], lambda v: (1, {2: v})])
def test_other_types_do_not_cross(value, inside):
    with pytest.raises(wire.Unsupported):
        wire.pack(inside(value), 10**6)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_value_compares_as_it_did(value):
    assert crossed(value) == value
    assert crossed([value]) == [value]


def test_what_a_mapping_of_the_standard_library_can_do_survives():
    assert crossed(Counter("aab"))["z"] == 0
    assert crossed(OrderedDict(a=1, b=2)) != OrderedDict(b=2, a=1)
    assert crossed(defaultdict(list, a=[1]))["z"] == []
    assert crossed(defaultdict(lambda: 1, a=2)) == {"a": 2}
    assert list(crossed({1: "x"}.values())) == ["x"]
    assert crossed({1: "x"}.values()) != ["x"]


def test_size_and_depth_are_bounded():
    wire.pack("x" * 98, 100)
    wire.pack([0] * 49, 100)
    for value in ([0] * 50, "x" * 99, b"x" * 99, [["x" * 30]] * 3):
        with pytest.raises(wire.TooLarge):
            wire.pack(value, 100)
    nested: list[object] = []
    for _ in range(wire.MAX_DEPTH):
        nested = [nested]
    assert crossed(nested) == nested
    with pytest.raises(wire.TooLarge):
        wire.pack([nested], 10**6)
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(wire.TooLarge):
        wire.pack(cycle, 10**6)


MALFORMED = [
    {},
    [],
    [1],
    [[]],
    ["x"],
    ["l", {}],
    ["i"],
    ["i", 5],
    ["i", "zz"],
    ["i", "1", "2"],
    ["b", "0"],
    ["b", "zz"],
    ["c", 1.0],
    ["c", "1", "2"],
    ["s", ["l"]],
    ["f", ["d"]],
    ["d", 1],
    ["d", ["l"], 1],
    ["l", ["t", ["q", 1]]],
    ["y", "eval"],
    ["y", "StopIteration"],
    ["o", 1, True],
    ["n", 1],
    ["range", "a"],
    ["range"],
    ["slice"],
    ["bytearray", ["l", 256]],
    ["deque"],
    ["deque", "x"],
    ["Counter", 1],
    ["defaultdict", 5],
    ["defaultdict"],
    ["keys", ["l"]],
    ["items", 1],
    ["Fraction", 1, 0],
    ["Fraction", None],
    ["Decimal", "one"],
    ["date", 2026, 13, 1],
    ["time", 1],
    ["datetime", 2026, 1, 1, 0, 0, 0, 0, 5],
    ["timedelta", 10**12, 0, 0],
    ["timezone", 1],
]


@pytest.mark.parametrize("tree", MALFORMED, ids=repr)
def test_bad_tree_is_malformed(tree):
    with pytest.raises(wire.Malformed):
        wire.unpack(tree)


def test_too_deep_a_tree_is_malformed():
    tree: object = 1
    for _ in range(wire.MAX_DEPTH + 2):
        tree = ["l", tree]
    with pytest.raises(wire.Malformed):
        wire.unpack(tree)


def plain(value: object) -> bool:
    if type(value) in (list, tuple, set, frozenset):
        return all(map(plain, value))  # type: ignore[arg-type, call-overload]
    if type(value) is dict:
        return all(map(plain, value)) and all(map(plain, value.values()))
    return type(value) in (int, float, str, bool, type(None), bytes, complex)


def test_any_bytes_end_in_a_plain_value_or_malformed():
    rng = random.Random(7)
    pieces = [
        "[",
        "]",
        ",",
        '"l"',
        '"d"',
        '"s"',
        '"i"',
        '"0x5"',
        '"c"',
        "1",
        "1.5",
        "null",
        "{",
        "}",
    ]
    seen = Counter()
    for _ in range(20_000):
        payload = "".join(rng.choices(pieces, k=rng.randrange(1, 9))).encode()
        left, right = socket.socketpair()
        with left, right:
            left.sendall(struct.pack(">I", len(payload)) + payload)
            try:
                value = wire.unpack(wire.read_frame(right, 1000))
            except wire.Malformed:
                seen["malformed"] += 1
            else:
                assert plain(value)
                seen["value"] += 1
    assert min(seen.values()) > 100


class TestFrames:
    @pytest.fixture
    def pair(self):
        left, right = socket.socketpair()
        with left, right:
            yield left, right

    def test_roundtrip(self, pair):
        message = ["a", 1, None, "\ud800"]
        wire.send_frame(pair[0], message)
        assert wire.read_frame(pair[1]) == message

    def test_limits(self, pair):
        with pytest.raises(wire.TooLarge):
            wire.send_frame(pair[0], "x" * 100, max_bytes=100)
        wire.send_frame(pair[0], "x" * 98, max_bytes=100)
        with pytest.raises(wire.Malformed, match="100 bytes, limit 99"):
            wire.read_frame(pair[1], 99)

    def test_deeply_nested_json_is_malformed(self, pair):
        payload = b"[" * 60_000 + b"]" * 60_000
        pair[0].sendall(struct.pack(">I", len(payload)) + payload)
        with pytest.raises(wire.Malformed):
            wire.read_frame(pair[1])

    def test_too_long_a_number_is_malformed(self, pair):
        payload = b"9" * 100_000
        pair[0].sendall(struct.pack(">I", len(payload)) + payload)
        with pytest.raises(wire.Malformed):
            wire.read_frame(pair[1])

    @pytest.mark.parametrize("part", [b"", b"\0\0", b"\0\0\0\5ab"])
    def test_closed_inside_a_frame(self, pair, part):
        pair[0].sendall(part)
        pair[0].close()
        with pytest.raises(wire.Closed):
            wire.read_frame(pair[1])

    def test_deadline_holds_over_all_parts_of_a_frame(self, pair):
        pair[0].sendall(b"\0\0\0\5ab")
        started = monotonic()
        with pytest.raises(TimeoutError):
            wire.read_frame(pair[1], deadline=started + 0.05)
        assert monotonic() - started < 1.0

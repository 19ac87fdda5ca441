"""Honest programs, each held against plain Python."""

import pytest

from mtp_harness.scoring.code_eval import program_of

POINT = """
class P:
    def __init__(self, x): self.x = x
    def __add__(self, other): return P(self.x + other.x)
    def __iadd__(self, other):
        self.x += other.x
        return self
    def __neg__(self): return P(-self.x)
    def __repr__(self): return f"P({self.x})"
    def __float__(self): return self.x / 2
    def __enter__(self): return self.x
    def __exit__(self, *error): self.x = None
    def __format__(self, spec): return spec * self.x
    def __delitem__(self, key): self.x = key
class Q(P): pass
def f(x): return Q(x)
"""
ERRORS = """
class E(Exception):
    def __init__(self, code, *rest):
        super().__init__(code, *rest)
        self.code = code
    def __str__(self): return f"<{self.code}>"
class G(E, ValueError): pass
class Quit(SystemExit): pass
def f(x): raise G(x, 'more')
def g(x): return {}[x]
def leave(x): raise Quit(x)
def name(kind): return kind.__name__
"""
CALLS = """
def f(function, *args, **kwargs): return function(*args, **kwargs)
def guarded(function, x):
    try: return function(x)
    except ZeroDivisionError as error: return [type(error).__name__, str(error)]
def name(function): return function.__name__
class P: pass
def box(function):
    p = P()
    p.x = 5
    return function(p)
"""
STANDARD = """
import datetime, decimal, enum, fractions
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from typing import NamedTuple
P = namedtuple('P', 'x y')
class R(NamedTuple):
    x: int
    def double(self): return 2 * self.x
class C(enum.IntEnum):
    A = 3
class S(str, enum.Enum):
    A = 'a'
class K(enum.Enum):
    A = 3
    B = 4
def f(x): return eval(x)
def same(x): return x
def fill(b, q): b.extend(b'z'); q.append(1)
"""
PASS = {
    "isinstance": (POINT, "assert isinstance(f(2), P)\nassert not isinstance(3, P)"),
    "isinstance of several": (POINT, "assert isinstance(f(2), (int, P)) and issubclass(Q, P)"),
    "not an instance": (POINT, "assert not isinstance(P(1), Q) and not issubclass(P, Q)"),
    "arithmetic": (POINT, "assert (P(1) + P(2)).x == 3 and (-P(1)).x == -1"),
    "in place": (POINT, "a = b = P(1)\na += P(2)\nassert b.x == 3 and a is b"),
    "repr and format": (POINT, "assert repr(f(2)) == 'P(2)' and f'{f(2):ab}' == 'abab'"),
    "as a float": (POINT, "assert float(f(3)) == 1.5"),
    "with": (POINT, "p = f(4)\nwith p as x:\n    assert x == 4\nassert p.x is None"),
    "deleting": (
        POINT,
        "p = f(4)\ndel p['k']\nassert p.x == 'k'\ndel p.x\nassert not hasattr(p, 'x')",
    ),
    "no None": (POINT, "assert f(1) != None and f(1) not in [1, 'a'] and f(1) is not None"),
    "own exception": (
        ERRORS,
        "try:\n    f(5)\nexcept G as error:\n    assert (str(error), error.code) == ('<5>', 5)\n"
        "    assert error.args == (5, 'more')\nelse:\n    assert False",
    ),
    "a class above it": (ERRORS, "try:\n    f(5)\n    assert False\nexcept E: pass"),
    "a builtin above it": (ERRORS, "try:\n    f(5)\n    assert False\nexcept ValueError: pass"),
    "its class": (ERRORS, "try: f(5)\nexcept Exception as e: assert type(e).__name__ == 'G'"),
    "key error": (ERRORS, "try: g('k')\nexcept KeyError as e: assert e.args == ('k',)"),
    "made by the test": (ERRORS, "assert E(7).code == 7 and name(E) == 'E' and name(KeyError)"),
    "several classes": (ERRORS, "try:\n    f(1)\n    assert False\nexcept (KeyError, E): pass"),
    "lambda": (CALLS, "assert f(lambda x: x + 1, 2) == 3 and f(lambda *, a: a, a=4) == 4"),
    "named functions": (CALLS, "assert f(len, 'abc') == 3 and f(str.upper, 'a') == 'A'"),
    "sort key": (CALLS, "assert f(sorted, [1, 3, 2], key=lambda x: -x) == [3, 2, 1]"),
    "a closure keeps its state": (
        CALLS,
        "seen = []\ndef note(x):\n    seen.append(x)\n    return len(seen)\n"
        "assert [f(note, 'a'), f(note, 'b')] == [1, 2] and seen == ['a', 'b']",
    ),
    "a function that raises": (
        CALLS,
        "assert guarded(lambda x: 1 / x, 0) == ['ZeroDivisionError', 'division by zero']",
    ),
    "an exception of the test's comes back": (
        CALLS,
        "class X(KeyError): pass\ndef h(x): raise X(x)\n"
        "try:\n    f(h, 'q')\n    assert False\nexcept X as error: assert error.args == ('q',)",
    ),
    "calls within calls": (
        CALLS,
        "def down(n): return 0 if n == 0 else 1 + f(down, n - 1)\nassert f(down, 5) == 5",
    ),
    "a function gets an object": (CALLS, "assert box(lambda p: p.x + 1) == 6"),
    "a function comes back": (
        CALLS,
        "g = lambda: 5\nassert f(lambda: g)() == 5 and f(lambda: g) is g",
    ),
    "functions of the library": (
        CALLS,
        "import math\nfrom operator import itemgetter\nkept = []\nf(kept.append, 4)\n"
        "assert f(math.sqrt, 4) == 2 and f(itemgetter(1), 'ab') == 'b' and kept == [4]",
    ),
    "a function has its name": (CALLS, "def named(): pass\nassert name(named) == 'named'"),
    "an own exception through a function": (
        ERRORS + "def guarded(g):\n    try: return g()\n    except E as e: return e.code\n",
        "def g(): raise E(7)\ndef h(): f(8)\nassert guarded(g) == 7 and guarded(h) == 8",
    ),
    "membership by items": ("def f():\n    yield 1\n    yield 2\n", "assert 2 in f()"),
    "generator as an argument": (CALLS, "assert f(sum, (i for i in range(4))) == 6"),
    "named tuple": (
        STANDARD,
        "p = f('P(1, 2)')\nassert p == (1, 2) and p.x == 1 and isinstance(p, P) and p[1] == 2\n"
        "assert p._asdict() == {'x': 1, 'y': 2} and repr(p) == 'P(x=1, y=2)' and p == P(1, 2)\n"
        "assert p._replace(x=5) == (5, 2) and same(p) == p and isinstance(same(p), P)",
    ),
    "typed named tuple": (STANDARD, "r = R(4)\nassert r == (4,) and r.double() == 8 and r.x == 4"),
    "fraction": (STANDARD, "assert f('fractions.Fraction(1, 2)') == 0.5"),
    "decimal": (STANDARD, "assert f('decimal.Decimal(3)') == 3"),
    "integer enumeration": (
        STANDARD,
        "c = f('C.A')\nassert c == 3 and c.name == 'A' and isinstance(c, C)\n"
        "assert c == C.A and c + 1 == 4",
    ),
    "shown enumeration": (
        STANDARD,
        "s = f('S.A')\nassert str(s) == 'S.A' and repr(s) == \"<S.A: 'a'>\"\n"
        "assert str(f('C.A')) == '3'",
    ),
    "string enumeration": (STANDARD, "assert f('S.A') == 'a' and f('S.A').name == 'A'"),
    "enumeration": (
        STANDARD,
        "k = f('K.A')\nassert k == K.A and k != K.B and k != 3 and k.value == 3",
    ),
    "views": (
        STANDARD,
        "assert f('{1: 2}.keys()') == {1} and f('{1: 2}.items()') == {(1, 2)}\n"
        "assert list(f('{1: 2}.values()')) == [2]",
    ),
    "bytearray": (STANDARD, "assert f('bytearray(b\"a\")') == b'a'"),
    "range": (STANDARD, "assert f('range(3)') == range(3) and list(f('range(3)')) == [0, 1, 2]"),
    "deque": (STANDARD, "assert f('deque([1, 2])')[1] == 2 and f('deque()') != []"),
    "counter": (STANDARD, "assert f('Counter(\"aab\")').most_common(1) == [('a', 2)]"),
    "ordered": (STANDARD, "assert f('OrderedDict(a=1)') == {'a': 1}"),
    "default": (STANDARD, "assert f('defaultdict(list)')['x'] == []"),
    "date": (
        STANDARD,
        "import datetime\nassert f('datetime.date(2026, 1, 2)') == datetime.date(2026, 1, 2)",
    ),
    "changed in place": (
        STANDARD,
        "from collections import deque\nb, q = bytearray(b'a'), deque()\nfill(b, q)\n"
        "assert b == b'az' and q == deque([1])",
    ),
}


def outcome_in_plain_python(code, test):
    namespace = {}
    exec(code, namespace)
    try:
        exec(test, namespace)
    except BaseException as error:
        return type(error).__name__
    return "pass"


@pytest.mark.parametrize("name", PASS)
def test_honest_program_passes_as_in_plain_python(grader, name):
    code, test = PASS[name]
    assert outcome_in_plain_python(code, test) == "pass"
    assert grader.grade([program_of(code, test)])[0][:3] == ("pass", "", "")


WRONG = {
    "named tuple": (STANDARD, "assert f('P(1, 2)') == (1, 3)"),
    "fraction": (STANDARD, "assert f('fractions.Fraction(1, 2)') == 0.6"),
    "integer enumeration": (STANDARD, "assert f('C.A') == 4"),
    "enumeration": (STANDARD, "assert f('K.A') == K.B"),
    "ordered": (
        STANDARD,
        "from collections import OrderedDict as O\n"
        "assert f('OrderedDict(a=1, b=2)') == O(b=2, a=1)",
    ),
    "other exception": (ERRORS, "try: g('k')\nexcept E: pass"),
    "exception beside it": (ERRORS, "try: leave(1)\nexcept ValueError: pass"),
    "lambda": (CALLS, "assert f(lambda x: x + 1, 2) == 4"),
    "assertion in a function": (CALLS, "def h(x): assert x == 3\nf(h, 2)"),
    "a loop without a turn": (STANDARD, "for item in f('[]'): pass\nassert item == 2"),
    "not an instance": (POINT, "assert isinstance(P(1), Q)"),
    "no documentation": (POINT, "assert f.__doc__"),
    "an attribute as ours": (
        POINT + "def g(p):\n    p._number = 77\n    return p\n",
        "assert g(f(1))._number == 0",
    ),
    "not callable": (POINT, "assert callable(f(1))"),
    "no iterator": (
        POINT,
        "from collections.abc import Iterator\nassert isinstance(f(1), Iterator)",
    ),
    "no length": (POINT, "assert hasattr(f(1), '__len__')"),
    "a loop that a function ends": (
        CALLS + "def h(g):\n    try: g()\n    except StopIteration: pass\n"
        "    except Exception as e: raise e\n",
        "def g(): raise StopIteration\nassert list(map(h, [g, g])) == []",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_program_fails_as_in_plain_python(grader, name):
    code, test = WRONG[name]
    assert outcome_in_plain_python(code, test) != "pass"
    assert grader.grade([program_of(code, test)])[0].outcome == "fail"


NOT_JUDGEABLE = {
    "an equality of its own": (
        "class P:\n    def __eq__(s, o): return True\ndef f(): return P()",
        "assert f() == P()",
    ),
    "an order of its own": (
        "class P:\n    def __lt__(s, o): return True\ndef f(): return P()",
        "assert f() < P()",
    ),
    "arithmetic with a plain value": (
        "class P:\n    def __sub__(s, o): return 0\ndef f(): return P()",
        "assert f() - 5 == 0",
    ),
    "membership": (
        "class P:\n    def __contains__(s, o): return True\ndef f(): return P()",
        "assert 5 in f()",
    ),
    "a class above one of the test's": ("class P: pass\ndef f(): pass", "class Q(P): pass"),
    "the test's function for another": (
        "def f(g): return g('{0.__code__.co_consts}', g)",
        "assert f(lambda s, g: s.format(g)) == 'expected'",
    ),
    "truth": ("def f(): return object()", "assert f()"),
    "an argument": ("def f(x): return x", "import threading\nassert f(threading.Lock())"),
}


@pytest.mark.parametrize("name", NOT_JUDGEABLE)
def test_what_cannot_be_copied_is_a_failure_of_its_own_kind(grader, name):
    code, test = NOT_JUDGEABLE[name]
    verdict = grader.grade([program_of(code, test)])[0]
    assert verdict[:2] == ("fail", "not_judgeable"), verdict


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("from fractions import Fraction\ndef f(): return Fraction(1, 2)\n", "c() == 0.5"),
        (
            "from collections import namedtuple\ndef f(): return namedtuple('P', 'x')(1)\n",
            "c() == (1,) and c().x == 1",
        ),
        (
            "import enum\nclass C(enum.IntEnum): A = 3\ndef f(): return C.A\n",
            "c() == 3 and c().name == 'A'",
        ),
        (
            "import enum\nclass C(enum.Enum): A = 3\ndef f(): return C.A\n",
            "c() == c() and c() != 3 and c().value == 3",
        ),
        ("def f(): return {1: 2}.keys()\n", "c() == {1}"),
        ("def f(): return ValueError('x')\n", "isinstance(c(), ValueError) and str(c()) == 'x'"),
        (
            "def f(g=None): return 3 if g is None else g(4)\n",
            "c() == 3 and c(lambda x: x + 1) == 5",
        ),
    ],
)
def test_values_of_the_standard_library_cross_under_the_rule_values(judge, code, test):
    assert judge(code, f"def check(c):\n    assert {test}\n")[:3] == ("pass", "", "")


def test_own_exception_below_a_builtin_one_under_the_rule_values(judge):
    test = """
def check(c):
    try: c()
    except ValueError as error: assert str(error) == 'x'
    else: assert False
"""
    code = "class E(ValueError): pass\ndef f(): raise E('x')\n"
    assert judge(code, test)[:3] == ("pass", "", "")

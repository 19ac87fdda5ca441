"""Programs whose values and messages want to stall, end or mislead the grader: all of them fail."""

import time

import pytest

from mtp_harness.sandbox import Program
from mtp_harness.scoring.code_eval import program_of

HONEST = "def f(x): return x + 1\nclass P: pass\n"
ASSERTS = "r = f(2)\nassert r == 3, r\nassert not isinstance(r, P)"
SEND = """
import json, os, struct
def send(message):
    data = json.dumps(message).encode()
    for fd in range(3, 64):
        try: os.write(fd, struct.pack(">I", len(data)) + data)
        except OSError: pass
"""
FORGED = [
    ["ready", ["l"]],
    ["ready", None],
    ["ready", ["n", 1]],
    ["ready", ["l", 1]],
    ["ready", ["d"]],
    ["ready", ["l", ["o", 0, ""], ["o", 10**30, "call"], 5]],
    ["n", 1],
    ["value"],
    ["value", 3],
    ["value", ["o", -1, ""], None],
    ["value", ["o", 7, 7], None],
    ["value", ["n", 3], ["n", 3]],
    ["value", ["p", 0], None],
    ["value", ["T", 0], None],
    ["value", ["N", None, "P", ["l", "_x"], ["t", 3]], ["l"]],
    ["value", ["N", 1, "P", ["l", "x"], ["t"]], ["l"]],
    ["value", ["N", None, "P", ["l", "x", "x"], ["t", 3, 3]], ["l"]],
    ["value", ["M", None, "C", "A", ["l"], True, "C.A", "C.A"], ["l"]],
    ["value", ["M", None, "C", "A", 3, True], ["l"]],
    ["value", ["date", ["b", "ffff01ff"]], ["l"]],
    ["value", ["Fraction", "1e30000000"], ["l"]],
    ["value", ["bytearray", 10**9], ["l"]],
    ["value", ["x", None, "E", *[["x", None, str(n)] for n in range(20)]], ["l"]],
    ["value", ["N", None, "P" * 10**5, ["l", "x"], ["t", 3]], ["l"]],
    ["callback", 0, ["d"], ["l"]],
    ["value", ["x", None, "E", ["y", "int"]], ["l"]],
    ["value", ["x", 1, "\ud800", ["y", "ValueError"]], ["l"]],
    ["value", ["y", "eval"], ["l"]],
    ["raised", 5],
    ["raised", ["y", "ValueError"]],
    ["raised", ["T", 0]],
    ["raised", ["X", None, ["y", "int"], None, "x"]],
    ["raised", ["X", None, ["y", "NameError"], ["t", "name 'P' is not defined"], "x"]],
    ["raised", ["X", None, ["y", "ModuleNotFoundError"], ["t", 1, 2, 3], "x"]],
    ["raised", ["X", None, ["x", None, "Stop"], ["t"], "x"]],
    ["callback", 0, ["l"], ["d"]],
    ["callback", -1, ["l"], ["d"]],
    ["callback", True, None, None],
    ["error", "grader"],
    ["test", "the test is at fault"],
    ["grader", "the grader is at fault"],
    ["not_judgeable", 5],
    ["end"],
    [],
    {},
    "begun",
]


@pytest.mark.parametrize("message", FORGED, ids=lambda message: str(message)[:40])
@pytest.mark.parametrize("when", ["at load", "in the call"])
def test_forged_message_is_a_failure_and_never_an_error(grader, message, when):
    at_load = f"send({message!r})\n" if when == "at load" else ""
    code = f"{SEND}class P: pass\n{at_load}def f(x):\n    send({message!r})\n    return 5\n"
    test = "def check(candidate):\n    assert candidate(2) == 3\n"
    programs = [program_of(code, ASSERTS), Program(code, "f", test), program_of(HONEST, ASSERTS)]
    first, second, last = grader.grade(programs)
    assert first.outcome == second.outcome == "fail", (first, second)
    assert last[:3] == ("pass", "", "")


TRICKS = {
    "a text that raises": "def __str__(s): raise ValueError('x')",
    "a text that leaves": "def __str__(s): os._exit(0)",
    "a text that exits": "def __str__(s): raise SystemExit",
    "a text that sleeps": "def __str__(s): time.sleep(60)",
    "a text of 128 MB": "def __str__(s): return 'x' * 2**27",
    "a text that is none": "def __str__(s): return 5",
    "a text of another class": "def __str__(s): return type('S', (str,), {})('x')",
    "a text that stops the process": "def __str__(s): os.kill(os.getpid(), 19)",
    "a picture that raises": "def __repr__(s): raise MemoryError",
    "an equality that leaves": "def __eq__(s, o): os._exit(0)",
    "an equality that sleeps": "def __eq__(s, o): time.sleep(60)",
    "an equality that answers": "def __eq__(s, o): return True",
    "a hash that raises": "def __hash__(s): raise ValueError",
    "a hash that answers": "def __hash__(s): return 3\n    def __eq__(s, o): return True",
    "an end that leaves": "def __del__(s): os._exit(0)",
    "attributes that raise": "def __getattribute__(s, n): raise OSError(n)",
    "a class that lies": "__class__ = property(lambda s: int)",
    "a length that is huge": "def __len__(s): return 10**30",
    "an index that answers": "def __index__(s): return 3\n    __int__ = __index__",
    "an order that answers": "def __lt__(s, o): return True\n    __gt__ = __le__ = __ge__ = __lt__",
    "arithmetic that answers": "def __sub__(s, o): return 0\n    __rsub__ = __sub__",
    "a reduction that answers": "def __reduce__(s): return (int, (3,))",
    "a copy that answers": "def __deepcopy__(s, memo): return 3",
    "a format that leaves": "def __format__(s, spec): os._exit(0)",
}


@pytest.mark.parametrize("name", TRICKS)
@pytest.mark.parametrize(
    "reference",
    [
        ASSERTS,
        "r = f(2)\nassert r - 3 == 0, r\nassert not isinstance(r, P)",
        "r = f(2)\nassert f'{r}' == '3' and r in {3: 3} and sorted([r, 3]) == [3, 3], repr(r)",
    ],
    ids=["compared", "subtracted", "shown"],
)
def test_object_with_tricks_is_a_failure_and_never_an_error(grader, name, reference):
    code = f"import os, time\nclass X:\n    {TRICKS[name]}\nclass P: pass\ndef f(x): return X()\n"
    verdict, after = grader.grade([program_of(code, reference), program_of(HONEST, ASSERTS)])
    assert verdict.outcome == "fail", verdict
    assert after[:3] == ("pass", "", "")


# All multiples of this prime have the hash 0, so that a set of n of them takes n * n comparisons.
MULTIPLES = "[n * (2**61 - 1) for n in range(30_000)]"
COLLIDING = {
    "a set": f"def f(x): return set({MULTIPLES})\n",
    "a dict": f"def f(x): return dict.fromkeys({MULTIPLES})\n",
    "a list that the test makes a set of": f"def f(x): return {MULTIPLES}\n",
    "keys of a view": f"def f(x): return dict.fromkeys({MULTIPLES}).keys()\n",
    "a counter": f"from collections import Counter\ndef f(x): return Counter({MULTIPLES})\n",
    "numbers of handles": SEND
    + "def f(x):\n    handles = [['o', n * (2**61 - 1), ''] for n in range(9_000)]\n"
    "    send(['value', ['l', *handles], None])\n",
    "what the test uses": SEND + f"many = [['i', hex(n)] for n in {MULTIPLES}]\n"
    "send(['ready', ['l', ['s', *many], 5]])\ndef f(x): return 3\n",
    "a pattern that backtracks": "def f(x): return 'a' * 40\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COLLIDING)
@pytest.mark.parametrize("rule", ["objects", "values"])
def test_no_program_costs_more_than_its_time_and_a_second(grader, name, rule):
    code = f"import sys\nclass P: pass\n{COLLIDING[name]}"
    reference = "import re; r = f(2)\nassert re.match('(a+)+b', str(r)[:40]) or set(r) == {3}"
    test = f"def check(f):\n    {reference.replace(chr(10), '; ')}\n"
    program = program_of(code, reference + "\nP") if rule == "objects" else Program(code, "f", test)
    good = program_of(HONEST, ASSERTS)
    grader.grade([good])
    started = time.monotonic()
    verdict, after = grader.grade([program, good])
    elapsed = time.monotonic() - started
    assert verdict.outcome == "fail", verdict
    assert after[:3] == ("pass", "", "")
    assert elapsed < grader.settings()["limits"]["wall_s"] + 1.5  # and the next one's start


def test_nothing_of_one_test_reaches_the_next(grader):
    """Limits and contexts that a test sets in the grader, and what a program leaves there."""
    sets = (
        "import decimal, sys\nsys.setrecursionlimit(10**5)\nsys.set_int_max_str_digits(0)\n"
        "decimal.getcontext().prec = 3\nassert f(2) == 3"
    )
    reads = (
        "import decimal, sys\nassert f(2) == 3 and sys.getrecursionlimit() == 1000\n"
        "assert decimal.getcontext().prec == 28 and sys.get_int_max_str_digits() == 4300"
    )
    programs = [program_of(HONEST, reference) for reference in (reads, sets, reads)]
    assert [verdict[:3] for verdict in grader.grade(programs)] == [("pass", "", "")] * 3


def test_deeply_nested_message_under_a_raised_limit_is_a_failure(grader):
    code = (
        "import os, struct\ndef f(x):\n    data = b'[' * 500_000 + b']' * 500_000\n"
        "    for fd in range(3, 64):\n"
        "        try: os.write(fd, struct.pack('>I', len(data)) + data)\n"
        "        except OSError: pass\n"
    )
    test = "import sys\nsys.setrecursionlimit(10**5)\nassert f(2) == 3"
    verdict, after = grader.grade([program_of(code, test), program_of(HONEST, ASSERTS)])
    assert verdict[:2] == ("fail", "output"), verdict
    assert after[:3] == ("pass", "", "")


def test_classes_of_a_program_do_not_stay_in_the_grader(grader):
    flood = SEND + (
        "def f(g):\n    for n in range(30):\n"
        "        record = ['N', None, 'P' * 10**6 + str(n), ['l', 'a'], ['t', 0]]\n"
        "        send(['callback', 0, ['l', record], ['d']])\n"
    )
    big = program_of(HONEST, "x = list(range(10**7))\nassert f(2) == 3")
    verdicts = grader.grade([program_of(flood, "assert f(lambda x: 1) == 3")] * 6 + [big])
    assert {verdict.outcome for verdict in verdicts[:6]} == {"fail"}
    assert verdicts[6][:3] == ("pass", "", "")

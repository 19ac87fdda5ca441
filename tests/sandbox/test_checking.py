import pytest

from mtp_harness.sandbox import Program

GOOD = Program("def f(x):\n    return x + 1\n", "f", "def check(c):\n    assert c(1) == 2\n")


class TestCheck:
    def test_values_keep_their_types(self, judge):
        test = """
def check(candidate):
    scalars = [1, 9**99, 1.5, 1j, "a", b"a", True, None]
    for value in [*scalars, [1], (1,), {1}, frozenset({1}), {1: [2]}]:
        back = candidate(value)
        assert back == value and type(back) is type(value), value
    assert candidate(value=5) == 5
"""
        assert judge("def f(value): return value\n", test)[:3] == ("pass", "", "")

    def test_counter_compares_like_the_dict_it_is(self, judge):
        code = "from collections import Counter\ndef f(s): return Counter(s)\n"
        test = "def check(candidate):\n    assert candidate('aab') == {'a': 2, 'b': 1}\n"
        assert judge(code, test).outcome == "pass"

    def test_changed_arguments_stay_with_the_program(self, judge):
        test = "def check(candidate):\n    x = [3, 1]\n    candidate(x)\n    assert x == [3, 1]\n"
        assert judge("def f(x): x.sort()\n", test).outcome == "pass"

    def test_state_is_kept_between_calls(self, judge):
        code = "n = 0\ndef f():\n    global n\n    n += 1\n    return n\n"
        test = "def check(candidate):\n    assert [candidate(), candidate()] == [1, 2]\n"
        assert judge(code, test).outcome == "pass"

    def test_expected_builtin_exception(self, judge):
        test = """
def check(candidate):
    try:
        candidate(-1)
    except ValueError as error:
        assert str(error) == "negative"
    else:
        assert False
"""
        assert judge("def f(x): raise ValueError('negative')\n", test).outcome == "pass"
        verdict = judge(
            "class ValueError(Exception): pass\ndef f(x): raise ValueError('negative')\n", test
        )
        assert verdict[:3] == ("fail", "exception", "ValueError: negative")

    def test_exception_of_an_unusual_kind(self, judge):
        verdict = judge("def f(a, b): b'\\xff'.decode()\n")
        assert verdict.kind == "exception"
        assert verdict.detail.startswith("UnicodeDecodeError: ")

    def test_wrong_answer_says_what_the_assertion_says(self, judge):
        test = "def check(candidate):\n    assert candidate(1) == 2, 'one more'\n"
        assert judge("def f(x): return x\n", test)[:3] == ("fail", "wrong_answer", "one more")

    def test_check_that_chokes_on_the_answer(self, judge):
        test = "def check(candidate):\n    assert len(candidate()) == 1\n"
        verdict = judge("def f(): return None\n", test)
        assert verdict[:2] == ("fail", "wrong_answer")
        assert "TypeError" in verdict.detail

    def test_swallowed_failure_still_fails(self, judge):
        test = "def check(candidate):\n    try:\n        candidate()\n    except:\n        pass\n"
        assert judge("import os\ndef f(): os._exit(0)\n", test).kind == "exception"
        assert judge("def f(): return object()\n", test).kind == "not_judgeable"
        assert judge("def f(): return bytearray(10**10)\n", test).kind == "memory"

    def test_entry_point_name_is_the_candidate_in_the_test(self, judge):
        test = "def check(candidate):\n    assert f(1) == 2\n"
        preamble = "def f(x):\n    '''Add one.'''\n"
        assert judge(GOOD.code, test, preamble=preamble).outcome == "pass"

    def test_main_block_does_not_run(self, judge):
        code = GOOD.code + "if __name__ == '__main__':\n    raise SystemExit\n"
        assert judge(code, GOOD.test).outcome == "pass"

    def test_dataclasses_and_common_modules_work(self, judge):
        code = """
from __future__ import annotations
import bisect, collections, hashlib, heapq, itertools, json, math, queue, random, re, sqlite3, ssl
from dataclasses import dataclass
@dataclass
class P:
    x: int
def f(x): return P(x).x + 1
"""
        assert judge(code, GOOD.test)[:3] == ("pass", "", "")

    def test_random_inputs_are_the_same_every_time(self, judge):
        test = (
            "import random\n"
            "def check(candidate):\n    assert candidate(random.random()) == 0.8444218515250481\n"
        )
        assert judge("def f(x): return x\n", test).outcome == "pass"
        assert judge("def f(x): return x\n", test).outcome == "pass"

    @pytest.mark.parametrize(
        ("test", "detail"),
        [
            ("def check(candidate) assert", "SyntaxError"),
            ("import no_such_module\ndef check(candidate): pass", "ModuleNotFoundError"),
            ("def chekc(candidate): pass", "defines no check"),
            ("def check(candidate):\n    assert helper(candidate(1)) == 2", "NameError"),
        ],
    )
    def test_fault_of_the_test_is_an_error(self, judge, test, detail):
        verdict = judge(GOOD.code, test, name="T/1")
        assert verdict[:2] == ("error", "test")
        assert detail in verdict.detail
        assert verdict.detail.startswith("T/1: ")

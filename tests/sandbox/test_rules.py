"""Tests that need more than plain values: objects that stay with the program, and whole scripts."""

import pytest

from mtp_harness.sandbox import Program, stdio
from mtp_harness.sandbox.stdio import same_token

NODE = """
class Node:
    def __init__(self, data): self.data, self.left, self.right = data, None, None
    def __len__(self): return 3
    def __getitem__(self, key): return key + 1
    def __setitem__(self, key, value): self.data = (key, value)
    def __str__(self): return f"<{self.data}>"
    def grow(self, *, by=1): return Node(self.data + by)
def depth(node): return 0 if node is None else 1 + max(depth(node.left), depth(node.right))
"""


@pytest.fixture
def judge_objects(grader):
    def call(code, test, entry_point="f", exports=()):
        program = Program(code, entry_point, test, rule="objects", exports=exports)
        return grader.grade([program])[0]

    return call


class TestObjects:
    def test_object_built_by_the_test_goes_back_to_the_program(self, judge_objects):
        test = """
def check(candidate):
    root = Node(1)
    root.left = Node(2)
    root.left.right = Node(3)
    assert candidate(root) == 3 and candidate(root.left) == 2 and depth(None) == 0
    assert root.left.data == 2 and root.right is None
    assert root.left is root.left and root.left == root.left and root != root.left
"""
        assert judge_objects(NODE, test, "depth", ["Node"])[:3] == ("pass", "", "")

    def test_what_a_handle_passes_on(self, judge_objects):
        test = """
def check(candidate):
    one = Node(5)
    assert len(one) == 3 and one[1] == 2 and str(one) == "<5>"
    one["a"] = 2
    assert one.data == ("a", 2)
    assert Node(5).grow(by=4).data == 9
"""
        assert judge_objects(NODE, test, "depth", ["Node"])[:3] == ("pass", "", "")

    def test_generator_and_iterator(self, judge_objects):
        code = "def f(n):\n    for i in range(n): yield i * i\n"
        test = """
def check(candidate):
    assert list(candidate(4)) == [0, 1, 4, 9]
    assert [a + b for a, b in zip(candidate(3), candidate(9))] == [0, 2, 8]
    assert next(candidate(1)) == 0
"""
        assert judge_objects(code, test)[:3] == ("pass", "", "")
        short = test.replace("candidate(4)", "candidate(3)")
        assert judge_objects(code, short)[:2] == ("fail", "wrong_answer")

    def test_endless_generator_is_out_of_time(self, judge_objects):
        code = "def f():\n    while True: yield 1\n"
        verdict = judge_objects(code, "def check(candidate):\n    list(candidate())\n")
        assert verdict[:2] == ("fail", "timeout")

    def test_changed_arguments_are_seen(self, judge_objects):
        code = """
def f(a, b, c):
    a.sort()
    b["x"] = 1
    c.add(3)
"""
        test = """
def check(candidate):
    a, b, c = [3, 1, 2], {}, set()
    same = a
    candidate(a, b, c)
    assert same == [1, 2, 3] and b == {"x": 1} and c == {3}
"""
        assert judge_objects(code, test)[:3] == ("pass", "", "")

    @pytest.mark.parametrize(
        ("code", "test"),
        [
            # an object claims to be equal to everything
            (
                "class Y:\n    def __eq__(s, o): return True\ndef f(): return Y()\n",
                "def check(candidate):\n    assert candidate() == 5\n",
            ),
            # an object claims to be true
            (
                "class Y:\n    def __bool__(s): return True\ndef f(): return Y()\n",
                "def check(candidate):\n    assert candidate()\n",
            ),
            # and inside a plain container
            (
                "class Y:\n    def __eq__(s, o): return True\ndef f(): return [Y()]\n",
                "def check(candidate):\n    assert candidate() == [5]\n",
            ),
            # an attribute that lies like its owner
            (
                "class Y:\n    def __eq__(s, o): return True\n    def __getattr__(s, n): return s\n"
                "def f(): return Y()\n",
                "def check(candidate):\n    assert candidate().answer == 5\n",
            ),
            # the end of an iterator in answer to a call must not end the test's loop
            (
                "def f(x): raise StopIteration\n",
                "def check(candidate):\n    assert all(map(candidate, [1, 2]))\n",
            ),
            # membership that the object would answer itself
            (
                "class Y:\n    def __contains__(s, o): return True\n"
                "    def __iter__(s): return iter('')\ndef f(): return Y()\n",
                "def check(candidate):\n    assert 5 in candidate()\n",
            ),
            # arithmetic that ends where the test wants it
            (
                "class Y:\n    def __sub__(s, o): return 0\n    __rsub__ = __sub__\n"
                "def f(): return Y()\n",
                "def check(candidate):\n    assert abs(candidate() - 5) < 1e-6\n",
            ),
            # items that no list of the test's would have
            (
                "class Y:\n    def __eq__(s, o): return True\ndef f(): yield Y()\n",
                "def check(candidate):\n    assert list(candidate()) == [1]\n",
            ),
        ],
    )
    def test_object_decides_no_verdict(self, judge_objects, code, test):
        assert judge_objects(code, test).outcome == "fail"

    def test_forged_end_of_an_iterator_ends_no_loop(self, judge_objects):
        code = """
import json, os, struct
def f(x):
    data = json.dumps(["end"]).encode()
    for fd in range(3, 64):
        try: os.write(fd, struct.pack(">I", len(data)) + data)
        except OSError: pass
"""
        test = "def check(candidate):\n    assert all(map(candidate, [1, 2]))\n"
        assert judge_objects(code, test)[:2] == ("fail", "output")

    def test_missing_export_is_named(self, judge_objects):
        test = "def check(candidate):\n    Node(1)\n"
        verdict = judge_objects("def f(): pass\n", test, exports=["Node"])
        assert verdict[:2] == ("fail", "no_entry_point") and "'Node'" in verdict.detail


class TestValues:
    def test_builtin_type_is_a_plain_value(self, judge):
        test = """
def check(candidate):
    assert candidate([1, 'a', 2.0], int) == [1]
    assert candidate([1, 'a', 2.0], type(None)) == []
"""
        code = "def f(x, t): return [i for i in x if type(i) is t]\n"
        assert judge(code, test)[:3] == ("pass", "", "")

    def test_own_type_is_none(self, judge):
        code = "class int(int): pass\ndef f(a, b): return int\n"
        assert judge(code)[:2] == ("fail", "not_judgeable")

    def test_function_named_check(self, grader):
        test = "def check(candidate):\n    assert check(2) == 4 and candidate(3) == 6\n"
        program = Program("def check(x): return 2 * x\n", "check", test)
        assert grader.grade([program])[0][:3] == ("pass", "", "")

    @pytest.mark.parametrize(
        "code", ["yield from (x, 2)", "return iter([x, 2])", "return map(int, (x, 2))"]
    )
    def test_iterator_is_its_items_and_no_list(self, judge, code):
        test = """
def check(candidate):
    assert candidate(1) != [1, 2] and candidate(1) != (1, 2)
    assert tuple(candidate(1)) == (1, 2) and next(candidate(5)) == 5
"""
        assert judge(f"def f(x): {code}\n", test)[:3] == ("pass", "", "")

    def test_what_an_iterator_raises_is_the_programs_exception(self, judge):
        code = "def f(a, b):\n    yield 5\n    raise ValueError('late')\n"
        assert judge(code)[:3] == ("fail", "exception", "ValueError: late")


# ---------------------------------------------------------------- scripts

SUM = "print(sum(map(int, input().split())))\n"
CASES = [("1 2\n", "3\n"), ("5 6 7\n", "18\n")]


@pytest.fixture
def run_script(grader):
    def call(code, cases=CASES):
        return grader.grade([Program(code, rule="stdio", cases=cases)])[0]

    return call


class TestScripts:
    @pytest.mark.parametrize(
        "code",
        [
            SUM,
            "import sys\nprint(sum(map(int, sys.stdin.read().split())))\n",
            "import sys\nsys.stdout.write(str(sum(map(int, sys.stdin.buffer.read().split()))))\n",
            "print(sum(map(int, open(0).read().split())))\n",
            "import os\nos.write(1, b'%d' % sum(map(int, os.read(0, 99).split())))\nos._exit(0)\n",
            "def main():\n    " + SUM + "if __name__ == '__main__':\n    main()\n",
            "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**26)\n"
            "def main():\n    " + SUM + "threading.Thread(target=main).start()\n",
            "import sys, time\n" + SUM + "sys.stdout.close()\ntime.sleep(0.2)\n",
            SUM + "exit()\n",
            SUM + "quit(0)\n",
            "import atexit, io, sys\nout = sys.stdout = io.StringIO()\n"
            "atexit.register(lambda: sys.__stdout__.write(out.getvalue()))\n" + SUM,
            SUM + "import sys\nsys.exit(0)\n",
        ],
    )
    def test_ways_to_read_and_write(self, run_script, code):
        assert run_script(code)[:3] == ("pass", "", "")

    def test_verdict_names_rule_and_case(self, run_script):
        verdict = run_script("x = input()\nprint(3)\n")
        assert verdict[:2] == ("fail", "wrong_answer") and verdict.rule == "stdio"
        assert verdict.detail.startswith("case 2 of 2: token 1 is '3', expected '18'")

    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("raise ValueError\n", "exception"),
            ("import sys\nsys.exit(3)\n", "exception"),
            ("import os\nprint(3, flush=True)\nos._exit(7)\n", "exception"),
            (SUM + "1 / 0\n", "exception"),
            ("print(int(input())\n", "syntax"),
            ("while True: pass\n", "timeout"),
            ("import time\nprint(3)\ntime.sleep(9)\n", "timeout"),
            ("while True: print('x' * 1000)\n", "output"),
            ("x = bytearray(10**10)\n", "memory"),
            ("print()\n", "wrong_answer"),
            ("print(3, 4)\n", "wrong_answer"),
            ("import os\nos.close(1)\n", "wrong_answer"),
            ("import os, time\nos.close(1)\ntime.sleep(9)\n", "timeout"),
            ("import os\nos.close(1)\nos.kill(os.getpid(), 9)\n", "memory"),  # as the kernel does
            ("import os, time\nos.close(1)\ntime.sleep(0.2)\nos._exit(3)\n", "exception"),
        ],
    )
    def test_failures_have_their_kind(self, run_script, code, kind):
        assert run_script(code)[:2] == ("fail", kind)

    def test_every_case_gets_a_new_process_and_folder(self, run_script):
        code = """
import os, sys
seen = os.path.exists('mark') or hasattr(sys, 'mark')
sys.mark = open('mark', 'w').write('x')
print('seen' if seen else 'new')
"""
        assert run_script(code, [("", "new")] * 3)[:2] == ("pass", "")

    def test_expected_output_is_nowhere_in_the_process(self, run_script):
        # The needle is put together at run time, so that the program does not hold it.
        code = """
import gc, sys
needle = 'needle' + input()
todo, seen = gc.get_objects() + [sys.modules, sys._current_frames()], set()
frame = sys._getframe()
while frame is not None:
    todo += [frame.f_locals, frame.f_globals, frame.f_builtins]
    frame = frame.f_back
found = 0
while todo:
    thing = todo.pop()
    if id(thing) in seen: continue
    seen.add(id(thing))
    found += type(thing) is str and thing != needle and needle in thing
    found += type(thing) is bytes and needle.encode() in thing
    todo += gc.get_referents(thing)
print(found, len(seen) > 10000, end='')
print('' if found else needle[:0])
"""
        verdict = run_script(code, [("-5005", "0 True needle-5005")])
        assert verdict.detail.startswith("2 tokens, expected 3")

    def test_input_larger_than_a_pipe(self, run_script):
        numbers = " ".join(map(str, range(100_000)))
        assert run_script(SUM, [(numbers, str(sum(range(100_000))))])[:2] == ("pass", "")


class TestTokens:
    @pytest.mark.parametrize(
        ("got", "expected", "same"),
        [
            ("3", "3", True),
            ("3.0", "3", False),
            ("03", "3", False),
            ("0.5", "0.50", True),
            ("0.5000000001", "0.5", True),
            ("0.50001", "0.5", False),
            ("1", "1.0", True),
            ("1e9", "1000000000.0", True),
            ("nan", "0.5", False),
            ("inf", "1.5", False),
            ("1_0", "10.0", False),
            ("١", "1.0", False),
            ("yes", "YES", False),
            ("1" + "0" * 400, "1.5", False),
        ],
    )
    def test_same_token(self, got, expected, same):
        assert same_token(got, expected) is same

    def test_order_and_number_count(self):
        assert stdio.compare(b" 1\n2\n", "1 2").outcome == "pass"
        assert stdio.compare(b"2 1", "1 2").outcome == "fail"
        assert stdio.compare(b"1 2 3", "1 2").outcome == "fail"
        assert stdio.compare(b"", "").outcome == "pass"
        assert stdio.compare(b"\xff", "1").outcome == "fail"


@pytest.mark.parametrize(
    "fields",
    [
        {"rule": "stdio"},
        {"rule": "values", "cases": [("", "")]},
        {"rule": "values", "exports": ["Node"]},
    ],
)
def test_fields_that_do_not_fit_the_rule_are_refused(fields):
    with pytest.raises(ValueError, match="rule="):
        Program("", **fields)

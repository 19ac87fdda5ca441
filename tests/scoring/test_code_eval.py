"""`CodeEval`: the signature and the results of Hugging Face's `code_eval`."""

from itertools import combinations

import pytest

from mtp_harness.data import humaneval
from mtp_harness.scoring.code_eval import CodeEval

RIGHT = "def add(a, b):\n    return a + b\n"
WRONG = "def add(a, b):\n    return a * b\n"


@pytest.fixture(scope="module")
def metric():
    return CodeEval(consent=True)


def test_the_example_of_code_eval(metric):
    scores, results = metric.compute(
        references=["assert add(2,3)==5"], predictions=[[WRONG, RIGHT]], k=[1, 2]
    )
    assert scores == {"pass@1": 0.5, "pass@2": 1.0}
    assert [number for number, _ in results[0]] == [0, 1]
    assert results[0][1][1] == {
        "task_id": 0,
        "passed": True,
        "result": "passed",
        "completion_id": 1,
    }
    assert results[0][0][1]["passed"] is False
    assert results[0][0][1]["result"].startswith("failed: ")


def test_k_of_several_problems(metric):
    predictions = [[RIGHT] * right + [WRONG] * (6 - right) for right in (0, 1, 4)]
    scores, _ = metric.compute(
        references=["assert add(2, 3) == 5"] * 3, predictions=predictions, k=[1, 3, 10]
    )
    expected = []
    for right in (0, 1, 4):
        subsets = list(combinations([i < right for i in range(6)], 3))
        expected.append(sum(map(any, subsets)) / len(subsets))
    assert scores == {
        "pass@1": pytest.approx(5 / 18),
        "pass@3": pytest.approx(sum(expected) / 3),
    }


def test_humaneval_in_the_form_of_code_eval(metric):
    rows = humaneval.read_problems()[:20]
    scores, results = metric.compute(
        references=[f"{row['test']}\ncheck({row['entry_point']})" for row in rows],
        predictions=[[row["prompt"] + row["canonical_solution"]] for row in rows],
        k=[1],
    )
    assert scores == {"pass@1": 1.0}, results


@pytest.mark.parametrize(
    ("reference", "right", "wrong"),
    [
        ("x = [3, 1]\nsort(x)\nassert x == [1, 3]", "def sort(x): x.sort()", "def sort(x): pass"),
        (
            "assert list(count(3)) == [0, 1, 2]",
            "def count(n): yield from range(n)",
            "def count(n): yield from range(n + 1)",
        ),
        (
            "s = Stack()\ns.push(4)\nassert s.pop() == 4 and len(s) == 0",
            "class Stack:\n    def __init__(self): self.x = []\n"
            "    def push(self, v): self.x += [v]\n    def pop(self): return self.x.pop()\n"
            "    def __len__(self): return len(self.x)",
            "class Stack:\n    def push(self, v): pass\n    def pop(self): return self\n"
            "    def __eq__(self, o): return True\n    def __len__(self): return 0",
        ),
        ("import math\nassert math.isclose(third(), 1 / 3)", "def third(): return 1 / 3", "x = 1"),
        ("assert 1 + 1 == 2", "anything = 1", "1 / 0"),
        ("assert LIMIT == 7", "LIMIT = 7", "x = 5"),
    ],
)
def test_references_of_many_kinds(metric, reference, right, wrong):
    scores, results = metric.compute(references=[reference], predictions=[[right, wrong]], k=[1])
    assert [one["passed"] for _, one in results[0]] == [True, False], results


def test_cheats_fail(metric):
    liar = "class Y:\n    def __eq__(s, o): return True\ndef add(a, b): return Y()\n"
    leaves = ["import sys\nsys.exit(0)", "import os\nos._exit(0)", liar]
    scores, _ = metric.compute(
        references=["assert add(2, 3) == 5"], predictions=[leaves], k=[1], num_workers=2
    )
    assert scores == {"pass@1": 0.0}


def test_time_out_is_named(metric):
    _, results = metric.compute(
        references=["add(1, 2)"],
        predictions=[["def add(a, b):\n    while True: pass"]],
        k=[1],
        timeout=0.5,
    )
    assert results[0][0][1]["result"] == "timed out"


def test_broken_reference_is_no_wrong_answer(metric):
    with pytest.raises(ValueError, match="test of problem 0 cannot be run"):
        metric.compute(references=["import nowhere_at_all"], predictions=[["x = 1"]], k=[1])


def test_what_cannot_be_judged_is_counted_and_named(metric, caplog):
    equal = "class P:\n    def __eq__(self, other): return True\ndef f(): return P()\n"
    scores, results = metric.compute(references=["assert f() == 5"], predictions=[[equal]], k=[1])
    assert scores == {"pass@1": 0.0}
    assert results[0][0][1]["result"].startswith("not judgeable: the test needs a comparison by")
    assert "1 of 1 programs could not be judged and fail" in caplog.text

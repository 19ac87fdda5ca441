"""Answers become programs, and reference solutions pass as such."""

import json
from collections import Counter

import pytest

from mtp_harness.data import apps, codecontests, humaneval, mbpp
from mtp_harness.sandbox import Grader, Limits
from mtp_harness.scoring import programs
from mtp_harness.scoring.answers import code_of, normalised
from mtp_harness.scoring.programs import BENCHMARKS

from ..data.code_fixtures import SUM_SCRIPT, write_all


@pytest.fixture(scope="module")
def grader():
    with Grader(BENCHMARKS["mbpp"].limits, consent=True) as one:
        yield one


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_all(tmp_path_factory.mktemp("data")))


def outcomes(grader, made):
    return [(v.outcome, v.kind, v.rule) for v in grader.grade(made)]


class TestMBPP:
    def test_right_and_wrong(self, grader, folder):
        rows = [row for row in mbpp.read_problems(folder) if row["task_id"] in (11, 13)]
        right = [programs.mbpp(row, row["code"]) for row in rows]
        assert outcomes(grader, right) == [("pass", "", "values"), ("pass", "", "objects")]
        wrong = [
            programs.mbpp(rows[0], "def add_11(a, b): return 0\n"),
            programs.mbpp(rows[1], "class Node: pass\n"),
            programs.mbpp(rows[1], rows[1]["code"].replace("1 +", "2 +")),
        ]
        assert [kind for _, kind, _ in outcomes(grader, wrong)] == [
            "wrong_answer",
            "no_entry_point",
            "wrong_answer",
        ]

    @pytest.mark.slow
    def test_every_reference_solution_passes(self, grader, shared_data):
        rows = mbpp.read_problems(str(shared_data))
        made = [programs.mbpp(row, row["code"]) for row in rows]
        verdicts = grader.grade(made)
        failed = [(p.name, v) for p, v in zip(made, verdicts, strict=True) if v.outcome != "pass"]
        assert failed == [] and len(verdicts) == 974
        assert Counter(v.rule for v in verdicts) == {"values": 971, "objects": 3}

    @pytest.mark.slow
    def test_no_liar_passes(self, grader, shared_data):
        liar = (
            "class Yes:\n    def __init__(self, *a, **k): pass\n    __hash__ = None\n"
            "    def __eq__(self, other): return True\n    def __bool__(self): return True\n"
            "    __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __contains__ = __eq__\n"
            "    def __getattr__(self, name): return Yes()\n"
            "    def __call__(self, *a, **k): return Yes()\n"
        )
        made = [
            programs.mbpp(
                row,
                liar + "\n".join(f"{n} = Yes()" for n in (row["entry_point"], *row["exports"])),
            )
            for row in mbpp.read_problems(str(shared_data))
        ]
        assert Counter(v.outcome for v in grader.grade(made)) == {"fail": 974}


def test_humaneval_answers_of_instruct_models(grader):
    rows = humaneval.read_problems()[:12]
    made = []
    for row in rows:
        whole = row["prompt"] + row["canonical_solution"]
        body = row["canonical_solution"]
        made += [
            programs.humaneval(row, f"Sure!\n\n```python\n{whole}```\nIt adds.\n"),
            programs.humaneval(row, f"```python\n{body}```"),
            programs.humaneval(row, f"```python\n{whole}"),  # the budget ended first
            programs.humaneval(row, f"~~~\nprint(1)\n~~~\nand\n~~~\n{whole}~~~\n"),
            programs.humaneval(row, body),
        ]
    assert outcomes(grader, made) == [("pass", "", "values")] * 60


class TestScripts:
    def test_apps(self, grader, folder):
        script, function = apps.read_problems(folder)
        made = [programs.apps(row, row["solutions"][0]) for row in (script, function)]
        assert outcomes(grader, made) == [("pass", "", "stdio"), ("pass", "", "values")]
        plain = "def pair(xs):\n    return xs if len(xs) > 1 else [xs[0]]\n"
        wrong = "def pair(xs):\n    return xs[0]\n"
        made = [programs.apps(function, code) for code in (plain, wrong)]
        made.append(programs.apps(script, "print(3)\n"))
        assert [outcome for outcome, _, _ in outcomes(grader, made)] == ["pass", "fail", "fail"]

    def test_codecontests(self, grader, folder):
        (row,) = codecontests.read_problems(folder)
        made = [programs.script(row, code) for code in (SUM_SCRIPT, "print(3)\n")]
        assert [outcome for outcome, _, _ in outcomes(grader, made)] == ["pass", "fail"]
        fenced = programs.script(row, f"Here:\n```python\n{SUM_SCRIPT}```")
        assert outcomes(grader, [fenced]) == [("pass", "", "stdio")]

    def test_cases_given_as_lines(self):
        doc = {"task_id": "x", "tests": json.dumps([[["1", "2"], ["3"]]])}
        assert list(programs.script(doc, "").cases) == [("1\n2", "3")]

    def test_time_is_per_case(self, folder):
        code = "import time\ntime.sleep(0.6)\n" + SUM_SCRIPT
        (row,) = codecontests.read_problems(folder)
        with Grader(Limits(wall_s=1.0, cpu_s=1), workers=1, consent=True) as grader:
            assert grader.grade([programs.script(row, code)])[0].outcome == "pass"


class TestAnswers:
    @pytest.mark.parametrize(
        ("answer", "code"),
        [
            ("x = 1\n", "x = 1\n"),
            ("```\nx = 1\n```", "x = 1\n"),
            ("Text\n```py\nx = 1\n```\nmore\n```\ny\n```", "x = 1\n"),
            ("```python\nx = 1", "x = 1"),
            ("````\na\n```\nb\n````", "a\n```\nb\n"),
            ("a = '```'\n", "a = '```'\n"),
            ("```", ""),
            ("", ""),
        ],
    )
    def test_code_of(self, answer, code):
        assert code_of(answer) == code

    def test_block_with_the_wanted_function_wins(self):
        answer = "```\npip install x\n```\n```python\nimport x\ndef f(): pass\n```\n"
        assert code_of(answer, "f") == "import x\ndef f(): pass\n"
        assert code_of(answer, "g") == "pip install x\n"

    def test_exact_match_ignores_white_space_that_means_nothing(self):
        assert normalised("def f():  \r\n\treturn 1\n\n") == normalised("def f():\n    return 1")
        assert normalised("if x:\n    y") != normalised("if x:\n  y")


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("assert add(1, x) == 2", ["add", "x"]),
        ("import math\nassert math.sqrt(f(4)) == 2", ["f"]),
        (
            "def check(candidate):\n    assert candidate(1) == len([y for y in z])\ncheck(g)",
            ["z", "g"],
        ),
        ("root = Node(1)\nassert depth(root) == 1", ["Node", "depth"]),
        ("try:\n    f()\nexcept ValueError as error:\n    assert error.args", ["f"]),
        ("assert (lambda a, *b: a)(h) == h", ["h"]),
    ],
)
def test_free_names(source, names):
    assert sorted(programs.free_names(source)) == sorted(names)

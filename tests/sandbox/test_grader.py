import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mtp_harness.data import humaneval
from mtp_harness.sandbox import Grader, IsolationReport, Limits, Program
from mtp_harness.sandbox import grader as grader_module

GOOD = Program("def f(x):\n    return x + 1\n", "f", "def check(c):\n    assert c(1) == 2\n")


@pytest.fixture(scope="module")
def problems() -> list[dict[str, str]]:
    return humaneval.read_problems()


def humaneval_program(row: dict[str, str], completion: str) -> Program:
    return Program(
        code=row["prompt"] + completion,
        entry_point=row["entry_point"],
        test=row["test"],
        preamble=row["prompt"],
        name=row["task_id"],
    )


class TestHumanEval:
    def test_every_canonical_solution_passes(self, grader, problems):
        programs = [humaneval_program(row, row["canonical_solution"]) for row in problems]
        verdicts = grader.grade(programs)
        failed = [
            (p.name, v) for p, v in zip(programs, verdicts, strict=True) if v.outcome != "pass"
        ]
        assert failed == []
        assert len(verdicts) == 164

    def test_no_empty_completion_passes(self, grader, problems):
        verdicts = grader.grade([humaneval_program(row, "    return None\n") for row in problems])
        assert Counter(v.outcome for v in verdicts) == {"fail": 164}

    def test_no_always_equal_completion_passes(self, grader, problems):
        liar = (
            "    class Yes:\n        __hash__ = None\n"
            "        def __eq__(self, other): return True\n"
            "        __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __eq__\n"
            "    return Yes()\n"
        )
        verdicts = grader.grade([humaneval_program(row, liar) for row in problems])
        assert Counter((v.outcome, v.kind) for v in verdicts) == {("fail", "not_judgeable"): 164}

    @pytest.mark.parametrize(
        ("number", "cheat"),
        [
            (32, "    return 0.0\n\ndef poly(*a): return 0\n"),
            (38, "    return s\n\ndef encode_cyclic(s): return s\n"),
            (50, "    return s\n\ndef encode_shift(s): return s\n"),
        ],
    )
    def test_helper_of_the_prompt_is_the_prompts_own(self, grader, problems, number, cheat):
        # Each cheat would pass if the test computed with the helper that the completion redefines.
        row = problems[number]
        programs = [humaneval_program(row, text) for text in (row["canonical_solution"], cheat)]
        assert [v.outcome for v in grader.grade(programs)] == ["pass", "fail"]


def test_order_is_kept_over_workers(grader):
    programs = [
        Program(f"def f():\n    return {i % 3}\n", "f", "def check(c):\n    assert c() == 1\n")
        for i in range(20)
    ]
    with Grader(workers=3, consent=True) as several:
        outcomes = [v.outcome for v in several.grade(programs)]
        assert outcomes == ["pass" if i % 3 == 1 else "fail" for i in range(20)]
        assert several.grade([]) == []
    assert several.grade([GOOD])[0].outcome == "pass"  # a closed grader starts again
    several.close()


def test_settings_are_plain_and_complete(grader):
    settings = grader.settings()
    assert json.loads(json.dumps(settings)) == settings
    assert set(settings) == {"isolation", "consent", "limits", "workers", "python"}
    assert settings["limits"]["wall_s"] == 3.0
    assert settings["workers"] == 1


def test_ranks_share_the_processors(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert grader_module.default_workers() == 9
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert grader_module.default_workers() == 3


def test_no_worker_is_no_grader():
    with pytest.raises(ValueError, match="workers=0"):
        Grader(workers=0, consent=True)


def test_sufficient_report_forbids_falling_back(monkeypatch):
    report = IsolationReport(True, "namespaces")
    monkeypatch.setattr(grader_module, "self_test", lambda: report)
    assert all(w._config["mechanisms"] == ["namespaces"] for w in Grader()._pool.workers)


def test_other_platforms_are_told_so(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RuntimeError, match="needs Linux, and this is darwin"):
        Grader(consent=True)


@pytest.mark.parametrize("field", ["wall_s", "cpu_s", "memory_bytes", "processes"])
def test_limits_must_be_above_zero(field):
    with pytest.raises(ValueError, match=f"{field}=0"):
        Limits(**{field: 0})


def test_importing_the_sandbox_is_cheap():
    heavy = ("torch", "lm_eval", "ctypes", "resource")
    code = (
        f"import sys, mtp_harness.sandbox\nprint([name for name in {heavy} if name in sys.modules])"
    )
    root = str(Path(grader_module.__file__).parents[2])
    shown = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env={"PYTHONPATH": root}
    )
    assert shown.stdout.strip() == "[]", shown.stderr

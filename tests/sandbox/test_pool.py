import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtp_harness.sandbox import Grader, Limits, Program
from mtp_harness.sandbox import grader as grader_module
from mtp_harness.sandbox import pool as pool_module

GOOD = Program("def f(x):\n    return x + 1\n", "f", "def check(c):\n    assert c(1) == 2\n")


class TestWorkers:
    @pytest.fixture
    def two(self):
        with Grader(Limits(wall_s=1.0, cpu_s=1), workers=2, consent=True) as several:
            yield several

    def test_dead_worker_is_an_error_and_is_replaced(self, two):
        killer = Program(GOOD.code, "f", "import os\ndef check(c): os._exit(1)\n", name="K")
        verdicts = two.grade([GOOD, killer, GOOD, GOOD, GOOD])
        assert [v.outcome for v in verdicts] == ["pass", "error", "pass", "pass", "pass"]
        assert verdicts[1].kind == "grader"
        assert verdicts[1].detail.startswith("K: a grader worker was lost")

    def test_worker_killed_once_costs_nothing(self, two):
        two.grade([GOOD, GOOD])
        for worker in two._pool.workers:
            os.kill(worker.pid, signal.SIGKILL)
        assert [v.outcome for v in two.grade([GOOD] * 4)] == ["pass"] * 4

    def test_zygote_killed_once_costs_nothing(self, grader):
        assert grader.grade([GOOD])[0].outcome == "pass"
        worker = grader._pool.workers[0].pid
        children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
        assert len(children) == 1
        os.kill(int(children[0]), signal.SIGKILL)
        assert grader.grade([GOOD])[0].outcome == "pass"

    def test_check_that_loops_is_broken_into(self, two):
        loop = "def check(c):\n    c(1)\n    while True: pass\n"
        started = time.monotonic()
        verdict = two.grade([Program(GOOD.code, "f", loop)])[0]
        assert verdict[:2] == ("fail", "timeout")
        assert time.monotonic() - started < 5

    def test_check_that_swallows_the_alarm_is_killed(self, two, monkeypatch):
        monkeypatch.setattr(pool_module, "HANG_S", 1.0)
        loop = (
            "import signal\ndef check(c):\n"
            "    signal.signal(signal.SIGALRM, signal.SIG_IGN)\n    while True: pass\n"
        )
        verdicts = two.grade([Program(GOOD.code, "f", loop), GOOD, GOOD])
        assert verdicts[0][:3] == ("fail", "timeout", "the check never ended")
        assert [v.outcome for v in verdicts[1:]] == ["pass", "pass"]

    @pytest.mark.slow
    def test_nothing_is_left_when_the_harness_is_killed(self, tmp_path):
        script = (
            "from mtp_harness.sandbox import Grader, Program\n"
            "g = Grader(workers=1, consent=True)\n"
            "g.grade([Program('def f(): pass', 'f', 'def check(c): c()')])\n"
            "print(g._pool.workers[0].pid, flush=True)\n"
            "g.grade([Program('while True: pass', 'f', 'def check(c): c()')])\n"
        )
        root = str(Path(grader_module.__file__).parents[2])
        harness = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": root},
        )
        pid = int(harness.stdout.readline())
        harness.kill()
        harness.wait()
        deadline = time.monotonic() + 8
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{pid}").exists()

"""Grading of model-written programs.

    with Grader() as grader:
        verdicts = grader.grade([Program(code, entry_point, test, preamble=prompt), …])

Three kinds of processes, none forked from the one before:

    harness ──▶ workers (run the trusted checks) ──▶ zygotes ──fork──▶ one program each

A program never shares a process with a test or an expected value, and cannot influence where a
verdict is made. `checking` is the grader's side, `candidate` the program's, `wire` the messages
between them (`values`, `foreign`); `zygote`, `rootfs`, `bubblewrap` and `seccomp` are the
isolation. The program's `rule` says how a test meets it: by copies, by handles on objects
(`handles`), or as a script with standard input and output (`script`, `stdio`).
"""

from mtp_harness.sandbox.grader import Grader
from mtp_harness.sandbox.isolation import IsolationError, IsolationReport, self_test
from mtp_harness.sandbox.types import Limits, Program, Rule, Verdict

__all__ = [
    "Grader",
    "IsolationError",
    "IsolationReport",
    "Limits",
    "Program",
    "Rule",
    "Verdict",
    "self_test",
]

"""Grading of model-written programs.

    with Grader() as grader:
        verdicts = grader.grade([Program(code, entry_point, test, preamble=prompt), …])

Three kinds of processes, none forked from the one before:

    harness ──▶ workers (run the trusted checks) ──▶ zygotes ──fork──▶ one program each

A program never shares a process with a test or an expected value, and a verdict is made where the
program has no say. `checking` has the grader's side of that, `candidate` the program's, `wire`
what crosses between them (`values`, `foreign`), `zygote`, `rootfs`, `bubblewrap` and
`seccomp` the isolation. How they meet is the program's `rule`, and stands in its verdict: copies,
objects by handle (`handles`), or a script with standard input and output (`script`, `stdio`).
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

"""The grader's side of the rule `stdio`: read what a script writes, compare it with what it should.

Output is compared token by token, in order; white space only separates. A token is right if it is
the expected text or, where a decimal fraction is expected, a number within 1e-6 of it (absolute or
relative): problem statements ask for no more, and correct solutions print different digits.
"""

import math
import re
import socket
import time
from collections.abc import Sequence

from mtp_harness.sandbox.remote import Finding, begin
from mtp_harness.sandbox.types import Limits, one_line

_TOLERANCE = 1e-6
_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(\.\d*)?[eE][+-]?\d+)", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Script:
    """One run of a program on one input.

    Args:
        sock: The channel to the program's process.
        limits: Bound the time and the output.

    Attributes:
        started: When the process was ready for the program.
        failure: Why the output is no answer, if it is none.
    """

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        """Keep the channel."""
        self._sock = sock
        self._limits = limits
        self.started = time.monotonic()
        self.failure: Finding | None = None

    def output(self, code: str, text: str, expected_bytes: int) -> bytes:
        """Run the program on the input `text` and return what it writes until it ends."""
        begin(self._sock, ["stdio", code, text])
        self.started = time.monotonic()
        room = max(self._limits.output_bytes, 2 * expected_bytes)
        written = bytearray()
        while self.failure is None:
            try:
                self._sock.settimeout(max(self.left_s(), 0.001))
                part = self._sock.recv(2**16)
            except TimeoutError:
                self.failure = self.late()
            except ConnectionError:
                break
            else:
                if not part:
                    break
                written += part
                if len(written) > room:
                    self.failure = Finding("fail", "output", f"wrote more than {room} bytes")
        return bytes(written)

    def left_s(self) -> float:
        """Return how long the program may still run."""
        return self.started + self._limits.wall_s - time.monotonic()

    def late(self) -> Finding:
        """Return the finding that the program took too long."""
        return Finding("fail", "timeout", f"not done after {self._limits.wall_s:g} s")


def compare(written: bytes, expected: str) -> Finding:
    """Return whether the output is the expected one."""
    got, wanted = written.decode(errors="replace").split(), expected.split()
    for index, (one, other) in enumerate(zip(got, wanted, strict=False), 1):
        if not same_token(one, other):
            return _wrong(f"token {index} is {one[:40]!r}, expected {other[:40]!r}")
    if len(got) != len(wanted):
        return _wrong(f"{len(got)} tokens, expected {len(wanted)}")
    return Finding("pass", "", "")


def same_token(got: str, expected: str) -> bool:
    """Return whether one token of the output is right."""
    if got == expected:
        return True
    if not _FRACTION.fullmatch(expected) or not _NUMBER.fullmatch(got):
        return False
    return math.isclose(float(got), float(expected), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def of_case(finding: Finding, number: int, cases: Sequence[object]) -> Finding:
    """Return a failure with the number of the case that showed it."""
    where = f"case {number} of {len(cases)}: " if len(cases) > 1 else ""
    return finding._replace(detail=one_line(where + finding.detail))


def _wrong(detail: str) -> Finding:
    return Finding("fail", "wrong_answer", one_line(detail))

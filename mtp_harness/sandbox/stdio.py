"""The grader's side of the rule `stdio`: reads a script's output and compares it.

Output is compared token by token, in order; white space only separates. A token is right if it is
the expected text or, where a decimal fraction is expected, a number within 1e-6 of it (absolute or
relative): problem statements ask for no more, and correct solutions print different digits.
"""

import math
import re
import socket
import time
from dataclasses import dataclass, field

from mtp_harness.sandbox.remote import begin
from mtp_harness.sandbox.types import Limits, Verdict, one_line

_TOLERANCE = 1e-6
_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(\.\d*)?[eE][+-]?\d+)", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass
class Script:
    """One run of a program on one input.

    Args:
        sock: The channel to the program's process.
        limits: Limits on the time and the output.
        started: When the process was ready for the program.
        failure: Why the output does not count, if it does not.
        patience_s: How long the program may still take to end once it has written everything.
    """

    sock: socket.socket
    limits: Limits
    started: float = field(default_factory=time.monotonic)
    failure: Verdict | None = None
    patience_s: float = 0.0

    def output(self, code: str, text: str, expected_bytes: int) -> bytes:
        """Run the program on the input `text` and return what it writes until it ends."""
        begin(self.sock, ["stdio", code, text])
        self.started = time.monotonic()
        room = max(self.limits.output_bytes, 2 * expected_bytes)
        written, part = bytearray(), b"more"
        try:
            while part:
                self.sock.settimeout(max(self._left_s(), 0.001))
                part = self.sock.recv(2**16)
                written += part
                if len(written) > room:
                    self.failure = Verdict("fail", "output", f"wrote more than {room} bytes")
                    return b""
        except TimeoutError:
            self.failure = self.late()
            return b""
        except ConnectionError:
            pass
        self.patience_s = self._left_s()
        return bytes(written)

    def _left_s(self) -> float:
        return self.started + self.limits.wall_s - time.monotonic()

    def late(self) -> Verdict:
        """Return the verdict that the program took too long."""
        return Verdict("fail", "timeout", f"not done after {self.limits.wall_s:g} s")


def compare(written: bytes, expected: str) -> Verdict:
    """Return whether the output is the expected one."""
    got, wanted = written.decode(errors="replace").split(), expected.split()
    for index, (one, other) in enumerate(zip(got, wanted, strict=False), 1):
        if not same_token(one, other):
            return _wrong(f"token {index} is {one[:40]!r}, expected {other[:40]!r}")
    if len(got) != len(wanted):
        return _wrong(f"{len(got)} tokens, expected {len(wanted)}")
    return Verdict("pass")


def same_token(got: str, expected: str) -> bool:
    """Return whether one token of the output is right."""
    if got == expected:
        return True
    if not _FRACTION.fullmatch(expected) or not _NUMBER.fullmatch(got):
        return False
    return math.isclose(float(got), float(expected), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def _wrong(detail: str) -> Verdict:
    return Verdict("fail", "wrong_answer", one_line(detail))

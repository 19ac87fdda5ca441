"""Tests whether the isolation works here, by grading small hostile programs for real.

A probe counts as blocked only if its program ran to its end and its attempt had no effect.
"""

import platform
import select
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mtp_harness.sandbox.pool import WorkerPool
from mtp_harness.sandbox.system_calls import MACHINES
from mtp_harness.sandbox.types import MECHANISMS, Limits, Mechanism, Program

FLAG = "--confirm_run_unsafe_code"
REQUIRED = {
    "keyrings": "the kernel's keyrings",
    "network": "the network",
    "outside_write": "the files of this machine",
    "signal_outside": "other processes",
    "signal_parent": "the grader's own processes",
}
_LIMITS = Limits(wall_s=3.0, cpu_s=1)


class IsolationError(RuntimeError):
    """Programs would run without the isolation that keeps them from doing harm."""


@dataclass(frozen=True)
class IsolationReport:
    """The result of the self-test.

    Args:
        sufficient: Keyrings, network, writing outside and signalling are all blocked.
        mechanism: What isolates programs.
        namespaces: Which namespaces every program is in.
        filter: Name of the filter on every program's system calls; empty if there is none.
        probes: Name of a probe → whether its attempt was blocked.
        detail: Why no stronger mechanism was used.
    """

    sufficient: bool
    mechanism: Mechanism = "process"
    namespaces: list[str] = field(default_factory=list)
    filter: str = ""
    probes: dict[str, bool] = field(default_factory=dict)
    detail: str = ""

    def describe(self) -> dict[str, object]:
        """Return the report as plain values, for the results file."""
        return asdict(self)

    def require(self) -> None:
        """Raise `IsolationError` unless the isolation is sufficient."""
        if not self.sufficient:
            gaps = [text for name, text in REQUIRED.items() if not self.probes.get(name, False)]
            reason = f" ({self.detail})" if self.detail else ""
            raise IsolationError(
                f"programs written by the model would not be isolated here from {_listed(gaps)}"
                f"{reason}; {FLAG} runs them all the same, with your rights and only limits on "
                "time, memory and files."
            )


def self_test(mechanisms: Sequence[Mechanism] = MECHANISMS) -> IsolationReport:
    """Run the probes under the first mechanism that works here, in well under a second."""
    check_platform()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o777)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        sleep = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
        victim = subprocess.Popen(sleep, stdin=subprocess.DEVNULL)
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        pool = WorkerPool(_LIMITS, 1, mechanisms)
        stack.callback(pool.close)
        programs = _probes(listener.getsockname()[1], folder / uuid.uuid4().hex, victim.pid)
        verdicts = pool.grade(list(programs.values()))
        hello: dict[str, Any] = pool.workers[0].hello  # the other fields of a report
        blocked = {
            name: verdict.outcome == "pass"
            for name, verdict in zip(programs, verdicts, strict=True)
        }
        blocked["network"] &= not select.select([listener], [], [], 0)[0]  # no connection
        blocked["outside_write"] &= not any(folder.iterdir())
        blocked["signal_outside"] &= victim.poll() is None
    return IsolationReport(all(blocked[name] for name in REQUIRED), probes=blocked, **hello)


def check_platform() -> None:
    """Raise if the grader cannot work at all."""
    if sys.platform != "linux":
        raise RuntimeError(
            f"grading of model-written programs needs Linux, and this is {sys.platform}: "
            "generate with --predict_only here and grade the samples on Linux."
        )


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


_CODE = """
def probe(argument):
    import ctypes, os, socket, time
    call = ctypes.CDLL(None).syscall
    try:
        {body}
    except (OSError, MemoryError):
        return "blocked"
    return "done"
"""


def _probes(port: int, path: Path, victim: int) -> dict[str, Program]:
    machine = MACHINES.get(platform.machine())
    tried = {
        # If the call's number is not known, nothing shows that it is denied.
        "keyrings": (
            "if argument and call(argument, b'user', b'm', b'x', 1, -4) < 0: raise OSError",
            machine.numbers["add_key"] if machine else None,
        ),
        "network": ("socket.create_connection(('127.0.0.1', argument), 0.2)", port),
        "outside_write": ("open(argument, 'w').write('x')", str(path)),
        "signal_outside": (
            "os.kill(argument if argument != os.getpid() else 0x7fffffff, 9)",
            victim,
        ),
        # The first process of a pid namespace does not hear this signal, and the sender lives on.
        "signal_parent": ("os.kill(os.getppid(), 9); time.sleep(0.05); raise OSError", None),
        "other_processes": ("os.listdir(f'/proc/{argument}')", victim),
        "memory": ("bytearray(argument)", 2 * _LIMITS.memory_bytes),
    }
    return {
        name: Program(
            code=_CODE.format(body=body),
            entry_point="probe",
            test=f"def check(candidate): assert candidate({argument!r}) == 'blocked'",
            name=name,
        )
        for name, (body, argument) in tried.items()
    }

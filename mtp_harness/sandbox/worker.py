"""A grader worker: a fresh process that checks programs one after the other.

It runs the trusted tests, so that a test that hangs or crashes affects neither the harness nor the
other workers, and owns the zygote that the programs are forked from.
"""

import resource
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import mtp_harness.sandbox.stdio as stdio
import mtp_harness.sandbox.wire as wire
from mtp_harness.sandbox.checking import Check
from mtp_harness.sandbox.launcher import Launcher
from mtp_harness.sandbox.remote import Fault, RemoteFunction
from mtp_harness.sandbox.types import Limits, Mechanism, NoNamespaces, Program, Verdict, one_line

# A test that expands a small answer must not take the machine's memory.
_MEMORY_BYTES = 4 * 2**30


def main(channel_fd: int) -> None:
    """Report the isolation, then answer programs with verdicts until the channel closes."""
    channel = socket.socket(fileno=channel_fd)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or hard > _MEMORY_BYTES:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, hard))
    config = cast(dict[str, object], wire.read_frame(channel))
    limits = Limits(**cast(dict[str, int], config["limits"]))
    mechanisms = cast(list[Mechanism], config["mechanisms"])
    worker = Worker(limits, str(config["scratch"]), mechanisms)
    try:
        wire.send_frame(channel, worker.open())
        while True:
            program = Program(**cast(dict[str, Any], wire.read_frame(channel)))
            verdict = worker.grade(program, begun=lambda: wire.send_frame(channel, wire.BEGUN))
            wire.send_frame(channel, list(verdict))
    except (wire.Closed, ConnectionError):
        worker.close()


@dataclass
class Worker:
    """Grades one program at a time.

    Args:
        limits: What every program may use.
        scratch: Folder for the programs' folders if there are no namespaces.
        mechanisms: What may isolate programs, best first; nothing else is ever used.
    """

    limits: Limits
    scratch: str
    mechanisms: Sequence[Mechanism]
    _launcher: Launcher | None = None
    _reason: str = ""

    def open(self) -> dict[str, object]:
        """Start the zygote; return what isolates it, and why nothing stronger does."""
        try:
            launcher = self._ready()
        except Fault as fault:
            return {"mechanism": "process", "namespaces": [], "detail": one_line(str(fault))}
        detail = "; ".join(filter(None, (self._reason, str(launcher.hello.get("detail", "")))))
        return {"mechanism": launcher.mechanism, **launcher.hello, "detail": detail}

    def close(self) -> None:
        """End the zygote and what runs in it."""
        if self._launcher is not None:
            self._launcher.close()
            self._launcher = None

    def _ready(self) -> Launcher:
        if self._launcher is not None and not self._launcher.usable():
            self.close()
        if self._launcher is not None:
            return self._launcher
        refusals: list[str] = []
        for mechanism in self.mechanisms:
            try:
                self._launcher = Launcher(self.limits, self.scratch, mechanism)
                return self._launcher
            except NoNamespaces as error:
                refusals.append(str(error))
            self._reason = one_line("; ".join(refusals))
        raise Fault("grader", f"no isolation: {self._reason}")

    def grade(self, program: Program, begun: Callable[[], object] = bool) -> Verdict:
        """Return the verdict on one program; any failure here is an `error`.

        `begun` is called when the time of a program begins that is not a script.
        """
        started = time.monotonic()
        try:
            if program.rule == "stdio":
                verdict = self._grade_script(program)
            else:
                verdict = self._grade(program, begun)
        except Exception as error:
            fault = error if isinstance(error, Fault) else Fault("grader", repr(error))
            wall_s = time.monotonic() - started
            verdict = Verdict("error", fault.kind, one_line(str(fault)), wall_s)
        if verdict[:2] == ("error", "grader"):
            self.close()  # the next program gets a new zygote
        return verdict._replace(rule=program.rule)

    def _grade(self, program: Program, begun: Callable[[], object]) -> Verdict:
        launcher = self._ready()
        with launcher.launch() as channel:
            remote = RemoteFunction(channel, self.limits, program.rule == "objects")
            try:
                check = Check(program, remote)
                remote.begin(program)
                begun()
                verdict = check.run()
            finally:
                launcher.stop()
            wall_s = time.monotonic() - remote.started
        if remote.gone:
            verdict = launcher.verdict(launcher.ended())
        return verdict._replace(wall_s=wall_s)

    def _grade_script(self, program: Program) -> Verdict:
        """Run a script on one case after the other, up to the first failure."""
        wall_s = 0.0
        for number, (text, expected) in enumerate(program.cases, 1):
            launcher = self._ready()
            with launcher.launch() as channel:
                script = stdio.Script(channel, self.limits)
                try:
                    written = script.output(program.code, text, len(expected))
                finally:
                    # It has written everything but not ended yet, and its exit code counts, too.
                    launcher.stop(script.patience_s)
                ended = launcher.ended()
            wall_s += time.monotonic() - script.started
            verdict = script.failure or stdio.compare(written, expected)
            if script.failure is None and not ended.by_itself:
                verdict = script.late()
            elif script.failure is None and ended.wait_status != 0:
                verdict = launcher.verdict(ended)
            if verdict.outcome != "pass":
                where = f"case {number} of {len(program.cases)}: " if program.cases[1:] else ""
                detail = one_line(where + verdict.detail)
                return verdict._replace(detail=detail, wall_s=wall_s)
        return Verdict("pass", wall_s=wall_s)

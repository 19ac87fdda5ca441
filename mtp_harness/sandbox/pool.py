"""Worker processes, and how programs are distributed to them."""

import dataclasses
import queue
import socket
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import mtp_harness.sandbox.interpreter as interpreter
import mtp_harness.sandbox.wire as wire
from mtp_harness.sandbox.types import Limits, Mechanism, Program, Verdict, one_line

# A worker answers within the program's own time and this much more. If it does not, the test hangs
# where no alarm can interrupt it, which only the program can have caused.
HANG_S = 0.6
_START_S = 30.0  # what starting a worker, a zygote and a test may take
_ATTEMPTS = 2


class WorkerLost(RuntimeError):
    """A worker process ended without an answer."""


class WorkerProcess:
    """One worker, started at its first use and again after it is lost."""

    def __init__(self, limits: Limits, mechanisms: Sequence[Mechanism]) -> None:
        self._limits = limits
        self._falls_back = "process" in mechanisms
        self._config = {"limits": dataclasses.asdict(limits), "mechanisms": list(mechanisms)}
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._channel: socket.socket | None = None
        self.pid: int | None = None
        self.hello: dict[str, Any] = {}

    def start(self) -> socket.socket:
        """Start the process if there is none, and wait until it reports its isolation."""
        if self._channel is not None:
            return self._channel
        channel, theirs = socket.socketpair()
        with theirs:
            self._process = interpreter.start("worker", theirs, new_session=True)
        self._channel, self.pid = channel, self._process.pid
        scratch = ""
        if self._falls_back:
            # Removed by this process, since the worker and its zygote may be killed.
            self._scratch = tempfile.TemporaryDirectory("", "mtp-harness-", None, True)
            scratch = self._scratch.name
            Path(scratch).chmod(0o711)
        try:
            wire.send_frame(channel, {**self._config, "scratch": scratch})
            hello = cast(Any, wire.read_frame(channel, deadline=time.monotonic() + _START_S))
        except (OSError, EOFError) as error:
            self.kill()
            raise WorkerLost(f"a grader worker did not start: {error!r}") from None
        self.hello = hello
        return channel

    def grade(self, program: Program) -> Verdict:
        """Return this worker's verdict; raises `WorkerLost`."""
        channel = self.start()
        patience_s = _START_S + self._limits.wall_s * len(program.cases)
        try:
            channel.settimeout(patience_s)
            wire.send_frame(channel, dataclasses.asdict(program))
            answer = wire.read_frame(channel, deadline=time.monotonic() + patience_s)
            if answer == wire.BEGUN:
                patience_s = self._limits.wall_s + HANG_S
                answer = wire.read_frame(channel, deadline=time.monotonic() + patience_s)
        except TimeoutError:
            self.kill()
            return Verdict("fail", "timeout", "the check never ended", patience_s, program.rule)
        except (OSError, EOFError, wire.Malformed) as error:
            self.kill()
            raise WorkerLost(f"a grader worker was lost: {error!r}") from None
        return Verdict(*cast(list[Any], answer))

    def kill(self) -> None:
        """End the process at once; its zygote and programs go with it."""
        if self._channel is not None:
            self._process.kill()
            self.close()

    def close(self) -> None:
        """Let the process end."""
        if self._channel is not None:
            self._channel.close()
            self._channel = self.pid = None
            interpreter.end(self._process, 5.0)
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None


class WorkerPool:
    """Grades programs on several workers at once; each starts with its first program."""

    def __init__(self, limits: Limits, workers: int, mechanisms: Sequence[Mechanism]) -> None:
        """Prepare the workers, whose programs are isolated by the first mechanism that works."""
        self.workers = [WorkerProcess(limits, mechanisms) for _ in range(workers)]

    def grade(self, programs: Sequence[Program]) -> list[Verdict]:
        """Return one verdict per program, in their order."""
        busy = self.workers[: len(programs)]
        idle: queue.SimpleQueue[WorkerProcess] = queue.SimpleQueue()
        for worker in busy:
            idle.put(worker)

        def grade(program: Program) -> Verdict:
            worker = idle.get()
            try:
                return _grade(worker, program)
            finally:
                idle.put(worker)

        with ThreadPoolExecutor(max(len(busy), 1)) as threads:
            return list(threads.map(grade, programs))

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()


def _grade(worker: WorkerProcess, program: Program) -> Verdict:
    """Try once more after an `error`: the process may have been killed by accident."""
    for _ in range(_ATTEMPTS):
        try:
            verdict = worker.grade(program)
        except WorkerLost as error:
            verdict = Verdict("error", "grader", one_line(str(error)), 0.0, program.rule)
        if verdict[:2] != ("error", "grader"):
            break
    if verdict.outcome == "error" and program.name:
        return verdict._replace(detail=one_line(f"{program.name}: {verdict.detail}"))
    return verdict

"""The grader's handle on a zygote: starts it, makes it fork programs' processes and kill them."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import mtp_harness.sandbox.bubblewrap as bubblewrap
import mtp_harness.sandbox.interpreter as interpreter
import mtp_harness.sandbox.rootfs as rootfs
import mtp_harness.sandbox.script as script
import mtp_harness.sandbox.zygote as zygote
from mtp_harness.sandbox.remote import START_S, Fault
from mtp_harness.sandbox.types import NOBODY, Limits, Mechanism, NoNamespaces, Verdict


class Ended(NamedTuple):
    """How a program's process ended."""

    wait_status: int
    cpu_s: float
    by_itself: bool


class Launcher:
    """One zygote and the program that runs in it, if one does.

    Args:
        limits: What every program may use.
        scratch: Folder for the programs' folders if there are no namespaces.
        mechanism: What isolates programs.

    Attributes:
        hello: The zygote's report on the isolation.
    """

    def __init__(self, limits: Limits, scratch: str, mechanism: Mechanism) -> None:
        """Start the zygote, or raise `NoNamespaces`."""
        self.mechanism = mechanism
        self._limits = limits
        self._stopping = self._spent = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(START_S)
        errors = os.memfd_create("errors")
        try:
            with theirs:
                if mechanism == "bubblewrap":
                    self._process = bubblewrap.start(theirs, limits.file_bytes, errors)
                else:
                    self._process = interpreter.start("zygote", theirs)
            self.hello = self._set_up(scratch if mechanism == "process" else "")
        except Fault:
            if mechanism == "bubblewrap":
                raise NoNamespaces(bubblewrap.complaint(errors)) from None
            raise
        finally:
            os.close(errors)

    def _set_up(self, scratch: str) -> dict[str, object]:
        """Return the zygote's namespaces, and its programs' filter or why there is none."""
        try:
            config = {"limits": dataclasses.asdict(self._limits), "scratch": scratch}
            self._tell({**config, "mechanism": self.mechanism})
            if self.mechanism == "namespaces":
                self._hear()
                self._tell({"two_users": map_users(self._process.pid)})
            return self._hear()
        except BaseException:
            self.close()
            raise

    def _tell(self, message: dict[str, object]) -> None:
        with _asked_to("listen"):
            self._control.send(json.dumps(message).encode())

    def _hear(self) -> dict[str, object]:
        with _asked_to("answer"):
            answer = json.loads(self._control.recv(2**16) or b"{}")
        if "error" in answer:
            raise NoNamespaces(answer["error"])
        if not answer:
            raise Fault("grader", "the zygote ended while it was setting up")
        return cast(dict[str, object], answer)

    def usable(self) -> bool:
        """Wait until the stopped program is gone; False if the zygote cannot take another."""
        if self._stopping:
            self.ended()
        return not self._spent

    def launch(self) -> socket.socket:
        """Have a new process forked, and return the channel to it."""
        ours, theirs = socket.socketpair()
        try:
            with theirs, _asked_to("listen"):
                socket.send_fds(self._control, [b"run"], [theirs.fileno()])
        except Fault:
            ours.close()
            raise
        return ours

    def stop(self, patience_s: float = 0.0) -> None:
        """Have the program and its children killed, after some time to end by itself.

        Returns before that is done.
        """
        with _asked_to("listen"):
            self._control.send(b"%d" % max(0, round(1000 * patience_s)))
        self._stopping = True

    def ended(self) -> Ended:
        """Wait until the stopped program is gone and return how it ended."""
        with _asked_to("answer"):
            status = self._control.recv(64)
        if len(status) != zygote.STATUS.size:
            raise Fault("grader", "the zygote ended")
        self._stopping = False
        *ended, self._spent = zygote.STATUS.unpack(status)
        return Ended(*ended)

    def verdict(self, ended: Ended) -> Verdict:
        """Return the verdict on a program whose process ended, which it should not do."""
        wait_status, cpu_s, by_itself = ended
        if os.WIFEXITED(wait_status):
            code = os.WEXITSTATUS(wait_status)
            if code == script.EXIT_MEMORY:
                return Verdict("fail", "memory", "out of memory")
            if code == script.EXIT_SYNTAX:
                return Verdict("fail", "syntax", "the program is not Python")
            return Verdict("fail", "exception", f"the process left with exit code {code}")
        number = os.WTERMSIG(wait_status)
        if number == signal.SIGXCPU or cpu_s >= self._limits.cpu_s:
            return Verdict("fail", "timeout", f"not done after {self._limits.cpu_s} s of processor")
        if number == signal.SIGKILL and not by_itself:
            return Verdict("fail", "exception", "the program closed its channel")
        if number == signal.SIGKILL:
            return Verdict("fail", "memory", "killed by the kernel, as it does when memory is out")
        return Verdict("fail", "exception", f"the process died of {signal.Signals(number).name}")

    def close(self) -> None:
        """End the zygote and what runs in it."""
        self._control.close()
        interpreter.end(self._process, 1.0)


@contextlib.contextmanager
def _asked_to(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Fault("grader", f"the zygote does not {what}: {error}") from None


def map_users(pid: int) -> bool:
    """Map the users of the user namespace of process `pid`; return whether there are two.

    As root, the zygote stays root there and programs become the user nobody; otherwise both are the
    current user.
    """
    process, box = Path("/proc") / str(pid), rootfs.BOX_UID
    (process / "setgroups").write_text("deny")
    both = f"0 0 1\n{box} {NOBODY} 1\n"
    if os.geteuid() == 0 and _write_maps(process, both, both):
        return True
    if not _write_maps(process, f"{box} {os.geteuid()} 1\n", f"{box} {os.getegid()} 1\n"):
        raise NoNamespaces("uid_map: not permitted")
    return False


def _write_maps(process: Path, users: str, groups: str) -> bool:
    try:
        (process / "uid_map").write_text(users)
        (process / "gid_map").write_text(groups)
    except OSError:
        return False
    return True

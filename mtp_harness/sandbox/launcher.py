"""The grader's handle on a zygote: start it, have programs' processes forked, have them killed."""

import dataclasses
import json
import os
import signal
import socket
from pathlib import Path
from typing import NamedTuple, cast

from mtp_harness.sandbox import bubblewrap, interpreter, rootfs, script, zygote
from mtp_harness.sandbox.remote import START_S, Fault, Finding
from mtp_harness.sandbox.types import NOBODY, Limits, Mechanism, NoNamespaces


class Ended(NamedTuple):
    """How a program's process ended."""

    wait_status: int
    cpu_s: float
    by_itself: bool


class Launcher:
    """One zygote and the program that runs in it, if one does.

    Args:
        limits: What every program may use.
        scratch: Folder for the programs' folders where there are no namespaces.
        mechanism: What to isolate programs by.

    Attributes:
        hello: What the zygote says of the isolation.

    Raises:
        NoNamespaces: That does not work here.
    """

    def __init__(self, limits: Limits, scratch: str, mechanism: Mechanism) -> None:
        """Start the zygote and wait until it is ready."""
        self.mechanism = mechanism
        self._limits = limits
        self._stopping = self._spent = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(START_S)
        with theirs:
            if mechanism == "bubblewrap":
                self.hello = self._start_in_bubblewrap(theirs)
            else:
                self._process = interpreter.start("zygote", theirs)
                self.hello = self._set_up(scratch)

    def _start_in_bubblewrap(self, theirs: socket.socket) -> dict[str, object]:
        errors = os.memfd_create("errors")
        try:
            self._process = bubblewrap.start(theirs, self._limits.file_bytes, errors)
            theirs.close()
            return self._set_up("")
        except Fault:
            raise NoNamespaces(bubblewrap.complaint(errors)) from None
        finally:
            os.close(errors)

    def _set_up(self, scratch: str) -> dict[str, object]:
        """Return the zygote's namespaces, its programs' filter, or the reason why there is none."""
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
        try:
            self._control.send(json.dumps(message).encode())
        except OSError as error:
            raise Fault("grader", f"the zygote does not listen: {error}") from None

    def _hear(self) -> dict[str, object]:
        try:
            answer = json.loads(self._control.recv(2**16) or b"{}")
        except OSError as error:
            raise Fault("grader", f"the zygote does not answer: {error}") from None
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
        """Have a new process forked and return the channel to it."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._control, [b"run"], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise Fault("grader", f"the zygote does not listen: {error}") from None
        return ours

    def stop(self, patience_s: float = 0.0) -> None:
        """Have the program and all that it started killed; returns before that is done.

        Args:
            patience_s: How long the program may still take to end by itself.
        """
        try:
            self._control.send(b"%d" % max(0, round(1000 * patience_s)))
        except OSError as error:
            raise Fault("grader", f"the zygote does not listen: {error}") from None
        self._stopping = True

    def ended(self) -> Ended:
        """Wait until the stopped program is gone and return how it ended."""
        try:
            status = self._control.recv(64)
        except OSError as error:
            raise Fault("grader", f"the zygote does not answer: {error}") from None
        if len(status) != zygote.STATUS.size:
            raise Fault("grader", "the zygote ended")
        self._stopping = False
        *ended, self._spent = zygote.STATUS.unpack(status)
        return Ended(*ended)

    def why(self) -> Finding:
        """Return what it says about a stopped program that its process ended unasked."""
        return self.verdict(self.ended())

    def verdict(self, ended: Ended) -> Finding:
        """Return what the end of a process says about its program, which was not to end."""
        wait_status, cpu_s, by_itself = ended
        if os.WIFEXITED(wait_status):
            code = os.WEXITSTATUS(wait_status)
            if code == script.EXIT_MEMORY:
                return Finding("fail", "memory", "out of memory")
            if code == script.EXIT_SYNTAX:
                return Finding("fail", "syntax", "the program is not Python")
            return Finding("fail", "exception", f"the process left with exit code {code}")
        number = os.WTERMSIG(wait_status)
        if number == signal.SIGXCPU or cpu_s >= self._limits.cpu_s:
            return Finding("fail", "timeout", f"not done after {self._limits.cpu_s} s of processor")
        if number == signal.SIGKILL and not by_itself:
            return Finding("fail", "exception", "the program closed its channel")
        if number == signal.SIGKILL:
            return Finding("fail", "memory", "killed by the kernel, as it does when memory is out")
        return Finding("fail", "exception", f"the process died of {signal.Signals(number).name}")

    def close(self) -> None:
        """End the zygote and what runs in it."""
        self._control.close()
        interpreter.end(self._process, 1.0)


def map_users(pid: int) -> bool:
    """Give the user namespace of process `pid` its user and group ids.

    As root the zygote stays root there and programs become nobody; otherwise both are the user who
    runs this. Returns whether there are two.
    """
    (Path("/proc") / str(pid) / "setgroups").write_text("deny")
    maps = [f"{rootfs.BOX_UID} {os.geteuid()} 1\n", f"{rootfs.BOX_UID} {os.getegid()} 1\n"]
    two_users = False
    if os.geteuid() == 0:
        both = f"0 0 1\n{rootfs.BOX_UID} {NOBODY} 1\n"
        two_users = _write_maps(pid, [both, both])
    if not two_users and not _write_maps(pid, maps):
        raise NoNamespaces("uid_map: not permitted")
    return two_users


def _write_maps(pid: int, maps: list[str]) -> bool:
    try:
        for name, text in zip(("uid_map", "gid_map"), maps, strict=True):
            (Path("/proc") / str(pid) / name).write_text(text)
    except OSError:
        return False
    return True

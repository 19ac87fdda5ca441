"""The process that programs are forked from.

It is a fresh interpreter that has imported some of the standard library and nothing else. It never
sees a test, a reference solution or a program: those go from the grader straight to the forked
child. So the memory that a program inherits contains nothing to find.

Isolated, it is process 1 of a new pid namespace, in new user, mount, network, ipc and uts
namespaces, which it makes itself or bubblewrap has made. That is set up once; per program there is
one fork, one `kill` of everything in the namespace and one new folder.

    grader                          zygote                     child
      │ socketpair, one end ─────────▶ fork ─────────────────────▶ limits, no privileges, filter
      │ ◀───────────────── begin ─────────────────────────────────┤
      │ code ─────────────────────────────────────────────────────▶ load
      │ ◀──▶ calls and values ◀───────────────────────────────────▶ call
      │ patience in ms ──────────────▶ wait, kill all, new folder
      │ ◀──────────── exit status ─────┤
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple, NoReturn

import mtp_harness.sandbox.candidate as candidate
import mtp_harness.sandbox.linux as linux
import mtp_harness.sandbox.rootfs as rootfs
import mtp_harness.sandbox.seccomp as seccomp
import mtp_harness.sandbox.wire as wire
from mtp_harness.sandbox.types import NOBODY, Limits, Mechanism

# wait status, processor seconds, ended before it was stopped, was the last one here
STATUS = struct.Struct("<id??")
_PRELOAD = (
    "bisect cmath copy dataclasses datetime decimal enum fractions functools hashlib heapq "
    "itertools json math operator random re statistics string textwrap time typing unicodedata"
)


class _Settings(NamedTuple):
    limits: Limits
    mechanism: Mechanism
    child_uid: int | None = None
    extra_processes: int = 0  # not the program's, but counted with them
    filter: seccomp.Filter | None = None

    @property
    def isolated(self) -> bool:
        """Whether there are namespaces, whoever made them."""
        return self.mechanism != "process"


def main(control_fd: int) -> None:
    """Set up, report, and fork one program at a time until the grader closes the channel."""
    control = socket.socket(fileno=control_fd)
    config = json.loads(control.recv(2**16))
    for name in _PRELOAD.split():
        importlib.import_module(name)
    os.environ.clear()
    linux.be_killed_first()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        settings = _enter(config["mechanism"], Limits(**config["limits"]), control)
    except OSError as error:
        reason = f"{error.filename or 'setup'}: {error.strerror or error}"
        control.send(json.dumps({"error": reason}).encode())
        return
    _warm_up()
    # bubblewrap leaves the loopback device up, so that a connection would outlive its program.
    found = seccomp.ready(only_unix=settings.mechanism == "bubblewrap")
    hello: dict[str, object] = {"namespaces": list(linux.NAMESPACES) if settings.isolated else []}
    if isinstance(found, str):
        hello["detail"] = found
    else:
        settings, hello["filter"] = settings._replace(filter=found), found.name
    control.send(json.dumps(hello).encode())
    gc.collect()
    gc.freeze()
    with contextlib.suppress(ConnectionError):
        _serve(control, settings, config["scratch"])


def _warm_up() -> None:
    """Make the interpreter prepare things before the fork, instead of after each fork."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire.send_frame(ours, ["values", "def f(x):\n    return x\n", ["f"]])
        for value in (1, 2.5, "a", b"a", None, True, [1], (1,), {1}, {1: 2}):
            args, kwargs = wire.pack([value], 2**16), wire.pack({}, 2**16)
            wire.send_frame(ours, ["call", 0, args, kwargs])
        ours.shutdown(socket.SHUT_WR)
        with contextlib.suppress(wire.Closed):
            candidate.serve(theirs, 2**16)
    del sys.modules[candidate.MODULE]


def _enter(mechanism: Mechanism, limits: Limits, control: socket.socket) -> _Settings:
    """Enter the isolation, or do what is possible if the kernel allows none."""
    if mechanism == "process":
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        nobody = os.geteuid() == 0 and linux.possible(_read_as_nobody)
        return _Settings(limits, mechanism, NOBODY if nobody else None)
    ours = mechanism == "namespaces"
    two_users = ours and _make_namespaces(control)
    if os.getpid() != 1:
        raise OSError("not the first process of its pid namespace")
    if ours:
        rootfs.enter_new_root(limits.file_bytes)
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    if not ours and not rootfs.empty_box():
        raise OSError("no folder for programs")
    if two_users:
        return _Settings(limits, mechanism, rootfs.BOX_UID)
    # This process counts, too, and so does the one that made the namespaces.
    return _Settings(limits, mechanism, None, 2 if ours else 1)


def _make_namespaces(control: socket.socket) -> bool:
    """Return, as process 1 of new namespaces, whether they have two users."""
    with contextlib.suppress(OSError):
        os.setgroups([])  # works for root only
    linux.call("unshare", sum(linux.NAMESPACES.values()))
    control.send(b'{"unshared": true}')
    mapped = json.loads(control.recv(2**16))  # the grader has written this namespace's user ids
    first = os.fork()
    if first:
        control.close()
        os.waitpid(first, 0)
        os._exit(0)
    linux.die_with_parent(signal.SIGKILL)
    return bool(mapped["two_users"])


def _read_as_nobody() -> None:
    linux.become(NOBODY)
    os.close(os.open(os.__file__, os.O_RDONLY))


def _serve(control: socket.socket, settings: _Settings, scratch: str) -> None:
    traits = linux.traits()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 16, 1)
        if not message or not descriptors:
            return
        folder = rootfs.BOX if settings.isolated else tempfile.mkdtemp(dir=scratch)
        pid = os.fork()
        if pid == 0:
            control.close()
            _become_candidate(descriptors[0], settings, folder)
        os.close(descriptors[0])
        ended = _wait(control, pid)
        wait_status, cpu_s = _sweep(pid, settings.isolated)
        last = not _clear(folder, settings) or linux.traits() != traits
        if not control.recv(16):
            return
        control.send(STATUS.pack(wait_status, cpu_s, ended, last))
        if last:
            return


def _clear(folder: str, settings: _Settings) -> bool:
    """Remove what a program left; return False if some of it may have stayed."""
    if settings.mechanism == "process":
        shutil.rmtree(folder, ignore_errors=True)
        return True
    if settings.mechanism == "namespaces":
        rootfs.replace_box(settings.limits.file_bytes)
    elif not rootfs.empty_box():
        return False
    return linux.ipc_objects() == 0


def _wait(control: socket.socket, pid: int) -> bool:
    """Wait until the program ends or the grader's patience is over; True if it ended."""
    process = os.pidfd_open(pid)
    try:
        waited: list[int | socket.socket] = [process, control]
        ready, _, _ = select.select(waited, [], [])
        if process not in ready and (message := control.recv(16, socket.MSG_PEEK)):
            ready, _, _ = select.select(waited[:1], [], [], int(message) / 1000)
        return process in ready
    finally:
        os.close(process)


def _sweep(pid: int, isolated: bool) -> tuple[int, float]:
    """Kill and reap the program and its children; returns its wait status and seconds."""
    status: tuple[int, float] | None = None
    while True:
        with contextlib.suppress(ProcessLookupError):
            if isolated:
                _kill_namespace()
            else:
                _kill_descendants(pid if status is None else None)
        try:
            ended, wait_status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return status or (0, 0.0)
        if ended == pid:
            status = (wait_status, usage.ru_utime + usage.ru_stime)


def _kill_namespace() -> None:
    """Kill every process of this pid namespace except this one."""
    # Outside a separate pid namespace, the same call would kill every process of the machine.
    if os.getpid() != 1:
        os._exit(1)
    os.kill(-1, signal.SIGKILL)


def _kill_descendants(group: int | None) -> None:
    """Kill a process group, and every child of ours: orphans have become ours, too."""
    if group is not None:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    me = str(os.getpid())
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                if parent == me:
                    os.kill(int(entry.name), signal.SIGKILL)


def _become_candidate(data_fd: int, settings: _Settings, folder: str) -> NoReturn:
    channel = socket.socket(fileno=data_fd)
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.closerange(3, data_fd)
        os.closerange(data_fd + 1, 256)  # the zygote opens few files and none above this
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _confine(settings, folder)
    except BaseException as error:
        wire.send_frame(channel, ["fault", repr(error)[:500]])
        os._exit(1)
    candidate.run(channel, settings.limits.output_bytes)
    os._exit(0)


def _confine(settings: _Settings, folder: str) -> None:
    limits, uid = settings.limits, settings.child_uid
    if not settings.isolated and uid is not None:
        os.chown(folder, uid, uid)
    for name, value in (
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NPROC, limits.processes + settings.extra_processes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # One second between the signals for processor time tells a limit from a kill.
        top = value + 1 if name == resource.RLIMIT_CPU and value != hard else value
        resource.setrlimit(name, (value, top))
    if uid is not None:
        linux.become(uid)
    if not settings.isolated:
        linux.die_with_parent(signal.SIGKILL)
    os.chdir(folder)
    linux.give_up_privileges()
    if settings.filter is not None:
        settings.filter.install()

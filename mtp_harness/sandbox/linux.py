"""Calls to the kernel; those that Python 3.11 does not offer use `ctypes`."""

import contextlib
import ctypes
import os
import resource
from collections.abc import Callable
from pathlib import Path

NAMESPACES = {
    "ipc": 0x08000000,
    "mount": 0x00020000,
    "net": 0x40000000,
    "pid": 0x20000000,
    "user": 0x10000000,
    "uts": 0x04000000,
}
"""The namespaces that programs are in, and the flags that ask the kernel for new ones."""
CLONE_NEWCGROUP = 0x02000000

MS_RDONLY, MS_NOSUID, MS_NODEV = 0x1, 0x2, 0x4
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2

PR_SET_DUMPABLE = 4  # 0: processes of the same user cannot read this one's memory
PR_SET_CHILD_SUBREAPER = 36  # 1: it becomes the parent of descendants whose own parent ends
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

_SYS_MOUNT_SETATTR = 442  # the same number on every architecture that Python has wheels for
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY_NOSUID = 0x1 | 0x2
_CAPABILITY_VERSION = 0x20080522

_RESOURCES = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]

# call, its command for the namespace's totals, and which int of the answer counts the objects
_IPC_COUNTS = (("shmctl", 14, 0), ("msgctl", 12, 0), ("semctl", 19, 7))

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _long(value: object) -> object:
    return ctypes.c_long(value) if isinstance(value, int) else value


def call(name: str, *args: int | str | object) -> None:
    """Call a function of the C library that returns 0, or raise `OSError`."""
    try:
        function = getattr(_libc, name)
    except AttributeError:
        raise OSError(f"the C library has no {name}") from None
    given = (one.encode() if isinstance(one, str) else _long(one) for one in args)
    _check(function(*given), name)


def system_call(number: int, *args: object) -> None:
    """Make the system call of that number; raises `OSError`."""
    _check(_libc.syscall(*map(_long, (number, *args))), f"system call {number}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount `source` on `target`."""
    call("mount", source, target, kind, flags, options or None)


def detach(target: str) -> None:
    """Unmount `target` now, even if it is in use."""
    call("umount2", target, _MNT_DETACH)


def make_read_only(path: str) -> None:
    """Make the mount at `path` and every mount below it read-only and without set-uid files."""
    attributes = (ctypes.c_uint64 * 4)(_ATTR_RDONLY_NOSUID, 0, 0, 0)
    system_call(
        *(_SYS_MOUNT_SETATTR, _AT_FDCWD, path.encode(), _AT_RECURSIVE),
        *(ctypes.byref(attributes), ctypes.sizeof(attributes)),
    )


def prctl(option: int, value: int) -> None:
    """Set one of this process's `PR_SET_…`."""
    call("prctl", option, value, 0, 0, 0)


def die_with_parent(signal_number: int) -> None:
    """Make the kernel send this process `signal_number` when its parent ends."""
    prctl(_PR_SET_PDEATHSIG, signal_number)


def be_killed_first() -> None:
    """Make the kernel kill this process before others when memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def possible(function: Callable[[], object]) -> bool:
    """Return whether a function raises nothing, tried in a child process."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def become(uid: int) -> None:
    """Become that user, and of the group of the same number only."""
    with contextlib.suppress(OSError):
        os.setgroups([])  # forbidden, and done already, in a user namespace
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def traits() -> tuple[object, ...]:
    """Return the state that a program of the same user could change in this process."""
    limits = [resource.getrlimit(number) for number in _RESOURCES]
    policy, nice = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
    return limits, policy, nice, os.sched_getaffinity(0)


def ipc_objects() -> int:
    """Count the shared memory, message queues and semaphores of this ipc namespace."""
    count = 0
    for name, command, field in _IPC_COUNTS:
        found = (ctypes.c_int * 64)()
        numbers = (0, 0, command) if name == "semctl" else (0, command)
        if getattr(_libc, name)(*map(ctypes.c_int, numbers), ctypes.byref(found)) >= 0:
            count += found[field]
    return count


def give_up_privileges() -> None:
    """Drop every capability, and the means of regaining one by running a file."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    call("capset", ctypes.byref(header), ctypes.byref(nothing))

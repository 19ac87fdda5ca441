"""What processes ask of the kernel; what Python 3.11 does not offer of it, through `ctypes`."""

import contextlib
import ctypes
import os
import resource

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
NAMESPACES = {
    "user": CLONE_NEWUSER,
    "mount": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
}
CLONE_NEWCGROUP = 0x02000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
_MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_SYS_MOUNT_SETATTR = 442  # the same number on every architecture that Python has wheels for
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
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


def _call(name: str, *args: object) -> None:
    try:
        function = getattr(_libc, name)
    except AttributeError:
        raise OSError(f"the C library has no {name}") from None
    _check(function(*args), name)


def system_call(number: int, *args: object) -> None:
    """Make the system call of that number; raises `OSError`."""
    longs = (ctypes.c_long(one) if isinstance(one, int) else one for one in args)
    _check(_libc.syscall(ctypes.c_long(number), *longs), f"system call {number}")


def unshare(flags: int) -> None:
    """Move this process (for pids: its children) into new namespaces."""
    _call("unshare", ctypes.c_int(flags))


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount `source` on `target`."""
    _call(
        "mount",
        source.encode(),
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )


def detach(target: str) -> None:
    """Unmount `target` now, whoever still uses it."""
    _call("umount2", target.encode(), ctypes.c_int(_MNT_DETACH))


def pivot_root(new_root: str, old_root: str) -> None:
    """Make `new_root` the root of this mount namespace and move the present one to `old_root`."""
    _call("pivot_root", new_root.encode(), old_root.encode())


def make_read_only(path: str) -> None:
    """Make the mount at `path` and every mount below it read-only and without set-uid files."""
    attributes = (ctypes.c_uint64 * 4)(_ATTR_RDONLY_NOSUID, 0, 0, 0)
    system_call(
        _SYS_MOUNT_SETATTR,
        _AT_FDCWD,
        path.encode(),
        _AT_RECURSIVE,
        ctypes.byref(attributes),
        ctypes.sizeof(attributes),
    )


def _prctl(option: int, value: int) -> None:
    longs = (ctypes.c_ulong(argument) for argument in (value, 0, 0, 0))
    _call("prctl", ctypes.c_int(option), *longs)


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process `signal_number` when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_tracing() -> None:
    """Keep processes of the same user from reading this one's memory."""
    _prctl(_PR_SET_DUMPABLE, 0)


def become(uid: int) -> None:
    """Become that user, and of the group of the same number only."""
    with contextlib.suppress(OSError):
        os.setgroups([])  # forbidden, and done already, in a user namespace
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def traits() -> tuple[object, ...]:
    """Return what a program can change in this process if both are the same user's."""
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
    """Drop every capability, and the means of getting one back by running a file."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _call("capset", ctypes.byref(header), ctypes.byref(nothing))

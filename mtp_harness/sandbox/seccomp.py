"""A filter on the system calls of programs, for what namespaces do not isolate.

Kernel keyrings, for example, cross namespaces, and other calls are useful only for attacks on the
kernel. A denied call fails with EPERM and kills no process; `clone3`, whose flags a filter cannot
read, fails with ENOSYS, so that the C library falls back to `clone`. Calls by another
architecture's numbers (x32, `int 0x80`) are all denied, since `system_calls` does not list them.

The filter is a program for the kernel's classic BPF machine (`man 2 seccomp`): it sees the number
of the call, the architecture and the arguments' values, not what they point to.
"""

import ctypes
import errno
import platform
import struct
from collections.abc import Sequence

import mtp_harness.sandbox.linux as linux
from mtp_harness.sandbox.system_calls import MACHINES, SPECIAL

_ALLOW = 0x7FFF0000
_DENY = 0x00050000  # plus the errno that the call returns
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in what the filter sees
_X32 = 0x40000000
_FLAG_NO_SLOWDOWN = 1 << 2  # SECCOMP_FILTER_FLAG_SPEC_ALLOW: programs run at full speed
_MODE_FILTER = 1
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
_UNIX_ONLY = (1,)
_PROTOCOLS = (0, 6, 17)  # the family's own, TCP, UDP: others may load a module into the kernel
_IPPROTO_IPV6, _IPV6_FLOWLABEL_MGR = 41, 32  # flow labels outlive their socket

Instruction = tuple[int, int, int, int]


def program(machine: str, families: Sequence[int] = _FAMILIES) -> list[Instruction]:
    """Return the filter's instructions: code, jump if true, jump if false, constant.

    Args:
        machine: As `platform.machine` names it; raises `OSError` for an unknown one.
        families: Families of the sockets that may be opened.
    """
    known = MACHINES.get(machine)
    if known is None:
        raise OSError(f"no table of system calls for {machine}")
    of = known.numbers
    deny: Instruction = (_RETURN, 0, 0, _DENY | errno.EPERM)
    allow: Instruction = (_RETURN, 0, 0, _ALLOW)
    made: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, known.architecture),
        deny,
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        deny,
        (_EQUAL, 0, 1, of["clone3"]),
        (_RETURN, 0, 0, _DENY | errno.ENOSYS),
    ]
    for number in (number for name, number in of.items() if name not in SPECIAL):
        made += [(_EQUAL, 0, 1, number), deny]
    new_namespace = linux.CLONE_NEWCGROUP | sum(linux.NAMESPACES.values())
    made += [(_EQUAL, 0, 4, of["clone"]), _argument(0)]
    made += [(_ANY_BIT, 0, 1, new_namespace), deny, allow]
    inside = [_argument(0), *_one_of(families), deny, _argument(2), *_one_of(_PROTOCOLS)]
    for name in ("socket", "socketpair"):
        made += [(_EQUAL, 0, len(inside) + 2, of[name]), *inside, deny, allow]
    made += [(_EQUAL, 0, 5, of["setsockopt"]), _argument(1), (_EQUAL, 0, 3, _IPPROTO_IPV6)]
    return [*made, _argument(2), (_EQUAL, 0, 1, _IPV6_FLOWLABEL_MGR), deny, allow]


def _one_of(values: Sequence[int]) -> list[Instruction]:
    """Skip the next instruction if one of the values was loaded."""
    return [(_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]


def _argument(index: int) -> Instruction:
    """Load the low half of an argument: the kernel reads no more of an int."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


class Filter:
    """A filter that can be installed in any number of programs."""

    def __init__(self, only_unix: bool) -> None:
        """Build it; raises `OSError` if there is none for this machine."""
        machine = platform.machine()
        self.name = f"seccomp {machine}"
        made = program(machine, _UNIX_ONLY if only_unix else _FAMILIES)
        code = b"".join(struct.pack("=HBBI", *one) for one in made)
        self._code = ctypes.create_string_buffer(code)
        self._program = _Program(len(made), ctypes.addressof(self._code))
        self._install = MACHINES[machine].install

    def install(self) -> None:
        """Apply the filter to this process and its children for good."""
        mode = (_MODE_FILTER, _FLAG_NO_SLOWDOWN)
        linux.system_call(self._install, *mode, ctypes.byref(self._program))


def ready(only_unix: bool) -> Filter | str:
    """Return the filter for this machine, or why there is none.

    Args:
        only_unix: Sockets of the network's families are denied, too.
    """
    try:
        made = Filter(only_unix)
    except OSError as error:
        return str(error)

    def install() -> None:
        linux.give_up_privileges()
        made.install()

    # Only trying shows what a kernel offers.
    return made if linux.possible(install) else "the kernel refuses seccomp filters"

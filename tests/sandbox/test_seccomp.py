"""The filter on system calls: what it decides, machine by machine."""

import errno
import platform
import re
from pathlib import Path

import pytest

from mtp_harness.sandbox import seccomp, system_calls

ALLOWED, PERMISSION, MISSING = 0x7FFF0000, 0x00050000 + errno.EPERM, 0x00050000 + errno.ENOSYS
# Numbers as `man 2 syscalls` and the kernel's tables have them, written down a second time.
X86 = {"read": 0, "clone": 56, "fork": 57, "socket": 41, "socketpair": 53, "setsockopt": 54}
ARM = {"read": 63, "clone": 220, "socket": 198, "socketpair": 199, "setsockopt": 208}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}


def decided(machine, number, *args, architecture=None, only_unix=False):
    """Run the filter as the kernel would: it sees number, architecture, pointer, arguments."""
    seen = {0: number, 4: ARCHITECTURES[architecture or machine]}
    seen |= {16 + 8 * index: arg & 0xFFFFFFFF for index, arg in enumerate(args)}
    families = (1,) if only_unix else (1, 2, 10)
    code = seccomp.program(machine, families)
    at, accumulator = 0, 0
    while True:
        operation, if_true, if_false, constant = code[at]
        at += 1
        if operation == 0x20:
            accumulator = seen[constant]
        elif operation == 0x06:
            return constant
        else:
            holds = {
                0x15: accumulator == constant,
                0x35: accumulator >= constant,
                0x45: accumulator & constant != 0,
            }[operation]
            at += if_true if holds else if_false


BOTH = pytest.mark.parametrize(("machine", "numbers"), [("x86_64", X86), ("aarch64", ARM)])


@BOTH
def test_ordinary_calls_are_allowed(machine, numbers):
    assert decided(machine, numbers["read"], 0, 0, 0) == ALLOWED
    assert decided(machine, numbers["clone"], 0x11, 0) == ALLOWED  # fork: SIGCHLD
    threads = 0x00010000 | 0x00000100 | 0x00000200 | 0x00000400 | 0x00000800
    assert decided(machine, numbers["clone"], threads) == ALLOWED


@BOTH
def test_new_namespaces_are_denied_and_clone3_is_not_there(machine, numbers):
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decided(machine, numbers["clone"], flag | 0x11) == PERMISSION
    assert decided(machine, 435, 0, 0) == MISSING


@BOTH
@pytest.mark.parametrize("call", ["socket", "socketpair"])
def test_families_of_sockets(machine, numbers, call):
    for family in range(64):
        expected = ALLOWED if family in (1, 2, 10) else PERMISSION
        assert decided(machine, numbers[call], family, 1, 0) == expected
        # The kernel reads an int: what stands in the upper half changes nothing.
        assert decided(machine, numbers[call], family + 2**32, 1, 0) == expected
        only_unix = decided(machine, numbers[call], family, 1, 0, only_unix=True)
        assert only_unix == (ALLOWED if family == 1 else PERMISSION)


@BOTH
def test_protocols_of_sockets(machine, numbers):
    for protocol, expected in ((0, ALLOWED), (6, ALLOWED), (17, ALLOWED), (132, PERMISSION)):
        assert decided(machine, numbers["socket"], 2, 1, protocol) == expected
    assert decided(machine, numbers["socket"], 2, 1, 262) == PERMISSION  # MPTCP


@BOTH
def test_flow_labels_are_denied_and_other_options_are_not(machine, numbers):
    assert decided(machine, numbers["setsockopt"], 3, 41, 32) == PERMISSION
    assert decided(machine, numbers["setsockopt"], 3, 41, 26) == ALLOWED
    assert decided(machine, numbers["setsockopt"], 3, 1, 32) == ALLOWED


@pytest.mark.parametrize(
    ("machine", "other", "add_key"), [("x86_64", "i386", 286), ("aarch64", "arm", 309)]
)
def test_calls_of_another_architecture_are_denied(machine, other, add_key):
    assert decided(machine, add_key, architecture=other) == PERMISSION
    assert decided(machine, 3, architecture=other) == PERMISSION


def test_x32_is_denied():
    for number in (0, 248, 41, 57):
        assert decided("x86_64", 0x40000000 + number) == PERMISSION


@BOTH
def test_every_call_of_the_list_is_denied(machine, numbers):
    known = system_calls.MACHINES[machine].numbers
    assert {"add_key", "keyctl", "bpf", "unshare", "io_uring_setup", "ptrace"} < set(known)
    for name, number in known.items():
        if name not in system_calls.SPECIAL:
            assert decided(machine, number, 0, 0, 0) == PERMISSION, name
    assert len(set(known.values())) == len(known)


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_those_of_the_kernels_headers(machine):
    if not HEADERS[machine].is_file():
        pytest.skip(f"needs the kernel's header {HEADERS[machine]}")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[machine].read_text())
    theirs = {name: int(number) for name, number in found}
    ours = system_calls.MACHINES[machine].numbers
    assert {name: theirs.get(name, number) for name, number in ours.items()} == ours
    assert len(ours.keys() & theirs.keys()) > 50


def test_an_unknown_machine_has_no_filter(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert seccomp.ready(only_unix=False) == "no table of system calls for riscv64"

"""Programs that ask the kernel for what namespaces do not isolate, under every mechanism."""

import platform

import pytest

from mtp_harness.sandbox import system_calls

MACHINE = system_calls.MACHINES.get(platform.machine())
pytestmark = [
    pytest.mark.skipif(MACHINE is None, reason=f"no filter for {platform.machine()}"),
    pytest.mark.parametrize(
        "grader", ["namespaces", "bubblewrap", "process"], indirect=True, scope="session"
    ),
]
EPERM, ENOSYS = 1, 38
CALL = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
numbers = {numbers}
def call(name, *args, offset=0):
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    done = libc.syscall(ctypes.c_long(numbers[name] + offset), *args)
    return ctypes.get_errno() if done < 0 else 0
def family(number):
    try: socket.socket(number, socket.SOCK_DGRAM).close()
    except OSError as error: return error.errno
    return 0
def protocol(number):
    try: socket.socket(socket.AF_INET, socket.SOCK_STREAM, number).close()
    except OSError as error: return error.errno
    return 0
def f():
    return {body}
"""
RINGS = {"thread": -1, "process": -2, "session": -3, "user": -4, "user session": -5}
DENIED = {
    **{
        f"adds a key to the {name} ring": f"call('add_key', b'user', b'm', b'x', 1, {ring})"
        for name, ring in RINGS.items()
    },
    "asks for a key": "call('request_key', b'user', b'm', None, -4)",
    "joins a session ring": "call('keyctl', 1, b'm')",
    "searches a ring": "call('keyctl', 10, -4, b'user', b'm', 0)",
    "sets up io_uring": "call('io_uring_setup', 4, ctypes.create_string_buffer(256))",
    "traces": "call('ptrace', 0, 0, 0, 0)",
    "reads a process": "call('process_vm_readv', os.getpid(), None, 0, None, 0, 0)",
    "writes into a process": "call('process_vm_writev', os.getpid(), None, 0, None, 0, 0)",
    "takes a file of a process": "call('pidfd_getfd', 0, 0, 0)",
    "loads a program into the kernel": "call('bpf', 0, None, 0)",
    "counts events": "call('perf_event_open', None, 0, -1, -1, 0)",
    "handles page faults": "call('userfaultfd', 1)",
    "mounts": "call('mount', b'a', b'/box', b'tmpfs', 0, None)",
    "opens a file system": "call('fsopen', b'tmpfs', 0)",
    "makes a user namespace": "call('unshare', 0x10000000)",
    "enters a namespace": "call('setns', 0, 0)",
    "changes its root": "call('chroot', b'.')",
    "clones into a user namespace": "call('clone', 0x10000000 | 17, 0, 0, 0, 0)",
    "loads another kernel": "call('kexec_load', 0, 0, None, 0)",
    "loads a module": "call('init_module', None, 0, b'')",
    "makes shared memory": "call('shmget', 5, 4096, 0o1600)",
    "makes a message queue": "call('msgget', 5, 0o1600)",
    "makes semaphores": "call('semget', 5, 1, 0o1600)",
    "opens a POSIX queue": "call('mq_open', b'm', 0o102, 0o600, None)",
    "changes the zygote's priority of input": "call('ioprio_set', 1, 1, 1)",
    "watches files": "call('inotify_init1', 0)",
    "reads and writes in the background": "call('io_setup', 4, ctypes.create_string_buffer(8))",
    "changes its personality": "call('personality', 0x0040000)",
    "opens a socket of several paths": "protocol(262)",
    "opens a socket of streams": "protocol(132)",
    "opens a socket of virtual machines": "family(40)",
    "opens a socket of the kernel": "family(16)",
    "opens a socket of packets": "family(17)",
    "opens a socket of ciphers": "family(38)",
}


def returns(judge, body, expected):
    code = CALL.format(numbers=MACHINE.numbers, body=body)
    test = f"def check(c):\n    found = c()\n    assert found in {expected}, found\n"
    verdict = judge(code, test)
    assert verdict[:3] == ("pass", "", ""), verdict


@pytest.fixture(autouse=True)
def there(grader, request):
    wanted = request.node.callspec.params["grader"]
    found = grader.settings()["isolation"]
    if found["mechanism"] != wanted:
        pytest.skip(f"{wanted} cannot be used here: {found['detail']}")


@pytest.mark.parametrize("name", DENIED)
def test_call_is_denied_and_nobody_is_killed(judge, name):
    returns(judge, DENIED[name], (EPERM,))


def test_clone3_is_not_there(judge):
    returns(judge, "call('clone3', None, 0)", (ENOSYS,))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are ways of x86")
def test_calls_by_other_numbers_are_denied(judge):
    x32 = "call('keyctl', 0, -3, 1, offset=0x40000000)"
    returns(judge, x32, (EPERM,))
    # push rbx; mov eax, 288 (keyctl); xor ebx, ebx; mov ecx, -3; mov edx, 1; int 0x80; pop rbx; ret
    machine_code = "53b82001000031dbb9fdffffffba01000000cd805bc3"
    body = f"compat(bytes.fromhex('{machine_code}'))"
    code = CALL.format(numbers=MACHINE.numbers, body=body) + (
        "import mmap\n"
        "def compat(code):\n"
        "    page = mmap.mmap(-1, 4096, prot=7)\n"
        "    page.write(code)\n"
        "    at = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "    return ctypes.CFUNCTYPE(ctypes.c_int)(at)()\n"
    )
    verdict = judge(code, f"def check(c):\n    found = c()\n    assert found == {-EPERM}, found\n")
    # A kernel without that way of calling has nothing to deny.
    assert verdict.outcome == "pass" or "SIGSEGV" in verdict.detail, verdict


def test_what_programs_need_is_allowed(judge, in_bubblewrap):
    returns(judge, "family(1)", (0,))
    network = (EPERM,) if in_bubblewrap else (0,)
    returns(judge, "family(2)", network)
    returns(judge, "family(10)", (*network, 97))  # 97: a kernel without that family
    returns(judge, "os.waitpid(os.fork() or os._exit(0), 0)[1]", (0,))
    thread = "__import__('threading').Thread(target=print)"
    returns(judge, f"[t := {thread}, t.start(), t.join(), 0][-1]", (0,))


def test_what_one_program_stores_in_a_keyring_the_next_cannot_read(judge):
    store = "[call('add_key', b'user', b'm', b'x', 1, ring) for ring in (-3, -4, -5)][0]"
    search = "[call('keyctl', 10, ring, b'user', b'm', 0) for ring in (-3, -4, -5)]"
    for body in (search, store, search):
        returns(judge, body, (EPERM, [EPERM] * 3))


def test_results_name_the_filter(grader):
    assert grader.settings()["isolation"]["filter"] == f"seccomp {platform.machine()}"

"""What a program leaves behind in a namespace that the next one shares with it."""

import pytest

from .conftest import descendants

HONEST = "def f(a, b):\n    return a + b\n"
ADDS = "def check(candidate):\n    assert candidate(2, 3) == 5\n"  # called once

# Most of it is possible where zygote and program are the same user's, as in bubblewrap.
LEAVES = {
    "files": "for i in range(100): open(str(i), 'w').write('x')",
    "2000 files": "for i in range(2000): open(str(i), 'w')",
    "a locked folder": "os.makedirs('a/b'); os.chmod('a', 0)",
    "deep folders": "for _ in range(1100): os.mkdir('a'); os.chdir('a')",
    "a locked box": "os.chmod('.', 0)",
    "an attribute of the box": "os.setxattr('.', 'user.a', b'x')",
    "shared memory": "assert libc.shmget(1, 4096, 0o1600) >= 0",
    "a message queue": "assert libc.msgget(1, 0o1600) >= 0",
    "semaphores": "assert libc.semget(1, 1, 0o1600) >= 0",
    "limits of the zygote": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (4, 4))",
    "processors of the zygote": "os.sched_setaffinity(1, {min(os.sched_getaffinity(1))})",
    "nice zygote": "os.setpriority(os.PRIO_PROCESS, 1, 19)",
}
LEAVE = """
import ctypes, os, resource
libc = ctypes.CDLL(None)
def f(a, b):
    {body}
    return a + b
"""
FIND = """
import ctypes, os, resource
libc = ctypes.CDLL(None)
def f(a, b):
    open("mine", "w").write("x"); os.unlink("mine")
    try: files = resource.prlimit(1, resource.RLIMIT_NOFILE)
    except PermissionError: files = None
    return [os.listdir("."), os.listxattr("."), [libc.shmget(1, 1, 0), libc.msgget(1, 0),
            libc.semget(1, 1, 0)], os.stat(".").st_mode & 0o777, os.getpriority(os.PRIO_PROCESS, 1),
            files, sorted(os.sched_getaffinity(1))]
"""
SHOW = "def check(candidate):\n    raise ValueError(candidate(1, 2))\n"


@pytest.mark.parametrize("grader", ["namespaces", "bubblewrap"], indirect=True, scope="session")
@pytest.mark.parametrize("left", LEAVES)
@pytest.mark.usefixtures("isolated")
def test_nothing_reaches_the_next_program(judge, leftovers, left):
    found = judge(FIND, SHOW)
    assert found.detail.startswith("the check raised ValueError: [[], [], [-1, -1, -1], 448, ")
    verdict = judge(LEAVE.format(body=LEAVES[left]), ADDS)
    # Not allowed is as good; the assertion is the program's own.
    refused = ("OSError", "PermissionError", "AssertionError")
    assert verdict.outcome == "pass" or verdict.detail.startswith(refused), verdict
    assert judge(FIND, SHOW)[:3] == found[:3]
    assert leftovers() == 0


@pytest.mark.parametrize("grader", ["namespaces", "bubblewrap"], indirect=True, scope="session")
@pytest.mark.usefixtures("isolated")
def test_what_leaves_nothing_costs_no_new_zygote(grader, judge, leftovers):
    assert judge(HONEST).outcome == "pass"
    assert leftovers() == 0
    worker = grader._pool.workers[0].pid
    first = descendants(worker)
    for body in ("pass", "os.mkdir('a'); open('a/b', 'w').write('x')"):
        assert judge(LEAVE.format(body=body), ADDS).outcome == "pass"
    assert judge(HONEST).outcome == "pass"
    assert leftovers() == 0
    assert descendants(worker) == first


# What two programs of one zygote could share: how the first writes, and what the next reads.
COMMON = """
import array, ctypes, os, resource, socket, struct, tempfile, time
libc = ctypes.CDLL(None, use_errno=True)
def tried(*calls):
    said = []
    for call in calls:
        try: said.append(call())
        except OSError as error: said.append(error.errno)
    return said
def syscall(number, *args):
    done = libc.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *args)))
    if done < 0: raise OSError(ctypes.get_errno(), "")
    return done
def hold(make):
    if os.fork() == 0:
        os.setsid()
        kept = make()
        time.sleep(60)
def listening(name):
    one = socket.socket(socket.AF_UNIX)
    one.bind(name)
    one.listen()
    return one
def calling(name):
    with socket.socket(socket.AF_UNIX) as one: one.connect(name)
def label(flags):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
        one.setsockopt(41, 32, bytes(15) + b"\\1" + struct.pack(">I", 5) + bytes([0, 1])
                       + struct.pack("=HHHI", flags, 60, 60, 0))
def port(again):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 4711)); one.listen()
        with socket.create_connection(("127.0.0.1", 4711), 0.2) as other:
            one.accept()[0].close()
def numbers(x86, arm): return arm if os.uname().machine == "aarch64" else x86
add_key, keyctl, ioprio_set, ioprio_get = (
    numbers(*pair) for pair in ((248, 217), (250, 219), (251, 30), (252, 31)))
"""
SHARED = {
    "keyrings": (
        "tried(*(lambda r=r: syscall(add_key, b'user', b'm', b'x', 1, r) for r in (-3, -4, -5)))",
        "tried(*(lambda r=r: syscall(keyctl, 10, r, b'user', b'm', 0) for r in (-3, -4, -5)))",
    ),
    "the program's folder": (
        "tried(lambda: open('x', 'w').write('x'), lambda: os.setxattr('.', 'user.a', b'x'))",
        "[os.listdir('.'), os.listxattr('.'), os.stat('.').st_mode]",
    ),
    "other folders": (
        "tried(*(lambda p=p: open(p + '/m', 'w') for p in ('/', '/tmp', '/dev/shm', '/var')))",
        "tried(*(lambda p=p: os.path.exists(p + '/m') for p in ('/', '/tmp', '/dev', '/dev/shm')))",
    ),
    "shared memory of System V": (
        "tried(lambda: syscall(numbers(29, 194), 5, 4096, 0o1600))",
        "tried(lambda: syscall(numbers(29, 194), 5, 1, 0))",
    ),
    "a queue of System V": (
        "tried(lambda: syscall(numbers(68, 186), 5, 0o1600))",
        "tried(lambda: syscall(numbers(68, 186), 5, 0))",
    ),
    "a semaphore of System V": (
        "tried(lambda: syscall(numbers(64, 190), 5, 1, 0o1600))",
        "tried(lambda: syscall(numbers(64, 190), 5, 1, 0))",
    ),
    "a queue of POSIX": (
        "tried(lambda: syscall(numbers(240, 180), b'm', 0o102, 0o600, None))",
        "tried(lambda: syscall(numbers(240, 180), b'm', 0, 0, None))",
    ),
    "an abstract socket": (
        "hold(lambda: listening('\\0m'))",
        "tried(lambda: calling('\\0m'))",
    ),
    "a socket in the folder": ("hold(lambda: listening('m'))", "tried(lambda: calling('m'))"),
    "a port": ("tried(lambda: port(1))", "tried(lambda: port(2))"),
    "a flow label": ("tried(lambda: label(1))", "tried(lambda: label(3))"),
    "a lock": (
        "hold(lambda: __import__('fcntl').flock(open(os.__file__), 6))",
        "tried(lambda: __import__('fcntl').flock(open(os.__file__), 6))",
    ),
    "the environment": ("os.environ.update(m='x')", "dict(os.environ)"),
    "a timer": (
        "__import__('signal').setitimer(0, 30)",
        "list(__import__('signal').getitimer(0))",
    ),
    "limits": (
        "tried(lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (9, 9)))",
        "resource.getrlimit(resource.RLIMIT_NOFILE)",
    ),
    "priorities of input": (
        "tried(lambda: syscall(ioprio_set, 1, 1, (3 << 13)))",
        "tried(lambda: syscall(ioprio_get, 1, os.getpid()))",
    ),
    "the zygote's memory": (
        "tried(lambda: open('/proc/1/mem', 'wb'), lambda: syscall(numbers(101, 117), 16, 1, 0, 0))",
        "[name for name in __import__('sys').modules if name == 'm']",
    ),
    "its modules": (
        "__import__('sys').modules.update(m=1)",
        "'m' in __import__('sys').modules",
    ),
    "random numbers": (
        "tried(lambda: open('/dev/urandom', 'wb').write(bytes(64)))",
        "open('/dev/urandom', 'rb').read(8) == bytes(8)",
    ),
    "the host's name": (
        "tried(lambda: socket.sethostname('m'))",
        "socket.gethostname() == 'm'",
    ),
}


@pytest.mark.parametrize("grader", ["namespaces", "bubblewrap"], indirect=True, scope="session")
@pytest.mark.parametrize("name", SHARED)
@pytest.mark.usefixtures("isolated")
def test_what_one_program_writes_the_next_does_not_read(judge, leftovers, name):
    write, read = SHARED[name]

    def run(body):
        return judge(f"{COMMON}\ndef f(): return {body}\n", SHOWS)

    before = run(read)
    assert before.detail.startswith("the check raised ValueError: found "), before
    if name in DENIED:  # what an earlier run of this test left would be there before, too
        assert set(before.detail.rpartition("found ")[2]) <= set("[1, ]"), before  # EPERM
    assert run(f"[{write}, 0][1]").detail.endswith("found 0")
    assert run(read)[:3] == before[:3]
    assert leftovers() == 0


DENIED = ("keyrings", "a queue of POSIX", "a flow label", *(n for n in SHARED if "System V" in n))
SHOWS = "def check(candidate):\n    raise ValueError(f'found {candidate()}')\n"

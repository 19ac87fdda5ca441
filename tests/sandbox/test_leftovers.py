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

"""Bubblewrap where our own namespaces are refused; what programs can reach: see test_isolation."""

import os
import subprocess
from pathlib import Path

import pytest

from mtp_harness.sandbox import Limits, Program, bubblewrap, launcher, rootfs, self_test
from mtp_harness.sandbox.launcher import Launcher
from mtp_harness.sandbox.types import MECHANISMS, NoNamespaces
from mtp_harness.sandbox.worker import Worker

HONEST = "def f(a, b):\n    return a + b\n"
ADDS = "def check(candidate):\n    assert candidate(2, 3) == 5\n"  # called once
SET_UID = "The --size option is not permitted in setuid mode"


@pytest.fixture
def no_namespaces(monkeypatch):
    """Have the namespaces of our own refused."""

    def refuse(pid):
        raise NoNamespaces("uid_map: not permitted")

    monkeypatch.setattr(launcher, "map_users", refuse)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Put a `bwrap` of a few lines of shell in the real one's place."""

    def call(script):
        path = tmp_path / "bwrap"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(bubblewrap, "_prepare", lambda: None)  # nobody may not read it
        return path

    return call


def test_it_takes_over_where_our_own_namespaces_are_refused(no_namespaces):
    worker = Worker(Limits(), "", MECHANISMS[:2])
    try:
        hello = worker.open()
        if hello["mechanism"] != "bubblewrap":
            pytest.skip(f"needs bubblewrap: {hello['reason']}")
        assert hello["reason"] == "uid_map: not permitted"
        assert hello["namespaces"] == ["ipc", "mount", "net", "pid", "user", "uts"]
        assert worker.grade(Program(HONEST, "f", ADDS))[:3] == ("pass", "", "")
    finally:
        worker.close()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1", "setting up uid map"),
        ("echo 'bwrap: Unknown option --size' >&2; exit 1", "Unknown option --size"),
        (f"echo 'bwrap: {SET_UID}' >&2; exit 1", SET_UID),
        ("exit 0", "it ended without a word"),
        ('while [ "$1" != -- ]; do shift; done; shift; exec "$@"', "not the first process"),
    ],
    ids=["not permitted", "too old", "set-uid", "silent", "isolates nothing"],
)
def test_refusal_is_one_sentence_and_the_next_in_line_is_tried(
    fake, no_namespaces, tmp_path, script, reason
):
    fake(script)
    with pytest.raises(NoNamespaces, match=reason):
        Launcher(Limits(), "", "bubblewrap")
    strict = Worker(Limits(), "", MECHANISMS[:2])
    verdict = strict.grade(Program(HONEST, "f", ADDS))
    assert verdict[:2] == ("error", "grader")
    assert "no isolation: uid_map: not permitted; " in verdict.detail
    assert reason in verdict.detail
    loose = Worker(Limits(), str(tmp_path), MECHANISMS)
    try:
        hello = loose.open()
        assert (hello["mechanism"], hello["namespaces"]) == ("process", [])
        assert reason in str(hello["reason"])
    finally:
        loose.close()


def test_it_is_found_on_the_path(fake):
    path = fake("echo 'bwrap: the one on the path' >&2; exit 1")
    report = self_test(["bubblewrap", "process"])
    assert report.mechanism == "process"
    found = str(path) if os.geteuid() == 0 else "the one on the path"  # nobody may not run it
    assert found in report.detail


def test_not_installed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoNamespaces, match="^bubblewrap: not installed$"):
        Launcher(Limits(), "", "bubblewrap")


def test_further_user_namespaces_are_forbidden_where_it_can(fake):
    path = fake("echo '  --disable-userns  Disable further use of user namespaces'")
    assert bubblewrap._no_more_users(str(path)) == ["--disable-userns"]
    assert bubblewrap._no_more_users(str(fake("echo"))) == []


def test_every_path_is_shown_once_and_packages_are_covered(monkeypatch, tmp_path):
    real = tmp_path / "usr/lib/python3"
    (real / "site-packages").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    lib, root = tmp_path / "usr/lib", str(tmp_path)
    paths = {str(lib): str(lib), f"{root}/lib": str(lib), f"{root}/lib/python3": str(real)}
    monkeypatch.setattr(rootfs, "visible_paths", lambda: {**paths, "/dev/null": "/dev/null"})
    packages = str(real / "site-packages")
    assert bubblewrap._files([str(real / "bin"), "/x"]) == [
        *("--ro-bind", str(lib), str(lib)),
        *("--symlink", str(lib), f"{root}/lib"),
        *("--dev-bind", "/dev/null", "/dev/null"),
        *("--ro-bind", "/x", "/x"),
        *("--size", "4096", "--tmpfs", packages, "--remount-ro", packages),
    ]


def test_self_test_says_so():
    report = self_test(["bubblewrap"])
    if report.detail:
        pytest.skip(f"needs bubblewrap: {report.detail}")
    assert report.mechanism == "bubblewrap"
    assert report.sufficient
    assert all(report.probes.values())
    assert report.describe()["mechanism"] == "bubblewrap"


# Each would reach the next program through what a zygote without capabilities cannot remake.
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
    return [os.listdir("."), os.listxattr("."), [libc.shmget(1, 1, 0), libc.msgget(1, 0),
            libc.semget(1, 1, 0)], os.stat(".").st_mode & 0o777, os.getpriority(os.PRIO_PROCESS, 1),
            resource.prlimit(1, resource.RLIMIT_NOFILE), sorted(os.sched_getaffinity(1))]
"""


@pytest.mark.parametrize("grader", ["bubblewrap"], indirect=True, scope="session")
@pytest.mark.parametrize("left", LEAVES)
@pytest.mark.usefixtures("isolated")
def test_nothing_that_a_program_leaves_reaches_the_next(grader, judge, leftovers, left):
    found = judge(FIND, "def check(candidate):\n    raise ValueError(candidate(1, 2))\n")
    assert found.detail.startswith("the check raised ValueError: [[], [], [-1, -1, -1], 448, ")
    verdict = judge(LEAVE.format(body=LEAVES[left]), ADDS)
    unsupported = ("Operation not supported" in verdict.detail, left == "an attribute of the box")
    if all(unsupported):
        pytest.skip("needs tmpfs with attributes of users")
    assert verdict[:3] == ("pass", "", "")
    again = judge(FIND, "def check(candidate):\n    raise ValueError(candidate(1, 2))\n")
    assert again[:3] == found[:3]
    assert leftovers() == 0


@pytest.mark.parametrize("grader", ["bubblewrap"], indirect=True, scope="session")
@pytest.mark.usefixtures("isolated")
def test_what_leaves_nothing_costs_no_new_zygote(grader, judge, leftovers):
    def zygotes():
        pid = grader._pool.workers[0].pid
        shown = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True)
        return shown.stdout.split()

    assert judge(HONEST).outcome == "pass"
    first = zygotes()
    for body in ("pass", "os.mkdir('a'); open('a/b', 'w').write('x')"):
        assert judge(LEAVE.format(body=body), ADDS).outcome == "pass"
    assert judge(HONEST).outcome == "pass"
    assert zygotes() == first
    assert leftovers() == 0


@pytest.mark.parametrize("grader", ["bubblewrap"], indirect=True, scope="session")
@pytest.mark.usefixtures("isolated")
def test_source_of_the_tests_is_not_shown(judge):
    code = "import os\ndef f(folder): return sorted(os.listdir(folder))\n"
    folder = Path(rootfs.__file__).parents[1]
    test = f"def check(candidate):\n    assert candidate({str(folder)!r}) == ['sandbox']\n"
    assert judge(code, test)[:3] == ("pass", "", "")

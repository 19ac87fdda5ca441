"""Bubblewrap where our own namespaces are refused; what programs can reach: see test_isolation."""

import os
from pathlib import Path

import pytest

from mtp_harness.sandbox import Limits, Program, bubblewrap, launcher, rootfs, self_test
from mtp_harness.sandbox.launcher import Launcher
from mtp_harness.sandbox.types import MECHANISMS, NoNamespaces
from mtp_harness.sandbox.worker import Worker

HONEST = "def f(a, b):\n    return a + b\n"
ADDS = "def check(candidate):\n    assert candidate(2, 3) == 5\n"
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
            pytest.skip(f"needs bubblewrap: {hello['detail']}")
        assert hello["detail"] == "uid_map: not permitted"
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
        assert reason in str(hello["detail"])
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


@pytest.mark.parametrize("grader", ["bubblewrap"], indirect=True, scope="session")
@pytest.mark.usefixtures("isolated")
def test_source_of_the_tests_is_not_shown(judge):
    code = "import os\ndef f(folder): return sorted(os.listdir(folder))\n"
    folder = Path(rootfs.__file__).parents[1]
    test = f"def check(candidate):\n    assert candidate({str(folder)!r}) == ['sandbox']\n"
    assert judge(code, test)[:3] == ("pass", "", "")

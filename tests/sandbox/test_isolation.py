"""What a program can reach: asserted from outside as well as from inside."""

import json
import os
import shutil
import signal
import site
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtp_harness.data import humaneval
from mtp_harness.sandbox import Grader, IsolationError, IsolationReport, zygote
from mtp_harness.sandbox import grader as grader_module

NONE_LEFT = "def check(candidate):\n    assert candidate() == []\n"


class TestIsolation:
    def test_self_test_on_this_machine(self):
        started = time.monotonic()
        report = grader_module.self_test()
        assert time.monotonic() - started < 3.0  # 0.25 s on an idle machine
        assert set(report.probes) == {
            "keyrings",
            "network",
            "outside_write",
            "signal_outside",
            "signal_parent",
            "other_processes",
            "memory",
        }
        assert report.probes["memory"]
        if report.mechanism == "process":
            assert not report.sufficient
        else:
            assert report.sufficient
            assert all(report.probes.values())
        assert bool(report.detail) == (report.mechanism != "namespaces")
        assert json.loads(json.dumps(report.describe())) == report.describe()

    def test_everything_is_killed_only_in_a_pid_namespace_of_its_own(self, monkeypatch):
        sent = []
        monkeypatch.setattr(os, "kill", lambda *args: sent.append(args))
        monkeypatch.setattr(os, "_exit", lambda code: sys.exit(code))
        with pytest.raises(SystemExit):
            zygote._kill_namespace()
        assert sent == []
        monkeypatch.setattr(os, "getpid", lambda: 1)
        zygote._kill_namespace()
        assert sent == [(-1, signal.SIGKILL)]

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("unshare") is None, reason="needs the tool `unshare`")
    def test_without_namespaces_it_refuses_then_runs_with_consent(self):
        script = """
import json
from mtp_harness.sandbox import *
report = self_test()
try:
    Grader()
except IsolationError as error:
    message = str(error)
code = (
    "import os\\n"
    "def f(): return [os.getcwd(), os.listdir('.'), open('x', 'w').write('x')]"
)
test = (
    "def check(c):\\n    folder, *rest = c()\\n"
    "    assert rest == [[], 1] and 'mtp-harness-' in folder"
)
with Grader(workers=1, consent=True) as grader:
    verdicts = grader.grade([Program(code, "f", test)] * 2)
    print(json.dumps([report.describe(), message, verdicts, grader.settings()]))
"""
        # The inner `unshare` makes a user namespace in which no further one may be made.
        lock = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
        done = subprocess.run(
            ["unshare", "-U", "-r", "sh", "-c", lock, "sh", sys.executable, "-c", script],
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(Path(grader_module.__file__).parents[2])},
            timeout=60,
        )
        if not done.stdout:
            pytest.skip(f"cannot take the namespaces away here: {done.stderr.decode()[-200:]}")
        report, message, verdicts, settings = json.loads(done.stdout)
        assert report["mechanism"] == settings["isolation"]["mechanism"] == "process"
        assert not report["sufficient"]
        assert not report["probes"]["outside_write"]
        assert report["probes"]["memory"]
        assert "unshare" in report["detail"]
        assert "--confirm_run_unsafe_code" in message
        assert [v[0] for v in verdicts] == ["pass", "pass"], verdicts

    def test_consent_is_asked_for_in_one_sentence(self, monkeypatch):
        probes = {"keyrings": True, "network": False, "outside_write": True, "signal_outside": True}
        probes["signal_parent"] = False
        report = IsolationReport(False, "process", probes=probes, detail="unshare: no")
        monkeypatch.setattr(grader_module, "self_test", lambda: report)
        with pytest.raises(IsolationError) as caught:
            Grader()
        assert str(caught.value) == (
            "programs written by the model would not be isolated here from the network and the "
            "grader's own processes (unshare: no); --confirm_run_unsafe_code runs them all the "
            "same, with your rights and only limits on time, memory and files."
        )
        with Grader(consent=True) as grader:
            assert grader.settings()["isolation"] == report.describe()
            assert grader.settings()["consent"] is True


@pytest.mark.parametrize("grader", ["namespaces", "bubblewrap"], indirect=True, scope="session")
@pytest.mark.usefixtures("isolated")
class TestIsolated:
    def test_no_writing_outside(self, judge, tmp_path):
        tmp_path.chmod(0o777)
        places = [str(tmp_path), "/", "/usr/lib", "/dev", "/tmp", "/etc", sys.prefix]
        code = """
import os
def f(places):
    done = []
    for place in places:
        for name in ("x", "../x"):
            try:
                open(os.path.join(place, name), "w").write("x")
                done.append(place)
            except OSError:
                pass
    return done
"""
        test = f"def check(candidate):\n    assert candidate({places!r}) == []\n"
        assert judge(code, test)[:3] == ("pass", "", "")
        assert list(tmp_path.iterdir()) == []

    def test_all_but_its_own_folder_is_mounted_read_only(self, judge, in_bubblewrap):
        code = """
import os
def f(): return [p for p in ("/", os.path.dirname(os.__file__), "/usr/lib", "/dev/null")
                 if not os.statvfs(p).f_flag & os.ST_RDONLY]
"""
        # Bubblewrap has no option for a device that is read-only, yet a device.
        test = NONE_LEFT.replace("[]", "['/dev/null']") if in_bubblewrap else NONE_LEFT
        assert judge(code, test)[:3] == ("pass", "", "")

    def test_own_folder_is_new_for_every_program(self, judge):
        code = """
import os, tempfile
def f(a, b):
    had = os.listdir(".")
    with tempfile.NamedTemporaryFile(delete=False) as file: file.write(b"x")
    open("left", "w").write("x"); os.mkdir("locked"); os.chmod("locked", 0)
    return had
"""
        test = "def check(candidate):\n    assert candidate(1, 2) == []\n"
        assert [judge(code, test)[:3] for _ in range(3)] == [("pass", "", "")] * 3

    def test_own_folder_is_bounded(self, judge):
        code = """
def f(a, b):
    written = 0
    try:
        for i in range(1000):
            with open(f"file{i}", "wb", buffering=0) as file: written += file.write(bytes(2**20))
    except OSError:
        pass
    return written
"""
        test = "def check(candidate):\n    assert 2**20 < candidate(1, 2) <= 16 * 2**20\n"
        assert judge(code, test)[:3] == ("pass", "", "")

    def test_sees_no_other_files(self, judge, in_bubblewrap):
        code = """
import os
def f(paths, python):
    return [p for p in paths if os.path.isfile(p)
            or os.path.isdir(p) and os.listdir(p) not in ([], [python])]
"""
        python = Path(os.path.realpath(sys._base_executable)).name if in_bubblewrap else ""
        hidden = [
            str(humaneval.find_file()),
            __file__,
            *site.getsitepackages(),
            str(Path(os.__file__).parent / "site-packages"),
            str(Path.home() / ".ssh"),
            str(Path.home() / ".cache"),
            *("/proc", "/sys", "/run", "/var", "/home", "/bin", "/usr/bin", "/etc/passwd"),
        ]
        test = f"def check(candidate):\n    assert candidate({hidden!r}, {python!r}) == []\n"
        assert judge(code, test)[:3] == ("pass", "", "")
        shown = [str(Path(os.__file__)), "/dev/null"]
        code = "import os\ndef f(paths): return [p for p in paths if not os.path.exists(p)]\n"
        test = f"def check(candidate):\n    assert candidate({shown!r}) == []\n"
        assert judge(code, test)[:3] == ("pass", "", "")

    def test_no_open_files_but_its_channel(self, judge):
        code = """
import fcntl, os, stat
def f():
    found = []
    for fd in range(3, 1024):
        try: fcntl.fcntl(fd, fcntl.F_GETFD)
        except OSError: continue
        found.append(stat.S_ISSOCK(os.fstat(fd).st_mode))
    return found
"""
        assert judge(code, NONE_LEFT.replace("[]", "[True]"))[:3] == ("pass", "", "")

    def test_no_network(self, judge):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            code = """
import fcntl, socket, struct
def f(port):
    try: socket.create_connection(("127.0.0.1", port), 0.2).send(b"x")
    except OSError: pass
    found = []
    with socket.socket(socket.AF_UNIX) as one:
        for index in range(1, 64):
            request = struct.pack("16si20x", b"", index)
            try:  # SIOCGIFNAME
                found.append(fcntl.ioctl(one, 0x8910, request)[:16].rstrip(bytes(1)))
            except OSError: pass
    return [name for name in found if name != b"lo"]
"""
            test = (
                f"def check(candidate):\n    assert candidate({listener.getsockname()[1]}) == []\n"
            )
            assert judge(code, test)[:3] == ("pass", "", "")
            with pytest.raises(BlockingIOError):
                listener.accept()

    def test_no_signals_outside(self, judge):
        victim = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(30)"])
        try:
            code = """
import os, signal
def f(pid):
    done = []
    for target in (pid, -pid, os.getppid()):
        for number in (2, 15, 9):
            try: os.kill(target, number)
            except OSError: continue
            if target == pid: done.append(number)
    return done
"""
            test = f"def check(candidate):\n    assert candidate({victim.pid}) == []\n"
            assert judge(code, test)[:3] == ("pass", "", "")
            assert victim.poll() is None
        finally:
            victim.kill()
            victim.wait()

    def test_no_way_to_more_rights(self, judge):
        code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def f():
    attempts = {
        "user namespace": libc.unshare(0x10000000),
        "mount namespace": libc.unshare(0x00020000),
        "mount": libc.mount(b"x", b"/box", b"tmpfs", 0, None),
        "remount": libc.mount(None, b"/usr/lib", None, 0x1000 | 0x20, None),
        "trace the zygote": libc.ptrace(16, 1, 0, 0),
        "chroot": libc.chroot(b"/box"),
        "become root": libc.setuid(0),
        "shared memory": -1 if libc.shmget(0, 4096, 0o1600) < 0 else 0,
        "no new privileges": -libc.prctl(39, 0, 0, 0, 0),
        "message queue": -1 if libc.msgget(0, 0o1600) < 0 else 0,
    }
    attempts["is root"] = -1 if os.getuid() != 0 else 0
    return [name for name, result in attempts.items() if result != -1]
"""
        assert judge(code, NONE_LEFT)[:3] == ("pass", "", "")

    # Where nothing isolates them, these two would go for the processes of whoever runs the tests.
    @pytest.mark.parametrize(
        "code",
        [
            "import os\ndef f(a, b): os.kill(-1, 9); os.kill(os.getpid(), 9)\n",
            "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n",
        ],
        ids=["kills all", "fork bomb"],
    )
    def test_attack_on_all_processes(self, judge, leftovers, code):
        assert judge(code).outcome == "fail"
        assert leftovers() == 0
        honest = "def f(a, b):\n    return a + b\n"
        assert judge(honest).outcome == "pass"

    def test_processes_are_bounded(self, judge, leftovers):
        code = """
import os, time
def f(a, b):
    n = 1
    try:
        while n < 100:
            if os.fork() == 0:
                time.sleep(60)
            n += 1
    except OSError:
        pass
    return n
"""
        test = "def check(candidate):\n    assert candidate(1, 2) == 4\n"
        assert judge(code, test)[:3] == ("pass", "", "")
        assert leftovers() == 0

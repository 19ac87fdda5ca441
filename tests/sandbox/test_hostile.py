"""Programs that want a verdict they did not earn, or to do harm: verdict and side effect, both."""

import contextlib
import socket
import time
from pathlib import Path

import pytest

from mtp_harness.data import humaneval
from mtp_harness.sandbox import Program

HONEST = "def f(a, b):\n    return a + b\n"
ALWAYS_EQUAL = """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 5
def f(a, b): return Yes()
"""
LYING_STR = """
class S(str):
    def __eq__(self, other): return True
    __hash__ = str.__hash__
def f(a, b): return S("5")
"""
LYING_INT = "class I(int):\n    def __eq__(self, o): return True\ndef f(a, b): return I(0)\n"
INSIDE_LIST = ALWAYS_EQUAL + "def g(a, b): return 0\ndef f(a, b): return [Yes()]\n"
FORGE_ALL = """
import os, json, struct
def send(message):
    data = json.dumps(message).encode()
    for fd in range(3, 64):
        try: os.write(fd, struct.pack(">I", len(data)) + data)
        except OSError: pass
for message in (["ready"], ["value", True], ["pass"], ["pass", "", "", 0.0], {"outcome": "pass"}):
    send(message)
def f(a, b):
    for message in (["value", True], ["ready"], ["pass", "", "", 0.0], ["stop"]): send(message)
"""
FORGE_GARBAGE = """
import os
def f(a, b):
    for fd in range(3, 64):
        try: os.write(fd, bytes(range(256)) * 64)
        except OSError: pass
    os._exit(0)
"""
FORGE_HEADER = """
import os
for fd in range(3, 64):
    try: os.write(fd, bytes([255, 255, 255, 255]))
    except OSError: pass
def f(a, b): return 5
"""
PATCHED = """
import builtins, json, sys, os
class Yes:
    def __eq__(self, other): return True
for module in list(sys.modules.values()):
    for name in ("pack", "dumps", "_Packer", "unpack", "_call"):
        if hasattr(module, name): setattr(module, name, lambda *a, **k: Yes())
builtins.isinstance = lambda *a: True
os._exit = sys.exit = lambda *a: None
def f(a, b): return Yes()
"""
CYCLE = "def f(a, b):\n    x = []\n    x.append(x)\n    return x\n"
DOUBLING = "def f(a, b):\n    x = []\n    for _ in range(60): x = [x, x]\n    return x\n"
LIAR_REPR = """
class E(Exception):
    def __str__(self): raise SystemExit(0)
def f(a, b): raise E
"""

FRAMES = """
import sys
def f(a, b):
    frame = sys._getframe()
    while frame is not None:
        for scope in (frame.f_locals, frame.f_globals):
            for name, value in list(scope.items()):
                if isinstance(value, list) and name != "todo": value[:] = ["pass"]
                if name in ("verdict", "outcome", "result", "expected"): scope[name] = "pass"
        frame = frame.f_back
    return 0
"""
BUILTINS = """
import builtins
builtins.len = builtins.abs = builtins.sum = lambda *a: 5
builtins.AssertionError = builtins.Exception = type("E", (BaseException,), {})
builtins.int = type("int", (int,), {"__eq__": lambda s, o: True, "__hash__": None})
def f(a, b): return int(0)
"""
OUR_PACKAGE = """
import mtp_harness.sandbox.checking as checking
checking.Check.run = lambda self: ("pass", "", "")
def f(a, b): return 0
"""
ALARMS = """
import signal
def f(a, b):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return 0
"""
SEGFAULT = "import ctypes\ndef f(a, b): return ctypes.string_at(0)\n"
FINALIZER = """
import atexit, os, weakref
class Z:
    def __del__(self): os._exit(0)
atexit.register(lambda: os._exit(0))
def f(a, b):
    z = Z()
    return 5
"""

CHEATS = {
    "writes into frames": (FRAMES, "wrong_answer"),
    "replaces builtins": (BUILTINS, None),
    "imports the grader": (OUR_PACKAGE, "exception"),
    "blocks all signals": (ALARMS, "wrong_answer"),
    "reads address 0": (SEGFAULT, "exception"),
    "leaves in a finalizer": (FINALIZER, "exception"),
    "NaN": ("def f(a, b): return float('nan')\n", "wrong_answer"),
    "infinity": ("def f(a, b): return float('inf')\n", "wrong_answer"),
    "returns a lambda": ("def f(a, b): return lambda: 5\n", "not_judgeable"),
    "returns itself as a function": ("def f(a, b): return f\n", "not_judgeable"),
    "returns a type of its own": ("def f(a, b): return type('int', (), {})\n", "not_judgeable"),
    "reads processes": ("import os\ndef f(a, b): return os.listdir('/proc')\n", "exception"),
    "reads a process's memory": ("def f(a, b): return open('/proc/self/mem')\n", "exception"),
    "kills its parent": ("import os\ndef f(a, b): os.kill(os.getppid(), 9)\n", None),
    "runs a program": ("import os\ndef f(a, b): return os.system('echo 5')\n", "wrong_answer"),
    "raises a lying exception": (
        "class E(Exception):\n    def __eq__(s, o): return True\ndef f(a, b): raise E\n",
        "exception",
    ),
    "always equal": (ALWAYS_EQUAL, "not_judgeable"),
    "str subclass": (LYING_STR, "not_judgeable"),
    "int subclass": (LYING_INT, "not_judgeable"),
    "always equal inside a list": (INSIDE_LIST, "not_judgeable"),
    "returns None": ("def f(a, b): return None\n", "wrong_answer"),
    "sys.exit(0) at load": ("import sys\nsys.exit(0)\n", "exception"),
    "sys.exit(0) in the call": ("import sys\ndef f(a, b): sys.exit(0)\n", "exception"),
    "os._exit(0) at load": ("import os\nos._exit(0)\n", "exception"),
    "os._exit(0) in the call": ("import os\ndef f(a, b): os._exit(0)\n", "exception"),
    "fork and exit": (
        "import os\ndef f(a, b):\n    if os.fork(): os._exit(0)\n    return 5\n",
        None,
    ),
    "fork and exit at load": ("import os\nif os.fork(): os._exit(0)\n" + HONEST, None),
    "child answers at load": (
        "import os\nif os.fork():\n    os.wait()\n    os._exit(0)\n" + HONEST,
        "exception",
    ),
    "child answers in the call": (
        "import os\ndef f(a, b):\n    if os.fork():\n        os.wait()\n        os._exit(0)\n"
        "    return a + b\n",
        "exception",
    ),
    "forges replies": (FORGE_ALL, None),
    "forges garbage": (FORGE_GARBAGE, None),
    "forges an endless reply": (FORGE_HEADER, "output"),
    "closes all files": ("import os\nos.closerange(0, 256)\n" + HONEST, "exception"),
    "patches the responder": (PATCHED, None),
    "kills itself": ("import os\ndef f(a, b): os.kill(os.getpid(), 11)\n", "exception"),
    "recursion": ("def f(a, b): return f(a, b)\n", "exception"),
    "deep C recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(a, b):\n    x = ()\n"
        "    for _ in range(10**6): x = (x,)\n    return hash(x)\n",
        "exception",
    ),
    "memory at once": ("def f(a, b): return len(bytearray(10**10))\n", "memory"),
    "memory bit by bit": (
        "x = []\ndef f(a, b):\n    while True: x.append(bytes(10**6))\n",
        "memory",
    ),
    "returns 100 MB": ("def f(a, b): return 'x' * 10**8\n", "output"),
    "returns itself": (CYCLE, "output"),
    "returns 2^60 lists": (DOUBLING, "output"),
    "returns a huge int": ("def f(a, b): return 1 << 10**8\n", "output"),
    "returns a generator": ("def f(a, b): yield 5\n", "wrong_answer"),
    "returns an endless generator": (
        "def f(a, b):\n    while True: yield 5\n",
        "output",
    ),
    "returns a lying iterator": (
        "class I:\n    def __iter__(self): return self\n"
        "    def __next__(self): raise StopIteration\n"
        "    def __eq__(self, other): return True\ndef f(a, b): return I()\n",
        "wrong_answer",
    ),
    "leaves in an iterator": (
        "import os\ndef f(a, b):\n    yield 5\n    os._exit(0)\n",
        "exception",
    ),
    "exception without text": (LIAR_REPR, "exception"),
    "reads input": ("def f(a, b): return int(input())\n", "exception"),
    "syntax": ("def f(a, b) return a + b\n", "syntax"),
    "nested beyond the parser": ("x = " + "(" * 5000 + ")" * 5000 + "\n" + HONEST, "syntax"),
    "null byte": (HONEST + "\0", "syntax"),
    "no function": ("def g(a, b): return a + b\n", "no_entry_point"),
    "not a function": ("f = 5\n", "no_entry_point"),
    "MemoryError without need": ("def f(a, b): raise MemoryError\n", "memory"),
    "AssertionError": ("def f(a, b): raise AssertionError\n", "exception"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheat_fails_and_the_next_program_is_unharmed(name, grader, judge, leftovers):
    code, kind = CHEATS[name]
    if code is OUR_PACKAGE and grader.settings()["isolation"]["mechanism"] == "bubblewrap":
        kind = "wrong_answer"  # the grader's source is there to be imported, and of no use
    verdict = judge(code)
    assert verdict.outcome == "fail"
    assert kind is None or verdict.kind == kind, verdict
    assert leftovers() == 0
    assert judge(HONEST).outcome == "pass"


def test_iterator_end_cannot_cut_a_test_short(judge):
    test = "def check(candidate):\n    assert all(map(candidate, [1, 2], [3, 4]))\n"
    assert judge("def f(a, b): raise StopIteration\n", test).kind == "exception"


# The needle is put together at run time, so that the program's own source does not hold it.
FIND_NEEDLE = """
import gc, sys
def f(a, b):
    needle = "needle-" + str(a * 1000 + b)
    seen, todo = set(), gc.get_objects() + [sys.modules, sys._current_frames()]
    frame = sys._getframe()
    while frame is not None:
        todo += [frame, frame.f_locals, frame.f_globals, frame.f_builtins]
        frame = frame.f_back
    while todo:
        thing = todo.pop()
        if id(thing) in seen: continue
        seen.add(id(thing))
        if type(thing) is str and thing != needle and needle in thing: return "found"
        if type(thing) is bytes and needle.encode() in thing: return "found"
        todo += gc.get_referents(thing)
    return len(seen) > 10000
"""


def test_nothing_in_the_process_knows_the_test(judge):
    test = "def check(candidate):\n    'my needle-7007'\n    assert candidate(7, 7) is True\n"
    verdict = judge(FIND_NEEDLE, test, preamble="needle = 'my needle-7007'\n")
    assert verdict[:3] == ("pass", "", "")


def test_nothing_in_the_process_knows_an_earlier_program(judge):
    assert judge("secret = 'my needle-8008'\n" + HONEST).outcome == "pass"
    test = "def check(candidate):\n    assert candidate(8, 8) is True\n"
    assert judge(FIND_NEEDLE, test)[:3] == ("pass", "", "")


def test_the_search_for_the_needle_finds_it_where_it_is(judge):
    test = "def check(candidate):\n    assert candidate(9, 9) == 'found'\n"
    assert judge("secret = 'my needle-9009'\n" + FIND_NEEDLE, test)[:3] == ("pass", "", "")


def test_sleeping_grandchild_does_not_survive(judge, leftovers):
    code = """
import os, time
def f(a, b):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: time.sleep(60)
        os._exit(0)
    return a + b
"""
    assert judge(code).outcome == "pass"
    assert leftovers() == 0


def test_detail_is_one_printable_line(judge):
    verdict = judge("def f(a, b): raise ValueError('\\x1b[2J\\n\\r' + 'x' * 10**6)\n")
    assert verdict.detail.startswith("ValueError: [2J xx")
    assert verdict.detail.isprintable()
    assert len(verdict.detail) <= 200


ENDLESS = {
    "loop": "def f(a, b):\n    while True: pass\n",
    "loop at load": "while True: pass\n",
    "no alarm, then sleep": (
        "import signal, time\ndef f(a, b):\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0)\n    signal.alarm(0)\n"
        "    for n in (signal.SIGALRM, signal.SIGTERM, signal.SIGXCPU, signal.SIGHUP):\n"
        "        signal.signal(n, signal.SIG_IGN)\n    time.sleep(60)\n"
    ),
    "prints for ever": "def f(a, b):\n    while True: print('x' * 1000)\n",
    "swallows everything": (
        "def f(a, b):\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass\n"
    ),
    "backtracking": "import re\ndef f(a, b): return re.match('(a+)+b', 'a' * 60)\n",
    "threads": (
        "import threading\ndef spin():\n    while True: pass\n"
        "def f(a, b):\n    while True:\n        try: threading.Thread(target=spin).start()\n"
        "        except RuntimeError: pass\n"
    ),
    "dribbles a reply": (
        "import os, time\ndef f(a, b):\n    while True:\n        for fd in range(3, 64):\n"
        "            try: os.write(fd, b'\\0')\n            except OSError: pass\n"
        "            else: time.sleep(0.05)\n"
    ),
    "never answers": (
        "import sys\nsys.modules['mtp_harness.sandbox.wire'].send_frame = lambda *a: None\n"
        + HONEST
    ),
    "stops itself": "import os\ndef f(a, b): os.kill(os.getpid(), 19)\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_endless_program_times_out_and_is_gone(name, judge, leftovers):
    started = time.monotonic()
    verdict = judge(ENDLESS[name])
    assert time.monotonic() - started < 4.0
    assert verdict.outcome == "fail"
    # A dribbled header of zeros is an empty, hence unreadable reply.
    assert verdict.kind == ("output" if name == "dribbles a reply" else "timeout")
    assert leftovers() == 0
    assert judge(HONEST).outcome == "pass"


REACHES = """
import os, socket
def f(a, b):
    for path in {paths!r}:
        try:
            with open(path, "w") as file: file.write("x")
        except OSError: pass
        try: os.unlink(path)
        except OSError: pass
    for port in {ports!r}:
        try: socket.create_connection(("127.0.0.1", port), 0.1).send(b"x")
        except OSError: pass
    try: return int(open({tests!r}, "rb").read() != b"") * 5
    except OSError: return 0
"""


@pytest.mark.slow
@pytest.mark.parametrize("grader", ["namespaces", "bubblewrap"], indirect=True, scope="session")
@pytest.mark.usefixtures("isolated")
def test_all_of_them_in_one_stream_leave_nothing_behind(grader, leftovers, tmp_path):
    tmp_path.chmod(0o777)
    kept = tmp_path / "kept"
    kept.write_text("mine")
    kept.chmod(0o666)
    watched = [Path.home(), Path("/tmp"), tmp_path, Path.cwd()]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        new = [str(folder / "mtp-harness-hostile") for folder in watched]
        reaches = REACHES.format(
            paths=[*new, str(kept)],
            ports=[listener.getsockname()[1]],
            tests=str(humaneval.find_file()),
        )
        hostile = {
            "reaches out": reaches,
            **{name: code for name, (code, _) in CHEATS.items()},
            **ENDLESS,
        }
        assert len(hostile) >= 40
        assert "fork bomb" not in hostile  # that and killing everything: see test_isolation
        test = "def check(candidate):\n    assert candidate(2, 3) == 5\n"
        codes = [code for one in hostile.values() for code in (one, HONEST)]
        started = time.monotonic()
        verdicts = grader.grade([Program(code, "f", test) for code in codes])
        assert time.monotonic() - started < 90  # the endless ones have 2 s each
        with contextlib.suppress(BlockingIOError):
            pytest.fail(f"somebody called: {listener.accept()}")
    judged = dict(zip(hostile, verdicts[::2], strict=True))
    passed = {name for name, verdict in judged.items() if verdict.outcome == "pass"}
    assert passed == set()
    assert {v.outcome for v in verdicts[1::2]} == {"pass"}
    assert kept.read_text() == "mine"
    assert [path for path in new if Path(path).exists()] == []
    assert leftovers() == 0

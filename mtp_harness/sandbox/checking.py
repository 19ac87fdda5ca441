"""The grader's side of one program: the trusted check.

`check(candidate)` runs here, with a stand-in for `candidate` that sends its arguments to the
program's process and gets plain values back. The verdict is made here only.
"""

import decimal
import dis
import functools
import random
import signal
import sys
import time
import types
from collections.abc import Iterator

from mtp_harness.sandbox.remote import RECURSION, Fault, RemoteFunction, Stop
from mtp_harness.sandbox.types import Program, Verdict, one_line

_ALARM_GRACE_S = 0.25


class Check:
    """The trusted `check` of one program, loaded and ready to run."""

    def __init__(self, program: Program, remote: RemoteFunction) -> None:
        """Run preamble and test, where `entry_point` is the stand-in; raises `Fault`."""
        self._remote = remote
        namespace: dict[str, object] = {"__name__": "check"}
        _as_new()
        try:
            named = {"<preamble>": program.preamble, "<test>": program.test}
            self._sources = [_compiled(source, name) for name, source in named.items()]
            for source in self._sources:
                exec(source, namespace)
        except Exception as error:
            detail = one_line(f"{type(error).__name__}: {error}")
            raise Fault("test", f"the test does not load: {detail}") from None
        check = namespace.get("check")  # first: the program's function may have that name too
        if not callable(check):
            raise Fault("test", "the test defines no check(candidate)")
        self._check = check
        namespace[program.entry_point] = remote
        self._namespace = namespace

    def run(self) -> Verdict:
        """Return the check's result; all use of the program's values has a time limit."""
        armed = True

        def ring(_number: int, _frame: types.FrameType | None) -> None:
            if armed:
                self._remote.out_of_time()

        verdict = Verdict("pass")
        left_s = max(self._remote.deadline - time.monotonic(), 0.0) + _ALARM_GRACE_S
        signal.signal(signal.SIGALRM, ring)
        try:
            # The signal repeats: a test with a bare `except` swallows the first ones.
            signal.setitimer(signal.ITIMER_REAL, left_s, _ALARM_GRACE_S)
            verdict = self._judge()
        except Stop:
            pass  # then `settled` says why
        finally:
            armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        return self._remote.settled or verdict

    def _judge(self) -> Verdict:
        try:
            self._remote.load()
            self._namespace.update(self._remote.exported)
            self._check(self._remote)
            return Verdict("pass")
        except Stop:
            raise
        except BaseException as error:
            return self._raised(error)

    def _raised(self, error: BaseException) -> Verdict:
        if any(error is one for one in self._remote.raised):
            return Verdict("fail", "exception", _shown(error))
        if isinstance(error, AssertionError):
            return Verdict("fail", "wrong_answer", _text(error))
        if self._is_of_the_test(error):
            return Verdict("error", "test", _shown(error))
        return Verdict("fail", "wrong_answer", one_line(f"the check raised {_shown(error)}"))

    def _is_of_the_test(self, error: BaseException) -> bool:
        """Return whether the test lacks a name or a module, whatever the program answers."""
        statements = (one for one in self._namespace.values() if isinstance(one, types.CodeType))
        uses = {use for code in (*self._sources, *statements) for use in _uses(code)}
        if type(error) is NameError:
            does = {step for step, name in uses if name == error.name}
            loads = not does.isdisjoint(("LOAD_NAME", "LOAD_GLOBAL"))
            return loads and does.isdisjoint(("STORE_NAME", "STORE_GLOBAL"))
        return isinstance(error, ImportError) and any(
            does == "IMPORT_NAME" and f"{name}.".startswith(f"{error.name}.") for does, name in uses
        )


def _uses(code: types.CodeType) -> Iterator[tuple[str, str]]:
    """Yield the names that code uses, with their kind of use."""
    for step in dis.get_instructions(code):
        if isinstance(step.argval, str):
            yield step.opname, step.argval
        elif isinstance(step.argval, types.CodeType):
            yield from _uses(step.argval)


def _shown(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {_text(error)}")


def _text(error: BaseException) -> str:
    """Return an exception's message, which may need an object of the program."""
    try:
        return one_line(str(error))
    except Exception as other:
        return f"its text raised {type(other).__name__}"


def _as_new() -> None:
    """Undo changes of an earlier test in this process."""
    random.seed(0)  # tests draw random inputs: every program gets the same ones
    decimal.setcontext(decimal.Context())
    sys.setrecursionlimit(RECURSION)
    sys.set_int_max_str_digits(sys.int_info.default_max_str_digits)


@functools.lru_cache(maxsize=1024)
def _compiled(source: str, name: str) -> types.CodeType:
    return compile(source, name, "exec", dont_inherit=True)

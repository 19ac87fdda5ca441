import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtp_harness.sandbox import Grader, Limits, Program, Verdict, self_test
from mtp_harness.sandbox import grader as grader_module
from mtp_harness.sandbox.types import MECHANISMS

ADD_TEST = (
    "def check(candidate):\n    assert candidate(2, 3) == 5\n    assert candidate(10, -4) == 6\n"
)


@pytest.fixture(scope="session")
def grader(request: pytest.FixtureRequest) -> Iterator[Grader]:
    """One worker, so that a program can harm the next one if it can harm any.

    It isolates programs by what works here, or by what a test asks for in its parameters.
    """
    mechanisms = [request.param] if hasattr(request, "param") else MECHANISMS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grader_module, "self_test", lambda: self_test(mechanisms))
        one = Grader(Limits(wall_s=3.0, cpu_s=2), workers=1, consent=True)
    with one:
        yield one


@pytest.fixture
def isolated(grader: Grader) -> None:
    found = grader.settings()["isolation"]
    if not found["sufficient"]:  # type: ignore[index]
        pytest.skip(f"needs isolation: {found['detail']}")  # type: ignore[index]


@pytest.fixture
def in_bubblewrap(grader: Grader) -> bool:
    return grader.settings()["isolation"]["mechanism"] == "bubblewrap"  # type: ignore[index]


Judge = Callable[..., Verdict]


@pytest.fixture
def judge(grader: Grader) -> Judge:
    """Grade one program that should define `f`, adding two numbers unless `test` asks otherwise."""

    def call(code: str, test: str = ADD_TEST, **fields: str) -> Verdict:
        return grader.grade([Program(code, "f", test, **fields)])[0]

    return call


def descendants(pid: int) -> set[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {pid}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found - {pid}
        found |= more


@pytest.fixture
def leftovers(grader: Grader) -> Callable[[], int]:
    """How many processes a worker has beyond the zygote and its parent, given a moment to end."""

    def call() -> int:
        pid = grader._pool.workers[0].pid
        assert pid is not None
        count = 99
        for _ in range(40):
            count = len(descendants(pid)) - 2
            if count == 0:
                return 0
            time.sleep(0.05)
        return count

    return call

"""`Grader`: programs in, verdicts out."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager

from mtp_harness.sandbox.isolation import check_platform, self_test
from mtp_harness.sandbox.pool import WorkerPool
from mtp_harness.sandbox.types import MECHANISMS, Limits, Program, Verdict


def default_workers() -> int:
    """Return one more than this process's share of the processors.

    A worker and its program wait for each other, so one worker does not keep a processor busy.
    """
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of a distributed run on this machine
    return len(os.sched_getaffinity(0)) // ranks + 1


class Grader(AbstractContextManager["Grader"]):
    """Grades model-written programs in separate processes.

    Use it as a context manager, or call `close`.

    Args:
        limits: What every program may use.
        workers: How many programs to grade at once; by default `default_workers()`.
        consent: Run programs even if the self-test finds that they are not isolated.

    Raises:
        IsolationError: Programs would not be isolated here, and there is no consent to that.
        RuntimeError: This is not Linux.
    """

    def __init__(
        self, limits: Limits | None = None, workers: int | None = None, consent: bool = False
    ) -> None:
        """Run the self-test; workers start with the first programs."""
        check_platform()
        self._limits, self._consent = limits or Limits(), consent
        self._n_workers = default_workers() if workers is None else workers
        if self._n_workers < 1:
            raise ValueError(f"workers={workers}, expected at least 1")
        self._report = self_test()
        if not consent:
            self._report.require()
        # The self-test's mechanism then holds for every program: no worker uses a weaker one later.
        found = (self._report.mechanism,) if self._report.sufficient else MECHANISMS
        self._pool = WorkerPool(self._limits, self._n_workers, found)

    def grade(self, programs: Sequence[Program]) -> list[Verdict]:
        """Return one verdict per program, in their order."""
        return self._pool.grade(programs)

    def settings(self) -> dict[str, object]:
        """Return how programs are run and what isolates them, for the results file."""
        return {
            "isolation": self._report.describe(),
            "consent": self._consent,
            "limits": dataclasses.asdict(self._limits),
            "workers": self._n_workers,
            "python": sys.version.split()[0],
        }

    def close(self) -> None:
        """End the workers. A later `grade` starts new ones."""
        self._pool.close()

    def __exit__(self, *error: object) -> None:
        self.close()
